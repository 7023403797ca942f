//! How quickly a backend answers at best: what no attempt can be expected to beat.

use std::time::{Duration, Instant};

/// How long an answer counts, at least; at most three times as long.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The quickest answer of late, over the present window and the one before.
#[derive(Debug, Clone, Copy)]
pub struct Quickest {
    began: Instant,
    now: Duration,
    before: Duration,
}

impl Quickest {
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            now: Duration::MAX,
            before: Duration::MAX,
        }
    }

    /// An answer that took so long.
    pub fn answered(&mut self, now: Instant, took: Duration) {
        let age = now.saturating_duration_since(self.began);
        if age >= WINDOW {
            self.before = if age < WINDOW * 2 { self.now } else { Duration::MAX };
            self.now = Duration::MAX;
            self.began = now;
        }
        self.now = self.now.min(took);
    }

    /// Whether an attempt that has `left` could be answered in time: where nothing of late says otherwise, it could.
    pub fn can_meet(&self, now: Instant, left: Duration) -> bool {
        if left.is_zero() {
            return false;
        }
        let age = now.saturating_duration_since(self.began);
        let known = if age < WINDOW {
            self.now.min(self.before)
        } else if age < WINDOW * 2 {
            self.now
        } else {
            Duration::MAX
        };
        known == Duration::MAX || left >= known
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Against a list of all answers: one of the last ten seconds always counts, one over thirty old never.
        #[test]
        fn only_the_answers_of_late_count(
            answers in vec((0u64..9_000, 1u64..1_000), 0..30),
            pause in 0u64..35_000,
            left in 0u64..1_000,
        ) {
            let start = Instant::now();
            let ms = Duration::from_millis;
            let (mut quickest, mut now, mut list) = (Quickest::new(start), 0, Vec::new());
            for (wait, took) in answers {
                now += wait;
                quickest.answered(start + ms(now), ms(took));
                list.push((now, took));
            }
            now += pause;
            let within = |age: u64| list.iter().filter(|(at, _)| now - at < age).map(|(_, took)| *took).min();
            let can = quickest.can_meet(start + ms(now), ms(left));
            let (surely, perhaps) = (within(10_000), within(30_000));
            if left == 0 || (surely.is_some() && perhaps.is_some_and(|least| left < least)) {
                prop_assert!(!can);
            } else if surely.is_some_and(|least| left >= least) || perhaps.is_none() {
                prop_assert!(can);
            }
        }
    }
}
