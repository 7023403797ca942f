//! The connections of one worker to one upstream: many idle HTTP/1.1 ones, and one for HTTP/2.

use std::cell::RefCell;
use std::error::Error as _;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use decision::Reason;
use decision::message::response::{self, ResponseTo};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::dial::{Leg, Route, Spoken};
use crate::executor::LocalExecutor;
use crate::http::flood::Metered;
use crate::http::guard::{Guard, GuardState, refusal_in};
use crate::http::replay::ReplayBody;
use crate::settings::Limits;

/// One place that requests can be sent to, with its connections.
pub(crate) struct Upstream {
    pub(crate) route: Route,
    limits: Arc<Limits>,
    idle: RefCell<Vec<IdleHttp1>>,
    /// Locked while dialling, so that one worker opens one connection however many requests wait for it.
    http2: tokio::sync::Mutex<Option<http2::SendRequest<ReplayBody>>>,
}

struct IdleHttp1 {
    sender: http1::SendRequest<ReplayBody>,
    guard: Arc<GuardState>,
    since: Instant,
}

/// Why a request got no response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendFailure {
    /// The upstream has not processed any of it.
    NotSent(Reason),
    /// It may have been processed.
    Broken(Reason),
}

/// The right to use an HTTP/1.1 connection until the response's body has ended; then it goes back to the pool.
pub(crate) struct Lease {
    upstream: Weak<Upstream>,
    sender: http1::SendRequest<ReplayBody>,
    guard: Arc<GuardState>,
}

impl Lease {
    /// Gives the connection back. To be called when the body was read to its end, and only then.
    pub(crate) fn give_back(self) {
        let Some(upstream) = self.upstream.upgrade() else {
            return;
        };
        if self.sender.is_closed() || self.guard.refused().is_some() {
            return;
        }
        let mut idle = upstream.idle.borrow_mut();
        if idle.len() < upstream.limits.pool_idle_connections {
            idle.push(IdleHttp1 {
                sender: self.sender,
                guard: self.guard,
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
            http2: tokio::sync::Mutex::default(),
        })
    }

    /// Sends one request and waits for the response's head.
    pub(crate) async fn send(
        self: &Rc<Self>,
        request: Request<ReplayBody>,
        spoken: Spoken,
    ) -> Result<(Response<Incoming>, Option<Lease>), SendFailure> {
        match spoken {
            Spoken::Http2 => self.send_http2(request).await.map(|response| (response, None)),
            _ => {
                let (response, lease) = self.send_http1(request).await?;
                Ok((response, Some(lease)))
            }
        }
    }

    /// Opens a connection for opaque bytes; it is not pooled.
    pub(crate) async fn open_tcp(&self) -> Result<Leg, Reason> {
        self.route.dial(Spoken::Tcp, self.limits.connect_timeout).await
    }

    /// Closes connections that were not used for `pool_idle_timeout`.
    pub(crate) fn close_idle(&self, now: Instant) {
        let keep = |since: Instant| now.saturating_duration_since(since) < self.limits.pool_idle_timeout;
        self.idle
            .borrow_mut()
            .retain(|idle| keep(idle.since) && !idle.sender.is_closed());
    }

    async fn send_http1(
        self: &Rc<Self>,
        mut request: Request<ReplayBody>,
    ) -> Result<(Response<Incoming>, Lease), SendFailure> {
        let head = request.method() == Method::HEAD;
        let upgrade = request.headers().contains_key(http::header::UPGRADE);
        loop {
            let pooled = self.take_idle();
            let reused = pooled.is_some();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => self.open_http1().await.map_err(SendFailure::NotSent)?,
            };
            connection.guard.expect_response(head, upgrade);
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    let lease = Lease {
                        upstream: Rc::downgrade(self),
                        sender: connection.sender,
                        guard: connection.guard,
                    };
                    return Ok((response, lease));
                }
                Err(mut error) => match error.take_message() {
                    // The upstream closed an idle connection before anything was written: take another.
                    Some(unsent) if reused => request = unsent,
                    Some(_) => return Err(SendFailure::NotSent(Reason::ConnectionReset)),
                    None => return Err(failure_of(error.error())),
                },
            }
        }
    }

    fn take_idle(&self) -> Option<IdleHttp1> {
        let mut idle = self.idle.borrow_mut();
        let fresh = |connection: &IdleHttp1| {
            connection.sender.is_ready()
                && connection.guard.refused().is_none()
                && connection.since.elapsed() < self.limits.pool_idle_timeout
        };
        while let Some(connection) = idle.pop() {
            if fresh(&connection) {
                return Some(connection);
            }
        }
        None
    }

    async fn open_http1(&self) -> Result<IdleHttp1, Reason> {
        let leg = self
            .route
            .dial(Spoken::Http1, self.limits.connect_timeout)
            .await?;
        let (guarded, guard) = Guard::responses(leg, &self.limits.message);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(self.limits.message.head_bytes.max(8192) + 64 * 1024)
            .max_header_size(self.limits.message.head_bytes + 2)
            .handshake(TokioIo::new(guarded))
            .await
            .map_err(|_| Reason::ConnectFailed)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(IdleHttp1 {
            sender,
            guard,
            since: Instant::now(),
        })
    }

    async fn send_http2(&self, request: Request<ReplayBody>) -> Result<Response<Incoming>, SendFailure> {
        let mut sender = self.http2_sender().await.map_err(SendFailure::NotSent)?;
        let to = ResponseTo {
            head: request.method() == Method::HEAD,
            upgrade: None,
        };
        match sender.try_send_request(request).await {
            // HTTP/1 was judged by the guard, as raw bytes.
            Ok(response) => {
                let head = response::http2(response.status(), response.headers());
                match response::validate(head, &to, &self.limits.message) {
                    Ok(_) => Ok(response),
                    Err(reason) => Err(SendFailure::Broken(reason)),
                }
            }
            Err(mut error) => match error.take_message() {
                Some(_) => Err(SendFailure::NotSent(Reason::StreamRefused)),
                None => Err(failure_of(error.error())),
            },
        }
    }

    async fn http2_sender(&self) -> Result<http2::SendRequest<ReplayBody>, Reason> {
        let mut slot = self.http2.lock().await;
        if let Some(sender) = slot.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let leg = self
            .route
            .dial(Spoken::Http2, self.limits.connect_timeout)
            .await?;
        let sender = self.handshake_http2(leg).await?;
        *slot = Some(sender.clone());
        Ok(sender)
    }

    async fn handshake_http2(&self, leg: Leg) -> Result<http2::SendRequest<ReplayBody>, Reason> {
        let limits = &self.limits;
        let metered = Metered::of_server(leg, self.route.address(), limits);
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_frame_size(limits.frame_bytes)
            .max_header_list_size(u32::try_from(limits.message.head_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(limits.pending_resets)
            .max_local_error_reset_streams(limits.error_resets)
            .keep_alive_interval(limits.keepalive_interval)
            .keep_alive_timeout(Duration::from_secs(10))
            .handshake(TokioIo::new(metered))
            .await
            .map_err(|_| Reason::ConnectFailed)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(sender)
    }
}

/// What went wrong, as far as it decides whether the request may be sent again.
fn failure_of(error: &hyper::Error) -> SendFailure {
    if let Some(reason) = refusal_in(error) {
        return SendFailure::Broken(reason);
    }
    if let Some(stream) = error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>())
    {
        // RFC 9113 section 8.7: neither was processed.
        let refused = stream.reason() == Some(h2::Reason::REFUSED_STREAM);
        let unprocessed = stream.is_go_away() && stream.is_remote();
        if refused || unprocessed {
            return SendFailure::NotSent(Reason::StreamRefused);
        }
        return SendFailure::Broken(Reason::ConnectionReset);
    }
    if error.is_parse() {
        return SendFailure::Broken(Reason::MalformedResponse);
    }
    if error.is_canceled() {
        return SendFailure::NotSent(Reason::ConnectionReset);
    }
    SendFailure::Broken(Reason::ConnectionReset)
}
