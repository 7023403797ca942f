//! How many requests a cluster is given at a time, found out from how it answers.
//!
//! Every interval the limit is moved. By gradient: down as far as answers are slower than those that did not queue, and up
//! by some headroom where they are not; what an answer takes that did not queue is measured again and again. By AIMD: down
//! by a tenth where one was an overload, up by one where none was. It only grows while it is used, so that a quiet hour is
//! no licence for a flood.

use std::time::{Duration, Instant};

use model::traffic_policy::{AdaptiveConcurrency, ConcurrencyKind};

/// The limit begins here, or at its bound.
pub const INITIAL_LIMIT: f64 = 20.0;
/// Fewer answers say nothing about time: by gradient an interval lasts until there are as many.
pub const MIN_SAMPLES: u32 = 10;
/// How much slower than usual is still usual.
const TOLERANCE: f64 = 1.5;
/// After the time of so many intervals it is measured anew what is usual …
const PROBE_AFTER: u32 = 300;
/// … with this share of the limit, at which nothing should queue …
const PROBE_SHARE: f64 = 0.25;
/// … for as long as so many intervals, or as twice as many answers as are enough take one after the other, at most.
const PROBE_INTERVALS: u32 = 20;
/// How much of a new limit is taken up at once.
const SMOOTHING: f64 = 0.5;
/// The share that an overload leaves.
const BACKOFF: f64 = 0.9;

/// The limit of one cluster.
#[derive(Debug, Clone)]
pub struct Limiter {
    policy: AdaptiveConcurrency,
    limit: f64,
    /// Seconds of an answer that did not queue; `None` until there were enough.
    usual: Option<f64>,
    /// When that is measured next.
    probe_at: Instant,
    phase: Phase,
    /// When measuring is given up for want of answers.
    probe_ends: Instant,
    interval_ends: Instant,
    /// Within the interval.
    answers: u32,
    seconds: f64,
    overloaded: bool,
    most_in_flight: u32,
}

/// What an interval is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Moving,
    /// With fewer requests, that queues may run empty.
    Emptying,
    Measuring,
}

impl Limiter {
    pub fn new(policy: AdaptiveConcurrency, now: Instant) -> Self {
        Self {
            limit: INITIAL_LIMIT.clamp(f64::from(policy.min), f64::from(policy.max)),
            usual: None,
            probe_at: now + policy.interval.saturating_mul(PROBE_AFTER),
            phase: Phase::Moving,
            probe_ends: now,
            interval_ends: now + policy.interval,
            policy,
            answers: 0,
            seconds: 0.0,
            overloaded: false,
            most_in_flight: 0,
        }
    }

    /// How many may be in flight together.
    pub fn limit(&self) -> u32 {
        if self.phase != Phase::Moving {
            return ((self.limit * PROBE_SHARE) as u32).max(self.policy.min);
        }
        self.limit as u32
    }

    /// Whether one more may join `in_flight` others.
    pub fn admits(&mut self, in_flight: u32, now: Instant) -> bool {
        if self.phase != Phase::Moving && now >= self.probe_ends {
            // There are too few requests to measure by: what they take, few as they are, is what is usual.
            self.end_probe(None, now);
        }
        let admitted = in_flight < self.limit();
        self.most_in_flight = self.most_in_flight.max(in_flight + u32::from(admitted));
        admitted
    }

    /// An attempt ended after `took`; an overload is no answer in time, or a refusal for want of capacity.
    pub fn ended(&mut self, took: Duration, overloaded: bool, now: Instant) {
        self.overloaded |= overloaded;
        if !overloaded {
            self.answers += 1;
            self.seconds += took.as_secs_f64();
        }
        let is_enough =
            self.overloaded || self.policy.kind == ConcurrencyKind::Aimd || self.answers >= MIN_SAMPLES;
        if now >= self.interval_ends && is_enough {
            self.adjust(now);
            self.interval_ends = now + self.policy.interval;
            (self.answers, self.seconds, self.overloaded, self.most_in_flight) = (0, 0.0, false, 0);
        }
    }

    fn adjust(&mut self, now: Instant) {
        let is_used = f64::from(self.most_in_flight) >= self.limit / 2.0;
        let wanted = match self.policy.kind {
            _ if self.overloaded => self.limit * BACKOFF,
            ConcurrencyKind::Aimd if is_used => self.limit + 1.0,
            ConcurrencyKind::Aimd => self.limit,
            ConcurrencyKind::Gradient => self.by_gradient(is_used, now),
        };
        self.limit = wanted.clamp(f64::from(self.policy.min), f64::from(self.policy.max));
    }

    fn end_probe(&mut self, usual: Option<f64>, now: Instant) {
        self.phase = Phase::Moving;
        self.probe_at = now + self.policy.interval.saturating_mul(PROBE_AFTER);
        self.usual = usual;
    }

    fn by_gradient(&mut self, is_used: bool, now: Instant) -> f64 {
        let seconds = self.seconds / f64::from(self.answers.max(1));
        match self.phase {
            Phase::Moving if now < self.probe_at => {}
            Phase::Moving if f64::from(self.most_in_flight) <= self.limit * PROBE_SHARE => {
                self.end_probe(Some(seconds), now);
                return self.limit;
            }
            Phase::Moving => {
                self.phase = Phase::Emptying;
                let answers = Duration::try_from_secs_f64(seconds * f64::from(2 * MIN_SAMPLES));
                let intervals = self.policy.interval.saturating_mul(PROBE_INTERVALS);
                self.probe_ends = now + answers.unwrap_or(intervals).max(intervals);
                return self.limit;
            }
            Phase::Emptying => {
                self.phase = Phase::Measuring;
                return self.limit;
            }
            Phase::Measuring => {
                self.end_probe(Some(seconds), now);
                return self.limit;
            }
        }
        let usual = self.usual.map_or(seconds, |usual| usual.min(seconds));
        self.usual = Some(usual);
        let gradient = (TOLERANCE * usual / seconds.max(1e-9)).clamp(0.5, 1.0);
        let headroom = if is_used { self.limit.sqrt() } else { 0.0 };
        let wanted = self.limit * gradient + headroom * f64::from(u8::from(gradient >= 1.0));
        self.limit + (wanted - self.limit) * SMOOTHING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn limiter(kind: ConcurrencyKind, start: Instant) -> Limiter {
        let policy = AdaptiveConcurrency {
            kind,
            min: 2,
            max: 500,
            interval: Duration::from_millis(100),
        };
        Limiter::new(policy, start)
    }

    /// Tolerance: with 1.5 times as many as it answers at once an answer takes as much longer as is still usual; with the
    /// headroom that is added in between, up to three times as many.
    ///
    /// A service that answers `capacity` requests at a time, each after `each` seconds, and lets the others queue: with n
    /// in flight an answer takes n/capacity times that. Callers want all they can get. The limits of the last of ten
    /// minutes.
    fn settled(kind: ConcurrencyKind, each: f64, capacity: f64, fails_over: f64) -> Vec<f64> {
        let start = Instant::now();
        let mut limiter = limiter(kind, start);
        let (mut seconds, mut last) = (0.0, Vec::new());
        while seconds < 600.0 {
            let limit = limiter.limit();
            let now = start + Duration::from_secs_f64(seconds);
            if limiter.admits(limit - 1, now) {
                assert!(!limiter.admits(limiter.limit(), now));
            }
            let in_flight = f64::from(limit);
            let took = each * (in_flight / capacity).max(1.0);
            seconds += took / in_flight;
            let now = start + Duration::from_secs_f64(seconds);
            limiter.ended(Duration::from_secs_f64(took), in_flight > fails_over, now);
            if seconds > 540.0 {
                last.push(limiter.limit);
            }
        }
        last
    }

    #[test]
    fn by_gradient_it_settles_near_the_capacity_however_slow_the_answers_are() {
        for (each, capacity) in [(0.01, 40.0), (0.2, 20.0), (0.1, 10.0), (0.05, 5.0), (1.0, 3.0)] {
            let limits = settled(ConcurrencyKind::Gradient, each, capacity, f64::MAX);
            let outside = limits
                .iter()
                .find(|limit| !(capacity..capacity * 3.0).contains(*limit));
            assert_eq!(outside, None, "{capacity} at a time, {each} s each");
        }
    }

    #[test]
    fn bursts_with_long_pauses_are_let_in() {
        let start = Instant::now();
        let mut limiter = limiter(ConcurrencyKind::Gradient, start);
        for burst in 0..360 {
            let now = start + Duration::from_secs(burst * 10);
            for in_flight in 0..10 {
                assert!(limiter.admits(in_flight, now), "burst {burst}");
            }
            for _ in 0..10 {
                limiter.ended(Duration::from_millis(20), false, now + Duration::from_millis(20));
            }
        }
    }

    #[test]
    fn by_overloads_it_swings_below_what_is_too_much() {
        let limits = settled(ConcurrencyKind::Aimd, 0.01, 1e9, 100.0);
        assert!(limits.iter().all(|limit| (85.0..=102.0).contains(limit)));
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let start = Instant::now();
        for kind in [ConcurrencyKind::Gradient, ConcurrencyKind::Aimd] {
            let mut limiter = limiter(kind, start);
            for step in 1..1_000u32 {
                let now = start + Duration::from_millis(10) * step;
                limiter.admits(0, now);
                limiter.ended(Duration::from_millis(1), false, now);
            }
            assert_eq!(limiter.limit(), 20, "{kind:?}");
        }
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_whatever_happens(
            events in vec((0u64..1_000, 0u64..10_000, any::<bool>(), 0u32..1_000), 0..200),
            gradient in any::<bool>(),
        ) {
            let start = Instant::now();
            let mut limiter = limiter(if gradient { ConcurrencyKind::Gradient } else { ConcurrencyKind::Aimd }, start);
            let mut now = start;
            for (pause, took, overloaded, in_flight) in events {
                now += Duration::from_millis(pause);
                let admitted = limiter.admits(in_flight, now);
                prop_assert_eq!(admitted, in_flight < limiter.limit());
                limiter.ended(Duration::from_micros(took), overloaded, now);
                prop_assert!((2..=500).contains(&limiter.limit()));
            }
        }
    }
}
