//! The connections of one worker to one upstream: many idle HTTP/1.1 ones, and few for HTTP/2.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Instant;

use decision::Reason;
use http::{request, response};
use tokio::sync::Notify;

use super::dial::{Route, Spoken};
use crate::http::body::Answer;
use crate::http::http1::{self, Wire};
use crate::http::http2;
use crate::http::replay::ReplaySource;
use crate::leg::Leg;
use crate::settings::Limits;

/// One place that requests can be sent to, with its connections.
pub(crate) struct Upstream {
    pub(crate) route: Route,
    limits: Arc<Limits>,
    idle: RefCell<Vec<Idle>>,
    http2: RefCell<Vec<Rc<http2::client::Connection>>>,
    watch: Arc<Watch>,
    is_watched: Cell<bool>,
    /// Locked while dialling, so that one worker opens one connection however many requests wait for it.
    dialling: tokio::sync::Mutex<()>,
    /// How dialling for HTTP/2 failed last, and when.
    failed: Cell<Option<(Instant, Reason)>>,
}

/// An HTTP/1.1 connection out of use.
struct Idle {
    wire: Wire,
    since: Instant,
}

/// Told when something comes on an idle connection, which is its end or nothing that was asked for.
#[derive(Default)]
struct Watch(Notify);

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
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
pub(crate) struct Lease(Weak<Upstream>);

impl Lease {
    /// Gives the connection back, if another exchange may follow on it.
    pub(crate) fn give_back(self, exchange: http1::client::Exchange) {
        let Some(upstream) = self.0.upgrade() else {
            return;
        };
        let Some(mut wire) = exchange.into_reusable() else {
            return;
        };
        upstream.watch();
        let mut idle = upstream.idle.borrow_mut();
        if idle.len() < upstream.limits.pool_idle_connections {
            wire.rest();
            if !wire.is_quiet(&upstream.watch.clone().into()) {
                return;
            }
            idle.push(Idle {
                wire,
                since: Instant::now(),
            });
        }
    }
}

impl Upstream {
    pub(crate) fn new(route: Route, limits: Arc<Limits>) -> Rc<Self> {
        Rc::new(Self {
            route,
            limits,
            idle: RefCell::default(),
            http2: RefCell::default(),
            watch: Arc::default(),
            is_watched: Cell::new(false),
            dialling: tokio::sync::Mutex::default(),
            failed: Cell::new(None),
        })
    }

    /// Sees to it that an idle connection which ends is closed at once.
    fn watch(self: &Rc<Self>) {
        if self.is_watched.replace(true) {
            return;
        }
        let (watch, watched) = (self.watch.clone(), Rc::downgrade(self));
        tokio::task::spawn_local(async move {
            loop {
                watch.0.notified().await;
                let Some(upstream) = watched.upgrade() else {
                    return;
                };
                upstream.close_idle(Instant::now());
            }
        });
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

    /// Opens a connection for opaque bytes; it is not pooled. `is_tls`: they are TLS already.
    pub(crate) async fn open_tcp(&self, is_tls: bool) -> Result<Leg, Reason> {
        let spoken = if is_tls { Spoken::Tls } else { Spoken::Tcp };
        self.route.dial(spoken, self.limits.connect_timeout).await
    }

    /// Closes connections that were not used for `pool_idle_timeout`, and those that the upstream closed.
    pub(crate) fn close_idle(&self, now: Instant) {
        let keep = |since: Instant| now.saturating_duration_since(since) < self.limits.pool_idle_timeout;
        let mut idle = self.idle.borrow_mut();
        let watch = self.watch.clone().into();
        idle.retain_mut(|idle| keep(idle.since) && idle.wire.is_quiet(&watch));
        self.http2.borrow_mut().retain(|connection| !connection.is_gone());
    }

    async fn send_http1(
        self: &Rc<Self>,
        parts: &request::Parts,
        body: &ReplaySource,
    ) -> Result<Forwarded, SendFailure> {
        loop {
            let (wire, reused) = match self.take_idle() {
                Some(wire) => (wire, true),
                None => (self.open_http1().await.map_err(SendFailure::NotSent)?, false),
            };
            let mut exchange = http1::client::Exchange::begin(wire, parts, body.next_attempt());
            match exchange.answer().await {
                Ok(parts) => {
                    let answer = if parts.status == http::StatusCode::SWITCHING_PROTOCOLS {
                        let (leg, first) = exchange.into_switched();
                        Answer::Switched(leg, first)
                    } else {
                        Answer::Http1 {
                            exchange,
                            lease: Lease(Rc::downgrade(self)),
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
    fn take_idle(&self) -> Option<Wire> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut last) = idle.pop() {
            if last.since.elapsed() < self.limits.pool_idle_timeout && last.wire.is_quiet(Waker::noop()) {
                return Some(last.wire);
            }
        }
        None
    }

    async fn open_http1(&self) -> Result<Wire, Reason> {
        let leg = self
            .route
            .dial(Spoken::Http1, self.limits.connect_timeout)
            .await?;
        Ok(http1::client::connection(leg, &self.limits.message))
    }

    async fn send_http2(
        &self,
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

    async fn http2_connection(&self) -> Result<Rc<http2::client::Connection>, Reason> {
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
        let opened = self.open_http2_connection().await;
        match &opened {
            Ok(connection) => self.http2.borrow_mut().push(connection.clone()),
            Err(reason) => self.failed.set(Some((Instant::now(), *reason))),
        }
        opened
    }

    async fn open_http2_connection(&self) -> Result<Rc<http2::client::Connection>, Reason> {
        let leg = self
            .route
            .dial(Spoken::Http2, self.limits.connect_timeout)
            .await?;
        http2::client::Connection::open(leg, self.route.address(), &self.limits).await
    }

    /// A connection with room for another stream; at the limit of connections, the one with the fewest.
    fn open_http2(&self) -> Option<Rc<http2::client::Connection>> {
        let mut connections = self.http2.borrow_mut();
        connections.retain(|connection| !connection.is_gone());
        let free = connections.iter().find(|connection| connection.has_room());
        let least = || {
            let full = connections.len() >= self.limits.http2_connections;
            let least = connections.iter().min_by_key(|connection| connection.streams());
            least.filter(|_| full)
        };
        free.or_else(least).cloned()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Its watch has nothing left to look after.
        self.watch.0.notify_one();
    }
}
