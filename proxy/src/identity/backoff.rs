//! How long to wait before the next attempt: exponential, jittered and bounded. Shared with the config room.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Waiting times between attempts at something that must succeed in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait after the first failure; default 200 ms. It doubles with each further failure.
    pub first: Duration,
    /// The longest wait there is; default 5 s.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            most: Duration::from_secs(5),
        }
    }
}

impl Backoff {
    /// The wait after this many failures in a row, from half of the full wait (dice 0) to all of it (dice 1),
    /// so that proxies which lost their control plane together do not return together.
    pub fn delay(&self, failures: u32, dice: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1 << doublings).min(self.most);
        full.mul_f64(0.5 + 0.5 * dice.clamp(0.0, 1.0))
    }
}

/// Where a room takes its random numbers from: evenly distributed over 0 ≤ x < 1.
#[derive(Clone)]
pub struct Dice(Arc<dyn Fn() -> f64 + Send + Sync>);

impl Dice {
    /// The thread's random generator.
    pub fn random() -> Self {
        Self(Arc::new(rand::random::<f64>))
    }

    /// Always the same number: for tests and reproductions.
    pub fn fixed(value: f64) -> Self {
        Self(Arc::new(move || value))
    }

    pub fn roll(&self) -> f64 {
        (self.0)()
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::random()
    }
}

impl fmt::Debug for Dice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dice")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff::default();
        let waits: Vec<u128> = (1..=7)
            .map(|failures| backoff.delay(failures, 1.0).as_millis())
            .collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.delay(1, 0.0).as_millis(), 100);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_longest(failures: u32, dice: f64) {
            prop_assume!(!dice.is_nan());
            let backoff = Backoff::default();
            let delay = backoff.delay(failures, dice);
            prop_assert!(delay <= backoff.most && delay >= backoff.first / 2);
        }
    }
}
