//! Serves HTTP/1.1 to whoever called: one request after another, each answered before the next is read.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use decision::Reason;
use decision::message::Body as BodyLength;
use decision::message::http1::{Http1Reader, RequestAt};
use http::header::{CONNECTION, TE};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::timeout;

use super::framing::Framing;
use super::head;
use super::sender::{SendFailure, Sender};
use super::wire::{Arrival, ReadFailure, Wire};
use crate::downstream::{Arrived, Downstream};
use crate::http::body::{RequestBody, ResponseBody, Switched};
use crate::http::tunnel::{self, Tunnel};
use crate::http::{date, handle};
use crate::leg::Leg;
use crate::presence::Presence;
use crate::tcp;

/// How long a connection that is to end waits for a request that may be on its way.
const CLOSE_GRACE: Duration = Duration::from_millis(200);
/// How long, and how much, a refused client may go on sending before its connection is cut.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;
/// How much of a request's unread body is thrown away so that its connection can be used again.
const DRAIN_BYTES: usize = 64 * 1024;
const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's connection, shared between its loop and the body of the request that is being answered.
pub(crate) type ClientWire = Rc<RefCell<Wire>>;

/// Serves a connection to its end; `first` was already read from it.
pub(crate) async fn serve(downstream: Rc<Downstream>, leg: Leg, first: BytesMut) {
    let presence = downstream.worker.connections.enter(&downstream);
    let mut reader = Http1Reader::requests(downstream.worker.limits.message);
    if tunnel::is_served(&downstream) {
        reader = reader.with_tunnels();
    }
    let wire = Rc::new(RefCell::new(Wire::new(leg, first, reader)));
    // Another sidecar never says that it sends nothing more and still reads, and no client of a gateway that is to be
    // waited for; an application in front of its sidecar may.
    let half_closes = downstream.peer.is_none() && downstream.front.port.is_none();
    loop {
        wire.borrow_mut().rest();
        let header_timeout = downstream.worker.limits.header_timeout;
        let head = match next_head(&wire, &presence, header_timeout).await {
            // Another sidecar, or a client of a gateway, may have sent a request just now; it is answered, and told that
            // it was the last.
            Head::Closing if downstream.peer.is_some() || downstream.front.port.is_some() => {
                last_head(&wire).await
            }
            head => head,
        };
        // Boxed, so that a connection that waits does not hold the room that a request needs.
        let next = match head {
            Head::Request(parts, at) => {
                let exchange = Box::pin(exchange(&downstream, &wire, &presence, parts, at));
                while_present(&wire, half_closes, exchange).await
            }
            Head::Refused(reason) => {
                Box::pin(refuse(&downstream, &wire, reason)).await;
                Next::Linger
            }
            Head::None | Head::Closing => return,
        };
        match next {
            Next::Request => {}
            Next::Close => return close(&wire).await,
            Next::Linger => return linger(&wire).await,
            Next::Tunnel(switched) => return Box::pin(switch(&downstream, wire, switched)).await,
            Next::Inside(tunnel) => return Box::pin(inside(&downstream, wire, presence, tunnel)).await,
            Next::Broken => return,
        }
    }
}

/// Drives an exchange; lets go of it when the client goes away.
async fn while_present(
    wire: &ClientWire,
    half_closes: bool,
    mut exchange: Pin<Box<impl Future<Output = Next>>>,
) -> Next {
    poll_fn(|cx| match exchange.as_mut().poll(cx) {
        Poll::Pending if wire.borrow_mut().is_gone(half_closes, cx) => Poll::Ready(Next::Broken),
        polled => polled,
    })
    .await
}

/// What came instead of a wait.
#[expect(
    clippy::large_enum_variant,
    reason = "made once per request, and nearly always the large one"
)]
enum Head {
    Request(Parts, RequestAt),
    Refused(Reason),
    /// The client closed.
    None,
    /// It was idle for too long, or the proxy stops.
    Closing,
}

/// What follows an exchange.
enum Next {
    Request,
    Close,
    /// Close, but read on for a moment: a socket that is closed with unread bytes is reset, and the client might never
    /// see the answer (RFC 9112 section 9.6).
    Linger,
    Tunnel(Switched),
    /// What the client sends from here on is for where it asked a tunnel to lead.
    Inside(Box<Tunnel>),
    Broken,
}

async fn next_head(wire: &ClientWire, presence: &Presence, header_timeout: Duration) -> Head {
    let begun = poll_fn(|cx| match poll_head(wire, cx) {
        Poll::Ready(head) => Poll::Ready(Some(head)),
        Poll::Pending if wire.borrow().mid_head() => Poll::Ready(None),
        Poll::Pending => presence.poll_closing(cx).map(|()| Some(Head::Closing)),
    })
    .await;
    if let Some(head) = begun {
        return head;
    }
    // Armed only for a head that does not arrive in one piece.
    match timeout(header_timeout, poll_fn(|cx| poll_head(wire, cx))).await {
        Ok(head) => head,
        Err(_) => Head::Refused(Reason::HeaderTimeout),
    }
}

async fn last_head(wire: &ClientWire) -> Head {
    timeout(CLOSE_GRACE, poll_fn(|cx| poll_head(wire, cx)))
        .await
        .unwrap_or(Head::None)
}

fn poll_head(wire: &ClientWire, cx: &mut Context<'_>) -> Poll<Head> {
    Poll::Ready(match ready!(wire.borrow_mut().poll_arrival(cx)) {
        Ok(Arrival::Request(parts, at)) => Head::Request(parts, at),
        Ok(_) | Err(ReadFailure::Io(_)) => Head::None,
        Err(ReadFailure::Refused(reason)) => Head::Refused(reason),
    })
}

/// How the client asked, as far as it decides how it is answered.
struct Asked {
    method: Method,
    version: Version,
    /// The client keeps the connection open for another request.
    persistent: bool,
    trailers: bool,
}

impl Asked {
    fn of(parts: &Parts, at: &RequestAt) -> Self {
        Self {
            method: parts.method.clone(),
            version: parts.version,
            persistent: at.persistent,
            trailers: parts.headers.contains_key(TE),
        }
    }
}

async fn exchange(
    downstream: &Rc<Downstream>,
    wire: &ClientWire,
    presence: &Rc<Presence>,
    parts: Parts,
    at: RequestAt,
) -> Next {
    let busy = presence.begin();
    let asked = Asked::of(&parts, &at);
    if at.tunnel {
        return Box::pin(connect(downstream, wire, parts, &asked)).await;
    }
    let expects = at.expects_continue && parts.version == Version::HTTP_11;
    let body = match at.body {
        BodyLength::None => RequestBody::Empty,
        BodyLength::Length(length) => RequestBody::http1(wire.clone(), Some(length), expects),
        _ => RequestBody::http1(wire.clone(), None, expects),
    };
    let arrived = Arrived {
        request: Request::from_parts(parts, body),
        refused: None,
    };
    let mut response = handle(downstream, arrived).await;
    if let Some(switched) = response.body_mut().take_switched() {
        let sent = send(wire, response, &asked, false).await;
        return match sent {
            Ok(_) => Next::Tunnel(switched),
            Err(_) => Next::Broken,
        };
    }
    if at.upgrade.is_some() {
        wire.borrow_mut().not_upgraded();
    }
    let persistent = asked.persistent && !presence.is_closing();
    let sent = send(wire, response, &asked, persistent).await;
    drop(busy);
    match sent {
        Ok(kept) => after(wire, kept && persistent),
        Err(_) => Next::Broken,
    }
}

/// Opens a tunnel. Where there is none, what its client may have sent for it must not be taken for a request.
async fn connect(downstream: &Downstream, wire: &ClientWire, parts: Parts, asked: &Asked) -> Next {
    let authority = parts.uri.authority().map(Authority::as_str);
    match tunnel::open(downstream, &parts, authority.ok_or(Reason::BadTarget)).await {
        Ok(tunnel) => {
            wire.borrow_mut().answer().extend_from_slice(CONNECTED);
            match poll_fn(|cx| wire.borrow_mut().poll_flush(cx)).await {
                Ok(()) => Next::Inside(Box::new(tunnel)),
                Err(_) => Next::Broken,
            }
        }
        Err(response) => match send(wire, response, asked, false).await {
            Ok(_) => Next::Linger,
            Err(_) => Next::Broken,
        },
    }
}

/// What can follow, now that the answer is written.
fn after(wire: &ClientWire, persistent: bool) -> Next {
    let mut wire = wire.borrow_mut();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut drained = 0;
    while wire.mid_message() && !wire.mid_head() {
        // Nobody wants the rest of the request's body. What is there of it already is cheap to throw away.
        match wire.poll_arrival(&mut cx) {
            Poll::Ready(Ok(Arrival::Data(data))) if drained < DRAIN_BYTES => drained += data.len(),
            Poll::Ready(Ok(Arrival::Trailers(_))) => {}
            _ => return Next::Linger,
        }
    }
    if persistent { Next::Request } else { Next::Close }
}

/// Answers a request of which nothing was accepted.
async fn refuse(downstream: &Rc<Downstream>, wire: &ClientWire, reason: Reason) {
    let method = if wire.borrow().refused_head_request() {
        Method::HEAD
    } else {
        Method::from_bytes(b"REFUSED").unwrap_or_default()
    };
    let mut request = Request::new(RequestBody::Empty);
    *request.method_mut() = method.clone();
    *request.uri_mut() = http::Uri::from_static("*");
    let arrived = Arrived {
        request,
        refused: Some(reason),
    };
    let asked = Asked {
        method,
        version: Version::HTTP_11,
        persistent: false,
        trailers: false,
    };
    let response = handle(downstream, arrived).await;
    // Who does not listen any more misses the answer.
    let _ = send(wire, response, &asked, false).await;
}

/// Writes the answer. Whether the connection can be used again, as far as the answer decides it.
async fn send(
    wire: &ClientWire,
    response: Response<ResponseBody>,
    asked: &Asked,
    persistent: bool,
) -> Result<bool, SendFailure> {
    let (mut parts, mut body) = response.into_parts();
    let exact = body.size_hint().exact();
    date::ensure(&mut parts.headers);
    let (framing, kept) = {
        let mut wire = wire.borrow_mut();
        let out = wire.answer();
        head::write_response(out, asked.version, parts.status, &parts.headers);
        let delimited = exact.is_some()
            || asked.version == Version::HTTP_11
            || parts.headers.contains_key(http::header::CONTENT_LENGTH);
        let kept = persistent && delimited;
        if parts.status != StatusCode::SWITCHING_PROTOCOLS {
            match (kept, asked.version) {
                (false, _) => head::write_field(out, &CONNECTION, b"close"),
                (true, Version::HTTP_10) => head::write_field(out, &CONNECTION, b"keep-alive"),
                (true, _) => {}
            }
        }
        let framing = Framing::of_response(
            out,
            (&asked.method, asked.version),
            parts.status,
            &parts.headers,
            exact,
            asked.trailers,
        );
        (framing, kept)
    };
    drop(parts);
    let mut sender = Sender::new(framing);
    poll_fn(|cx| {
        let sent = sender.poll_send(wire, &mut body, cx);
        // The request's body goes on even where the client does not read yet; but not for ever.
        if sent.is_pending() && body.drive(cx).is_ready() {
            return Poll::Ready(Err(SendFailure::Incomplete));
        }
        sent
    })
    .await?;
    Ok(kept)
}

async fn close(wire: &ClientWire) {
    // Refused only where the connection is already gone; a client that does not read misses the farewell.
    let _ = timeout(LINGER_TIME, poll_fn(|cx| wire.borrow_mut().poll_shutdown(cx))).await;
}

async fn linger(wire: &ClientWire) {
    close(wire).await;
    let until = Instant::now() + LINGER_TIME;
    let mut bytes = 0;
    let discard = async {
        while bytes < LINGER_BYTES {
            match poll_fn(|cx| wire.borrow_mut().poll_discard(cx)).await {
                Ok(count) if count > 0 => bytes += count,
                _ => return,
            }
        }
    };
    // Either way, that was the moment.
    let _ = tokio::time::timeout_at(until.into(), discard).await;
}

/// The connection is the tunnel's from here on, and no longer one of the outbound port's.
async fn inside(downstream: &Downstream, wire: ClientWire, presence: Rc<Presence>, tunnel: Box<Tunnel>) {
    drop(presence);
    let Some(wire) = Rc::into_inner(wire) else {
        return tracing::debug!("a tunnel was not carried out: its request is still read");
    };
    let (client, held) = wire.into_inner().into_parts();
    tunnel.serve(downstream, client, held).await;
}

/// Both connections are one from here on.
async fn switch(downstream: &Downstream, wire: ClientWire, switched: Switched) {
    let Some(wire) = Rc::into_inner(wire) else {
        return tracing::debug!("an upgrade was not carried out: the request's body is still read");
    };
    let (client, held) = wire.into_inner().into_parts();
    tcp::tunnel_with(
        (client, held),
        (switched.upstream, switched.first),
        downstream.worker.limits.idle_timeout,
    )
    .await;
    // A request until here, for a breaker that counts them.
    drop(switched.permit);
}

/// Tells a client that waits for it that its body is wanted (RFC 9110 section 10.1.1).
pub(crate) fn say_continue(wire: &ClientWire, cx: &mut Context<'_>) {
    let mut wire = wire.borrow_mut();
    if wire.is_answering() {
        return;
    }
    wire.head().extend_from_slice(CONTINUE);
    // What does not fit now is written with the answer.
    let _ = wire.poll_flush(cx);
}
