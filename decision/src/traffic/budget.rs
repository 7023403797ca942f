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

    /// Whether one more retry may be made; if so it is counted. `minimum` grants one whatever the ratio is, if there is one
    /// left in this interval.
    pub fn try_retry(&mut self, now: Instant, minimum: impl FnOnce(&RetryBudget) -> bool) -> bool {
        self.bucket(now);
        // What is not used up in time is lost, and comes first; the ratio is what bursts draw on.
        if minimum(&self.budget) {
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

/// The retries that were granted in one interval whatever the ratio is. It fits into 64 bits, so that workers can count them
/// together: each of them alone might have no whole one to grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Minimum(u64);

impl Minimum {
    const COUNT_BITS: u32 = 24;

    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// With one more granted, `since` the beginning of the first interval; `None` where this one has had all of its.
    pub fn another(self, budget: &RetryBudget, since: Duration) -> Option<Self> {
        let most = (1 << Self::COUNT_BITS) - 1;
        let now = nanos(since) / nanos(budget.min_interval).max(1);
        // A clock that is behind another worker's counts for the other's interval.
        let (interval, granted) = match self.0 >> Self::COUNT_BITS {
            known if known >= now => (known, self.0 & most),
            _ => (now, 0),
        };
        let is_granted = granted < most && (granted + 1) as f64 <= budget.min_retries;
        is_granted.then_some(Self(interval << Self::COUNT_BITS | (granted + 1)))
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

    /// A budget with a minimum that nobody else counts.
    struct Alone {
        state: RetryBudgetState,
        minimum: Minimum,
        start: Instant,
    }

    impl Alone {
        fn new(budget: RetryBudget, start: Instant) -> Self {
            Self {
                state: RetryBudgetState::new(budget, start),
                minimum: Minimum::default(),
                start,
            }
        }

        fn try_retry(&mut self, now: Instant) -> bool {
            let minimum = &mut self.minimum;
            self.state.try_retry(now, |budget| {
                let another = minimum.another(budget, now.saturating_duration_since(self.start));
                another.inspect(|new| *minimum = *new).is_some()
            })
        }
    }

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
            let (mut state, mut log, mut now) = (Alone::new(budget, start), Log::default(), 0);
            for (pause, is_retry) in events {
                now += pause;
                let instant = start + Duration::from_millis(now);
                if is_retry {
                    prop_assert_eq!(state.try_retry(instant), log.try_retry(&budget, now));
                } else {
                    state.state.request(instant);
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
            let mut state = Alone::new(RetryBudget { ratio, window, min_retries, min_interval }, start);
            for at in times {
                let now = start + Duration::from_micros(at.into());
                state.state.request(now);
                state.try_retry(now);
            }
        }
    }

    #[test]
    fn the_default_grants_a_fifth_and_ten_a_second() {
        let start = Instant::now();
        let mut state = Alone::new(RetryBudget::default(), start);
        for _ in 0..1000 {
            state.state.request(start);
        }
        assert_eq!((0..1000).filter(|_| state.try_retry(start)).count(), 210);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| state.try_retry(later)).count(), 10);
    }
}
