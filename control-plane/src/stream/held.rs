//! What one proxy has, and what follows from it: the next update, or nothing. No I/O and no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Generation, Question, ResourceName};

use crate::mesh::{Encoded, Known};

/// The version of a resource that does not exist.
const ABSENT: &str = "";
/// What an update takes on the wire besides the texts and bytes of its resources, for each of them; generous.
const OVERHEAD_BYTES: usize = 32;

/// What a proxy is known to use, and what it asked for.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) subscriptions: BTreeSet<Question>,
    /// Acknowledged, or said at the beginning.
    in_use: Versions,
    /// Not sent again before they differ: one resource that a proxy cannot use does not keep others from it.
    refused: Versions,
    in_flight: Option<InFlight>,
    last_nonce: u64,
}

/// Versions by name, [`ABSENT`] for what does not exist.
type Versions = BTreeMap<ResourceName, String>;

#[derive(Debug)]
struct InFlight {
    nonce: u64,
    generation: Generation,
    versions: Versions,
    /// Nobody wants them any more: not in use once this is acknowledged.
    dropped: BTreeSet<ResourceName>,
    is_last: bool,
}

/// An update to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) nonce: u64,
    pub(super) changed: Vec<(ResourceName, Arc<Encoded>)>,
    pub(super) removed: Vec<ResourceName>,
    /// Whether nothing is left to be sent after it; a difference over the size of a message is sent in parts.
    pub(super) is_last: bool,
}

/// How a proxy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It uses everything it should.
    InSync,
    /// It uses everything it should but what it refused.
    Refused,
    /// There is something to be sent.
    Behind,
    /// It has yet to answer.
    Waiting,
}

/// An update that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) generation: Generation,
    pub(super) is_last: bool,
}

impl Held {
    /// What the proxy says that it has from an earlier stream.
    pub(super) fn new(subscriptions: BTreeSet<Question>, in_use: BTreeMap<ResourceName, String>) -> Self {
        Self {
            subscriptions,
            in_use,
            ..Self::default()
        }
    }

    /// Every one of these is answered, even if it is known to be in use.
    pub(super) fn subscribe(&mut self, questions: impl IntoIterator<Item = Question>) {
        for question in questions {
            self.count_as_never_sent(&ResourceName::answering(&question));
            self.subscriptions.insert(question);
        }
    }

    /// The proxy has forgotten these.
    pub(super) fn forget(&mut self, questions: impl IntoIterator<Item = Question>) {
        for question in questions {
            self.count_as_never_sent(&ResourceName::answering(&question));
            self.subscriptions.remove(&question);
        }
    }

    fn count_as_never_sent(&mut self, name: &ResourceName) {
        self.in_use.remove(name);
        self.refused.remove(name);
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.versions.remove(name);
        }
    }

    /// Compares with what the proxy should have.
    pub(super) fn standing(&mut self, known: &Known) -> Standing {
        self.tidy(known);
        if self.in_flight.is_some() {
            return Standing::Waiting;
        }
        let lacks = known.iter().any(|(name, wanted)| self.lacks(name, wanted));
        let is_behind = lacks || self.unwanted(known).next().is_some();
        match (is_behind, self.refused.is_empty()) {
            (true, _) => Standing::Behind,
            (false, true) => Standing::InSync,
            (false, false) => Standing::Refused,
        }
    }

    /// The next update of at most `max_bytes`; `None` where there is nothing to send now. Endpoints come before
    /// destinations that may name them.
    pub(super) fn next(&mut self, known: &Known, generation: Generation, max_bytes: usize) -> Option<Next> {
        if self.standing(known) != Standing::Behind {
            return None;
        }
        let dropped: BTreeSet<ResourceName> = self.unwanted(known).cloned().collect();
        let mut room = Room::of(max_bytes);
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        let mut is_last = true;
        for name in &dropped {
            match room.take(name, 0) {
                true => removed.push(name.clone()),
                false => is_last = false,
            }
        }
        let lacking = known.iter().filter(|(name, wanted)| self.lacks(name, wanted));
        let mut lacking: Vec<_> = lacking.collect();
        lacking.sort_by_key(|(name, _)| !matches!(name, ResourceName::Endpoints(_)));
        for (name, wanted) in lacking {
            let bytes = wanted.as_ref().map_or(0, |encoded| encoded.bytes.len());
            match (room.take(name, bytes), wanted) {
                (true, Some(encoded)) => changed.push((name.clone(), encoded.clone())),
                (true, None) => removed.push(name.clone()),
                (false, _) => is_last = false,
            }
        }
        self.last_nonce += 1;
        let versions = changed
            .iter()
            .map(|(name, encoded)| (name.clone(), encoded.version.clone()));
        let gone = removed.iter().filter(|name| !dropped.contains(name));
        self.in_flight = Some(InFlight {
            nonce: self.last_nonce,
            generation,
            versions: versions
                .chain(gone.map(|name| (name.clone(), ABSENT.to_owned())))
                .collect(),
            dropped: removed
                .iter()
                .filter(|name| dropped.contains(name))
                .cloned()
                .collect(),
            is_last,
        });
        Some(Next {
            nonce: self.last_nonce,
            changed,
            removed,
            is_last,
        })
    }

    /// Takes a resource that fits into no message for refused. Returns its name and its size in bytes.
    pub(super) fn refuse_too_large(
        &mut self,
        known: &Known,
        max_bytes: usize,
    ) -> Option<(ResourceName, usize)> {
        let (name, encoded) = known.iter().find_map(|(name, wanted)| {
            let encoded = wanted.as_ref()?;
            let fits = Room::of(max_bytes).take(name, encoded.bytes.len());
            (!fits && self.lacks(name, wanted)).then_some((name, encoded))
        })?;
        self.refused.insert(name.clone(), encoded.version.clone());
        Some((name.clone(), encoded.bytes.len()))
    }

    /// The update is in use. `None` where no such update is out.
    pub(super) fn acknowledged(&mut self, nonce: u64) -> Option<Answered> {
        let in_flight = self.answered(nonce)?;
        for name in &in_flight.dropped {
            self.in_use.remove(name);
        }
        let answered = in_flight.into();
        Some(answered)
    }

    /// Nothing of the update is in use, because of this resource. `None` where no such update is out.
    pub(super) fn refused(&mut self, nonce: u64, resource: &str) -> Option<Answered> {
        let in_flight = self.in_flight.take_if(|in_flight| in_flight.nonce == nonce)?;
        let named = resource.parse().ok();
        match named.and_then(|name| in_flight.versions.get_key_value(&name)) {
            Some((name, version)) => drop(self.refused.insert(name.clone(), version.clone())),
            None => {
                // Nothing that could be left out: then all of it, until it differs.
                let dropped = in_flight
                    .dropped
                    .iter()
                    .map(|name| (name.clone(), ABSENT.to_owned()));
                self.refused.extend(dropped.chain(in_flight.versions.clone()));
            }
        }
        Some(Answered {
            generation: in_flight.generation,
            is_last: in_flight.is_last,
        })
    }

    fn answered(&mut self, nonce: u64) -> Option<InFlight> {
        let in_flight = self.in_flight.take_if(|in_flight| in_flight.nonce == nonce)?;
        self.in_use.extend(in_flight.versions.clone());
        Some(in_flight)
    }

    /// Forgets refusals that do not stand any more, and answers that nobody asked for.
    fn tidy(&mut self, known: &Known) {
        let in_use = &self.in_use;
        self.refused.retain(|name, version| match known.get(name) {
            Some(wanted) => version_of(wanted) == version,
            None => version == ABSENT && in_use.contains_key(name),
        });
        self.in_use
            .retain(|name, _| known.contains_key(name) || name.question().is_none());
    }

    fn lacks(&self, name: &ResourceName, wanted: &Option<Arc<Encoded>>) -> bool {
        let is = |versions: &Versions| versions.get(name).map(String::as_str) == Some(version_of(wanted));
        !is(&self.in_use) && !is(&self.refused)
    }

    /// In use, and not needed any more.
    fn unwanted<'a>(&'a self, known: &'a Known) -> impl Iterator<Item = &'a ResourceName> {
        let stays = |name: &ResourceName| known.contains_key(name) || self.refused.contains_key(name);
        self.in_use.keys().filter(move |name| !stays(name))
    }
}

impl From<InFlight> for Answered {
    fn from(in_flight: InFlight) -> Self {
        Self {
            generation: in_flight.generation,
            is_last: in_flight.is_last,
        }
    }
}

fn version_of(wanted: &Option<Arc<Encoded>>) -> &str {
    wanted.as_ref().map_or(ABSENT, |encoded| &encoded.version)
}

/// What still fits into a message.
struct Room(usize);

impl Room {
    fn of(bytes: usize) -> Self {
        Self(bytes.saturating_sub(OVERHEAD_BYTES))
    }

    fn take(&mut self, name: &ResourceName, bytes: usize) -> bool {
        // A version is 32 characters.
        let needed = bytes + name.to_string().len() + 2 * OVERHEAD_BYTES;
        match self.0.checked_sub(needed) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use model::ServiceName;

    use super::*;

    const LARGE: usize = 1 << 20;

    fn service(name: &str) -> ServiceName {
        format!("default/{name}").parse().unwrap()
    }

    fn destination(name: &str) -> ResourceName {
        ResourceName::Destination(service(name))
    }

    fn endpoints(name: &str) -> ResourceName {
        ResourceName::Endpoints(service(name))
    }

    fn encoded(version: &str) -> Arc<Encoded> {
        Arc::new(Encoded {
            version: version.to_owned(),
            bytes: version.to_owned().into(),
        })
    }

    fn known(versions: &[(ResourceName, Option<&str>)]) -> Known {
        let entry = |(name, version): &(ResourceName, Option<&str>)| (name.clone(), version.map(encoded));
        versions.iter().map(entry).collect()
    }

    fn names(next: &Next) -> (Vec<ResourceName>, Vec<ResourceName>) {
        let changed = next.changed.iter().map(|(name, _)| name.clone()).collect();
        (changed, next.removed.clone())
    }

    #[test]
    fn only_differences_are_sent_and_one_at_a_time() {
        let mut held = Held::new([service("a").into()].into(), BTreeMap::new());
        let first = known(&[(destination("a"), Some("1")), (endpoints("a"), Some("1"))]);
        let next = held.next(&first, Generation(5), LARGE).unwrap();
        assert_eq!(names(&next), (vec![endpoints("a"), destination("a")], vec![]));
        let second = known(&[(destination("a"), Some("2")), (endpoints("a"), Some("1"))]);
        assert_eq!(held.standing(&second), Standing::Waiting);
        assert_eq!(held.next(&second, Generation(6), LARGE), None);
        let answered = held.acknowledged(next.nonce).unwrap();
        assert_eq!((answered.generation, answered.is_last), (Generation(5), true));
        let next = held.next(&second, Generation(6), LARGE).unwrap();
        assert_eq!(names(&next).0, [destination("a")]);
        held.acknowledged(next.nonce).unwrap();
        assert_eq!(held.standing(&second), Standing::InSync);
        let third = known(&[(destination("a"), None)]);
        let next = held.next(&third, Generation(8), LARGE).unwrap();
        assert_eq!(names(&next).1, [endpoints("a"), destination("a")]);
        held.acknowledged(next.nonce).unwrap();
        assert_eq!(held.standing(&third), Standing::InSync);
    }

    #[test]
    fn what_is_refused_waits_until_it_changes_and_holds_nothing_else_up() {
        let mut held = Held::default();
        held.subscribe([service("a").into(), service("b").into()]);
        let bad = known(&[(destination("a"), Some("bad")), (destination("b"), Some("1"))]);
        let next = held.next(&bad, Generation(1), LARGE).unwrap();
        let named = destination("a").to_string();
        assert!(held.refused(next.nonce, &named).is_some());
        let next = held.next(&bad, Generation(1), LARGE).unwrap();
        assert_eq!(
            names(&next).0,
            [destination("b")],
            "the rest, without the bad one"
        );
        held.acknowledged(next.nonce).unwrap();
        assert_eq!(held.standing(&bad), Standing::Refused);
        let good = known(&[(destination("a"), Some("good")), (destination("b"), Some("1"))]);
        let next = held.next(&good, Generation(2), LARGE).unwrap();
        assert_eq!(names(&next).0, [destination("a")]);
        held.acknowledged(next.nonce).unwrap();
        assert_eq!(held.standing(&good), Standing::InSync);
    }

    #[test]
    fn a_refusal_of_nothing_in_particular_is_one_of_everything() {
        let mut held = Held::default();
        let one = known(&[(ResourceName::Inbound, Some("1"))]);
        let next = held.next(&one, Generation(1), LARGE).unwrap();
        assert!(held.refused(next.nonce, "").is_some());
        assert_eq!(held.standing(&one), Standing::Refused);
        assert_eq!(held.next(&one, Generation(2), LARGE), None);
    }

    #[test]
    fn every_question_is_answered_even_with_what_is_known() {
        let in_use = [(destination("a"), "1".to_owned())].into();
        let mut held = Held::new([service("a").into()].into(), in_use);
        assert_eq!(
            held.standing(&known(&[(destination("a"), Some("1"))])),
            Standing::InSync
        );
        held.subscribe([service("a").into(), service("nobody").into()]);
        let both = known(&[(destination("a"), Some("1")), (destination("nobody"), None)]);
        let next = held.next(&both, Generation(1), LARGE).unwrap();
        assert_eq!(
            names(&next),
            (vec![destination("a")], vec![destination("nobody")])
        );
        // Asked once more while the answer is on its way: it may have been forgotten before it came.
        held.subscribe([service("a").into()]);
        held.acknowledged(next.nonce).unwrap();
        let next = held.next(&both, Generation(1), LARGE).unwrap();
        assert_eq!(names(&next), (vec![destination("a")], vec![]));
    }

    #[test]
    fn what_is_forgotten_is_not_named_any_more() {
        let in_use = [(destination("a"), "1".to_owned())].into();
        let mut held = Held::new([service("a").into()].into(), in_use);
        held.forget([service("a").into()]);
        assert_eq!(held.standing(&known(&[])), Standing::InSync);
        held.subscribe([service("a").into()]);
        let next = held.next(&known(&[(destination("a"), Some("1"))]), Generation(1), LARGE);
        assert_eq!(names(&next.unwrap()).0, [destination("a")]);
    }

    #[test]
    fn a_large_difference_comes_in_parts_and_what_fits_nowhere_is_refused() {
        let large = "x".repeat(200);
        let wanted = known(&[
            (destination("a"), Some(&large)),
            (destination("b"), Some(&large)),
            (destination("c"), Some("c")),
        ]);
        let mut held = Held::default();
        let next = held.next(&wanted, Generation(1), 512).unwrap();
        assert_eq!((next.changed.len(), next.is_last), (2, false));
        assert!(!held.acknowledged(next.nonce).unwrap().is_last);
        let next = held.next(&wanted, Generation(1), 512).unwrap();
        assert_eq!((next.changed.len(), next.is_last), (1, true));
        held.acknowledged(next.nonce).unwrap();
        assert_eq!(held.standing(&wanted), Standing::InSync);

        let mut held = Held::default();
        assert_eq!(held.refuse_too_large(&wanted, 256), Some((destination("a"), 200)));
        assert_eq!(held.refuse_too_large(&wanted, 256), Some((destination("b"), 200)));
        assert_eq!(held.refuse_too_large(&wanted, 256), None);
        let next = held.next(&wanted, Generation(1), 256).unwrap();
        assert_eq!(names(&next).0, [destination("c")]);
    }

    #[test]
    fn a_nonce_that_was_not_sent_means_nothing() {
        let mut held = Held::default();
        assert_eq!(held.acknowledged(1), None);
        let one = known(&[(destination("a"), Some("1"))]);
        let next = held.next(&one, Generation(1), LARGE).unwrap();
        assert_eq!(held.acknowledged(next.nonce + 1), None);
        assert_eq!(held.refused(next.nonce + 1, ""), None);
        assert_eq!(held.standing(&one), Standing::Waiting);
    }

    proptest! {
        /// Whatever happens on the way, a proxy that does as it is told ends with what it should know.
        #[test]
        fn a_proxy_ends_with_what_it_should_know(
            states in prop::collection::vec(prop::collection::btree_map(0u8..6, prop::option::of(0u8..3), 0..6), 1..6),
            refuse in prop::collection::vec(any::<bool>(), 12),
        ) {
            let name = |number: u8| match number % 2 {
                0 => destination(&format!("s{number}")),
                _ => endpoints(&format!("s{number}")),
            };
            let mut held = Held::default();
            let mut proxy: BTreeMap<ResourceName, String> = BTreeMap::new();
            let mut refuse = refuse.into_iter();
            let mut last = Known::new();
            for (generation, state) in states.iter().enumerate() {
                let entries = state.iter().filter(|(number, version)| *number % 2 == 0 || version.is_some());
                let entries = entries.map(|(number, version)| (name(*number), *version));
                last = entries.map(|(name, version)| (name, version.map(|v| encoded(&v.to_string())))).collect();
                if let Some(next) = held.next(&last, Generation(generation as u64), 150) {
                    if refuse.next() == Some(true) {
                        held.refused(next.nonce, "");
                        continue;
                    }
                    used(&mut proxy, &next);
                    held.acknowledged(next.nonce);
                }
            }
            // Refused content is asked for anew, and taken.
            let subscribed = last.keys().filter_map(|name| match name {
                ResourceName::Destination(service) => Some(service.clone()),
                _ => None,
            });
            held.subscribe(subscribed.map(Question::from).collect::<Vec<_>>());
            held.refused.clear();
            while let Some(next) = held.next(&last, Generation(99), 150) {
                used(&mut proxy, &next);
                held.acknowledged(next.nonce);
            }
            // Destinations that nobody asks for any more are the proxy's to forget.
            proxy.retain(|name, _| last.contains_key(name) || matches!(name, ResourceName::Endpoints(_)));
            let expected: BTreeMap<_, _> = last
                .iter()
                .filter_map(|(name, wanted)| Some((name.clone(), wanted.as_ref()?.version.clone())))
                .collect();
            prop_assert_eq!(proxy, expected);
            prop_assert_eq!(held.standing(&last), Standing::InSync);
        }
    }

    fn used(proxy: &mut BTreeMap<ResourceName, String>, next: &Next) {
        for name in &next.removed {
            proxy.remove(name);
        }
        for (name, encoded) in &next.changed {
            proxy.insert(name.clone(), encoded.version.clone());
        }
    }
}
