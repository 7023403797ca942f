//! The connections of one worker to one upstream: many idle HTTP/1.1 ones, and few for HTTP/2.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use decision::Reason;
use http::{request, response};

use super::dial::{Route, Spoken};
use super::terms::{Age, Leave, Terms};
use super::watch::{Watch, look_after};
use crate::http::body::Answer;
use crate::http::http1::{self, UpstreamWire};
use crate::http::http2;
use crate::http::replay::ReplaySource;
use crate::leg::Leg;
use crate::settings::Limits;

/// One place that requests can be sent to, with its connections.
pub(crate) struct Upstream {
    pub(crate) route: Rc<Route>,
    limits: Arc<Limits>,
    idle: RefCell<Vec<Idle>>,
    http2: RefCell<Vec<Rc<http2::client::Connection>>>,
    watch: Arc<Watch>,
    is_watched: Cell<bool>,
    /// When the watch looks next by itself.
    next_look: Cell<Option<Instant>>,
    /// Locked while dialling, so that one worker opens one connection however many requests wait for it.
    dialling: tokio::sync::Mutex<()>,
    /// How dialling for HTTP/2 failed last, and when.
    failed: Cell<Option<(Instant, Reason)>>,
    /// What a policy says about its connections.
    terms: RefCell<Option<Rc<Terms>>>,
    /// Open, and to be used before another one is dialled.
    at_hand: RefCell<Option<Leg>>,
    idle_timeout: Cell<Duration>,
}

/// An HTTP/1.1 connection out of use.
pub(super) struct Idle {
    wire: UpstreamWire,
    since: Instant,
    age: Age,
}

/// A response's head, with its body still to come.
pub(crate) struct Forwarded {
    pub(crate) parts: response::Parts,
    pub(crate) answer: Answer,
}

/// Why a request got no response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendFailure {
    /// The upstream has not processed any of it.
    NotSent(Reason),
    /// It may have been processed.
    Broken(Reason),
}

/// Knows where an HTTP/1.1 connection goes back to.
pub(crate) struct Lease {
    upstream: Weak<Upstream>,
    age: Age,
}

impl Lease {
    /// Gives the connection back, if another exchange may follow on it.
    pub(crate) fn give_back(self, exchange: http1::client::Exchange) {
        let Some(upstream) = self.upstream.upgrade() else {
            return;
        };
        let Some(mut wire) = exchange.into_reusable() else {
            return;
        };
        let terms = upstream.terms.borrow().clone();
        let is_over = |terms: &Rc<Terms>| !terms.keeps(&self.age) || terms.is_wanted_elsewhere();
        if terms.as_ref().is_some_and(is_over) {
            return;
        }
        upstream.watch();
        let mut idle = upstream.idle.borrow_mut();
        if idle.len() < upstream.limits.pool_idle_connections {
            wire.get_mut().rest();
            if !wire.get_mut().is_quiet(&upstream.watch.clone().into()) {
                return;
            }
            idle.push(Idle {
                wire,
                since: Instant::now(),
                age: self.age,
            });
        }
        drop(idle);
        if let Some(terms) = terms {
            terms.freed();
            upstream.look_in_time(&self.age);
        }
    }
}

impl Upstream {
    pub(crate) fn new(route: Rc<Route>, limits: Arc<Limits>) -> Rc<Self> {
        Rc::new(Self {
            route,
            idle: RefCell::default(),
            http2: RefCell::default(),
            watch: Arc::default(),
            is_watched: Cell::new(false),
            next_look: Cell::new(None),
            dialling: tokio::sync::Mutex::default(),
            failed: Cell::new(None),
            terms: RefCell::default(),
            at_hand: RefCell::default(),
            idle_timeout: Cell::new(limits.pool_idle_timeout),
            limits,
        })
    }

    /// What a policy says about its connections from now on.
    pub(super) fn set_terms(self: &Rc<Self>, terms: Option<Rc<Terms>>) {
        let idle_timeout = terms.as_ref().and_then(|terms| terms.connection.idle_timeout);
        self.idle_timeout
            .set(idle_timeout.unwrap_or(self.limits.pool_idle_timeout));
        if terms.is_some() && self.terms.borrow().is_none() {
            let open = self.http2.borrow();
            open.iter().for_each(|connection| connection.belongs_to(self));
            if !open.is_empty() {
                self.watch();
            }
        }
        *self.terms.borrow_mut() = terms;
        if self.is_watched.get() {
            // The time of those out of use may be another.
            self.watch.look();
        }
    }

    /// Whether a connection is there that another request can use at once.
    pub(crate) fn has_idle(&self) -> bool {
        !self.idle.borrow().is_empty() || !self.http2.borrow().is_empty()
    }

    /// Closes a connection out of use; whether there was one.
    pub(super) fn close_one(&self) -> bool {
        if self.idle.borrow_mut().pop().is_some() {
            return true;
        }
        let mut connections = self.http2.borrow_mut();
        let unused = connections
            .iter()
            .position(|connection| connection.streams() == 0);
        unused.map(|at| connections.swap_remove(at)).is_some()
    }

    /// Sees to it that an idle connection which ends is closed at once.
    fn watch(self: &Rc<Self>) {
        if self.is_watched.replace(true) {
            return;
        }
        tokio::task::spawn_local(look_after(self.watch.clone(), Rc::downgrade(self)));
    }

    /// A connection of this age has come out of use: the watch must look when its time is over.
    pub(crate) fn look_in_time(&self, age: &Age) {
        let terms = self.terms.borrow();
        let end = terms.as_ref().and_then(|terms| terms.end(age, Instant::now()));
        if end.is_some_and(|end| self.next_look.get().is_none_or(|at| end < at)) {
            self.watch.look();
        }
    }

    /// When the time of the first connection out of use is over, as far as a policy limits it.
    pub(super) fn plan_next_look(&self) -> Option<Instant> {
        let terms = self.terms.borrow();
        let next = terms.as_ref().and_then(|terms| {
            let (idle, http2) = (self.idle.borrow(), self.http2.borrow());
            let idle = idle.iter().filter_map(|idle| terms.end(&idle.age, idle.since));
            let unused = |connection: &Rc<http2::client::Connection>| {
                terms.end(&connection.age(), connection.unused_since()?)
            };
            idle.chain(http2.iter().filter_map(unused)).min()
        });
        self.next_look.set(next);
        next
    }

    /// Sends one request and waits for the response's head.
    pub(crate) async fn send(
        self: &Rc<Self>,
        parts: &request::Parts,
        body: &ReplaySource,
        spoken: Spoken,
    ) -> Result<Forwarded, SendFailure> {
        match spoken {
            Spoken::Http2 => self.send_http2(parts, body).await,
            Spoken::Http1 | Spoken::Tcp | Spoken::Tls => self.send_http1(parts, body).await,
        }
    }

    /// As [`send`](Self::send), where a connection may be at hand that nobody has used yet.
    pub(crate) async fn send_by(
        self: &Rc<Self>,
        leg: Option<Leg>,
        parts: &request::Parts,
        body: &ReplaySource,
        spoken: Spoken,
    ) -> Result<Forwarded, SendFailure> {
        self.at_hand.replace(leg);
        let sent = self.send(parts, body, spoken).await;
        // Another request may have ended meanwhile and left its connection, which was as good.
        drop(self.at_hand.take());
        sent
    }

    /// Opens a connection for opaque bytes; it is not pooled. `is_tls`: they are TLS already.
    pub(crate) async fn open_tcp(&self, is_tls: bool) -> Result<Leg, Reason> {
        self.open(if is_tls { Spoken::Tls } else { Spoken::Tcp }).await
    }

    /// Closes connections that were not used for the idle timeout, and those that the upstream closed.
    pub(crate) fn close_idle(&self, now: Instant) {
        let terms = self.terms.borrow().clone();
        let timeout = self.idle_timeout.get();
        let keep = |since: Instant, age: &Age| {
            now.saturating_duration_since(since) < timeout
                && terms.as_ref().is_none_or(|terms| terms.keeps(age))
        };
        let mut idle = self.idle.borrow_mut();
        let watch = self.watch.clone().into();
        idle.retain_mut(|idle| keep(idle.since, &idle.age) && idle.wire.get_mut().is_quiet(&watch));
        self.http2.borrow_mut().retain(|connection| {
            let unused = terms.as_ref().and_then(|_| connection.unused_since());
            !connection.is_gone() && unused.is_none_or(|since| keep(since, &connection.age()))
        });
    }

    async fn send_http1(
        self: &Rc<Self>,
        parts: &request::Parts,
        body: &ReplaySource,
    ) -> Result<Forwarded, SendFailure> {
        loop {
            let (wire, mut age, reused) = match self.take_idle() {
                Some(idle) => (idle.wire, idle.age, true),
                None => self.open_http1().await.map_err(SendFailure::NotSent)?,
            };
            age.requests = age.requests.saturating_add(1);
            let mut exchange = http1::client::Exchange::begin(wire, parts, body.next_attempt());
            match exchange.answer().await {
                Ok(parts) => {
                    let answer = if parts.status == http::StatusCode::SWITCHING_PROTOCOLS {
                        let (leg, first) = exchange.into_switched();
                        Answer::Switched(leg, first)
                    } else {
                        Answer::Http1 {
                            exchange,
                            lease: Lease {
                                upstream: Rc::downgrade(self),
                                age,
                            },
                        }
                    };
                    return Ok(Forwarded { parts, answer });
                }
                // The upstream closed an idle connection before anything was written: another one, then.
                Err(SendFailure::NotSent(_)) if reused && body.is_replayable() => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// The connection that was used last, if it is still what it was.
    fn take_idle(&self) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut last) = idle.pop() {
            if last.since.elapsed() < self.idle_timeout.get() && last.wire.get_mut().is_quiet(Waker::noop()) {
                let terms = self.terms.borrow();
                if terms.as_ref().is_none_or(|terms| terms.keeps(&last.age)) {
                    return Some(last);
                }
            }
        }
        None
    }

    /// A new connection, and that it is none which was used before; where a policy lets no more be opened, perhaps one
    /// that was.
    async fn open_http1(&self) -> Result<(UpstreamWire, Age, bool), Reason> {
        let terms = self.terms.borrow().clone();
        let leg = match terms {
            None => self.dial(Spoken::Http1).await?,
            Some(terms) => {
                let free = || self.take_idle().map(Box::new);
                match Box::pin(terms.leave(free)).await? {
                    Leave::Reuse(idle) => return Ok((idle.wire, idle.age, true)),
                    Leave::Open(permit) => Box::pin(terms.dial(&self.route, Spoken::Http1, permit)).await?,
                }
            }
        };
        let wire = http1::client::connection(leg, &self.limits.message);
        Ok((wire, Age::new(), false))
    }

    /// Opens a connection of another kind, as far as a policy lets one be opened.
    async fn open(&self, spoken: Spoken) -> Result<Leg, Reason> {
        let terms = self.terms.borrow().clone();
        let Some(terms) = terms else {
            return self.dial(spoken).await;
        };
        // Those of HTTP/1.1 are of no use here.
        let make_room = || {
            self.idle.borrow_mut().pop();
            None
        };
        match Box::pin(terms.leave(make_room)).await? {
            Leave::Open(permit) => Box::pin(terms.dial(&self.route, spoken, permit)).await,
            Leave::Reuse(_) => Err(Reason::Internal),
        }
    }

    /// Boxed: a handshake needs much room, and few requests have to wait for one.
    async fn dial(&self, spoken: Spoken) -> Result<Leg, Reason> {
        if let Some(leg) = self.at_hand.take() {
            return Ok(leg);
        }
        Box::pin(self.route.dial(spoken, self.limits.connect_timeout, None)).await
    }

    async fn send_http2(
        self: &Rc<Self>,
        parts: &request::Parts,
        body: &ReplaySource,
    ) -> Result<Forwarded, SendFailure> {
        let mut rounds = 0;
        let mut exchange = loop {
            rounds += 1;
            let connection = self.http2_connection().await.map_err(SendFailure::NotSent)?;
            match connection.begin(parts, body.next_attempt(), &self.limits.message) {
                Ok(exchange) => break exchange,
                // It was told to go away, and nothing was read or sent yet: another one, then.
                Err(SendFailure::NotSent(_)) if rounds <= self.limits.http2_connections => {}
                Err(failure) => return Err(failure),
            }
        };
        let parts = exchange.answer().await?;
        Ok(Forwarded {
            parts,
            answer: Answer::Http2(exchange),
        })
    }

    async fn http2_connection(self: &Rc<Self>) -> Result<Rc<http2::client::Connection>, Reason> {
        if let Some(connection) = self.open_http2() {
            return Ok(connection);
        }
        let asked = Instant::now();
        let _dialling = self.dialling.lock().await;
        // Somebody else may have dialled meanwhile.
        if let Some(connection) = self.open_http2() {
            return Ok(connection);
        }
        // Or have failed: whoever waited for that need not try the same again.
        if let Some((at, reason)) = self.failed.get()
            && at >= asked
        {
            return Err(reason);
        }
        let opened = Box::pin(self.open_http2_connection()).await;
        match &opened {
            Ok(connection) => {
                if self.terms.borrow().is_some() {
                    self.watch();
                    connection.belongs_to(self);
                }
                self.http2.borrow_mut().push(connection.clone());
            }
            Err(reason) => self.failed.set(Some((Instant::now(), *reason))),
        }
        opened
    }

    async fn open_http2_connection(&self) -> Result<Rc<http2::client::Connection>, Reason> {
        let leg = self.open(Spoken::Http2).await?;
        http2::client::Connection::open(leg, self.route.address(), &self.limits).await
    }

    /// A connection with room for another stream; at the limit of connections, the one with the fewest.
    fn open_http2(&self) -> Option<Rc<http2::client::Connection>> {
        let mut connections = self.http2.borrow_mut();
        let terms = self.terms.borrow();
        let timeout = self.idle_timeout.get();
        let keeps = |connection: &Rc<http2::client::Connection>| {
            terms.as_ref().is_none_or(|terms| {
                let unused = connection.unused_since();
                terms.keeps(&connection.age()) && unused.is_none_or(|since| since.elapsed() < timeout)
            })
        };
        // One that takes no more requests ends when those that it has are over.
        connections.retain(|connection| !connection.is_gone() && keeps(connection));
        let free = connections.iter().find(|connection| connection.has_room());
        let least = || {
            let full = connections.len() >= self.limits.http2_connections
                || terms.as_ref().is_some_and(|terms| terms.is_full());
            let least = connections.iter().min_by_key(|connection| connection.streams());
            least.filter(|_| full)
        };
        free.or_else(least).cloned()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Its watch has nothing left to look after.
        self.watch.look();
    }
}
