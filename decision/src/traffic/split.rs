//! Which backend of a rule a request goes to, by weight.

use model::route::Backend;

/// The backend that these dice fall on: each has `weight` chances in the sum of all weights (Gateway API
/// `BackendRef.weight`), so that one of weight 0 is never chosen. `dice` is any uniformly distributed number.
///
/// `None` where there is no backend or no weight at all: the request is answered with 500.
pub fn pick_backend(backends: &[Backend], dice: u64) -> Option<&Backend> {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let mut rest = dice.checked_rem(total)?;
    backends.iter().find(|backend| {
        let weight = u64::from(backend.weight);
        let hit = rest < weight;
        rest = rest.saturating_sub(weight);
        hit
    })
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
        fn over_all_dice_everyone_gets_exactly_its_weight(
            weights in vec(0u32..40, 0..6), start in any::<u32>(),
        ) {
            let backends = backends(&weights);
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let mut counts = vec![0u32; weights.len()];
            for dice in u64::from(start)..u64::from(start) + total {
                let picked = pick_backend(&backends, dice).expect("there is weight");
                counts[picked.reference.parse::<usize>().expect("a number")] += 1;
            }
            prop_assert_eq!(counts, weights);
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
