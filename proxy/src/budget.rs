//! Retry budgets: each worker counts its share of the ratio, and all of them together what is granted besides.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use decision::traffic::budget::{Minimum, RetryBudgetState};
use model::resilience::RetryBudget;

use crate::worker::ClusterKey;

/// Whose retries are counted: those to a service port, perhaps of one route only; and whether a policy says how many there
/// may be, since requests that none governs count for themselves.
pub(crate) type BudgetKey = (ClusterKey, bool);

/// The retries of one destination, on one worker.
pub(crate) struct Budget {
    state: RefCell<RetryBudgetState>,
    minimum: Arc<JointMinimum>,
}

/// What workers grant together; locked when one of them meets a destination, never for a request.
/// By interval as well, since what is counted is in intervals.
#[derive(Default)]
pub(crate) struct Minimums(Mutex<HashMap<(BudgetKey, Duration), Weak<JointMinimum>>>);

struct JointMinimum {
    start: Instant,
    granted: AtomicU64,
}

impl Budget {
    pub(crate) fn new(minimums: &Minimums, key: &BudgetKey, budget: RetryBudget, now: Instant) -> Self {
        Self {
            state: RefCell::new(RetryBudgetState::new(budget, now)),
            minimum: minimums.of(&(key.clone(), budget.min_interval), now),
        }
    }

    pub(crate) fn is_of(&self, budget: &RetryBudget) -> bool {
        self.state.borrow().budget() == budget
    }

    /// A request arrived; retries are not requests.
    pub(crate) fn request(&self, now: Instant) {
        self.state.borrow_mut().request(now);
    }

    /// Whether one more retry may be made; if so it is counted.
    pub(crate) fn try_retry(&self, now: Instant) -> bool {
        let minimum = |budget: &RetryBudget| self.minimum.try_grant(budget, now);
        self.state.borrow_mut().try_retry(now, minimum)
    }
}

impl Minimums {
    fn of(&self, key: &(BudgetKey, Duration), now: Instant) -> Arc<JointMinimum> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(minimum) = known.get(key).and_then(Weak::upgrade) {
            return minimum;
        }
        known.retain(|_, minimum| minimum.strong_count() > 0);
        let minimum = Arc::new(JointMinimum {
            start: now,
            granted: AtomicU64::new(Minimum::default().to_bits()),
        });
        known.insert(key.clone(), Arc::downgrade(&minimum));
        minimum
    }
}

impl JointMinimum {
    fn try_grant(&self, budget: &RetryBudget, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.start);
        let another = |bits| {
            Minimum::from_bits(bits)
                .another(budget, since)
                .map(Minimum::to_bits)
        };
        let updated = self
            .granted
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, another);
        updated.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_interval_begins_to_count_anew() {
        let (minimums, start) = (Minimums::default(), Instant::now());
        let key = (("shop/pay:80".parse().unwrap(), None), true);
        let every = |seconds| RetryBudget {
            min_interval: Duration::from_secs(seconds),
            ..RetryBudget::default()
        };
        let before = Budget::new(&minimums, &key, every(1), start);
        let later = start + Duration::from_secs(86_400);
        assert!(before.try_retry(later));
        let after = Budget::new(&minimums, &key, every(10), later);
        let granted = |at: Instant| (0..20).filter(|_| after.try_retry(at)).count();
        assert_eq!(granted(later), 10);
        assert_eq!(granted(later + Duration::from_secs(10)), 10);
    }

    #[test]
    fn however_many_workers_there_are_they_grant_ten_a_second_together() {
        let (minimums, now) = (Minimums::default(), Instant::now());
        let key = (("shop/pay:80".parse().unwrap(), None), false);
        let workers: Vec<_> = (0..16)
            .map(|_| Budget::new(&minimums, &key, RetryBudget::default(), now))
            .collect();
        let granted = |at: usize, count: usize| (0..count).filter(|_| workers[at].try_retry(now)).count();
        assert_eq!(granted(0, 3) + granted(7, 4) + granted(15, 9), 10);
    }
}
