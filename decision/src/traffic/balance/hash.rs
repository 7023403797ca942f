//! Consistent hashing: which endpoint a key belongs to, so that few keys move when endpoints come and go.

use xxhash_rust::xxh64::xxh64;

/// Most endpoints of one table; those beyond take no part.
pub(super) const MAX_ENDPOINTS: usize = u16::MAX as usize;

/// Keys to endpoints, made once for a set of endpoints. Which of them can be used now is asked for each key, so that an
/// endpoint that is left out for a while moves only its own keys, and gets the same ones back.
#[derive(Debug, Clone)]
pub enum HashTable {
    Maglev(Maglev),
    Ring(Ring),
}

/// Maglev (Eisenbud et al., NSDI 2016): a table that the endpoints fill in turn, each in an order of its own.
#[derive(Debug, Clone)]
pub struct Maglev {
    table: Box<[u16]>,
    /// The hash of each endpoint's name.
    names: Box<[u64]>,
}

/// Ketama: every endpoint stands at many places of a ring; a key belongs to the next one.
#[derive(Debug, Clone)]
pub struct Ring {
    /// Ascending.
    places: Box<[(u32, u16)]>,
}

/// Whatever a request or an endpoint is known by, as a number. The same everywhere and always (XXH64, seed 0).
pub(super) fn hash(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}

impl HashTable {
    /// A table with `size` places, which is a prime.
    pub fn maglev(endpoints: &[String], size: u32) -> Self {
        let endpoints = endpoints.get(..MAX_ENDPOINTS).unwrap_or(endpoints);
        let size = u64::from(size.max(2));
        // Where each endpoint begins, and its step: it meets every place once, since the size is a prime.
        let mut turns: Vec<(u64, u64)> = endpoints
            .iter()
            .map(|name| {
                let (offset, skip) = (xxh64(name.as_bytes(), 1), xxh64(name.as_bytes(), 2));
                (offset % size, skip % (size - 1) + 1)
            })
            .collect();
        let mut table = vec![None; size as usize];
        let mut free = if endpoints.is_empty() { 0 } else { table.len() };
        while free > 0 {
            for (number, (at, skip)) in turns.iter_mut().enumerate() {
                // One free place at least is ahead of everyone while there is any.
                while table.get(*at as usize).is_some_and(Option::is_some) {
                    *at = (*at + *skip) % size;
                }
                if free == 0 {
                    break;
                }
                if let Some(place) = table.get_mut(*at as usize) {
                    *place = Some(number as u16);
                    free -= 1;
                }
                if free == 0 {
                    break;
                }
            }
        }
        Self::Maglev(Maglev {
            table: table.into_iter().flatten().collect(),
            names: endpoints.iter().map(|name| hash(name.as_bytes())).collect(),
        })
    }

    /// A ring on which each endpoint stands at `copies` places, however many others there are: so that nobody's places
    /// depend on who else is there.
    pub fn ring(endpoints: &[String], copies: u32) -> Self {
        let endpoints = endpoints.get(..MAX_ENDPOINTS).unwrap_or(endpoints);
        let mut places = Vec::with_capacity(endpoints.len() * copies as usize);
        for (number, name) in endpoints.iter().enumerate() {
            let name = hash(name.as_bytes());
            let place = |copy: u32| position(xxh64(&copy.to_le_bytes(), name));
            places.extend((0..copies.max(1)).map(|copy| (place(copy), number as u16)));
        }
        places.sort_unstable();
        places.dedup_by_key(|(place, _)| *place);
        Self::Ring(Ring {
            places: places.into(),
        })
    }

    /// The endpoint of a key, by its place in the list, among those that `usable` lets pass.
    pub fn find(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        match self {
            Self::Maglev(maglev) => maglev.find(key, usable),
            Self::Ring(ring) => ring.find(key, usable),
        }
    }
}

/// Where on the ring a hash is.
fn position(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl Maglev {
    fn find(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let first = *self.table.get((key % self.table.len().max(1) as u64) as usize)?;
        if usable(usize::from(first)) {
            return Some(usize::from(first));
        }
        // Whoever weighs most for this key (rendezvous hashing): the keys of one endpoint go evenly to all others.
        let weight = |name: &u64| xxh64(&name.to_le_bytes(), key);
        let others = self
            .names
            .iter()
            .enumerate()
            .filter(|(number, _)| usable(*number));
        others
            .max_by_key(|(_, name)| weight(name))
            .map(|(number, _)| number)
    }
}

impl Ring {
    fn find(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.places.partition_point(|(place, _)| *place < position(key));
        let (before, after) = self.places.split_at(start);
        let mut clockwise = after.iter().chain(before).map(|(_, number)| usize::from(*number));
        clockwise.find(|number| usable(*number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("pay-{number}")).collect()
    }

    fn both(names: &[String]) -> [HashTable; 2] {
        [HashTable::maglev(names, 65_537), HashTable::ring(names, 1024)]
    }

    const KEYS: usize = 20_000;

    fn keys() -> impl Iterator<Item = u64> {
        (0..KEYS).map(|number| hash(format!("user-{number}").as_bytes()))
    }

    /// One of n leaves, for good or for a while: no more than 1/n + 5 % of the keys move, and none of those that
    /// belonged to others where it is only left out.
    #[test]
    fn few_keys_move_when_an_endpoint_leaves() {
        for count in [3, 5, 10, 50] {
            let all = names(count);
            for (table, without) in both(&all).iter().zip(both(&all[1..])) {
                let (mut moved, mut moved_for_good) = (0, 0);
                for key in keys() {
                    let home = table.find(key, |_| true).expect("there are endpoints");
                    let away = table.find(key, |number| number != 0).expect("there are others");
                    assert!(home == 0 || away == home, "a key of another endpoint moved");
                    moved += usize::from(away != home);
                    let later = without.find(key, |_| true).expect("there are endpoints") + 1;
                    moved_for_good += usize::from(later != home);
                }
                let most = KEYS as f64 * (1.0 / count as f64 + 0.05);
                assert!(
                    (moved as f64) < most && (moved_for_good as f64) < most,
                    "{moved} {moved_for_good} of {count}"
                );
            }
        }
    }

    #[test]
    fn everyone_has_a_fair_share_of_the_keys_also_of_those_of_one_that_is_left_out() {
        for table in both(&names(10)) {
            for out in [None, Some(3)] {
                let mut counts = [0usize; 10];
                for key in keys() {
                    counts[table
                        .find(key, |number| Some(number) != out)
                        .expect("there are endpoints")] += 1;
                }
                let fair = KEYS / (10 - usize::from(out.is_some()));
                for (number, count) in counts.into_iter().enumerate() {
                    let expected = if Some(number) == out { 0 } else { fair };
                    assert!(
                        count.abs_diff(expected) * 5 <= fair,
                        "{number} has {count}, not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_table_is_the_same_in_every_process_and_version() {
        let [maglev, ring] = both(&names(5));
        let found = |table: &HashTable| {
            keys()
                .take(12)
                .map(|key| table.find(key, |_| true).unwrap_or(9))
                .collect::<Vec<_>>()
        };
        assert_eq!(hash(b"user-0"), 8_942_776_895_475_828_064);
        assert_eq!(found(&maglev), found(&HashTable::maglev(&names(5), 65_537)));
        assert_eq!(found(&ring), found(&HashTable::ring(&names(5), 1024)));
    }

    proptest! {
        #[test]
        fn only_usable_ones_are_found_and_always_one(
            usable in proptest::collection::vec(any::<bool>(), 0..12), key in any::<u64>(),
        ) {
            let all = names(usable.len());
            for table in [HashTable::maglev(&all, 251), HashTable::ring(&all, 20)] {
                let found = table.find(key, |number| usable[number]);
                prop_assert_eq!(found.is_some(), usable.contains(&true));
                prop_assert!(found.is_none_or(|number| usable[number]));
            }
        }
    }
}
