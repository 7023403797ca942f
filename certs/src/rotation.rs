//! When to renew a certificate, as a pure question.

use std::time::SystemTime;

use crate::CLOCK_SKEW;

/// Share of the usable time after which a certificate is renewed.
const RENEW_AFTER: f64 = 0.5;
/// Largest deviation from that moment, as a share of it: a fleet that started together must not renew
/// together.
const JITTER: f64 = 0.1;

/// The moment at which to renew: half of the usable time, plus or minus 10 % of that half by `dice`.
///
/// The usable time starts when the certificate was issued, [`CLOCK_SKEW`] after its back-dated `not_before`.
/// `dice` is uniform in 0..1; what lies outside counts as the nearer end.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime, dice: f64) -> SystemTime {
    let issued = (not_before + CLOCK_SKEW).min(not_after);
    let usable = not_after.duration_since(issued).unwrap_or_default();
    let dice = if dice.is_nan() { 0.5 } else { dice.clamp(0.0, 1.0) };
    issued + usable.mul_f64(RENEW_AFTER * (1.0 + JITTER * (2.0 * dice - 1.0)))
}

/// Whether [`renew_at`] has come. Keep the `dice` of one certificate, or the moment wanders.
pub fn needs_renewal(not_before: SystemTime, not_after: SystemTime, now: SystemTime, dice: f64) -> bool {
    now >= renew_at(not_before, not_after, dice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const ISSUED: SystemTime = SystemTime::UNIX_EPOCH;
    const HOUR: Duration = Duration::from_secs(3600);

    proptest! {
        #[test]
        fn renewal_falls_around_half_of_the_usable_time(seconds in 1u64..10_000_000, dice in 0.0f64..1.0) {
            let (issued, usable) = (ISSUED + CLOCK_SKEW, Duration::from_secs(seconds));
            let at = renew_at(ISSUED, issued + usable, dice);
            prop_assert!(at >= issued + usable.mul_f64(0.449) && at <= issued + usable.mul_f64(0.551));
        }

        #[test]
        fn any_dates_and_dice_are_answered(before in 0u64..1 << 40, after in 0u64..1 << 40, dice: f64) {
            let (before, after) = (ISSUED + Duration::from_secs(before), ISSUED + Duration::from_secs(after));
            prop_assert!(renew_at(before, after, dice) <= after);
        }
    }

    #[test]
    fn a_day_is_renewed_at_half_life_and_not_before() {
        let issued = ISSUED + CLOCK_SKEW;
        assert!(!needs_renewal(
            ISSUED,
            issued + 24 * HOUR,
            issued + 12 * HOUR - HOUR / 60,
            0.5
        ));
        assert!(needs_renewal(ISSUED, issued + 24 * HOUR, issued + 12 * HOUR, 0.5));
    }
}
