//! What one proxy has, and what follows from it: the next update, or nothing. No I/O and no clock.

use std::collections::{BTreeMap, BTreeSet};

use model::{ResourceName, ServiceName};

/// The version of a resource that does not exist.
const ABSENT: &str = "";

/// What a proxy is known to use, and what it asked for.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) subscriptions: BTreeSet<ServiceName>,
    /// Acknowledged, or said at the beginning.
    in_use: BTreeMap<ResourceName, String>,
    /// Asked for and not answered yet, even if it is in use.
    unanswered: BTreeSet<ResourceName>,
    in_flight: Option<InFlight>,
    /// What the proxy refused; not sent again before it differs.
    refused: Option<Difference>,
    last_nonce: u64,
}

#[derive(Debug)]
struct InFlight {
    nonce: u64,
    generation: u64,
    difference: Difference,
}

/// What an update changes: versions by name, [`ABSENT`] for what is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Difference {
    versions: BTreeMap<ResourceName, String>,
    /// No longer wanted: not in use any more once it is acknowledged.
    dropped: BTreeSet<ResourceName>,
}

/// An update to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) nonce: u64,
    pub(super) changed: Vec<ResourceName>,
    pub(super) removed: Vec<ResourceName>,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Send(Next),
    /// The proxy uses everything it should.
    InSync,
    /// It has yet to answer, or refused exactly this.
    Wait,
}

impl Held {
    /// What the proxy says that it has from an earlier stream.
    pub(super) fn new(subscriptions: BTreeSet<ServiceName>, in_use: BTreeMap<ResourceName, String>) -> Self {
        let unanswered = subscriptions
            .iter()
            .map(|service| ResourceName::Destination(service.clone()))
            .filter(|name| !in_use.contains_key(name))
            .collect();
        Self {
            subscriptions,
            in_use,
            unanswered,
            ..Self::default()
        }
    }

    pub(super) fn subscribe(&mut self, services: impl IntoIterator<Item = ServiceName>) {
        for service in services {
            self.unanswered.insert(ResourceName::Destination(service.clone()));
            self.subscriptions.insert(service);
        }
    }

    /// The proxy has forgotten these: they count as never sent.
    pub(super) fn forget(&mut self, services: impl IntoIterator<Item = ServiceName>) {
        for service in services {
            self.subscriptions.remove(&service);
            let name = ResourceName::Destination(service);
            self.in_use.remove(&name);
            self.unanswered.remove(&name);
            if let Some(in_flight) = &mut self.in_flight {
                in_flight.difference.versions.remove(&name);
            }
        }
    }

    /// Compares with what the proxy should have: `None` is the version of what does not exist.
    pub(super) fn next(&mut self, wanted: &BTreeMap<ResourceName, Option<String>>, generation: u64) -> Step {
        if self.in_flight.is_some() {
            return Step::Wait;
        }
        let difference = self.difference(wanted);
        if difference == Difference::default() {
            return Step::InSync;
        }
        if self.refused.as_ref() == Some(&difference) {
            return Step::Wait;
        }
        self.last_nonce += 1;
        let (gone, changed): (Vec<_>, Vec<_>) = difference
            .versions
            .iter()
            .partition(|(_, version)| version.as_str() == ABSENT);
        let next = Next {
            nonce: self.last_nonce,
            changed: changed.into_iter().map(|(name, _)| name.clone()).collect(),
            removed: gone
                .into_iter()
                .map(|(name, _)| name.clone())
                .chain(difference.dropped.clone())
                .collect(),
        };
        self.unanswered
            .retain(|name| !difference.versions.contains_key(name));
        self.in_flight = Some(InFlight {
            nonce: next.nonce,
            generation,
            difference,
        });
        Step::Send(next)
    }

    fn difference(&self, wanted: &BTreeMap<ResourceName, Option<String>>) -> Difference {
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| ABSENT.to_owned());
        let versions = wanted
            .iter()
            .map(|(name, wanted)| (name, version(wanted)))
            .filter(|(name, wanted)| {
                self.in_use.get(*name) != Some(wanted) || self.unanswered.contains(*name)
            })
            .map(|(name, wanted)| (name.clone(), wanted))
            .collect();
        let unwanted = self.in_use.keys().filter(|name| !wanted.contains_key(*name));
        Difference {
            versions,
            dropped: unwanted.cloned().collect(),
        }
    }

    /// The update is in use. Returns its generation; `None` where no such update is out.
    pub(super) fn acknowledged(&mut self, nonce: u64) -> Option<u64> {
        let in_flight = self.in_flight.take_if(|in_flight| in_flight.nonce == nonce)?;
        self.in_use.extend(in_flight.difference.versions);
        for name in in_flight.difference.dropped {
            self.in_use.remove(&name);
        }
        self.refused = None;
        Some(in_flight.generation)
    }

    /// The update is not in use, and will not be. Returns its generation.
    pub(super) fn refused(&mut self, nonce: u64) -> Option<u64> {
        let in_flight = self.in_flight.take_if(|in_flight| in_flight.nonce == nonce)?;
        // What was asked for is still unanswered, so that the same difference comes out and is held back.
        let asked = in_flight.difference.versions.keys();
        let asked = asked.filter(|name| !self.in_use.contains_key(*name)).cloned();
        self.unanswered
            .extend(asked.filter(|name| matches!(name, ResourceName::Destination(_))));
        self.refused = Some(in_flight.difference);
        Some(in_flight.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ServiceName {
        format!("default/{name}").parse().unwrap()
    }

    fn destination(name: &str) -> ResourceName {
        ResourceName::Destination(service(name))
    }

    fn wanted(versions: &[(&str, Option<&str>)]) -> BTreeMap<ResourceName, Option<String>> {
        versions
            .iter()
            .map(|(name, version)| (destination(name), version.map(str::to_owned)))
            .collect()
    }

    fn sent(step: Step) -> Next {
        match step {
            Step::Send(next) => next,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_differences_are_sent_and_one_at_a_time() {
        let mut held = Held::new([service("a")].into(), BTreeMap::new());
        let first = sent(held.next(&wanted(&[("a", Some("1")), ("b", Some("1"))]), 5));
        assert_eq!(first.changed, [destination("a"), destination("b")]);
        assert_eq!(
            held.next(&wanted(&[("a", Some("2")), ("b", Some("1"))]), 6),
            Step::Wait
        );
        assert_eq!(held.acknowledged(first.nonce), Some(5));
        let second = sent(held.next(&wanted(&[("a", Some("2")), ("b", Some("1"))]), 6));
        assert_eq!(second.changed, [destination("a")]);
        held.acknowledged(second.nonce);
        assert_eq!(
            held.next(&wanted(&[("a", Some("2")), ("b", Some("1"))]), 7),
            Step::InSync
        );
        let third = sent(held.next(&wanted(&[("a", Some("2"))]), 8));
        assert_eq!((third.changed, third.removed), (vec![], vec![destination("b")]));
    }

    #[test]
    fn what_is_refused_is_not_sent_again_before_it_changes() {
        let mut held = Held::new(BTreeSet::new(), BTreeMap::new());
        let first = sent(held.next(&wanted(&[("a", Some("bad"))]), 1));
        assert_eq!(held.refused(first.nonce), Some(1));
        assert_eq!(held.next(&wanted(&[("a", Some("bad"))]), 2), Step::Wait);
        let again = sent(held.next(&wanted(&[("a", Some("good"))]), 3));
        assert_eq!(again.changed, [destination("a")]);
    }

    #[test]
    fn every_question_is_answered_even_with_what_is_known() {
        let known = [(destination("a"), "1".to_owned())].into();
        let mut held = Held::new([service("a")].into(), known);
        assert_eq!(held.next(&wanted(&[("a", Some("1"))]), 1), Step::InSync);
        held.subscribe([service("a"), service("nobody")]);
        let next = sent(held.next(&wanted(&[("a", Some("1")), ("nobody", None)]), 1));
        assert_eq!(
            (next.changed, next.removed),
            (vec![destination("a")], vec![destination("nobody")])
        );
    }

    #[test]
    fn what_is_forgotten_counts_as_never_sent() {
        let mut held = Held::new([service("a")].into(), [(destination("a"), "1".to_owned())].into());
        held.forget([service("a")]);
        assert_eq!(held.next(&wanted(&[]), 1), Step::InSync);
        held.subscribe([service("a")]);
        assert_eq!(
            sent(held.next(&wanted(&[("a", Some("1"))]), 1)).changed,
            [destination("a")]
        );
    }

    #[test]
    fn a_nonce_that_was_not_sent_means_nothing() {
        let mut held = Held::new(BTreeSet::new(), BTreeMap::new());
        assert_eq!(held.acknowledged(1), None);
        let first = sent(held.next(&wanted(&[("a", Some("1"))]), 1));
        assert_eq!(held.acknowledged(first.nonce + 1), None);
        assert_eq!(held.next(&wanted(&[]), 1), Step::Wait);
    }
}
