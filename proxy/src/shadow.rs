//! The ledger of routes in shadow: how live requests compare with what these would do with them, for all workers.
//!
//! It follows the configuration: where something in shadow has to do with a destination, requests for it are watched, and what
//! was counted is forgotten as soon as its rules, or the policies of its backends, are others. A lock is taken only where a
//! request would fare differently.

mod trial;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use decision::traffic::shadow::{Differences, Example, Governed, Governor, Place, Tally, is_different};
use model::gateway::{Gateway, HttpRoutes, Listener, Serves};
use model::route::Rule;
use model::{Destination, EndpointSet, ServicePort, Snapshot};
use tokio::sync::Notify;

pub(crate) use self::trial::{Done, InForce, Trial, Tried};

/// What all workers have counted.
#[derive(Default)]
pub(crate) struct Ledger {
    book: Mutex<Book>,
    /// Whether something changed since the last report.
    is_news: AtomicBool,
    news: Notify,
}

#[derive(Default)]
struct Book {
    watched: BTreeMap<Place, Watched>,
    tally: Tally,
}

struct Watched {
    version: Version,
    watch: Arc<Watch>,
}

/// One place at which requests are compared, for as long as its rules stay the same.
pub(crate) struct Watch {
    place: Place,
    /// Whether routes are in shadow here, and not policies alone.
    compares_routes: bool,
    requests: AtomicU64,
}

impl Watch {
    pub(crate) fn compares_routes(&self) -> bool {
        self.compares_routes
    }
}

/// What a place's rules and policies, in force and in shadow, are part of.
struct Version {
    of: Whose,
    /// The backends of the rules that policies in shadow are for.
    backends: Vec<(u16, Arc<EndpointSet>)>,
}

enum Whose {
    Service(Arc<Destination>),
    /// The listener at this place.
    Listener(Arc<Gateway>, usize),
}

/// What was counted at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) place: Place,
    /// Requests that were compared.
    pub(crate) requests: u64,
    pub(crate) differences: Differences,
}

impl Ledger {
    /// Watches what this configuration has in shadow, and forgets everything else; true where that is news. To be called
    /// before the configuration is used.
    pub(crate) fn follow(&self, snapshot: &Snapshot) -> bool {
        let mut book = self.book();
        let Book { watched, tally } = &mut *book;
        let mut before = std::mem::take(watched);
        let mut is_news = false;
        for (place, version) in in_shadow(snapshot) {
            let known = before.remove(&place);
            let known = known.filter(|known| known.version.has_same_rules(&version, place.called.port));
            let watch = known.map(|known| known.watch).unwrap_or_else(|| {
                is_news = true;
                tally.forget(&place);
                Arc::new(Watch {
                    place: place.clone(),
                    compares_routes: version.compares_routes(place.called.port),
                    requests: AtomicU64::new(0),
                })
            });
            watched.insert(place, Watched { version, watch });
        }
        for place in before.keys() {
            is_news = true;
            tally.forget(place);
        }
        drop(book);
        if is_news {
            self.tell();
        }
        is_news
    }

    /// Where to compare the requests for a service that is called, or at a gateway's listener; `None` where nothing is in
    /// shadow, or where `snapshot` is older than the one that is followed.
    pub(crate) fn watch(&self, place: &Place, snapshot: &Snapshot) -> Option<Arc<Watch>> {
        let version = version(snapshot, place)?;
        let book = self.book();
        let watched = book.watched.get(place)?;
        watched.version.is(&version).then(|| watched.watch.clone())
    }

    /// Counts a request that `now` governs and `then` would; `example` is asked for where it is the first that differs so.
    pub(crate) fn compare(
        &self,
        watch: &Arc<Watch>,
        now: &Governed<'_>,
        then: &Governed<'_>,
        example: impl FnOnce() -> Example,
    ) {
        watch.requests.fetch_add(1, Ordering::Relaxed);
        if is_different(&watch.place.called, now, then) {
            self.differ(watch, now.name(), then.name(), example);
        }
        self.tell();
    }

    /// Counts a request that is held against policies, unless routes are compared as well, which counts it.
    fn count(&self, watch: &Watch) {
        if !watch.compares_routes {
            watch.requests.fetch_add(1, Ordering::Relaxed);
            self.tell();
        }
    }

    /// Counts that a request would fare differently.
    fn differ(&self, watch: &Arc<Watch>, now: Governor, then: Governor, example: impl FnOnce() -> Example) {
        let mut book = self.book();
        let known = book.watched.get(&watch.place);
        // It may have been chosen under rules that are gone by now.
        if known.is_some_and(|known| Arc::ptr_eq(&known.watch, watch)) {
            book.tally.note(&watch.place, now, then, example);
        }
        drop(book);
        self.tell();
    }

    /// Waits until something changed since the last report.
    pub(crate) async fn changed(&self) {
        while !self.is_news.load(Ordering::Acquire) {
            self.news.notified().await;
        }
    }

    /// Everything, by place.
    pub(crate) fn report(&self) -> Vec<Compared> {
        // Before anything is read: what is counted from now on is news again.
        self.is_news.swap(false, Ordering::AcqRel);
        let book = self.book();
        let compared = book.watched.iter().map(|(place, watched)| Compared {
            place: place.clone(),
            requests: watched.watch.requests.load(Ordering::Relaxed),
            differences: book.tally.at(place).cloned().unwrap_or_default(),
        });
        compared.collect()
    }

    /// Has everything reported once more, where there is something: whoever reads has just begun.
    pub(crate) fn repeat(&self) {
        if !self.book().watched.is_empty() {
            self.tell();
        }
    }

    fn tell(&self) {
        if !self.is_news.swap(true, Ordering::AcqRel) {
            self.news.notify_one();
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Version {
    fn is(&self, other: &Self) -> bool {
        let is_whose = match (&self.of, &other.of) {
            (Whose::Service(one), Whose::Service(other)) => Arc::ptr_eq(one, other),
            (Whose::Listener(one, place), Whose::Listener(other, at)) => {
                Arc::ptr_eq(one, other) && place == at
            }
            _ => false,
        };
        let sets = |version: &Self| -> Vec<_> {
            let sets = version.backends.iter();
            sets.map(|(port, set)| (*port, Arc::as_ptr(set))).collect()
        };
        is_whose && sets(self) == sets(other)
    }

    fn has_same_rules(&self, other: &Self, port: u16) -> bool {
        if self.is(other) {
            return true;
        }
        let has_same_rules = match (&self.of, &other.of) {
            (Whose::Service(one), Whose::Service(other)) => {
                let rules = |destination: &Destination| {
                    let port = destination.ports.get(&port)?;
                    Some((port.rules.clone(), port.shadow.clone()))
                };
                rules(one) == rules(other)
            }
            (Whose::Listener(one, place), Whose::Listener(other, at)) => {
                let (one, other) = (one.listeners.get(*place), other.listeners.get(*at));
                one.zip(other)
                    .is_some_and(|(one, other)| routes(one) == routes(other) && one.shadow == other.shadow)
            }
            _ => false,
        };
        // Endpoints come and go: what is compared with stays the same.
        let policies = |(port, set): &(u16, Arc<EndpointSet>)| {
            let of_port = (
                set.policies.get(port).cloned(),
                set.faults.get(port).cloned(),
                set.shadow.get(port).cloned(),
            );
            (set.service.port(*port), of_port)
        };
        has_same_rules && (self.backends.iter().map(policies)).eq(other.backends.iter().map(policies))
    }

    fn compares_routes(&self, port: u16) -> bool {
        match &self.of {
            Whose::Service(destination) => {
                let port = destination.ports.get(&port);
                port.is_some_and(|port| port.shadow.is_some())
            }
            Whose::Listener(gateway, at) => {
                let listener = gateway.listeners.get(*at);
                listener.is_some_and(|listener| listener.shadow.is_some())
            }
        }
    }
}

fn routes(listener: &Listener) -> Option<&HttpRoutes> {
    match &listener.serves {
        Serves::Http(routes) | Serves::Https(_, routes) => Some(routes),
        _ => None,
    }
}

/// The place of a service that is called.
pub(crate) fn service(called: &ServicePort) -> Place {
    Place {
        called: called.clone(),
        listener: None,
    }
}

/// The place of a gateway's listener.
pub(crate) fn listener(gateway: &Gateway, listener: &Listener) -> Place {
    Place {
        called: gateway.name.port(listener.port),
        listener: Some(listener.name.clone()),
    }
}

/// Where something is in shadow.
fn in_shadow(snapshot: &Snapshot) -> impl Iterator<Item = (Place, Version)> + '_ {
    let services = snapshot
        .destinations
        .values()
        .flatten()
        .flat_map(move |destination| {
            let ports = destination.ports.keys();
            ports.filter_map(move |number| {
                let called = destination.service.port(*number);
                Some((service(&called), of_service(snapshot, destination, &called)?))
            })
        });
    let listeners = snapshot.gateway.iter().flat_map(move |gateway| {
        let places = 0..gateway.listeners.len();
        places.filter_map(move |at| {
            let place = listener(gateway, gateway.listeners.get(at)?);
            Some((place, of_listener(snapshot, gateway, at)?))
        })
    });
    services.chain(listeners)
}

/// `None` where nothing is in shadow at a place.
fn version(snapshot: &Snapshot, place: &Place) -> Option<Version> {
    let Some(name) = &place.listener else {
        let destination = snapshot.destinations.get(&place.called.service)?.as_ref()?;
        return of_service(snapshot, destination, &place.called);
    };
    let gateway = snapshot.gateway.as_ref()?;
    let mut listeners = gateway.listeners.iter();
    let at = listeners.position(|listener| listener.name == *name)?;
    of_listener(snapshot, gateway, at)
}

fn of_service(snapshot: &Snapshot, destination: &Arc<Destination>, called: &ServicePort) -> Option<Version> {
    let port = destination.ports.get(&called.port)?;
    let own = port.rules.is_empty().then_some(called);
    let backends = shadowed(snapshot, &port.rules, own);
    let is_some = port.shadow.is_some() || backends.is_some();
    is_some.then(|| Version {
        of: Whose::Service(destination.clone()),
        backends: backends.unwrap_or_default(),
    })
}

fn of_listener(snapshot: &Snapshot, gateway: &Arc<Gateway>, at: usize) -> Option<Version> {
    let listener = gateway.listeners.get(at)?;
    let rules = routes(listener).map_or(&[][..], |routes| &routes.rules);
    let backends = shadowed(snapshot, rules, None);
    let is_some = listener.shadow.is_some() || backends.is_some();
    is_some.then(|| Version {
        of: Whose::Listener(gateway.clone(), at),
        backends: backends.unwrap_or_default(),
    })
}

/// The backends of these rules, or whom requests go to without any, that policies in shadow are for. `None` where there are
/// none of either, and none for the rules themselves.
fn shadowed(
    snapshot: &Snapshot,
    rules: &[Rule],
    own: Option<&ServicePort>,
) -> Option<Vec<(u16, Arc<EndpointSet>)>> {
    let mut shadowed = BTreeMap::new();
    // Most configurations have nothing in shadow at all.
    if snapshot.endpoints.values().any(|set| !set.shadow.is_empty()) {
        let backends = rules.iter().flat_map(|rule| &rule.backends);
        let targets = backends.filter_map(|backend| backend.target.as_ref());
        for target in targets.chain(own) {
            let set = snapshot.endpoints.get(&target.service);
            if let Some(set) = set.filter(|set| set.shadow.contains_key(&target.port)) {
                shadowed.insert(target, (target.port, set.clone()));
            }
        }
    }
    let is_some = !shadowed.is_empty() || rules.iter().any(|rule| rule.shadow.is_some());
    is_some.then(|| shadowed.into_values().collect())
}

#[cfg(test)]
mod tests;
