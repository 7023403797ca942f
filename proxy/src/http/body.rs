//! The bodies of one request and of its answer, wherever they come from.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use decision::Reason;
use decision::message::fields::{response_trailers_allowed, trailers_allowed};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, timeout};

use super::http1::{Arrival, ClientWire, ReadFailure, client, server};
use super::http2;
use crate::leg::Leg;
use crate::telemetry::Record;
use crate::upstream::{Lease, Permit};

/// What travels as an error where a body breaks off.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.detail())]
pub(crate) struct Broken(pub(crate) Reason);

/// A request's body, as it comes from the client.
pub(crate) enum RequestBody {
    Empty,
    /// Of the proxy's own; empty once it was taken.
    Own(Bytes),
    Http1 {
        wire: ClientWire,
        /// Bytes still to come, where the head said how many.
        left: Option<u64>,
        /// The client waits to be told that the body is wanted.
        expects: bool,
        ended: bool,
    },
    Http2(http2::Incoming),
}

impl RequestBody {
    /// A body that follows its head on `wire`.
    pub(crate) fn http1(wire: ClientWire, length: Option<u64>, expects: bool) -> Self {
        Self::Http1 {
            wire,
            left: length,
            expects,
            ended: false,
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Own(content) => content.is_empty(),
            Self::Http1 { ended, .. } => *ended,
            Self::Http2(incoming) => incoming.is_end_stream(),
        }
    }

    /// How much is still to come, where that is known.
    pub(crate) fn exact(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Own(content) => Some(content.len() as u64),
            Self::Http1 { left, .. } => *left,
            Self::Http2(incoming) => incoming.exact(),
        }
    }

    /// The next frame; trailers that may not be passed on are refused.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        let frame = match self {
            Self::Empty => None,
            Self::Own(content) => {
                let content = std::mem::take(content);
                (!content.is_empty()).then(|| Ok(Frame::data(content)))
            }
            Self::Http2(incoming) => {
                let frame = ready!(incoming.poll_frame(cx));
                frame.map(|frame| frame.map_err(|_| Reason::RequestAborted))
            }
            Self::Http1 { ended: true, .. } => None,
            Self::Http1 {
                wire,
                left,
                expects,
                ended,
            } => {
                if std::mem::take(expects) {
                    server::say_continue(wire, cx);
                }
                let arrival = ready!(wire.borrow_mut().poll_arrival(cx));
                *ended = !wire.borrow().mid_message() || !matches!(arrival, Ok(Arrival::Data(_)));
                if let (Some(left), Ok(Arrival::Data(data))) = (left, &arrival) {
                    *left = left.saturating_sub(data.len() as u64);
                }
                frame_of(arrival)
            }
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => match frame.trailers_ref().map(trailers_allowed) {
                Some(Err(reason)) => Some(Err(reason)),
                _ => Some(Ok(frame)),
            },
            other => other,
        })
    }
}

fn frame_of(arrival: Result<Arrival, ReadFailure>) -> Option<Result<Frame<Bytes>, Reason>> {
    match arrival {
        Ok(Arrival::Data(data)) => Some(Ok(Frame::data(data))),
        Ok(Arrival::Trailers(trailers)) => (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))),
        Ok(Arrival::Closed) | Err(ReadFailure::Io(_)) => Some(Err(Reason::RequestAborted)),
        Ok(Arrival::Request(..) | Arrival::Response(..)) => Some(Err(Reason::Internal)),
        Err(ReadFailure::Refused(reason)) => Some(Err(reason)),
    }
}

/// An upstream's answer behind its head.
pub(crate) enum Answer {
    Http1 {
        exchange: client::Exchange,
        lease: Lease,
    },
    Http2(http2::client::Exchange),
    /// It goes on in another protocol.
    Switched(Leg, BytesMut),
    /// One whose first frame somebody has looked at already.
    Peeked(Box<Peeked>),
}

/// What was looked at, until it is passed on, and what is behind it.
pub(crate) struct Peeked {
    first: Option<Frame<Bytes>>,
    rest: Answer,
}

/// What goes on in another protocol, once the answer that says so is written.
pub(crate) struct Switched {
    pub(crate) upstream: Leg,
    /// Already read from it.
    pub(crate) first: BytesMut,
    /// What a circuit breaker counts as long as it goes on.
    pub(crate) permit: Option<Permit>,
}

/// A whole answer, and what stands behind it.
pub(crate) struct Collected {
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<http::HeaderMap>,
}

impl Answer {
    /// How much is still to come, where that is known.
    pub(crate) fn exact(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1 { exchange, .. } => exchange.is_ended(),
            Self::Http2(exchange) => exchange.is_ended(),
            Self::Switched(..) => true,
            Self::Peeked(peeked) => peeked.first.is_none() && peeked.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1 { exchange, .. } => exchange.size_hint(),
            Self::Http2(exchange) => exchange.size_hint(),
            Self::Switched(..) => SizeHint::with_exact(0),
            Self::Peeked(peeked) => {
                let first = peeked
                    .first
                    .as_ref()
                    .and_then(Frame::data_ref)
                    .map_or(0, Bytes::len);
                let rest = peeked.rest.size_hint().exact();
                rest.map_or_else(SizeHint::default, |rest| {
                    SizeHint::with_exact(rest + first as u64)
                })
            }
        }
    }

    /// Reads the first frame, if it comes within `patience`, and keeps it for whoever reads the answer.
    pub(crate) async fn peek(mut self, patience: Duration) -> Result<Self, Reason> {
        match timeout(patience, poll_fn(|cx| self.poll_frame(cx))).await {
            Ok(first) => Ok(Self::Peeked(Box::new(Peeked {
                first: first.transpose()?,
                rest: self,
            }))),
            Err(_) => Ok(self),
        }
    }

    /// The trailers, where they were looked at: there is no data before them.
    pub(crate) fn peeked_trailers(&self) -> Option<&http::HeaderMap> {
        match self {
            Self::Peeked(peeked) => peeked.first.as_ref()?.trailers_ref(),
            _ => None,
        }
    }

    /// Reads to the end, after which the connection can be used again. `None`: there are more than `most` bytes.
    pub(crate) async fn collect(mut self, most: usize) -> Result<Option<Collected>, Reason> {
        let (mut body, mut trailers) = (BytesMut::new(), None);
        while !self.is_end_stream() {
            let Some(frame) = poll_fn(|cx| self.poll_frame(cx)).await else {
                break;
            };
            match frame?.into_data() {
                Ok(data) if body.len() + data.len() > most => return Ok(None),
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        self.give_back();
        Ok(Some(Collected {
            body: body.freeze(),
            trailers,
        }))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        match self {
            Self::Http1 { exchange, .. } => exchange.poll_frame(cx),
            Self::Http2(exchange) => exchange.poll_frame(cx),
            Self::Switched(..) => Poll::Ready(None),
            Self::Peeked(peeked) => match peeked.first.take() {
                Some(first) => Poll::Ready(Some(Ok(first))),
                None => peeked.rest.poll_frame(cx),
            },
        }
    }

    /// Sends on what is left of the request.
    fn drive(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http1 { exchange, .. } => exchange.drive(cx),
            Self::Http2(exchange) => exchange.drive(cx),
            Self::Switched(..) => {}
            Self::Peeked(peeked) => peeked.rest.drive(cx),
        }
    }

    /// To be called when the body was read to its end: its connection may be used again.
    fn give_back(self) {
        match self {
            Self::Http1 { exchange, lease } => lease.give_back(exchange),
            Self::Peeked(peeked) => peeked.rest.give_back(),
            Self::Http2(_) | Self::Switched(..) => {}
        }
    }
}

/// What a client gets: an upstream's body, or a few bytes of the proxy's own.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every body is an upstream's: no box for each"
)]
pub(crate) enum ResponseBody {
    Upstream(Passing),
    /// The record is left when the body is dropped.
    Own {
        text: Option<Bytes>,
        _record: Box<Record>,
    },
}

/// An upstream's body, with what has to be done at its end.
pub(crate) struct Passing {
    /// Let go of at the body's end.
    answer: Option<Answer>,
    record: Record,
    /// When the request's whole time is up.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    /// A body of the proxy's own, which leaves `record` when it is dropped.
    pub(crate) fn own(text: impl Into<Bytes>, record: Record) -> Self {
        let text: Bytes = text.into();
        Self::Own {
            text: Some(text).filter(|text| !text.is_empty()),
            _record: Box::new(record),
        }
    }

    /// An upstream's body. One that has no bytes is finished at once.
    pub(crate) fn passing(answer: Answer, record: Record, deadline: Option<Pin<Box<Sleep>>>) -> Self {
        let mut passing = Passing {
            answer: Some(answer),
            record,
            deadline,
        };
        if passing.is_end_stream() {
            passing.finish(None);
        }
        Self::Upstream(passing)
    }

    /// The upstream's connection, where this answers an upgrade that it agreed to.
    pub(crate) fn take_switched(&mut self) -> Option<Switched> {
        let Self::Upstream(passing) = self else {
            return None;
        };
        // Looked at first: other answers are not moved for it.
        if !matches!(passing.answer, Some(Answer::Switched(..))) {
            return None;
        }
        let Some(Answer::Switched(upstream, first)) = passing.answer.take() else {
            return None;
        };
        Some(Switched {
            upstream,
            first,
            permit: passing.record.release(),
        })
    }

    /// Sends on what is left of the request, while the answer cannot be passed on. Ready when the request's time is up:
    /// nothing more of the answer is passed on then.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Upstream(passing) = self else {
            return Poll::Pending;
        };
        if passing.is_late(cx) {
            passing.finish(Some(Reason::RequestTimeout));
            return Poll::Ready(());
        }
        if let Some(answer) = &mut passing.answer {
            answer.drive(cx);
        }
        Poll::Pending
    }
}

impl Passing {
    fn is_end_stream(&self) -> bool {
        self.answer.as_ref().is_none_or(Answer::is_end_stream)
    }

    fn finish(&mut self, failed: Option<Reason>) {
        self.deadline = None;
        match failed {
            None => {
                match self.answer.take() {
                    Some(switched @ Answer::Switched(..)) => {
                        self.answer = Some(switched);
                        return self.record.switched();
                    }
                    Some(answer) => answer.give_back(),
                    None => {}
                }
                self.record.body_ended();
            }
            Some(reason) => {
                self.answer = None;
                self.record.body_failed(reason);
            }
        }
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = self.deadline.as_mut();
        deadline.is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
    }

    fn poll_checked(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        if self.is_late(cx) {
            return Poll::Ready(Some(Err(Reason::RequestTimeout)));
        }
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(None);
        };
        Poll::Ready(match ready!(answer.poll_frame(cx)) {
            Some(Ok(frame)) => match frame.trailers_ref().map(response_trailers_allowed) {
                Some(Err(reason)) => Some(Err(reason)),
                _ => Some(Ok(frame)),
            },
            other => other,
        })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Own { text, .. } => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Upstream(passing) => match ready!(passing.poll_checked(cx)) {
                None => {
                    passing.finish(None);
                    Poll::Ready(None)
                }
                Some(Err(reason)) => {
                    passing.finish(Some(reason));
                    Poll::Ready(Some(Err(Broken(reason))))
                }
                Some(Ok(frame)) => {
                    passing.record.passed(&frame);
                    // Nobody asks for more once the end is known.
                    if frame.is_trailers() || passing.is_end_stream() {
                        passing.finish(None);
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { text, .. } => text.is_none(),
            Self::Upstream(passing) => passing.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { text, .. } => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Upstream(passing) => passing
                .answer
                .as_ref()
                .map_or_else(|| SizeHint::with_exact(0), Answer::size_hint),
        }
    }
}
