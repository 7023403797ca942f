//! How the load spreads over groups of endpoints, the nearest first.
//!
//! As Envoy's priorities: a group takes what its usable endpoints can, with some in reserve, and hands the rest on to the
//! next one. Where all of them together cannot take everything, a group in which too few are usable uses all it has
//! ("panic"), so that the few are not crushed as well.

use model::Labels;
use model::traffic_policy::LOCALITY_LABELS;

/// A group takes 1.4 times the load of the endpoints it has left: only with less than 71 % of them it hands some on.
pub(super) const OVERPROVISIONING: f64 = 1.4;

/// One endpoint when the load is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Of which group it is; lower is nearer.
    pub distance: u8,
    /// Neither down, nor unhealthy, nor ejected.
    pub usable: bool,
}

/// Endpoints among which one is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Tier {
    /// Its share of the load, 0.0–1.0; that of all tiers is 1.
    pub share: f64,
    /// By their places in the list; never empty.
    pub members: Vec<usize>,
    /// Whether `members` has some that are not usable.
    pub panic: bool,
}

/// Spreads the load; groups without a share are left out. `panic_threshold` is in percent, 0 for never: then the list
/// is empty where nothing is usable.
pub fn spread(standings: &[Standing], panic_threshold: u8) -> Vec<Tier> {
    let mut groups: Vec<Group> = Vec::new();
    let mut distances: Vec<u8> = standings.iter().map(|standing| standing.distance).collect();
    distances.sort_unstable();
    distances.dedup();
    for distance in distances {
        let of_group = |(place, standing): (usize, &Standing)| {
            (standing.distance == distance).then_some((place, standing.usable))
        };
        let all: Vec<(usize, bool)> = standings.iter().enumerate().filter_map(of_group).collect();
        groups.push(Group(all));
    }
    let sum: f64 = groups.iter().map(Group::capacity).sum();
    let panicking = |group: &Group| sum < 1.0 && group.usable_percent() < f64::from(panic_threshold);
    let everywhere = groups.iter().all(panicking);
    let mut left = 1.0;
    let mut tiers = Vec::new();
    for group in &groups {
        let share = if everywhere {
            group.0.len() as f64 / standings.len() as f64
        } else if sum > 0.0 {
            (group.capacity() / sum.min(1.0)).min(left)
        } else {
            0.0
        };
        left -= share;
        let panic = panicking(group);
        let members: Vec<usize> = group
            .0
            .iter()
            .filter(|(_, usable)| panic || *usable)
            .map(|(place, _)| *place)
            .collect();
        if share > 1e-9 && !members.is_empty() {
            tiers.push(Tier {
                share,
                members,
                panic,
            });
        }
    }
    tiers
}

/// Places and whether each is usable.
struct Group(Vec<(usize, bool)>);

impl Group {
    fn usable(&self) -> f64 {
        self.0.iter().filter(|(_, usable)| *usable).count() as f64
    }

    fn usable_percent(&self) -> f64 {
        self.usable() * 100.0 / self.0.len().max(1) as f64
    }

    /// How much of the whole load it takes.
    fn capacity(&self) -> f64 {
        (OVERPROVISIONING * self.usable() / self.0.len().max(1) as f64).min(1.0)
    }
}

/// How far `other` is from `own`: 0 in one sub-zone, 1 in one zone, 2 in one region, 3 elsewhere. Zones of one name in
/// different regions are different ones. Where the caller does not say where it is, everything is equally far.
pub fn distance(own: &Labels, other: &Labels) -> u8 {
    let [subzone, zone, region] = LOCALITY_LABELS.map(|label| {
        let at_home = own.get(label);
        (at_home.is_some(), at_home == other.get(label))
    });
    let same = |(said, same): (bool, bool)| said && same;
    let not_other = |(said, same): (bool, bool)| !said || same;
    if !(subzone.0 || zone.0 || region.0) {
        return 0;
    }
    let in_zone = same(zone) && not_other(region);
    match () {
        () if in_zone && not_other(subzone) => 0,
        () if in_zone => 1,
        () if same(region) => 2,
        () => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn standings(groups: &[(u8, usize, usize)]) -> Vec<Standing> {
        let group = |(distance, usable, all): &(u8, usize, usize)| {
            let (distance, usable) = (*distance, *usable);
            (0..*all).map(move |number| Standing {
                distance,
                usable: number < usable,
            })
        };
        groups.iter().flat_map(group).collect()
    }

    fn shares(groups: &[(u8, usize, usize)], panic: u8) -> Vec<(i32, usize, bool)> {
        spread(&standings(groups), panic)
            .iter()
            .map(|tier| {
                (
                    (tier.share * 100.0).round() as i32,
                    tier.members.len(),
                    tier.panic,
                )
            })
            .collect()
    }

    #[test]
    fn a_near_group_keeps_everything_until_its_reserve_is_used_up() {
        assert_eq!(shares(&[(0, 10, 10), (3, 5, 5)], 50), [(100, 10, false)]);
        assert_eq!(shares(&[(0, 8, 10), (3, 5, 5)], 50), [(100, 8, false)]);
        assert_eq!(
            shares(&[(0, 5, 10), (3, 5, 5)], 50),
            [(70, 5, false), (30, 5, false)]
        );
        assert_eq!(
            shares(&[(0, 1, 10), (3, 5, 5)], 50),
            [(14, 1, false), (86, 5, false)]
        );
        assert_eq!(shares(&[(0, 0, 10), (3, 5, 5)], 50), [(100, 5, false)]);
    }

    #[test]
    fn panic_is_where_all_together_cannot_take_it() {
        assert_eq!(shares(&[(0, 1, 2)], 50), [(100, 1, false)]);
        assert_eq!(shares(&[(0, 2, 5)], 50), [(100, 5, true)]);
        assert_eq!(shares(&[(0, 2, 5)], 0), [(100, 2, false)]);
        assert_eq!(shares(&[(0, 0, 5)], 0), []);
        assert_eq!(
            shares(&[(0, 0, 3), (1, 0, 1)], 50),
            [(75, 3, true), (25, 1, true)]
        );
        // Envoy's example: 20 % and 20 % usable are half of the load each, and both in panic.
        assert_eq!(
            shares(&[(0, 1, 5), (1, 1, 5)], 50),
            [(50, 5, true), (50, 5, true)]
        );
    }

    #[test]
    fn near_is_by_the_nearest_label_that_both_have() {
        let labels = |region: &str, zone: &str, subzone: &str| {
            let all = LOCALITY_LABELS.into_iter().zip([subzone, zone, region]);
            let given = all.filter(|(_, value)| !value.is_empty());
            Labels::new(
                given
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            )
            .expect("valid")
        };
        let own = labels("eu", "a", "rack-1");
        for (other, expected) in [
            (labels("eu", "a", "rack-1"), 0),
            (labels("eu", "a", "rack-2"), 1),
            (labels("eu", "b", "rack-1"), 2),
            (labels("us", "a", "rack-1"), 3),
            (labels("", "", ""), 3),
        ] {
            assert_eq!(distance(&own, &other), expected, "{other:?}");
        }
        assert_eq!(distance(&labels("", "a", ""), &labels("eu", "a", "rack-1")), 0);
        assert_eq!(distance(&labels("", "", ""), &labels("eu", "a", "")), 0);
    }

    proptest! {
        #[test]
        fn everything_is_spread_and_over_nobody_twice(
            all in vec((0u8..4, any::<bool>()), 0..40), panic in 0u8..=100,
        ) {
            let standings: Vec<Standing> =
                all.iter().map(|(distance, usable)| Standing { distance: *distance, usable: *usable }).collect();
            let tiers = spread(&standings, panic);
            let sum: f64 = tiers.iter().map(|tier| tier.share).sum();
            let any = standings.iter().any(|standing| standing.usable);
            prop_assert_eq!(tiers.is_empty(), !any && (panic == 0 || standings.is_empty()));
            prop_assert!(tiers.is_empty() || (sum - 1.0).abs() < 1e-6, "{} in all", sum);
            let mut seen: Vec<usize> = tiers.iter().flat_map(|tier| tier.members.clone()).collect();
            let count = seen.len();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), count);
            for tier in &tiers {
                prop_assert!(tier.panic || tier.members.iter().all(|at| standings[*at].usable));
            }
        }
    }
}
