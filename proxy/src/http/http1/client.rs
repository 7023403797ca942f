//! One request and its answer on an HTTP/1.1 connection to an upstream, driven by whoever waits for it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use decision::Reason;
use decision::message::http1::{Http1Reader, ResponseTo};
use decision::message::response::Accepted;
use decision::message::{Body as BodyLength, MessageLimits, Upgrade};
use http::{Method, request, response};
use http_body::{Body as _, Frame, SizeHint};

use super::framing::Framing;
use super::head;
use super::sender::{SendFailure as SenderFailure, Sender};
use super::wire::{Arrival, ReadFailure, Wire};
use crate::http::replay::ReplayBody;
use crate::leg::Leg;
use crate::upstream::SendFailure;

/// A connection on which one exchange may follow another. Boxed: answers carry it, and are moved often.
pub(crate) type UpstreamWire = Box<RefCell<Wire>>;

/// A connection that is new.
pub(crate) fn connection(leg: Leg, limits: &MessageLimits) -> UpstreamWire {
    let wire = Wire::new(leg, BytesMut::new(), Http1Reader::responses(*limits));
    Box::new(RefCell::new(wire))
}

/// An exchange that has begun.
pub(crate) struct Exchange {
    wire: UpstreamWire,
    /// What is still to be sent; `None` once the request is whole.
    sending: Option<(Sender, ReplayBody)>,
    cut: Option<Cut>,
    /// Bytes of the answer still to come, where its head said how many.
    left: Option<u64>,
    ended: bool,
}

impl Exchange {
    /// Begins with a connection that is new or was left by an exchange that is over.
    pub(crate) fn begin(mut wire: UpstreamWire, parts: &request::Parts, body: ReplayBody) -> Self {
        let upgrade = parts.headers.contains_key(http::header::UPGRADE);
        let begun = wire.get_mut();
        begun.expect_response(ResponseTo {
            head: parts.method == Method::HEAD,
            upgrade: upgrade.then_some(Upgrade::WebSocket),
        });
        let out = begun.head();
        head::write_request(out, parts);
        let framing = Framing::of_request(out, &parts.method, &parts.headers, body.size_hint().exact());
        Self {
            wire,
            sending: Some((Sender::new(framing), body)),
            cut: None,
            left: None,
            ended: false,
        }
    }

    /// Waits for the answer's head, sending meanwhile.
    pub(crate) async fn answer(&mut self) -> Result<response::Parts, SendFailure> {
        poll_fn(|cx| self.poll_answer(cx)).await
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, SendFailure>> {
        match self.poll_request(cx) {
            Some(Cut::ByUpstream) if self.wire.get_mut().wrote_nothing() => {
                return Poll::Ready(Err(SendFailure::NotSent(Reason::ConnectionReset)));
            }
            Some(Cut::ByClient) => return Poll::Ready(Err(SendFailure::Broken(Reason::RequestAborted))),
            Some(Cut::ByUpstream) | None => {}
        }
        loop {
            let arrival = match ready!(self.wire.get_mut().poll_arrival(cx)) {
                Ok(arrival) => arrival,
                Err(failure) => return Poll::Ready(Err(SendFailure::Broken(reason_of(&failure)))),
            };
            match arrival {
                Arrival::Response(_, Accepted::Interim) => {}
                Arrival::Response(parts, accepted) => {
                    match accepted {
                        Accepted::Final {
                            body: BodyLength::Length(length),
                            ..
                        } => self.left = Some(length),
                        Accepted::Final {
                            body: BodyLength::None,
                            ..
                        } => {
                            self.left = Some(0);
                            self.ended = true;
                        }
                        _ => {}
                    }
                    return Poll::Ready(Ok(parts));
                }
                Arrival::Closed => {
                    let reason = self.wire.get_mut().end_of_input().err();
                    let reason = reason.unwrap_or(Reason::ConnectionReset);
                    return Poll::Ready(Err(SendFailure::Broken(reason)));
                }
                Arrival::Request(..) | Arrival::Data(_) | Arrival::Trailers(_) => {
                    return Poll::Ready(Err(SendFailure::Broken(Reason::Internal)));
                }
            }
        }
    }

    /// The next part of the answer's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(Cut::ByClient) = self.poll_request(cx) {
            return Poll::Ready(Some(Err(Reason::RequestAborted)));
        }
        let wire = self.wire.get_mut();
        Poll::Ready(match ready!(wire.poll_arrival(cx)) {
            Ok(Arrival::Data(data)) => {
                self.ended = !wire.mid_message();
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub(data.len() as u64);
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(Arrival::Trailers(trailers)) => {
                self.ended = true;
                (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers)))
            }
            Ok(Arrival::Closed) => {
                self.ended = true;
                wire.end_of_input().err().map(Err)
            }
            Ok(Arrival::Request(..) | Arrival::Response(..)) => Some(Err(Reason::Internal)),
            Err(failure) => Some(Err(reason_of(&failure))),
        })
    }

    /// Sends on what is left of the request.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        // Whoever reads the answer hears of it.
        let _ = self.poll_request(cx);
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The connection, if another exchange may follow: both messages are whole, and nothing stands behind them.
    pub(crate) fn into_reusable(mut self) -> Option<UpstreamWire> {
        let is_over = self.ended && self.sending.is_none();
        (is_over && self.wire.get_mut().is_reusable()).then_some(self.wire)
    }

    /// The connection after it was switched to another protocol, with what was already read of that.
    pub(crate) fn into_switched(self) -> (Leg, BytesMut) {
        self.wire.into_inner().into_parts()
    }

    /// Sends on, as far as the connection takes it; says why not, once it cannot.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Option<Cut> {
        let Some((sender, body)) = &mut self.sending else {
            return None;
        };
        if self.cut.is_none() {
            match sender.poll_send(&self.wire, body, cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.sending = None,
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "a request was not sent whole");
                    self.cut = Some(match error {
                        SenderFailure::Io(_) => Cut::ByUpstream,
                        SenderFailure::WrongLength(_) | SenderFailure::Incomplete => Cut::ByClient,
                    });
                }
            }
        }
        self.cut
    }
}

/// Why a request can be sent no further.
#[derive(Clone, Copy)]
enum Cut {
    /// It stopped reading; it may have answered all the same.
    ByUpstream,
    ByClient,
}

fn reason_of(failure: &ReadFailure) -> Reason {
    match failure {
        ReadFailure::Refused(reason) => *reason,
        ReadFailure::Io(error) => {
            tracing::debug!(%error, "upstream connection broke");
            Reason::ConnectionReset
        }
    }
}
