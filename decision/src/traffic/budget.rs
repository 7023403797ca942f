//! How many retries a destination may be sent, as a share of its requests.
//!
//! Without a budget a policy of 3 attempts multiplies an outage by 4, at every hop. Counted over a sliding
//! window, kept as a ring of [`BUCKETS`] buckets: a request counts for the window's length, less up to one
//! bucket.

use std::time::{Duration, Instant};

use model::resilience::RetryBudget;

/// Parts of the window that expire together.
pub const BUCKETS: usize = 10;

/// The requests and retries of one destination within the window.
#[derive(Debug, Clone)]
pub struct RetryBudgetState {
    budget: RetryBudget,
    start: Instant,
    bucket_nanos: u64,
    interval_nanos: u64,
    /// Number of the interval in which a retry was last granted whatever the ratio is, and how many were.
    besides: (u64, u64),
    /// Number of the current bucket, counted from `start`.
    current: u64,
    ring: [Counts; BUCKETS],
    /// The sum of the ring.
    window: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    requests: u64,
    /// Those that the ratio allowed; what is allowed besides counts for itself.
    retries: u64,
}

impl RetryBudgetState {
    pub fn new(budget: RetryBudget, now: Instant) -> Self {
        Self {
            start: now,
            bucket_nanos: (nanos(budget.window) / BUCKETS as u64).max(1),
            interval_nanos: nanos(budget.min_interval).max(1),
            besides: (0, 0),
            budget,
            current: 0,
            ring: Default::default(),
            window: Counts::default(),
        }
    }

    /// What it was made of.
    pub fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    /// A request arrived; retries are not requests.
    pub fn request(&mut self, now: Instant) {
        self.bucket(now).requests += 1;
        self.window.requests += 1;
    }

    /// Whether one more retry may be made; if so it is counted.
    pub fn try_retry(&mut self, now: Instant) -> bool {
        self.bucket(now);
        // What is not used up in time is lost, and comes first; the ratio is what bursts draw on.
        if self.is_within_minimum(now) {
            return true;
        }
        let is_within_ratio =
            (self.window.retries + 1) as f64 <= self.budget.ratio * self.window.requests as f64;
        if is_within_ratio {
            self.bucket(now).retries += 1;
            self.window.retries += 1;
        }
        is_within_ratio
    }

    /// Whether one more retry is granted in this interval whatever the ratio is; if so it is counted.
    fn is_within_minimum(&mut self, now: Instant) -> bool {
        let number = nanos(now.saturating_duration_since(self.start)) / self.interval_nanos;
        if number > self.besides.0 {
            self.besides = (number, 0);
        }
        let granted = (self.besides.1 + 1) as f64 <= self.budget.min_retries;
        self.besides.1 += u64::from(granted);
        granted
    }

    /// The current bucket, after emptying those that have left the window. A clock that went back changes
    /// nothing.
    fn bucket(&mut self, now: Instant) -> &mut Counts {
        let number = nanos(now.saturating_duration_since(self.start)) / self.bucket_nanos;
        let passed = number.saturating_sub(self.current);
        for step in 1..=passed.min(BUCKETS as u64) {
            let left = std::mem::take(&mut self.ring[slot(self.current + step)]);
            self.window.requests -= left.requests;
            self.window.retries -= left.retries;
        }
        self.current += passed;
        &mut self.ring[slot(self.current)]
    }
}

/// Where in the ring a bucket is, always below [`BUCKETS`].
fn slot(number: u64) -> usize {
    (number % BUCKETS as u64) as usize
}

/// 584 years at most.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Every event with its time, counted anew at each question.
    #[derive(Default)]
    struct Log {
        requests: Vec<u64>,
        retries: Vec<u64>,
        over: Vec<u64>,
    }

    impl Log {
        fn within(events: &[u64], bucket_ms: u64, now: u64) -> usize {
            events
                .iter()
                .filter(|at| now / bucket_ms - *at / bucket_ms < BUCKETS as u64)
                .count()
        }

        fn try_retry(&mut self, budget: &RetryBudget, now: u64) -> bool {
            let bucket_ms = budget.window.as_millis() as u64 / BUCKETS as u64;
            let allowed = budget.ratio * Self::within(&self.requests, bucket_ms, now) as f64;
            let within_ratio = Self::within(&self.retries, bucket_ms, now) as f64 + 1.0 <= allowed;
            let interval = budget.min_interval.as_millis() as u64;
            let over = self
                .over
                .iter()
                .filter(|at| *at / interval == now / interval)
                .count();
            let within_minimum = over as f64 + 1.0 <= budget.min_retries;
            if within_minimum {
                self.over.push(now);
            } else if within_ratio {
                self.retries.push(now);
            }
            within_minimum || within_ratio
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn it_grants_what_a_log_of_all_events_grants(
            events in vec((prop_oneof![8 => 0u64..300, 1 => 0u64..15_000], any::<bool>()), 0..300),
            ratio in 0.0f64..=1.0,
            min_retries in 0.0f64..4.0,
            min_interval in 1u64..3_000,
            window_s in 1u64..20,
        ) {
            let budget = RetryBudget {
                ratio,
                window: Duration::from_secs(window_s),
                min_retries,
                min_interval: Duration::from_millis(min_interval),
            };
            let start = Instant::now();
            let (mut state, mut log, mut now) = (RetryBudgetState::new(budget, start), Log::default(), 0);
            for (pause, is_retry) in events {
                now += pause;
                let instant = start + Duration::from_millis(now);
                if is_retry {
                    prop_assert_eq!(state.try_retry(instant), log.try_retry(&budget, now));
                } else {
                    state.request(instant);
                    log.requests.push(now);
                }
            }
        }

        #[test]
        fn odd_budgets_and_times_are_taken(
            ratio in any::<f64>(),
            min_retries in any::<f64>(),
            min_interval in any::<Duration>(),
            window in any::<Duration>(),
            times in vec(any::<u32>(), 0..20),
        ) {
            let start = Instant::now();
            let mut state = RetryBudgetState::new(RetryBudget { ratio, window, min_retries, min_interval }, start);
            for at in times {
                let now = start + Duration::from_micros(at.into());
                state.request(now);
                state.try_retry(now);
            }
        }
    }

    #[test]
    fn the_default_grants_a_fifth_and_ten_a_second() {
        let start = Instant::now();
        let mut state = RetryBudgetState::new(RetryBudget::default(), start);
        for _ in 0..1000 {
            state.request(start);
        }
        assert_eq!((0..1000).filter(|_| state.try_retry(start)).count(), 210);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| state.try_retry(later)).count(), 10);
    }
}
