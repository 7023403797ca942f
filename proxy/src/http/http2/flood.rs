//! Stands under the codec on HTTP/2 connections and counts what a peer makes the proxy do for nothing.
//!
//! What is over its limit never reaches the codec. The connection then ends in order: GOAWAY with the code that
//! says why, behind the last whole frame that was written; end of output; and what the peer still sends is thrown
//! away for a moment, so that no reset overtakes the GOAWAY.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::settings::Limits;
use bytes::{Buf, BytesMut};
use decision::Reason;
use decision::message::flood::{Excess, FrameBoundary, FrameMeter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long saying GOAWAY may take with a peer that does not read.
const FAREWELL_TIME: Duration = Duration::from_secs(1);
/// How much of what the peer sends behind the excess is thrown away before the connection is cut.
const FAREWELL_BYTES: usize = 1024 * 1024;

/// An HTTP/2 byte stream of which every frame is counted.
pub(crate) struct Metered<S> {
    io: S,
    peer: SocketAddr,
    /// Already read from `io`.
    first: BytesMut,
    meter: FrameMeter,
    written: FrameBoundary,
    /// When `io` was last read; frames that are written count in the same window.
    now: Instant,
    header_timeout: Duration,
    /// When the header block that has begun must have ended; armed only when it did not arrive in one piece.
    block_deadline: Option<Pin<Box<Sleep>>>,
    farewell: Option<Farewell>,
}

/// The end of a connection whose peer went over a limit.
struct Farewell {
    excess: Excess,
    /// What is not yet written of the GOAWAY, and of a refused request's answer before it.
    last_words: BytesMut,
    begun: bool,
    shut_down: bool,
    thrown_away: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<S> Metered<S> {
    /// Counts what a client sends; `first` was already read from `io`.
    pub(crate) fn of_client(io: S, peer: SocketAddr, first: BytesMut, limits: &Limits) -> Self {
        Self::new(
            io,
            peer,
            first,
            (FrameMeter::of_client(limits.frames), FrameBoundary::of_server()),
            limits.header_timeout,
        )
    }

    /// Counts what a server sends.
    pub(crate) fn of_server(io: S, peer: SocketAddr, limits: &Limits) -> Self {
        Self::new(
            io,
            peer,
            BytesMut::new(),
            (FrameMeter::of_server(limits.frames), FrameBoundary::of_client()),
            limits.header_timeout,
        )
    }

    fn new(
        io: S,
        peer: SocketAddr,
        first: BytesMut,
        (meter, written): (FrameMeter, FrameBoundary),
        header_timeout: Duration,
    ) -> Self {
        Self {
            io,
            peer,
            first,
            meter,
            written,
            now: Instant::now(),
            header_timeout,
            block_deadline: None,
            farewell: None,
        }
    }

    fn end(&mut self, excess: Excess) {
        tracing::info!(peer = %self.peer, reason = %excess, "HTTP/2 connection closed");
        let status = excess.reason().map(Reason::proxy_status);
        let fields = status.as_deref().map(|status| ("proxy-status", status));
        let last_words = self.meter.farewell(fields.as_slice());
        self.farewell.get_or_insert_with(|| Farewell {
            excess,
            last_words: BytesMut::from(&last_words[..]),
            begun: false,
            shut_down: false,
            thrown_away: 0,
            deadline: Box::pin(sleep(FAREWELL_TIME)),
        });
    }

    /// Follows what was written, whole frames or parts of them.
    fn wrote(&mut self, bytes: &[u8]) {
        self.written.feed(bytes);
        if let Err(excess) = self.meter.wrote(self.written.take_written(), self.now)
            && self.farewell.is_none()
        {
            self.end(excess);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Metered<S> {
    fn poll_block_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.meter.mid_header_block() {
            self.block_deadline = None;
            return Poll::Pending;
        }
        let timeout = self.header_timeout;
        self.block_deadline
            .get_or_insert_with(|| Box::pin(sleep(timeout)))
            .as_mut()
            .poll(cx)
    }

    /// Says farewell as far as the peer lets it. The connection is over with the error that this ends with.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(farewell) = &mut self.farewell else {
            return Poll::Pending;
        };
        let over = io::Error::new(io::ErrorKind::ConnectionAborted, farewell.excess);
        if farewell.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(over);
        }
        if !farewell.begun && !self.written.at_boundary() {
            // The codec has to write the rest of its frame first.
            return Poll::Pending;
        }
        farewell.begun = true;
        match poll_say(&mut self.io, farewell, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(over),
        }
    }
}

/// GOAWAY, end of output, and reading on for a moment.
fn poll_say<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    farewell: &mut Farewell,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !farewell.last_words.is_empty() {
        let count = ready!(Pin::new(&mut *io).poll_write(cx, &farewell.last_words))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        farewell.last_words.advance(count);
    }
    if !farewell.shut_down {
        ready!(Pin::new(&mut *io).poll_flush(cx))?;
        ready!(Pin::new(&mut *io).poll_shutdown(cx))?;
        farewell.shut_down = true;
    }
    let mut space = [0; 4096];
    while farewell.thrown_away < FAREWELL_BYTES {
        let mut buf = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut *io).poll_read(cx, &mut buf))?;
        if buf.filled().is_empty() {
            break;
        }
        farewell.thrown_away += buf.filled().len();
    }
    Poll::Ready(Ok(()))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.farewell.is_none() {
            let before = buf.filled().len();
            if this.first.is_empty() {
                match Pin::new(&mut this.io).poll_read(cx, buf) {
                    Poll::Ready(read) => read?,
                    Poll::Pending if this.poll_block_deadline(cx).is_ready() => {
                        let late = this.meter.header_block_is_late();
                        this.end(late);
                        return this.poll_farewell(cx).map(Err);
                    }
                    Poll::Pending => return Poll::Pending,
                }
            } else {
                let count = this.first.len().min(buf.remaining());
                buf.put_slice(&this.first[..count]);
                this.first.advance(count);
            }
            this.now = Instant::now();
            match this.meter.feed(&buf.filled()[before..], this.now) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(excess) => {
                    buf.set_filled(before);
                    this.end(excess);
                }
            }
        }
        this.poll_farewell(cx).map(Err)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.farewell.is_some()
            && (this.written.at_boundary() || this.farewell.as_ref().is_some_and(|farewell| farewell.begun))
        {
            return this.poll_farewell(cx).map(Err);
        }
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.wrote(buf.get(..count).unwrap_or(buf));
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.farewell.is_some() {
            // Up to the end of one frame at a time.
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return Pin::new(this).poll_write(cx, first);
        }
        let count = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        let mut left = count;
        for buf in bufs {
            let part = buf.get(..left).unwrap_or(buf);
            this.wrote(part);
            left -= part.len();
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
