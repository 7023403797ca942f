//! How long to wait before another attempt.

use std::time::Duration;

/// A wait grows to this many times the configured backoff and no further.
pub const MAX_FACTOR: u32 = 10;
/// No wait is longer than this, whatever the factor says.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// The wait before retry number `retry` (0 is the first): uniformly spread between `base` and `base` doubled
/// with every retry, `2 × base` for the first, at most [`MAX_FACTOR`]` × base` and [`MAX_WAIT`].
///
/// The whole range above `base` is jitter, so that callers which failed together do not return together;
/// `base` itself is the floor because Gateway API forbids a retry before the configured backoff. `dice` is
/// uniform in 0.0–1.0; anything else counts as 1.0.
pub fn wait(base: Duration, retry: u8, dice: f64) -> Duration {
    let dice = if (0.0..=1.0).contains(&dice) { dice } else { 1.0 };
    base + longest(base, retry).saturating_sub(base).mul_f64(dice)
}

/// The longest wait before retry number `retry`.
pub fn longest(base: Duration, retry: u8) -> Duration {
    let doubled = 2u32.checked_pow(u32::from(retry) + 1).unwrap_or(MAX_FACTOR);
    base.saturating_mul(doubled.min(MAX_FACTOR))
        .min(MAX_WAIT)
        .max(base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Doubles step by step, as one would by hand.
    fn by_hand(base: Duration, retry: u8) -> Duration {
        let mut longest = base;
        for _ in 0..=retry {
            longest = longest
                .saturating_mul(2)
                .min(base.saturating_mul(10))
                .min(Duration::from_secs(60).max(base));
        }
        longest
    }

    proptest! {
        #[test]
        fn the_longest_wait_doubles_up_to_its_bounds(base_ms in 0u64..=60_000, retry in any::<u8>()) {
            let base = Duration::from_millis(base_ms);
            prop_assert_eq!(longest(base, retry), by_hand(base, retry));
        }

        #[test]
        fn a_wait_is_within_its_bounds_and_follows_the_dice(
            base_ms in 0u64..=60_000, retry in any::<u8>(), low in 0.0f64..1.0, high in 0.0f64..1.0,
        ) {
            let base = Duration::from_millis(base_ms);
            let (low, high) = if low <= high { (low, high) } else { (high, low) };
            prop_assert!(base <= wait(base, retry, low));
            prop_assert!(wait(base, retry, low) <= wait(base, retry, high));
            prop_assert!(wait(base, retry, high) <= by_hand(base, retry));
        }

        #[test]
        fn any_base_and_dice_are_taken(
            base in any::<Duration>(), retry in any::<u8>(), dice in any::<f64>(),
        ) {
            prop_assert!(wait(base, retry, dice) >= base);
        }
    }

    #[test]
    fn jitter_spans_the_whole_range() {
        let base = Duration::from_millis(25);
        assert_eq!(
            [0.0, 1.0, f64::NAN].map(|dice| wait(base, 1, dice).as_millis()),
            [25, 100, 100]
        );
    }
}
