//! A map that forgets: it keeps what the latest few puts brought.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// What was put in lately. An entry is gone after `places` further puts, used or not, so that neither puts nor
/// takes ever search.
pub(crate) struct Recent<K, V> {
    places: usize,
    /// With the number of the put that brought it.
    entries: HashMap<K, (u64, V)>,
    /// The keys of the latest puts with their numbers, oldest first; also of entries that are not there any more.
    order: VecDeque<(u64, K)>,
    puts: u64,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// An empty map. With no places it stays empty.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places,
            entries: HashMap::new(),
            order: VecDeque::new(),
            puts: 0,
        }
    }

    pub(crate) fn put(&mut self, key: K, value: V) {
        if self.places == 0 {
            return;
        }
        while self.order.len() >= self.places {
            if let Some((number, oldest)) = self.order.pop_front()
                && self.entries.get(&oldest).is_some_and(|entry| entry.0 == number)
            {
                self.entries.remove(&oldest);
            }
        }
        self.puts += 1;
        self.order.push_back((self.puts, key.clone()));
        self.entries.insert(key, (self.puts, value));
    }

    pub(crate) fn get<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(crate) fn take<Q: ?Sized + Eq + Hash>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.entries.remove(key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8),
        Take(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![(0u8..12).prop_map(Step::Put), (0u8..12).prop_map(Step::Take)]
    }

    proptest! {
        /// Against a list of all puts: what is there is the last put of its key, if it is one of the latest puts and
        /// was not taken.
        #[test]
        fn the_latest_puts_are_kept_and_no_more(places in 0usize..6, steps in prop::collection::vec(step(), 0..60)) {
            let mut recent = Recent::new(places);
            let mut puts: Vec<(u8, Option<usize>)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(key) => {
                        puts.push((key, Some(number)));
                        recent.put(key, number);
                    }
                    Step::Take(key) => {
                        let latest = puts.len().saturating_sub(places);
                        let last = puts.iter_mut().skip(latest).rfind(|(known, _)| *known == key);
                        let expected = last.and_then(|(_, number)| number.take());
                        prop_assert_eq!(recent.get(&key).copied(), expected);
                        prop_assert_eq!(recent.take(&key), expected);
                        prop_assert_eq!(recent.take(&key), None);
                    }
                }
                prop_assert!(recent.entries.len() <= recent.order.len() && recent.order.len() <= places);
            }
        }
    }
}
