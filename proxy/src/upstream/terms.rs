//! What a policy says about the connections to one endpoint: how they are opened, how many there may be, and for how long.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use decision::Reason;
use model::TrafficPolicy;
use model::traffic_policy::{CircuitBreaker, ConnectionPolicy};

use super::dial::{Route, Spoken};
use super::joint::{ConnectionPermit, Counted, Joint, JointEndpoint};
use super::pool::Idle;
use crate::leg::Leg;
use crate::settings::Limits;

/// The terms on which an upstream is connected to.
pub(super) struct Terms {
    pub(super) connection: ConnectionPolicy,
    breaker: Option<CircuitBreaker>,
    joint: Arc<Joint>,
    endpoint: Arc<JointEndpoint>,
    limits: Arc<Limits>,
    /// Requests that wait for a connection to this endpoint.
    waiting: Cell<u32>,
}

/// How long a connection has been open, and for how many requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Age {
    pub(crate) opened: Instant,
    pub(crate) requests: u32,
}

/// How a request gets a connection.
pub(super) enum Leave {
    Open(ConnectionPermit),
    /// One has become free.
    Reuse(Box<Idle>),
}

impl Age {
    pub(crate) fn new() -> Self {
        Self {
            opened: Instant::now(),
            requests: 0,
        }
    }
}

impl Terms {
    pub(super) fn new(
        policy: &TrafficPolicy,
        joint: Arc<Joint>,
        endpoint: Arc<JointEndpoint>,
        limits: Arc<Limits>,
    ) -> Self {
        Self {
            connection: policy.connection.unwrap_or_default(),
            breaker: policy.breaker,
            joint,
            endpoint,
            limits,
            waiting: Cell::new(0),
        }
    }

    /// Whether requests to other endpoints wait for room, and none to this one.
    pub(super) fn is_wanted_elsewhere(&self) -> bool {
        self.joint.now(Counted::Pending) > 0 && self.waiting.get() == 0
    }

    /// Whether a connection of this age takes another request.
    pub(super) fn keeps(&self, age: &Age) -> bool {
        let most = self
            .breaker
            .and_then(|breaker| breaker.max_requests_per_connection);
        most.is_none_or(|most| age.requests < most)
            && self
                .connection
                .max_duration
                .is_none_or(|most| age.opened.elapsed() < most)
    }

    /// When a connection that came out of use then is to be closed, where the policy limits its time.
    pub(super) fn end(&self, age: &Age, unused_since: Instant) -> Option<Instant> {
        let ConnectionPolicy {
            idle_timeout,
            max_duration,
            ..
        } = self.connection;
        let ends = [
            idle_timeout.map(|most| unused_since + most),
            max_duration.map(|most| age.opened + most),
        ];
        ends.into_iter().flatten().min()
    }

    /// Whether no more connections may be opened now.
    pub(super) fn is_full(&self) -> bool {
        self.joint.is_full(&self.endpoint, self.breaker.as_ref())
    }

    /// A connection has become free.
    pub(super) fn freed(&self) {
        if self.joint.now(Counted::Pending) > 0 {
            self.joint.freed.notify_waiters();
        }
    }

    /// Waits until a connection may be opened, or `free` gives one. `free` is only asked where none may be opened.
    ///
    /// # Errors
    /// [`Reason::Overflow`] where too many wait already, or after the time that opening one may take.
    pub(super) async fn leave(&self, free: impl Fn() -> Option<Box<Idle>>) -> Result<Leave, Reason> {
        if let Some(permit) = self.permit() {
            return Ok(Leave::Open(permit));
        }
        let most = self.breaker.map_or(u32::MAX, |breaker| breaker.max_pending);
        let pending = self.joint.take(Counted::Pending, most);
        let _pending = pending.ok_or(Reason::Overflow)?;
        let _waiting = Waiting::new(&self.waiting);
        let end = Instant::now() + self.connect_timeout();
        loop {
            let mut freed = Box::pin(self.joint.freed.notified());
            // From here on nothing is missed.
            freed.as_mut().enable();
            if let Some(idle) = free() {
                return Ok(Leave::Reuse(idle));
            }
            if let Some(permit) = self.permit() {
                return Ok(Leave::Open(permit));
            }
            let waited = tokio::time::timeout_at(end.into(), freed).await;
            waited.map_err(|_| Reason::Overflow)?;
        }
    }

    pub(super) async fn dial(
        &self,
        route: &Route,
        spoken: Spoken,
        permit: ConnectionPermit,
    ) -> Result<Leg, Reason> {
        let leg = route
            .dial(spoken, self.connect_timeout(), self.connection.keepalive)
            .await?;
        Ok(Leg::Counted(Box::new((leg, permit))))
    }

    fn permit(&self) -> Option<ConnectionPermit> {
        self.joint.connection(&self.endpoint, self.breaker.as_ref())
    }

    fn connect_timeout(&self) -> std::time::Duration {
        let own = self.connection.connect_timeout;
        own.unwrap_or(self.limits.connect_timeout)
    }
}

/// Counts one that waits, until it is dropped.
struct Waiting<'t>(&'t Cell<u32>);

impl<'t> Waiting<'t> {
    fn new(count: &'t Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
