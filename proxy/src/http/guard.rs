//! Stands under hyper on every HTTP/1 connection and lets through only bytes that `decision` found unambiguous.
//!
//! hyper repairs what it should refuse (it drops a Content-Length beside Transfer-Encoding, takes a bare LF
//! for a line end), so judgement has to come before it. On a connection that carries requests, a refused head
//! is replaced by a placeholder ([`is_placeholder`]), which no client can send, followed by the end of input: the
//! refusal then takes the way of every other request and is answered from the one table of reasons. On a
//! connection that carries responses, a refusal is an I/O error that carries its [`Reason`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use decision::Reason;
use decision::message::http1::{Http1Reader, Progress, ResponseTo};
use decision::message::{MessageLimits, Upgrade};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

const PLACEHOLDER: &[u8] = b"REFUSED * HTTP/1.1\r\nhost: refused\r\n\r\n";
/// Its answer has no body.
const PLACEHOLDER_FOR_HEAD: &[u8] = b"HEAD * HTTP/1.1\r\nhost: refused\r\n\r\n";

/// Whether a request stands for a refused one. From any client, these would be refused for their target.
pub(crate) fn is_placeholder<B>(request: &http::Request<B>) -> bool {
    request.uri().path() == "*" && request.method() != http::Method::OPTIONS
}

/// An HTTP/1 byte stream of which only valid messages are read.
pub(crate) struct Guard<S> {
    io: S,
    reader: Http1Reader,
    state: Arc<GuardState>,
    /// Read from the socket, not yet seen by hyper.
    held: BytesMut,
    /// How many bytes at the front of `held` may pass.
    released: usize,
    /// The reader needs more bytes before it can judge what is held.
    wants_more: bool,
    ended: bool,
    carries: Carries,
    header_timeout: Duration,
    head_deadline: Option<Pin<Box<Sleep>>>,
    /// What is still read and thrown away after a refusal, see [`Guard::poll_linger`].
    linger: Option<Linger>,
    /// Woken by a write: an upgrade's answer decides what happens to the bytes after its request.
    waiting: Option<Waker>,
}

/// How long, and how much, a refused client may go on sending before its connection is cut.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

struct Linger {
    until: Pin<Box<Sleep>>,
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Carries {
    Requests,
    Responses,
}

/// What the two sides of a connection tell each other through the guard.
#[derive(Debug, Default)]
pub(crate) struct GuardState {
    /// 1 + index in `Reason::ALL`; 0 for none.
    refused: AtomicU8,
    order: AtomicU8,
}

const NOTHING: u8 = 0;
const EXPECT: u8 = 1;
const EXPECT_TO_HEAD: u8 = 2;
const EXPECT_TO_UPGRADE: u8 = 3;
const UPGRADED: u8 = 4;
const NOT_UPGRADED: u8 = 5;

impl GuardState {
    /// Why the guard let nothing more through.
    pub(crate) fn refused(&self) -> Option<Reason> {
        let index = self.refused.load(Ordering::Relaxed);
        Reason::ALL.get(usize::from(index).checked_sub(1)?).copied()
    }

    /// A request is about to be sent on this connection.
    pub(crate) fn expect_response(&self, head: bool, upgrade: bool) {
        let order = match (head, upgrade) {
            (_, true) => EXPECT_TO_UPGRADE,
            (true, _) => EXPECT_TO_HEAD,
            _ => EXPECT,
        };
        self.order.store(order, Ordering::Relaxed);
    }

    /// The answer to an upgrade request is on its way.
    pub(crate) fn upgrade_decided(&self, upgraded: bool) {
        self.order
            .store(if upgraded { UPGRADED } else { NOT_UPGRADED }, Ordering::Relaxed);
    }
}

/// The error that a refusal becomes on its way through hyper.
#[derive(Debug, thiserror::Error)]
#[error("refused: {}", .0.detail())]
pub(crate) struct Refused(pub(crate) Reason);

/// Finds the guard's verdict in an error that came out of hyper.
pub(crate) fn refusal_in(error: &(dyn std::error::Error + 'static)) -> Option<Reason> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(Refused(reason)) = error.downcast_ref() {
            return Some(*reason);
        }
        // io::Error shows what it carries by get_ref, not by source.
        if let Some(carried) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(Refused(reason)) = carried.downcast_ref()
        {
            return Some(*reason);
        }
        next = error.source();
    }
    None
}

impl<S> Guard<S> {
    /// Guards a connection on which requests arrive; `first` are bytes already read from it.
    pub(crate) fn requests(
        io: S,
        first: BytesMut,
        limits: &MessageLimits,
        header_timeout: Duration,
    ) -> (Self, Arc<GuardState>) {
        Self::new(
            io,
            first,
            Http1Reader::requests(*limits),
            Carries::Requests,
            header_timeout,
        )
    }

    /// Guards a connection on which responses arrive.
    pub(crate) fn responses(io: S, limits: &MessageLimits) -> (Self, Arc<GuardState>) {
        let reader = Http1Reader::responses(*limits);
        Self::new(io, BytesMut::new(), reader, Carries::Responses, Duration::MAX)
    }

    fn new(
        io: S,
        first: BytesMut,
        reader: Http1Reader,
        carries: Carries,
        header_timeout: Duration,
    ) -> (Self, Arc<GuardState>) {
        let state = Arc::<GuardState>::default();
        let guard = Self {
            io,
            reader,
            state: state.clone(),
            held: first,
            released: 0,
            wants_more: false,
            ended: false,
            carries,
            header_timeout,
            head_deadline: None,
            linger: None,
            waiting: None,
        };
        (guard, state)
    }

    /// Carries out what the other side of the connection ordered since the last read.
    fn take_order(&mut self) {
        if self.state.order.load(Ordering::Relaxed) == NOTHING {
            return;
        }
        match self.state.order.swap(NOTHING, Ordering::Relaxed) {
            EXPECT => self.reader.expect_response(ResponseTo {
                head: false,
                upgrade: None,
            }),
            EXPECT_TO_HEAD => self.reader.expect_response(ResponseTo {
                head: true,
                upgrade: None,
            }),
            EXPECT_TO_UPGRADE => {
                let upgrade = Some(Upgrade::WebSocket);
                self.reader.expect_response(ResponseTo { head: false, upgrade });
            }
            UPGRADED => self.reader.upgraded(),
            NOT_UPGRADED => self.reader.not_upgraded(),
            _ => {}
        }
        self.wants_more = false;
    }

    /// Lets nothing more in from the peer. A refused head becomes the placeholder; anything else an error.
    fn refuse(&mut self, reason: Reason) -> io::Result<()> {
        let index = Reason::ALL.iter().position(|r| *r == reason).unwrap_or(0);
        self.state
            .refused
            .store(u8::try_from(index + 1).unwrap_or(u8::MAX), Ordering::Relaxed);
        let to_head = self.held.trim_ascii_start().starts_with(b"HEAD ");
        self.held.clear();
        self.released = 0;
        self.ended = true;
        self.head_deadline = None;
        if self.carries == Carries::Requests && self.reader.mid_head() {
            self.held.extend_from_slice(if to_head {
                PLACEHOLDER_FOR_HEAD
            } else {
                PLACEHOLDER
            });
            self.released = self.held.len();
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, Refused(reason)))
    }

    /// Judges what is held, as far as it can be judged.
    fn judge_held(&mut self) -> io::Result<()> {
        while !self.wants_more && self.released < self.held.len() {
            match self.reader.advance(&self.held[self.released..]) {
                Progress::Release(count) => self.released += count,
                Progress::Hold => self.wants_more = true,
                Progress::Refuse(reason) if self.released == 0 => return self.refuse(reason),
                // What was released before the refused part passes first.
                Progress::Refuse(_) => break,
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// Reads into hyper's buffer and judges there: the usual case, without a copy.
    fn poll_in_place(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let fresh = buf.filled().len();
        if fresh == before {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        let mut good = before;
        while good < fresh {
            match self.reader.advance(&buf.filled()[good..fresh]) {
                Progress::Release(count) => good += count,
                Progress::Hold => {
                    self.wants_more = true;
                    break;
                }
                Progress::Refuse(_) => break,
            }
        }
        if good < fresh {
            // Held or refused: a refusal is sticky and is said when what stands before it has passed.
            self.held.extend_from_slice(&buf.filled()[good..fresh]);
            buf.set_filled(good);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.reserve(4096);
        let read = ready!(tokio_util::io::poll_read_buf(
            Pin::new(&mut self.io),
            cx,
            &mut self.held
        ))?;
        self.ended = read == 0;
        self.wants_more = false;
        Poll::Ready(Ok(()))
    }

    /// Reads on for a moment after the answer to a refused request: a socket that is closed with unread bytes
    /// is reset, and the client might never see the answer (RFC 9112 section 9.6).
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let new = || Linger {
            until: Box::pin(sleep(LINGER_TIME)),
            bytes: 0,
        };
        let linger = self.linger.get_or_insert_with(new);
        let mut scrap = [0; 8192];
        loop {
            if linger.bytes > LINGER_BYTES || linger.until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut buf = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => linger.bytes += buf.filled().len(),
                _ => return Poll::Ready(()),
            }
        }
    }

    /// The time for a head that has begun; armed only when it did not arrive in one piece.
    fn poll_head_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.carries == Carries::Responses || !self.reader.mid_head() {
            self.head_deadline = None;
            return Poll::Pending;
        }
        let timeout = self.header_timeout;
        self.head_deadline
            .get_or_insert_with(|| Box::pin(sleep(timeout)))
            .as_mut()
            .poll(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let already = buf.filled().len();
        loop {
            this.take_order();
            this.judge_held()?;
            if this.released > 0 {
                // The next head has a time of its own.
                this.head_deadline = None;
                let count = this.released.min(buf.remaining());
                buf.put_slice(&this.held[..count]);
                this.held.advance(count);
                this.released -= count;
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                ready!(this.poll_in_place(cx, buf))?;
                if buf.filled().len() > already || this.ended {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if this.reader.awaiting_upgrade() {
                this.waiting = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if this.poll_head_deadline(cx).is_ready() {
                this.refuse(Reason::HeaderTimeout)?;
                continue;
            }
            ready!(this.poll_more(cx))?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wake_waiting();
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wake_waiting();
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if this.carries == Carries::Responses || this.state.refused().is_none() {
                return Poll::Ready(Ok(()));
            }
        }
        this.poll_linger(cx).map(Ok)
    }
}

impl<S> Guard<S> {
    fn wake_waiting(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}
