//! When a request is sent once more although nothing has failed: its answer takes longer than most do.

use std::time::Duration;

use http::Method;
use model::traffic_policy::{HedgeDelay, Hedging};

/// Answers that are remembered.
pub const REMEMBERED: usize = 128;
/// With fewer answers than these nobody knows what takes long.
pub const MIN_ANSWERS: usize = 20;
/// After so many answers what takes long is worked out anew.
const RENEW_AFTER: u32 = 16;

/// How long the last answers took.
#[derive(Debug, Clone)]
pub struct Latencies {
    /// Microseconds; the oldest is overwritten.
    ring: Vec<u32>,
    next: usize,
    since_renewed: u32,
    /// Of the percentile that is asked for.
    known: Option<Duration>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            ring: Vec::new(),
            next: 0,
            since_renewed: RENEW_AFTER,
            known: None,
        }
    }
}

impl Latencies {
    /// An answer came after `took`.
    pub fn answered(&mut self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        match self.ring.get_mut(self.next) {
            Some(oldest) => *oldest = micros,
            None => self.ring.push(micros),
        }
        self.next = (self.next + 1) % REMEMBERED;
        self.since_renewed = self.since_renewed.saturating_add(1);
    }

    /// What `percent` of the last answers took at most; `None` while there are too few. It may be some answers old.
    pub fn percentile(&mut self, percent: u8) -> Option<Duration> {
        if self.since_renewed >= RENEW_AFTER && self.ring.len() >= MIN_ANSWERS {
            let mut sorted = self.ring.clone();
            sorted.sort_unstable();
            let rank = (sorted.len() * usize::from(percent)).div_ceil(100).max(1) - 1;
            self.known = sorted
                .get(rank)
                .map(|micros| Duration::from_micros(u64::from(*micros)));
            self.since_renewed = 0;
        }
        self.known
    }
}

/// How long to wait for an answer before another attempt goes beside; `None`: no other one does.
pub fn delay(policy: &Hedging, latencies: &mut Latencies) -> Option<Duration> {
    match policy.delay {
        HedgeDelay::After(delay) => Some(delay),
        HedgeDelay::Percentile(percent) => latencies.percentile(percent),
    }
}

/// Whether a request may arrive more than once (RFC 9110 section 9.2.2). gRPC has one method for everything; only its
/// owner can say, and does so in the policy. What follows an upgrade is no request: two of them are two conversations.
pub fn may_repeat(policy: &Hedging, method: &Method, is_grpc: bool, is_upgrade: bool) -> bool {
    match is_grpc {
        true => policy.grpc,
        false => method.is_idempotent() && !is_upgrade,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn only_what_may_arrive_twice_is_sent_twice() {
        let policy = |grpc| Hedging {
            delay: HedgeDelay::Percentile(95),
            max_attempts: 2,
            grpc,
        };
        for (method, expected) in [
            (Method::GET, true),
            (Method::PUT, true),
            (Method::POST, false),
            (Method::PATCH, false),
        ] {
            assert_eq!(
                may_repeat(&policy(false), &method, false, false),
                expected,
                "{method}"
            );
        }
        assert!(
            !may_repeat(&policy(false), &Method::POST, true, false)
                && may_repeat(&policy(true), &Method::POST, true, false)
        );
        assert!(
            !may_repeat(&policy(false), &Method::GET, false, true),
            "a WebSocket"
        );
    }

    proptest! {
        /// Against the definition over the last answers; asked after each of them it may be 16 old.
        #[test]
        fn a_percentile_is_that_of_the_last_answers(times in vec(0u64..1_000_000, 0..400), percent in 1u8..=99) {
            let mut latencies = Latencies::default();
            for time in &times {
                latencies.answered(Duration::from_micros(*time));
            }
            let mut last: Vec<u64> = times.iter().rev().take(REMEMBERED).copied().collect();
            last.sort_unstable();
            let expected = (last.len() >= MIN_ANSWERS).then(|| {
                let within = |limit: &&u64| last.iter().filter(|time| time <= limit).count() * 100 >= last.len() * usize::from(percent);
                Duration::from_micros(*last.iter().find(within).expect("the largest"))
            });
            prop_assert_eq!(latencies.percentile(percent), expected);
        }
    }
}
