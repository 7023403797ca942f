//! Requests on HTTP/2 connections to an upstream: few connections, many streams.

use std::cell::{Cell, OnceCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use decision::Reason;
use decision::message::MessageLimits;
use decision::message::response::{self as judge, ResponseTo};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::{Method, Request, request, response};
use http_body::{Body as _, Frame, SizeHint};

use super::Incoming;
use super::flood::Metered;
use super::outgoing::{SendFailure as Unsent, poll_send};
use crate::http::replay::ReplayBody;
use crate::leg::Leg;
use crate::settings::Limits;
use crate::upstream::{Age, SendFailure, Upstream};

/// An open connection. It ends when it breaks, or when its last handle and its last exchange are gone.
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    streams: Cell<usize>,
    gone: Cell<bool>,
    age: Cell<Age>,
    /// Told when it comes out of use, where a policy says something about its connections.
    upstream: OnceCell<Weak<Upstream>>,
    /// When it came out of use last, as far as somebody is told.
    unused_since: Cell<Instant>,
}

impl Connection {
    /// Speaks HTTP/2 on `leg` from here on.
    pub(crate) async fn open(
        leg: Leg,
        peer: std::net::SocketAddr,
        limits: &Limits,
    ) -> Result<Rc<Self>, Reason> {
        let metered = Metered::of_server(leg, peer, limits);
        let (sender, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_frame_size(limits.frame_bytes)
            .max_header_list_size(u32::try_from(limits.message.head_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(limits.pending_resets)
            .max_local_error_reset_streams(Some(limits.error_resets))
            .handshake(metered)
            .await
            .map_err(|_| Reason::ConnectFailed)?;
        let age = Age::new();
        let opened = Rc::new(Self {
            sender,
            streams: Cell::new(0),
            gone: Cell::new(false),
            age: Cell::new(age),
            upstream: OnceCell::new(),
            unused_since: Cell::new(age.opened),
        });
        let pings = connection.ping_pong();
        let (watched, timing) = (
            Rc::downgrade(&opened),
            (limits.keepalive_interval, limits.keepalive_timeout),
        );
        tokio::task::spawn_local(async move {
            let is_used = || {
                watched
                    .upgrade()
                    .is_some_and(|connection| connection.streams.get() > 0)
            };
            tokio::select! {
                biased;
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "upstream connection ended");
                },
                () = unanswered(pings, timing, is_used) => {
                    tracing::debug!(%peer, "upstream connection does not answer");
                }
            }
            if let Some(connection) = watched.upgrade() {
                connection.gone.set(true);
            }
        });
        Ok(opened)
    }

    /// Whether no request can be sent on it any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// Whether the peer takes another stream now.
    pub(crate) fn has_room(&self) -> bool {
        self.streams.get() < self.sender.current_max_send_streams()
    }

    pub(crate) fn age(&self) -> Age {
        self.age.get()
    }

    /// From now on `upstream` is told when it comes out of use. When it did before is not known.
    pub(crate) fn belongs_to(&self, upstream: &Rc<Upstream>) {
        self.upstream.get_or_init(|| {
            self.unused_since.set(Instant::now());
            Rc::downgrade(upstream)
        });
    }

    /// Since when it is out of use, as far as somebody is told; `None` while it is used.
    pub(crate) fn unused_since(&self) -> Option<Instant> {
        (self.streams.get() == 0).then(|| self.unused_since.get())
    }

    /// How many exchanges are going on.
    pub(crate) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Begins an exchange.
    ///
    /// # Errors
    /// [`SendFailure::NotSent`] where the connection takes no request any more.
    pub(crate) fn begin(
        self: &Rc<Self>,
        parts: &request::Parts,
        body: ReplayBody,
        limits: &MessageLimits,
    ) -> Result<Exchange, SendFailure> {
        let mut head = Request::new(());
        *head.method_mut() = parts.method.clone();
        *head.uri_mut() = parts.uri.clone();
        *head.version_mut() = http::Version::HTTP_2;
        *head.headers_mut() = parts.headers.clone();
        let ends = body.is_end_stream();
        let sent = self.sender.clone().send_request(head, ends);
        let (answer, stream) = sent.map_err(|_| {
            self.gone.set(true);
            SendFailure::NotSent(Reason::StreamRefused)
        })?;
        self.streams.set(self.streams.get() + 1);
        let mut age = self.age.get();
        age.requests = age.requests.saturating_add(1);
        self.age.set(age);
        Ok(Exchange {
            answer: Some(answer),
            incoming: None,
            sending: (!ends).then_some((stream, body)),
            broken: None,
            to: ResponseTo {
                head: parts.method == Method::HEAD,
                upgrade: None,
            },
            limits: *limits,
            connection: self.clone(),
        })
    }
}

/// Ends when a ping was not answered. Pings only while `is_used`.
async fn unanswered(
    pings: Option<PingPong>,
    (interval, patience): (Duration, Duration),
    is_used: impl Fn() -> bool,
) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(interval).await;
        if is_used()
            && !matches!(
                tokio::time::timeout(patience, pings.ping(Ping::opaque())).await,
                Ok(Ok(_))
            )
        {
            return;
        }
    }
}

/// A request and its answer on one stream.
pub(crate) struct Exchange {
    answer: Option<ResponseFuture>,
    incoming: Option<Incoming>,
    /// What is still to be sent; `None` once the request is whole or cannot be sent any further.
    sending: Option<(SendStream<Bytes>, ReplayBody)>,
    /// The request's body broke off.
    broken: Option<Reason>,
    to: ResponseTo,
    limits: MessageLimits,
    connection: Rc<Connection>,
}

impl Exchange {
    /// Waits for the answer's head, sending meanwhile.
    pub(crate) async fn answer(&mut self) -> Result<response::Parts, SendFailure> {
        poll_fn(|cx| self.poll_answer(cx)).await
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, SendFailure>> {
        self.drive(cx);
        if let Some(reason) = self.broken {
            return Poll::Ready(Err(SendFailure::Broken(reason)));
        }
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(Err(SendFailure::Broken(Reason::Internal)));
        };
        let answered = ready!(std::pin::Pin::new(answer).poll(cx));
        self.answer = None;
        Poll::Ready(match answered {
            Err(error) => Err(failure_of(&error)),
            Ok(response) => {
                let (parts, stream) = response.into_parts();
                let head = judge::http2(parts.status, &parts.headers);
                match judge::validate(head, &self.to, &self.limits) {
                    Ok(_) => {
                        self.incoming = Some(Incoming::new(stream, &parts.headers));
                        Ok(parts)
                    }
                    Err(reason) => Err(SendFailure::Broken(reason)),
                }
            }
        })
    }

    /// The next part of the answer's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        self.drive(cx);
        if let Some(reason) = self.broken {
            return Poll::Ready(Some(Err(reason)));
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let frame = ready!(incoming.poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(|_| Reason::ConnectionReset)))
    }

    /// Sends on what is left of the request.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        let Some((stream, body)) = &mut self.sending else {
            return;
        };
        match poll_send(stream, body, cx) {
            Poll::Pending => return,
            Poll::Ready(Ok(())) => {}
            // The answer says why, if it comes.
            Poll::Ready(Err(Unsent::Stream(error))) => {
                tracing::debug!(%error, "a request was not sent whole")
            }
            Poll::Ready(Err(Unsent::Incomplete)) => {
                stream.send_reset(h2::Reason::CANCEL);
                self.broken = Some(Reason::RequestAborted);
            }
        }
        self.sending = None;
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let exact = self.incoming.as_ref().and_then(Incoming::exact);
        exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let streams = self.connection.streams.get() - 1;
        self.connection.streams.set(streams);
        if streams == 0
            && let Some(upstream) = self.connection.upstream.get()
        {
            self.connection.unused_since.set(Instant::now());
            if let Some(upstream) = upstream.upgrade() {
                upstream.look_in_time(&self.connection.age());
            }
        }
    }
}

/// What went wrong, as far as it decides whether the request may be sent again.
fn failure_of(error: &h2::Error) -> SendFailure {
    // RFC 9113 section 8.7: neither was processed.
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let unprocessed = error.is_go_away() && error.is_remote();
    if refused || unprocessed {
        SendFailure::NotSent(Reason::StreamRefused)
    } else {
        SendFailure::Broken(Reason::ConnectionReset)
    }
}
