//! The ledger of routes in shadow: how live requests compare with what these would do with them, for all workers.
//!
//! It follows the configuration: where a route in shadow has to do with a destination, requests for it are watched, and
//! what was counted is forgotten as soon as its rules are others. A lock is taken only where a request would move.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use decision::traffic::shadow::{Differences, Example, Governed, Place, Tally, is_different};
use model::gateway::{Gateway, HttpRoutes, Listener, Serves};
use model::{Destination, ServicePort, Snapshot};
use tokio::sync::Notify;

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
    requests: AtomicU64,
}

/// What a place's rules, in force and in shadow, are part of.
enum Version {
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
            let mut book = self.book();
            let known = book.watched.get(&watch.place);
            // It may have been chosen under rules that are gone by now.
            if known.is_some_and(|known| Arc::ptr_eq(&known.watch, watch)) {
                book.tally.note(&watch.place, now.name(), then.name(), example);
            }
        }
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
        match (self, other) {
            (Self::Service(one), Self::Service(other)) => Arc::ptr_eq(one, other),
            (Self::Listener(one, place), Self::Listener(other, at)) => Arc::ptr_eq(one, other) && place == at,
            _ => false,
        }
    }

    fn has_same_rules(&self, other: &Self, port: u16) -> bool {
        match (self, other) {
            _ if self.is(other) => true,
            (Self::Service(one), Self::Service(other)) => {
                let rules = |destination: &Destination| {
                    let port = destination.ports.get(&port)?;
                    Some((port.rules.clone(), port.shadow.clone()))
                };
                rules(one) == rules(other)
            }
            (Self::Listener(one, place), Self::Listener(other, at)) => {
                let (one, other) = (one.listeners.get(*place), other.listeners.get(*at));
                one.zip(other)
                    .is_some_and(|(one, other)| routes(one) == routes(other) && one.shadow == other.shadow)
            }
            _ => false,
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
    let services = snapshot.destinations.values().flatten().flat_map(|destination| {
        let ports = destination.ports.iter().filter(|(_, port)| port.shadow.is_some());
        ports.map(|(number, _)| {
            let place = service(&destination.service.port(*number));
            (place, Version::Service(destination.clone()))
        })
    });
    let listeners = snapshot.gateway.iter().flat_map(|gateway| {
        let listeners = gateway.listeners.iter().enumerate();
        let listeners = listeners.filter(|(_, listener)| listener.shadow.is_some());
        listeners.map(|(at, found)| (listener(gateway, found), Version::Listener(gateway.clone(), at)))
    });
    services.chain(listeners)
}

/// `None` where nothing is in shadow at a place.
fn version(snapshot: &Snapshot, place: &Place) -> Option<Version> {
    let Some(name) = &place.listener else {
        let destination = snapshot.destinations.get(&place.called.service)?.as_ref()?;
        destination.ports.get(&place.called.port)?.shadow.as_ref()?;
        return Some(Version::Service(destination.clone()));
    };
    let gateway = snapshot.gateway.as_ref()?;
    let mut listeners = gateway.listeners.iter();
    let at = listeners.position(|listener| listener.name == *name && listener.shadow.is_some())?;
    Some(Version::Listener(gateway.clone(), at))
}

#[cfg(test)]
mod tests;
