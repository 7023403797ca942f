//! The body of a response on its way to the client: passed through, watched to its end, and then recorded.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use decision::Reason;
use decision::message::fields::response_trailers_allowed;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::activity::Busy;
use super::guard::{Refused, refusal_in};
use crate::telemetry::Record;
use crate::upstream::Lease;

/// What a client gets: an upstream's body, or a few bytes of the proxy's own.
pub(crate) enum ResponseBody {
    Upstream(Box<Passing>),
    /// The record is left when the body is dropped.
    Own {
        text: Option<Bytes>,
        _record: Box<Record>,
    },
}

/// An upstream's body, with what has to be done at its end.
pub(crate) struct Passing {
    incoming: Incoming,
    record: Record,
    /// Given back to the pool at the body's end; dropped, and its connection closed, if it does not get there.
    lease: Option<Lease>,
    /// When the request's whole time is up.
    deadline: Option<Pin<Box<Sleep>>>,
    /// The client's connection is not idle before the end.
    busy: Option<Busy>,
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
    pub(crate) fn passing(mut passing: Passing) -> Self {
        if passing.incoming.is_end_stream() {
            passing.finish(None);
        }
        Self::Upstream(Box::new(passing))
    }

    /// Holds `busy` until the body has ended.
    pub(crate) fn keep(&mut self, busy: Busy) {
        if let Self::Upstream(passing) = self
            && !passing.incoming.is_end_stream()
        {
            passing.busy = Some(busy);
        }
    }
}

impl Passing {
    pub(crate) fn new(
        incoming: Incoming,
        record: Record,
        lease: Option<Lease>,
        deadline: Option<Pin<Box<Sleep>>>,
    ) -> Self {
        Self {
            incoming,
            record,
            lease,
            deadline,
            busy: None,
        }
    }

    fn finish(&mut self, failed: Option<Reason>) {
        match failed {
            None => {
                if let Some(lease) = self.lease.take() {
                    lease.give_back();
                }
                self.record.body_ended();
            }
            Some(reason) => {
                self.lease = None;
                self.record.body_failed(reason);
            }
        }
        self.deadline = None;
        self.busy = None;
    }

    fn poll_checked(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(Reason::RequestTimeout)));
        }
        Poll::Ready(match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            None => None,
            Some(Err(error)) => Some(Err(refusal_in(&error).unwrap_or(Reason::ConnectionReset))),
            Some(Ok(frame)) => match frame.trailers_ref().map(response_trailers_allowed) {
                Some(Err(reason)) => Some(Err(reason)),
                _ => Some(Ok(frame)),
            },
        })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Refused;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Refused>>> {
        match self.get_mut() {
            Self::Own { text, .. } => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Upstream(passing) => match ready!(passing.poll_checked(cx)) {
                None => {
                    passing.finish(None);
                    Poll::Ready(None)
                }
                Some(Err(reason)) => {
                    passing.finish(Some(reason));
                    Poll::Ready(Some(Err(Refused(reason))))
                }
                Some(Ok(frame)) => {
                    passing.record.passed(&frame);
                    // hyper asks for nothing more once it knows the end.
                    if frame.is_trailers() || passing.incoming.is_end_stream() {
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
            Self::Upstream(passing) => passing.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { text, .. } => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Upstream(passing) => passing.incoming.size_hint(),
        }
    }
}
