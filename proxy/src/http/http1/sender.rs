//! Writes one body onto an HTTP/1 connection, together with the head that stands before it where both fit.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body;

use super::framing::{Framing, WrongLength};
use super::wire::Wire;

/// Written in one piece, as far as it is there.
const GATHER_BYTES: usize = 16 * 1024;

/// Where the sending of a message stands.
pub(crate) struct Sender {
    framing: Framing,
    ended: bool,
    /// The body broke off. What was good of it is written before anybody is told.
    broken: bool,
}

/// Why a message was not sent whole. Its connection cannot be used again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendFailure {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    WrongLength(#[from] WrongLength),
    /// Whoever the body comes from broke off.
    #[error("the body ended early")]
    Incomplete,
}

impl Sender {
    /// The head is written to `wire` already, with `framing`.
    pub(crate) fn new(framing: Framing) -> Self {
        Self {
            framing,
            ended: false,
            broken: false,
        }
    }

    /// Gathers what there is of the body and writes it, until all is written.
    pub(crate) fn poll_send<B>(
        &mut self,
        wire: &RefCell<Wire>,
        body: &mut B,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendFailure>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            let mut waits = false;
            while !self.ended && !self.broken && !waits && wire.borrow().gathers(GATHER_BYTES) {
                waits = !self.gather(wire, body, cx)?;
            }
            match wire.borrow_mut().poll_flush(cx) {
                Poll::Ready(written) => written?,
                Poll::Pending => return Poll::Pending,
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if self.broken {
                return Poll::Ready(Err(SendFailure::Incomplete));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Takes one frame of the body; false where there is none yet.
    fn gather<B>(
        &mut self,
        wire: &RefCell<Wire>,
        body: &mut B,
        cx: &mut Context<'_>,
    ) -> Result<bool, WrongLength>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let frame = if self.framing.is_none() || body.is_end_stream() {
            None
        } else {
            // Reading the body may read this very wire: a request's body stands on its client's connection.
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(None) => None,
                Poll::Ready(Some(Err(_))) => {
                    self.broken = true;
                    return Ok(true);
                }
                Poll::Ready(Some(Ok(frame))) => Some(frame),
            }
        };
        let mut wire = wire.borrow_mut();
        match frame.map(http_body::Frame::into_data) {
            Some(Ok(data)) => self.framing.data(&mut wire, data)?,
            Some(Err(frame)) => self.end(&mut wire, frame.trailers_ref())?,
            None => self.end(&mut wire, None)?,
        }
        Ok(true)
    }

    fn end(&mut self, wire: &mut Wire, trailers: Option<&http::HeaderMap>) -> Result<(), WrongLength> {
        self.ended = true;
        self.framing.end(wire, trailers)
    }
}
