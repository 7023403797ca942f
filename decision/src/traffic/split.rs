//! Which backend of a rule a request goes to, by weight, and whether it is of a share.

use model::filter::Fraction;
use model::route::Backend;

/// The place of the backend that these dice fall on: each has `weight` chances in the sum of all weights (Gateway API
/// `BackendRef.weight`), so that one of weight 0 is never chosen. `dice` is any uniformly distributed number.
///
/// `None` where there is no backend or no weight at all: the request is answered with 500.
pub fn pick_backend(backends: &[Backend], dice: u64) -> Option<usize> {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    // The high half of the product: `dice` as a fraction of its range, times `total`.
    let mut rest = u64::try_from((u128::from(dice) * u128::from(total)) >> 64).ok()?;
    backends.iter().position(|backend| {
        let weight = u64::from(backend.weight);
        let hit = rest < weight;
        rest = rest.saturating_sub(weight);
        hit
    })
}

/// Whether these dice, any uniformly distributed number, are of a share of all requests.
pub fn is_in(share: Fraction, dice: u64) -> bool {
    let place = (u128::from(dice) * u128::from(share.denominator())) >> 64;
    place < u128::from(share.numerator())
}

/// Dice that fall evenly from the beginning: after a hundred requests a weight of 10 % has had about ten of them,
/// not ten give or take three. Steps of the golden ratio, the most even of all such sequences (Weyl).
#[derive(Debug, Clone)]
pub struct EvenDice(u64);

impl EvenDice {
    /// The golden ratio's fraction of 2^64.
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    /// `start` is any number, different for everyone who splits.
    pub fn new(start: u64) -> Self {
        Self(start)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn backends(weights: &[u32]) -> Vec<Backend> {
        let named = |(at, weight): (usize, &u32)| Backend::new(None, &at.to_string(), *weight, vec![]);
        weights
            .iter()
            .enumerate()
            .map(named)
            .collect::<Result<_, _>>()
            .expect("valid")
    }

    proptest! {
        #[test]
        fn everyone_gets_its_share_of_the_range(weights in vec(0u32..40, 0..6), dice in any::<u64>()) {
            let backends = backends(&weights);
            let total: u32 = weights.iter().sum();
            let at = dice as f64 / u64::MAX as f64 * f64::from(total);
            let mut ends = 0.0;
            let expected = weights.iter().position(|weight| {
                ends += f64::from(*weight);
                at < ends - 1e-6
            });
            if let Some(expected) = expected && (at - at.round()).abs() > 1e-6 {
                prop_assert_eq!(pick_backend(&backends, dice), Some(expected));
            }
        }

        #[test]
        fn any_run_of_even_dice_keeps_to_the_weights(
            weight in 0u32..=100, start in any::<u64>(), count in 1u32..2000,
        ) {
            let backends = backends(&[weight, 100 - weight]);
            let mut dice = EvenDice::new(start);
            let first = |_| pick_backend(&backends, dice.roll()).expect("there is weight") == 0;
            let hits = u32::try_from((0..count).map(first).filter(|hit| *hit).count()).expect("small");
            let expected = f64::from(count) * f64::from(weight) / 100.0;
            prop_assert!((f64::from(hits) - expected).abs() <= 4.0, "{hits} of {count}, not {expected}");
        }

        #[test]
        fn a_share_has_its_part_of_the_range(part in 0u32..40, rest in 0u32..40, dice in any::<u64>()) {
            let share = Fraction::new(part, (part + rest).max(1)).expect("a fraction");
            let end = f64::from(share.numerator()) / f64::from(share.denominator());
            let at = dice as f64 / u64::MAX as f64;
            if (at - end).abs() > 1e-9 {
                prop_assert_eq!(is_in(share, dice), at < end);
            }
        }

        #[test]
        fn all_is_all_and_none_is_none(dice in any::<u64>(), whole in 1u32..) {
            prop_assert!(is_in(Fraction::ALL, dice) && is_in(Fraction::new(whole, whole).expect("all"), dice));
            prop_assert!(!is_in(Fraction::new(0, whole).expect("none"), dice));
        }

        #[test]
        fn the_largest_weights_and_dice_do_not_overflow(count in 1usize..64, dice in any::<u64>()) {
            let backends = backends(&vec![Backend::MAX_WEIGHT; count]);
            prop_assert!(pick_backend(&backends, dice).is_some());
        }
    }

    #[test]
    fn no_weight_is_no_backend() {
        assert_eq!(pick_backend(&[], 7), None);
        assert_eq!(pick_backend(&backends(&[0, 0]), 7), None);
    }
}
