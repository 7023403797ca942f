//! A policy's way to choose: first a group by its share of the load, then one of its endpoints.

use model::traffic_policy::{Algorithm, LoadBalancer};
use smallvec::SmallVec;

use super::hash::HashTable;
use super::peak_ewma::pick;
use super::tiers::{Standing, Tier, spread};
use crate::traffic::split::EvenDice;

/// Chooses among a list of endpoints, which it knows by their places in it.
#[derive(Debug, Clone)]
pub struct Balancer {
    algorithm: Algorithm,
    tiers: Vec<Tier>,
    table: Option<HashTable>,
    /// Counts the choices made in turn.
    turn: usize,
    even: EvenDice,
}

/// What is asked for one attempt.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// Where the request was already; they take no part while there are others.
    pub tried: &'a [usize],
    /// The request's key, where keys belong to endpoints.
    pub key: Option<u64>,
    /// Any uniformly distributed number.
    pub dice: u64,
}

impl Balancer {
    /// For endpoints of these names, which stay the same from one process to another. `dice` is any number, different
    /// for everyone who chooses: turns do not begin at the same place.
    pub fn new(policy: &LoadBalancer, names: &[String], dice: u64) -> Self {
        let table = match &policy.algorithm {
            Algorithm::Maglev(hash) => Some(HashTable::maglev(names, hash.table_size)),
            Algorithm::RingHash(hash) => Some(HashTable::ring(names, hash.table_size)),
            Algorithm::PeakEwma | Algorithm::LeastRequest | Algorithm::RoundRobin | Algorithm::Random => None,
        };
        Self {
            algorithm: policy.algorithm.clone(),
            tiers: Vec::new(),
            table,
            turn: dice as usize,
            even: EvenDice::new(dice),
        }
    }

    pub fn algorithm(&self) -> &Algorithm {
        &self.algorithm
    }

    /// Takes up how each endpoint stands; before that there is none to choose.
    pub fn arrange(&mut self, standings: &[Standing], panic_threshold: u8) {
        self.tiers = spread(standings, panic_threshold);
    }

    /// Chooses an endpoint. `cost` is asked where the algorithm compares: the expected wait for [`Algorithm::PeakEwma`],
    /// the requests in hand for [`Algorithm::LeastRequest`]. `weight` is `None` where all weigh the same, as they do but
    /// for those that have come a moment ago.
    pub fn pick(
        &mut self,
        ask: &Ask<'_>,
        cost: impl Fn(usize) -> f64,
        weight: Option<&dyn Fn(usize) -> f64>,
    ) -> Option<usize> {
        let tier = self.tier(ask)?;
        let members = &self.tiers.get(tier)?.members;
        let by_key = self.table.as_ref().zip(ask.key);
        if let Some((table, key)) = by_key {
            let fresh = |place: usize| members.binary_search(&place).is_ok() && !ask.tried.contains(&place);
            let found = table.find(key, fresh);
            return found.or_else(|| table.find(key, |place| members.binary_search(&place).is_ok()));
        }
        let mut tried: SmallVec<[usize; 4]> = (ask.tried.iter())
            .filter_map(|place| members.binary_search(place).ok())
            .collect();
        tried.sort_unstable();
        tried.dedup();
        if let Some(weight) = weight {
            return self.pick_weighted(tier, &tried, ask.dice, &cost, weight);
        }
        let at = match self.algorithm {
            Algorithm::RoundRobin => {
                let count = members.len();
                let mut turn = self.turn;
                let mut rounds = 0;
                while tried.contains(&(turn % count)) && rounds < count {
                    turn = turn.wrapping_add(1);
                    rounds += 1;
                }
                self.turn = turn.wrapping_add(1);
                turn % count
            }
            Algorithm::PeakEwma | Algorithm::LeastRequest => {
                let cost_at = |at: usize| members.get(at).map_or(f64::MAX, |place| cost(*place));
                pick(members.len(), &tried, cost_at, ask.dice)?
            }
            Algorithm::Random | Algorithm::Maglev(_) | Algorithm::RingHash(_) => {
                pick(members.len(), &tried, |_| 0.0, ask.dice)?
            }
        };
        self.tiers.get(tier)?.members.get(at).copied()
    }

    /// The group that the dice fall on, or for equal keys always the same one. Where all of its endpoints were tried,
    /// the nearest in which one was not.
    fn tier(&self, ask: &Ask<'_>) -> Option<usize> {
        if self.tiers.len() < 2 {
            return (!self.tiers.is_empty()).then_some(0);
        }
        let roll = match (&self.table, ask.key) {
            // Not the bits that the table is asked with.
            (Some(_), Some(key)) => key.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32),
            _ => ask.dice.rotate_left(17).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        };
        let mut rest = roll as f64 / u64::MAX as f64;
        let is_fresh = |tier: &Tier| tier.members.iter().any(|place| !ask.tried.contains(place));
        let mut chosen = self.tiers.len() - 1;
        for (index, tier) in self.tiers.iter().enumerate() {
            if rest < tier.share {
                chosen = index;
                break;
            }
            rest -= tier.share;
        }
        if ask.tried.is_empty() || self.tiers.get(chosen).is_some_and(is_fresh) {
            return Some(chosen);
        }
        self.tiers.iter().position(is_fresh).or(Some(chosen))
    }

    /// As the dice fall on weights. Where costs are compared, with that of another throw, which may be the same endpoint:
    /// so one of little weight gets little also where it would be the better one.
    fn pick_weighted(
        &mut self,
        tier: usize,
        tried: &[usize],
        dice: u64,
        cost: &impl Fn(usize) -> f64,
        weight: &dyn Fn(usize) -> f64,
    ) -> Option<usize> {
        let even = self.even.roll();
        let members = &self.tiers.get(tier)?.members;
        let all_tried = tried.len() >= members.len();
        let weights: SmallVec<[(usize, f64); 16]> = members
            .iter()
            .enumerate()
            .filter(|(at, _)| all_tried || !tried.contains(at))
            .map(|(_, place)| (*place, weight(*place).max(1e-9)))
            .collect();
        let first = |dice: u64| {
            let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
            let mut rest = dice as f64 / u64::MAX as f64 * total;
            let hit = weights.iter().find(|(_, weight)| {
                let hit = rest < *weight;
                rest -= *weight;
                hit
            });
            hit.or(weights.last()).copied()
        };
        match self.algorithm {
            Algorithm::RoundRobin => first(even).map(|(place, _)| place),
            Algorithm::PeakEwma | Algorithm::LeastRequest => {
                let (one, one_weight) = first(dice)?;
                let (other, other_weight) = first(dice.rotate_left(32).wrapping_mul(0x9E37_79B9_7F4A_7C15))?;
                let by_weight = matches!(self.algorithm, Algorithm::LeastRequest);
                let compared = |place, weight| cost(place) / if by_weight { weight } else { 1.0 };
                let is_better = compared(other, other_weight) < compared(one, one_weight);
                Some(if is_better { other } else { one })
            }
            Algorithm::Random | Algorithm::Maglev(_) | Algorithm::RingHash(_) => {
                first(dice).map(|(place, _)| place)
            }
        }
    }
}

/// The share of its weight that an endpoint of this age has, which has come a moment ago: it grows evenly over `window`
/// from a tenth. 1.0 for one that is old enough.
pub fn slow_start(age: std::time::Duration, window: std::time::Duration) -> f64 {
    if age >= window {
        return 1.0;
    }
    (age.as_secs_f64() / window.as_secs_f64().max(1e-9)).clamp(0.1, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::traffic_policy::{ConsistentHash, HashKey};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn hash(table_size: u32) -> ConsistentHash {
        ConsistentHash {
            key: HashKey::SourceIp,
            table_size,
        }
    }

    fn algorithms() -> [Algorithm; 6] {
        [
            Algorithm::PeakEwma,
            Algorithm::LeastRequest,
            Algorithm::RoundRobin,
            Algorithm::Random,
            Algorithm::Maglev(hash(251)),
            Algorithm::RingHash(hash(64)),
        ]
    }

    pub(super) fn balancer(algorithm: Algorithm, standings: &[Standing], panic: u8) -> Balancer {
        let policy = LoadBalancer {
            algorithm,
            ..LoadBalancer::default()
        };
        let names: Vec<String> = (0..standings.len())
            .map(|number| format!("pay-{number}"))
            .collect();
        let mut balancer = Balancer::new(&policy, &names, 3);
        balancer.arrange(standings, panic);
        balancer
    }

    const UP: Standing = Standing {
        distance: 0,
        usable: true,
    };

    #[test]
    fn turns_are_taken_in_turn_and_leave_out_who_was_tried() {
        let mut balancer = balancer(Algorithm::RoundRobin, &[UP; 3], 50);
        let mut picked = |tried: &[usize]| {
            let ask = Ask {
                tried,
                ..Ask::default()
            };
            balancer.pick(&ask, |_| 0.0, None).expect("there are endpoints")
        };
        assert_eq!([picked(&[]), picked(&[]), picked(&[]), picked(&[])], [0, 1, 2, 0]);
        assert_eq!([picked(&[1]), picked(&[0]), picked(&[0, 1, 2])], [2, 1, 2]);
    }

    #[test]
    fn slow_start_grows_from_a_tenth() {
        use std::time::Duration;
        let at = |ms| slow_start(Duration::from_millis(ms), Duration::from_secs(10));
        assert_eq!(
            [at(0), at(500), at(5_000), at(10_000), at(99_999)],
            [0.1, 0.1, 0.5, 1.0, 1.0]
        );
    }

    proptest! {
        #[test]
        fn only_usable_ones_are_chosen_and_fresh_ones_first(
            all in vec((0u8..3, any::<bool>()), 0..12),
            tried in vec(0usize..12, 0..6),
            key in proptest::option::of(any::<u64>()),
            dice in any::<u64>(),
            weighted in any::<bool>(),
        ) {
            let standings: Vec<Standing> =
                all.iter().map(|(distance, usable)| Standing { distance: *distance, usable: *usable }).collect();
            for algorithm in algorithms() {
                let mut balancer = balancer(algorithm, &standings, 0);
                let weight = |place: usize| place as f64 + 0.5;
                let weight: Option<&dyn Fn(usize) -> f64> = if weighted { Some(&weight) } else { None };
                let picked = balancer.pick(&Ask { tried: &tried, key, dice }, |place| place as f64, weight);
                prop_assert_eq!(picked.is_some(), standings.iter().any(|standing| standing.usable));
                let Some(picked) = picked else { continue };
                prop_assert!(standings[picked].usable);
                let fresh = balancer.tiers.iter().flat_map(|tier| &tier.members).any(|place| !tried.contains(place));
                prop_assert!(!fresh || !tried.contains(&picked));
            }
        }
    }
}
