//! The better of two at random, by peak EWMA.
//!
//! An endpoint's cost is a moving average of its response times that follows a worse one at once and forgets
//! it exponentially; its load is that cost times the requests it would then have in hand (peak EWMA, as in
//! Finagle). Comparing two random endpoints instead of taking the best of all keeps many callers from running
//! to the same one.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// What an endpoint's first answer is assumed to take while it is awaited.
pub const DEFAULT_RTT: Duration = Duration::from_millis(30);
/// How long a cost takes to fall to 37 % (1/e).
pub const DEFAULT_DECAY: Duration = Duration::from_secs(10);
/// What a failed attempt counts as at least: an endpoint that refuses at once must not look like the fastest.
pub const FAILED_RTT: Duration = Duration::from_secs(1);

/// The load of one endpoint as one caller sees it.
#[derive(Debug, Clone)]
pub struct PeakEwma {
    /// Seconds; `None` until the first answer.
    cost: Option<f64>,
    updated: Instant,
    pending: u32,
    default_cost: f64,
    decay: f64,
}

impl PeakEwma {
    /// A new endpoint. `default_rtt` and `decay` as in [`DEFAULT_RTT`] and [`DEFAULT_DECAY`].
    pub fn new(default_rtt: Duration, decay: Duration, now: Instant) -> Self {
        Self {
            cost: None,
            updated: now,
            pending: 0,
            default_cost: default_rtt.as_secs_f64(),
            decay: decay.as_secs_f64().max(1e-9),
        }
    }

    /// An attempt goes out; it must come back through exactly one of [`finish`](Self::finish),
    /// [`fail`](Self::fail), [`give_up`](Self::give_up) and [`cancel`](Self::cancel).
    pub fn start(&mut self) {
        self.pending = self.pending.saturating_add(1);
    }

    /// An attempt was answered after `rtt`, whatever the answer.
    pub fn finish(&mut self, now: Instant, rtt: Duration) {
        self.cancel();
        self.observe(now, rtt.as_secs_f64());
    }

    /// An attempt got no answer: no connection, a broken one, or no time left. It counts as `rtt`, and as no
    /// less than [`FAILED_RTT`].
    pub fn fail(&mut self, now: Instant, rtt: Duration) {
        self.finish(now, rtt.max(FAILED_RTT));
    }

    /// An attempt was given up after `waited`, by whoever waited: an answer would have taken that long at least.
    pub fn give_up(&mut self, now: Instant, waited: Duration) {
        let is_news = self
            .cost
            .is_none_or(|cost| waited.as_secs_f64() > cost * self.remembered(now));
        match is_news {
            true => self.finish(now, waited),
            false => self.cancel(),
        }
    }

    /// An attempt was given up for a reason that says nothing about the endpoint.
    pub fn cancel(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// Attempts that are out.
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// The expected cost of giving this endpoint one more attempt, in seconds of waiting; lower is better.
    ///
    /// It falls while nothing is heard, so that an endpoint which was slow is tried again. One that never
    /// answered costs nothing as long as nothing is out, and is therefore tried at once, but by one request
    /// only.
    pub fn load(&self, now: Instant) -> f64 {
        let cost = match self.cost {
            Some(cost) => cost * self.remembered(now),
            None if self.pending == 0 => 0.0,
            None => self.default_cost,
        };
        cost * (f64::from(self.pending) + 1.0)
    }

    fn observe(&mut self, now: Instant, rtt: f64) {
        self.cost = Some(match self.cost {
            Some(cost) if rtt < cost => {
                let old = self.remembered(now);
                cost * old + rtt * (1.0 - old)
            }
            _ => rtt,
        });
        self.updated = self.updated.max(now);
    }

    /// The share of the cost that is still remembered, 0.0–1.0.
    fn remembered(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.updated).as_secs_f64() / self.decay).exp()
    }
}

/// Picks one of `count` endpoints: of two different ones that the dice fall on, the one with the lower load;
/// the first of equals. Those in `tried` take no part while there are others. `None` where there are no
/// endpoints.
///
/// `load` is asked for at most two endpoints, and nothing is looked at once per endpoint. `dice` is any uniformly
/// distributed number.
pub fn pick(count: usize, tried: &[usize], load: impl Fn(usize) -> f64, dice: u64) -> Option<usize> {
    let mut tried: SmallVec<[usize; 4]> = tried.iter().copied().filter(|at| *at < count).collect();
    tried.sort_unstable();
    tried.dedup();
    // Of the fresh ones by number: each tried one before it moves it one further.
    let fresh_one = |number: usize| {
        tried
            .iter()
            .fold(number, |at, tried| at + usize::from(*tried <= at))
    };
    match count - tried.len() {
        0 if count == 0 => None,
        0 => pick(count, &[], load, dice),
        1 => Some(fresh_one(0)),
        fresh => {
            let (first, second) = two_of(fresh, dice);
            let (first, second) = (fresh_one(first), fresh_one(second));
            Some(if load(second) < load(first) { second } else { first })
        }
    }
}

/// Two different numbers below `count`, which is at least 2: one from each half of the dice.
fn two_of(count: usize, dice: u64) -> (usize, usize) {
    let first = (dice >> 32) as usize % count;
    let second = (dice & u64::from(u32::MAX)) as usize % (count - 1);
    (first, if second >= first { second + 1 } else { second })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fresh(start: Instant) -> PeakEwma {
        PeakEwma::new(DEFAULT_RTT, DEFAULT_DECAY, start)
    }

    proptest! {
        /// Every pair once: each endpoint is picked as often as a count over all pairs says.
        #[test]
        fn over_all_dice_every_pair_is_compared_once(
            loads in vec(0u8..6, 0..8), tried in vec(0usize..8, 0..5),
        ) {
            let mut candidates: Vec<usize> = (0..loads.len()).filter(|at| !tried.contains(at)).collect();
            if candidates.is_empty() {
                candidates = (0..loads.len()).collect();
            }
            let mut expected = vec![0; loads.len()];
            for one in &candidates {
                for other in candidates.iter().filter(|other| *other != one) {
                    expected[if loads[*other] < loads[*one] { *other } else { *one }] += 1;
                }
            }
            let mut counts = vec![0; loads.len()];
            let faces = candidates.len() as u64;
            for high in 0..faces {
                for low in 0..faces.saturating_sub(1) {
                    let picked = pick(loads.len(), &tried, |at| f64::from(loads[at]), high << 32 | low);
                    counts[picked.expect("there are endpoints")] += 1;
                }
            }
            prop_assert_eq!(counts, expected);
        }

        #[test]
        fn the_tried_are_avoided_and_the_worst_never_wins(
            loads in vec(0.0f64..1e6, 0..20), tried in vec(0usize..24, 0..24), dice in any::<u64>(),
        ) {
            let picked = pick(loads.len(), &tried, |at| loads[at], dice);
            prop_assert_eq!(picked.is_some(), !loads.is_empty());
            let Some(picked) = picked else { return Ok(()) };
            let candidates: Vec<_> = (0..loads.len()).filter(|at| !tried.contains(at)).collect();
            prop_assert!(candidates.is_empty() || candidates.contains(&picked));
            if candidates.len() > 1 {
                let mut others = candidates.iter().filter(|at| **at != picked);
                prop_assert!(others.any(|at| loads[picked] <= loads[*at]));
            }
        }

        /// Against the definition evaluated over the whole history: cost folds from sample to sample, load
        /// decays from the last.
        #[test]
        fn the_cost_is_peak_ewma(
            samples in vec((0u64..20_000, 1u64..5_000), 1..40), idle_ms in 0u64..100_000, pending in 0u32..5,
        ) {
            let start = Instant::now();
            let mut endpoint = fresh(start);
            let (mut now_ms, mut last_ms, mut expected): (u64, u64, f64) = (0, 0, 0.0);
            let (mut slowest, mut fastest) = (0u64, u64::MAX);
            for (pause_ms, rtt_ms) in samples {
                now_ms += pause_ms;
                endpoint.start();
                endpoint.finish(start + Duration::from_millis(now_ms), Duration::from_millis(rtt_ms));
                let weight = (-((now_ms - last_ms) as f64) / 10_000.0).exp();
                expected = (expected * weight + rtt_ms as f64 * (1.0 - weight)).max(rtt_ms as f64);
                last_ms = now_ms;
                (slowest, fastest) = (slowest.max(rtt_ms), fastest.min(rtt_ms));

                let load = endpoint.load(start + Duration::from_millis(now_ms)) * 1e3;
                prop_assert!((load - expected).abs() <= expected * 1e-6, "{load} is not {expected}");
                prop_assert!(load >= rtt_ms as f64 * 0.999_999, "a worse time counts at once");
                prop_assert!(load <= slowest as f64 * 1.000_001 && load >= fastest as f64 * 0.999_999);
            }
            for _ in 0..pending {
                endpoint.start();
            }
            let now = start + Duration::from_millis(now_ms + idle_ms);
            let decayed = expected * (-(idle_ms as f64) / 10_000.0).exp() * f64::from(pending + 1);
            prop_assert!((endpoint.load(now) * 1e3 - decayed).abs() <= decayed * 1e-6);
            prop_assert!(endpoint.load(now + SECOND) < endpoint.load(now));
        }
    }

    #[test]
    fn a_new_endpoint_is_tried_at_once_by_one_request() {
        let now = Instant::now();
        let mut known = fresh(now);
        known.start();
        known.finish(now, Duration::from_millis(1));
        let mut new = fresh(now);
        assert!(new.load(now) < known.load(now));
        new.start();
        assert!(new.load(now) > known.load(now));
        new.finish(now, Duration::from_micros(500));
        assert!(
            new.load(now) < known.load(now),
            "its first answer replaces the assumption"
        );
    }

    #[test]
    fn a_quick_refusal_is_no_quick_answer_and_cancelling_says_nothing() {
        let now = Instant::now();
        let [mut answers, mut refuses] = [fresh(now), fresh(now)];
        answers.start();
        answers.finish(now, Duration::from_millis(400));
        refuses.start();
        refuses.fail(now, Duration::from_micros(50));
        assert!(refuses.load(now) > answers.load(now));
        let before = answers.load(now);
        answers.start();
        assert_eq!(answers.pending(), 1);
        answers.cancel();
        assert_eq!(answers.load(now), before);
    }
}
