//! The bytes of one HTTP/1 connection: judged and cut into units on the way in, gathered into few writes on the way
//! out.
//!
//! What arrives is read into the thread's own space first, so that a connection that waits for its next message holds
//! no more than its last small one took. Only a peer that sends much gets a buffer to read into directly.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use decision::Reason;
use decision::message::http1::{Http1Reader, RequestAt, ResponseTo, Unit};
use decision::message::response::Accepted;
use http::{HeaderMap, request, response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head;
use crate::leg::Leg;

/// The most that one read takes.
const READ_BYTES: usize = 64 * 1024;
/// How much is read of what a client sends ahead while it waits for an answer.
const AHEAD_BYTES: usize = READ_BYTES;
/// A read of this size says that more is to come.
const BULK_BYTES: usize = 16 * 1024;
/// Content up to this size is copied behind its head rather than written from where it stands.
const COPY_BYTES: usize = 4 * 1024;
/// A connection that waits keeps the buffers of messages up to this size: the next message is likely to be as large.
const KEPT_BYTES: usize = 512;

thread_local! {
    static SPACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// One HTTP/1 connection.
pub(crate) struct Wire {
    leg: Leg,
    reader: Http1Reader,
    /// Read from the peer and not taken yet.
    held: BytesMut,
    /// What is held is the beginning of a unit.
    wants_more: bool,
    ended: bool,
    bulk: bool,
    /// A buffer has become larger than what is kept.
    large: bool,
    out: Outgoing,
    /// Something was written since the connection last rested.
    wrote: bool,
    /// The final answer has begun: nothing else may be said before it ends.
    answering: bool,
}

/// What is to be written, in this order.
#[derive(Default)]
struct Outgoing {
    head: BytesMut,
    content: Bytes,
    after: &'static [u8],
}

/// What came from the peer.
pub(crate) enum Arrival {
    Request(request::Parts, RequestAt),
    Response(response::Parts, Accepted),
    Data(Bytes),
    /// The end of a chunked message; mostly there is nothing in it.
    Trailers(HeaderMap),
    /// The peer sends nothing more.
    Closed,
}

/// Why nothing more is read.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// What came is no valid message.
    Refused(Reason),
    Io(io::Error),
}

impl Wire {
    /// `first` was already read from `leg`.
    pub(crate) fn new(leg: Leg, first: BytesMut, reader: Http1Reader) -> Self {
        Self {
            leg,
            reader,
            held: first,
            wants_more: false,
            ended: false,
            bulk: false,
            large: true,
            out: Outgoing::default(),
            wrote: false,
            answering: false,
        }
    }

    /// The next unit that is not mere framing.
    pub(crate) fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arrival, ReadFailure>> {
        loop {
            if !self.wants_more && !self.held.is_empty() {
                match self.reader.read(&self.held) {
                    Unit::Incomplete => self.wants_more = true,
                    Unit::Framing(bytes) => self.held.advance(bytes),
                    unit => return Poll::Ready(self.take(unit)),
                }
            } else if self.ended {
                return Poll::Ready(Ok(Arrival::Closed));
            } else {
                ready!(self.poll_fill(cx)).map_err(ReadFailure::Io)?;
            }
        }
    }

    /// Takes a unit off what is held.
    fn take(&mut self, unit: Unit) -> Result<Arrival, ReadFailure> {
        let mut take = |count| self.held.split_to(count).freeze();
        Ok(match unit {
            Unit::Request(at) => {
                let parts = head::request(&take(at.bytes), &at, self.reader.fields());
                let parts = parts.map_err(ReadFailure::Refused)?;
                Arrival::Request(parts, at)
            }
            Unit::Response(at) => {
                let parts = head::response(&take(at.bytes), &at, self.reader.fields());
                let parts = parts.map_err(ReadFailure::Refused)?;
                Arrival::Response(parts, at.accepted)
            }
            Unit::Data(count) | Unit::Switched(count) => Arrival::Data(take(count)),
            Unit::Trailers(count) => {
                Arrival::Trailers(head::headers(&take(count), self.reader.fields()).unwrap_or_default())
            }
            Unit::Refused(reason) => return Err(ReadFailure::Refused(reason)),
            Unit::Incomplete | Unit::Framing(_) => return Err(ReadFailure::Refused(Reason::Internal)),
        })
    }

    /// The peer has closed where that is the end of a body, or between messages; else the reason for which it is not.
    pub(crate) fn end_of_input(&mut self) -> Result<(), Reason> {
        self.reader.end_of_input()
    }

    pub(crate) fn expect_response(&mut self, to: ResponseTo) {
        self.reader.expect_response(to);
    }

    /// The client's request to upgrade was not granted: the next request may follow.
    pub(crate) fn not_upgraded(&mut self) {
        self.reader.not_upgraded();
        self.wants_more = false;
    }

    /// Whether a head has begun and is not whole.
    pub(crate) fn mid_head(&self) -> bool {
        self.reader.mid_head()
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn mid_message(&self) -> bool {
        self.reader.mid_message()
    }

    /// Whether the refused head, of which this is all that arrived, was that of a HEAD request.
    pub(crate) fn refused_head_request(&self) -> bool {
        self.held.trim_ascii_start().starts_with(b"HEAD ")
    }

    /// Whether another request may be sent: the last exchange has ended, and nothing came since.
    pub(crate) fn is_reusable(&self) -> bool {
        self.reader.reusable() && self.held.is_empty() && !self.ended && self.out.is_empty()
    }

    /// Whether a connection out of use is as it was left. What came meanwhile is its end, or nothing that was asked for.
    /// `watch` is woken when something comes later.
    pub(crate) fn is_quiet(&mut self, watch: &Waker) -> bool {
        self.held.is_empty() && self.poll_fill(&mut Context::from_waker(watch)).is_pending()
    }

    /// Whether the peer is gone while its message is being answered. A peer that sends nothing more may still read, unless
    /// `half_closes` is false. What it sends ahead is kept for later, as far as it is looked through for its end.
    pub(crate) fn is_gone(&mut self, half_closes: bool, cx: &mut Context<'_>) -> bool {
        if self.ended {
            return !half_closes;
        }
        if self.mid_message() {
            // Whoever reads the message finds out.
            return false;
        }
        while self.held.len() < AHEAD_BYTES {
            match self.poll_fill(cx) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(_)) if self.ended => return !half_closes,
                Poll::Ready(Ok(_)) => {}
            }
        }
        false
    }

    /// Lets go of large buffers, while nothing is on its way.
    pub(crate) fn rest(&mut self) {
        if self.large && self.held.is_empty() && self.out.is_empty() {
            self.held = BytesMut::new();
            self.out = Outgoing::default();
            self.large = false;
        }
        self.bulk = false;
        self.wrote = false;
        self.answering = false;
    }

    /// The final answer's head is written from here on.
    pub(crate) fn answer(&mut self) -> &mut BytesMut {
        self.answering = true;
        self.head()
    }

    /// Whether the final answer has begun.
    pub(crate) fn is_answering(&self) -> bool {
        self.answering
    }

    /// Whether nothing was written since the connection last rested.
    pub(crate) fn wrote_nothing(&self) -> bool {
        !self.wrote
    }

    /// Where heads are written.
    pub(crate) fn head(&mut self) -> &mut BytesMut {
        &mut self.out.head
    }

    /// Whether more may be [`put`](Wire::put) before it is written: up to `most` bytes are gathered.
    pub(crate) fn gathers(&self, most: usize) -> bool {
        self.out.content.is_empty() && self.out.after.is_empty() && self.out.head.len() < most
    }

    /// Adds content, and what follows it, to what is to be written.
    pub(crate) fn put(&mut self, content: Bytes, after: &'static [u8]) {
        if content.len() <= COPY_BYTES {
            self.out.head.extend_from_slice(&content);
            self.out.head.extend_from_slice(after);
        } else {
            self.out.content = content;
            self.out.after = after;
        }
    }

    /// Writes all that is to be written.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.large |= self.out.head.len() > KEPT_BYTES;
        let leg = &mut self.leg;
        while !self.out.is_empty() {
            let written = if self.out.content.is_empty() && self.out.after.is_empty() {
                ready!(Pin::new(&mut *leg).poll_write(cx, &self.out.head))?
            } else {
                let parts = [&self.out.head[..], &self.out.content[..], self.out.after].map(IoSlice::new);
                ready!(Pin::new(&mut *leg).poll_write_vectored(cx, &parts))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
            self.wrote = true;
        }
        Pin::new(leg).poll_flush(cx)
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.leg).poll_shutdown(cx)
    }

    /// Reads and throws away; how much.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.held.clear();
        self.poll_fill(cx)
    }

    /// Ends HTTP on this connection: its bytes, and those already read.
    pub(crate) fn into_parts(self) -> (Leg, BytesMut) {
        (self.leg, self.held)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let count = if self.bulk {
            self.held.reserve(READ_BYTES);
            let leg = Pin::new(&mut self.leg);
            ready!(tokio_util::io::poll_read_buf(leg, cx, &mut self.held))?
        } else {
            ready!(self.poll_read_small(cx))?
        };
        self.bulk = count >= BULK_BYTES;
        self.large |= self.held.len() > KEPT_BYTES;
        self.ended = count == 0;
        self.wants_more = false;
        Poll::Ready(Ok(count))
    }

    fn poll_read_small(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SPACE.with_borrow_mut(|space| {
            let mut space = ReadBuf::new(space);
            ready!(Pin::new(&mut self.leg).poll_read(cx, &mut space))?;
            self.held.extend_from_slice(space.filled());
            Poll::Ready(Ok(space.filled().len()))
        })
    }
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.head.is_empty() && self.content.is_empty() && self.after.is_empty()
    }

    fn advance(&mut self, mut written: usize) {
        let part = written.min(self.head.len());
        self.head.advance(part);
        written -= part;
        let part = written.min(self.content.len());
        self.content.advance(part);
        written -= part;
        self.after = self.after.get(written..).unwrap_or_default();
    }
}
