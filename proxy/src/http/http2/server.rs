//! Serves HTTP/2 to whoever called: every stream is a task of the connection's worker.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use decision::message::request;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body as _;
use tokio::time::{Instant, sleep_until};

use super::flood::Metered;
use super::outgoing::{SendFailure, poll_send};
use super::{Incoming, StreamBytes};
use crate::downstream::{Arrived, Downstream};
use crate::http::body::{RequestBody, ResponseBody};
use crate::http::{date, handle, tunnel};
use crate::leg::Leg;
use crate::presence::{Busy, Presence};

/// How long a peer that was told to go may keep a connection without streams.
const FAREWELL_TIME: Duration = Duration::from_secs(5);

/// Serves a connection to its end; `first` was already read from it.
pub(crate) async fn serve(downstream: Rc<Downstream>, leg: Leg, first: BytesMut) {
    let presence = downstream.worker.connections.enter(&downstream);
    let limits = &downstream.worker.limits;
    let metered = Metered::of_client(leg, downstream.client, first, limits);
    let mut handshake = pin!(
        h2::server::Builder::new()
            .max_concurrent_streams(limits.streams_per_connection)
            .max_header_list_size(u32::try_from(limits.message.head_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(limits.pending_resets)
            .max_local_error_reset_streams(Some(limits.error_resets))
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_frame_size(limits.frame_bytes)
            .handshake::<_, Bytes>(metered)
    );
    let shaken = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Ready(connection) => Poll::Ready(Some(connection)),
        Poll::Pending => presence.poll_closing(cx).map(|()| None),
    });
    match shaken.await {
        Some(Ok(connection)) => run(&downstream, connection, &presence).await,
        Some(Err(error)) => tracing::debug!(client = %downstream.client, %error, "no HTTP/2 connection"),
        None => {}
    }
}

/// Takes up streams until the connection has ended.
async fn run(
    downstream: &Rc<Downstream>,
    mut connection: Connection<Metered<Leg>, Bytes>,
    presence: &Rc<Presence>,
) {
    let mut farewell = None;
    loop {
        let accepted = poll_fn(|cx| {
            if farewell.is_none() && presence.poll_closing(cx).is_ready() {
                connection.graceful_shutdown();
                farewell = Some(Box::pin(sleep_until(Instant::now() + FAREWELL_TIME)));
            }
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
            while let Some(over) = &mut farewell
                && over.as_mut().poll(cx).is_ready()
            {
                if !connection.has_streams() {
                    return Poll::Ready(None);
                }
                over.as_mut().reset(Instant::now() + FAREWELL_TIME);
            }
            Poll::Pending
        });
        match accepted.await {
            Some(Ok((request, respond))) => {
                let (downstream, presence) = (downstream.clone(), presence.clone());
                tokio::task::spawn_local(stream(downstream, presence, request, respond));
            }
            Some(Err(error)) => {
                return tracing::debug!(client = %downstream.client, %error, "connection ended");
            }
            None => return,
        }
    }
}

/// One request and its answer.
async fn stream(
    downstream: Rc<Downstream>,
    presence: Rc<Presence>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let busy = presence.begin();
    let (parts, incoming) = request.into_parts();
    if parts.method == Method::CONNECT && tunnel::is_served(&downstream) {
        return Box::pin(connect(&downstream, parts, incoming, respond, busy)).await;
    }
    let to_head = parts.method == Method::HEAD;
    let body = if incoming.is_end_stream() {
        RequestBody::Empty
    } else {
        RequestBody::Http2(Incoming::new(incoming, &parts.headers))
    };
    let arrived = Arrived {
        request: Request::from_parts(parts, body),
        refused: None,
    };
    let response = {
        let mut answer = pin!(handle(&downstream, arrived));
        poll_fn(|cx| match respond.poll_reset(cx) {
            // The client went away. What was begun for it is dropped.
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => answer.as_mut().poll(cx).map(Some),
        })
        .await
    };
    if let Some(response) = response
        && let Err(error) = send(&mut respond, response, to_head).await
    {
        tracing::debug!(client = %downstream.client, %error, "an answer was not sent whole");
    }
    drop(busy);
}

/// Opens a tunnel on a stream, and serves it to its end.
async fn connect(
    downstream: &Rc<Downstream>,
    parts: Parts,
    incoming: RecvStream,
    mut respond: SendResponse<Bytes>,
    _busy: Busy,
) {
    let limits = &downstream.worker.limits.message;
    let authority = request::tunnel(request::http2(&parts.method, &parts.uri, &parts.headers), limits);
    let opened = {
        let mut opened = pin!(tunnel::open(downstream, &parts, authority));
        poll_fn(|cx| match respond.poll_reset(cx) {
            // The client went away.
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => opened.as_mut().poll(cx).map(Some),
        })
        .await
    };
    match opened {
        Some(Ok(tunnel)) => match respond.send_response(Response::new(()), false) {
            Ok(stream) => {
                let leg = Leg::Stream(Box::new(StreamBytes::new(incoming, stream)));
                tunnel.serve(downstream, leg, BytesMut::new()).await;
            }
            Err(error) => tracing::debug!(client = %downstream.client, %error, "a tunnel was not opened"),
        },
        Some(Err(response)) => {
            if let Err(error) = send(&mut respond, response, false).await {
                tracing::debug!(client = %downstream.client, %error, "an answer was not sent whole");
            }
        }
        None => {}
    }
}

async fn send(
    respond: &mut SendResponse<Bytes>,
    response: Response<ResponseBody>,
    to_head: bool,
) -> Result<(), SendFailure> {
    let (mut parts, mut body) = response.into_parts();
    date::ensure(&mut parts.headers);
    // Only an answer of the proxy's own can have content here.
    let ends = to_head || body.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(parts, ()), ends)?;
    if ends {
        return Ok(());
    }
    let sent = poll_fn(|cx| {
        let sent = poll_send(&mut stream, &mut body, cx);
        // The request's body goes on even where the client does not read yet; but not for ever.
        if sent.is_pending() && body.drive(cx).is_ready() {
            return Poll::Ready(Err(SendFailure::Incomplete));
        }
        sent
    })
    .await;
    if let Err(SendFailure::Incomplete) = sent {
        // A reset throws away what still waits in the codec: the head and the good part of the body leave first.
        tokio::task::yield_now().await;
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    }
    sent
}
