//! One endpoint as a worker sees it, and one attempt at it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use decision::traffic::balance::PeakEwma;
use decision::traffic::session::EndpointKey;
use model::Endpoint;
use model::gateway::{BackendTls, Certificate};

use super::pool::Upstream;

/// One endpoint.
pub(crate) struct Member {
    pub(crate) place: Place,
    /// As sessions name it.
    pub(crate) key: EndpointKey,
    pub(crate) upstream: Rc<Upstream>,
    pub(super) load: RefCell<PeakEwma>,
    /// Its place among the members.
    pub(super) at: Cell<usize>,
}

/// Where an endpoint is, and whose. Only what configuration lists as outside the mesh is ever called without mTLS.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Workload(Arc<Endpoint>),
    Outside {
        address: SocketAddr,
        /// `None`: in plain.
        tls: Option<Arc<BackendTls>>,
        /// Whom this proxy is there, if asked within TLS.
        shown: Option<Arc<Certificate>>,
    },
}

/// An endpoint chosen for one attempt; its load counts the attempt until it is answered or this is dropped.
pub(crate) struct Picked {
    pub(crate) member: Rc<Member>,
    pub(super) started: Instant,
    pub(super) in_flight: Rc<Cell<usize>>,
    pub(super) answered: Cell<bool>,
}

impl Place {
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Workload(endpoint) => endpoint.address,
            Self::Outside { address, .. } => *address,
        }
    }

    /// Whether both are one endpoint, to be reached in the same way; its labels may differ.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Workload(one), Self::Workload(other)) => {
                one.workload == other.workload
                    && one.address == other.address
                    && one.identity == other.identity
            }
            (
                Self::Outside { address, tls, shown },
                Self::Outside {
                    address: other,
                    tls: others,
                    shown: instead,
                },
            ) => address == other && tls == others && shown == instead,
            _ => false,
        }
    }
}

/// The workload's id; outside the mesh, where there is none, the address.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(endpoint) => endpoint.workload.fmt(f),
            Self::Outside { address, .. } => address.fmt(f),
        }
    }
}

impl Picked {
    /// How long it has been since it was chosen.
    pub(crate) fn took(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// The response's head has arrived.
    pub(crate) fn responded(&self, now: Instant) {
        self.answered.set(true);
        self.member
            .load
            .borrow_mut()
            .finish(now, now.saturating_duration_since(self.started));
    }

    /// Its caller waits no longer.
    pub(crate) fn given_up(&self, now: Instant) {
        self.answered.set(true);
        self.member.load.borrow_mut().give_up(now, self.took(now));
    }

    /// There is no answer: no connection, a broken one, or no time left.
    pub(crate) fn failed(&self, now: Instant) {
        self.answered.set(true);
        self.member
            .load
            .borrow_mut()
            .fail(now, now.saturating_duration_since(self.started));
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.in_flight.set(self.in_flight.get() - 1);
        if !self.answered.get() {
            self.member.load.borrow_mut().cancel();
        }
    }
}
