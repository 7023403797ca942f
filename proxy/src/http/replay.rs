//! A request's body that can be sent more than once, as long as what was sent of it is still kept.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use decision::Reason;
use http_body::{Body, Frame, SizeHint};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::body::{Broken, RequestBody};

/// The body as the client sends it, shared by all attempts of its request.
#[derive(Clone)]
pub(crate) struct ReplaySource(Option<Rc<RefCell<Source>>>);

struct Source {
    incoming: RequestBody,
    /// What was read so far, to be sent again; empty once it is over `keep_bytes`.
    kept: KeptFrames,
    kept_bytes: usize,
    keep_bytes: usize,
    /// More was read than is kept: only the attempt that reads on can go on.
    overflowed: bool,
    ended: bool,
    /// What the client did wrong in its body, if it did.
    failed: Option<Reason>,
    /// The attempt that may read; an older one that still lives must not steal bytes.
    attempt: u32,
    /// Who wants the whole body as well. Let go of where it is not kept.
    copies: Vec<oneshot::Sender<Whole>>,
}

type KeptFrames = SmallVec<[Kept; 2]>;

#[derive(Clone)]
enum Kept {
    Data(Bytes),
    /// Tiny frames, joined: kept one by one they would cost more than their bytes.
    Joined(BytesMut),
    Trailers(http::HeaderMap),
}

/// Frames smaller than this are joined.
const TINY_BYTES: usize = 1024;
/// Once so many frames are kept; most bodies have fewer.
const JOINED_FROM: usize = 64;
/// As much is joined as is worth while to send at once.
const JOINED_BYTES: usize = 16 * 1024;

/// A body that has come to its end.
#[derive(Default)]
pub(crate) struct Whole(KeptFrames);

impl Whole {
    /// One of these bytes.
    pub(crate) fn data(bytes: Bytes) -> Self {
        let data = Some(bytes).filter(|bytes| !bytes.is_empty());
        Self(data.into_iter().map(Kept::Data).collect())
    }
}

/// The body of one attempt.
pub(crate) struct ReplayBody {
    source: Option<Rc<RefCell<Source>>>,
    attempt: u32,
    position: Position,
}

/// How much of what is kept an attempt has sent.
#[derive(Clone, Copy, Default)]
struct Position {
    frame: usize,
    /// Of that frame, in bytes; 1 of trailers that were sent.
    within: usize,
}

impl ReplaySource {
    /// Keeps up to `keep_bytes` of `incoming` for another attempt.
    pub(crate) fn new(incoming: RequestBody, keep_bytes: usize) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        Self(Some(Rc::new(RefCell::new(Source {
            incoming,
            kept: SmallVec::new(),
            kept_bytes: 0,
            keep_bytes,
            overflowed: false,
            ended: false,
            failed: None,
            attempt: 0,
            copies: Vec::new(),
        }))))
    }

    /// A body that is there already.
    pub(crate) fn of(whole: Whole) -> Self {
        if whole.0.is_empty() {
            return Self(None);
        }
        Self(Some(Rc::new(RefCell::new(Source {
            incoming: RequestBody::Empty,
            kept_bytes: whole.0.iter().map(Kept::bytes).sum(),
            kept: whole.0,
            keep_bytes: usize::MAX,
            overflowed: false,
            ended: true,
            failed: None,
            attempt: 0,
            copies: Vec::new(),
        }))))
    }

    /// The whole body, once attempts have read it to its end; never, where it is larger than what is kept, or where it
    /// does not end. `None`: there is no body.
    pub(crate) fn copied(&self) -> Option<oneshot::Receiver<Whole>> {
        let mut source = self.0.as_ref()?.borrow_mut();
        let (sender, receiver) = oneshot::channel();
        if !source.overflowed {
            source.copies.push(sender);
        }
        if source.ended || source.incoming.is_end_stream() {
            source.hand_out();
        }
        Some(receiver)
    }

    /// Reads the whole body, and keeps it for attempts. `None`: it has more than `most` bytes.
    ///
    /// # Errors
    /// What the client did wrong in its body.
    pub(crate) async fn read_whole(&self, most: usize) -> Result<Option<Bytes>, Reason> {
        let Some(source) = &self.0 else {
            return Ok(Some(Bytes::new()));
        };
        let declared = self.exact().unwrap_or_default();
        {
            let mut source = source.borrow_mut();
            source.keep_bytes = source.keep_bytes.max(most);
        }
        if declared > most as u64 {
            return Ok(None);
        }
        while let Some(frame) = poll_fn(|cx| source.borrow_mut().poll_fresh(cx)).await {
            frame.map_err(|Broken(reason)| reason)?;
            let source = source.borrow();
            if source.overflowed || source.kept_bytes > most {
                return Ok(None);
            }
        }
        Ok(Some(source.borrow().kept_data()))
    }

    /// The length of the whole body, where it is known.
    pub(crate) fn exact(&self) -> Option<u64> {
        self.0.as_ref().map_or(Some(0), |source| {
            let source = source.borrow();
            let read = source.kept.iter().map(Kept::bytes).sum::<usize>() as u64;
            source.incoming.exact().map(|rest| read + rest)
        })
    }

    /// The body for the next attempt. The one before it, if it still lives, reads no further.
    pub(crate) fn next_attempt(&self) -> ReplayBody {
        let attempt = self.0.as_ref().map_or(0, |source| {
            let mut source = source.borrow_mut();
            source.attempt += 1;
            source.attempt
        });
        ReplayBody {
            source: self.0.clone(),
            attempt,
            position: Position::default(),
        }
    }

    /// Whether another attempt can be given the whole body.
    pub(crate) fn is_replayable(&self) -> bool {
        self.0.as_ref().is_none_or(|source| !source.borrow().overflowed)
    }

    /// Whether all of the body is there, and kept.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|source| source.borrow().is_whole())
    }

    /// Whether anything of the body was read yet.
    pub(crate) fn is_untouched(&self) -> bool {
        self.0.as_ref().is_none_or(|source| {
            let source = source.borrow();
            source.kept.is_empty() && !source.overflowed
        })
    }

    /// What the client did wrong in its body, if it did.
    pub(crate) fn failure(&self) -> Option<Reason> {
        self.0.as_ref().and_then(|source| source.borrow().failed)
    }
}

impl Kept {
    fn bytes(&self) -> usize {
        self.data().map_or(0, <[u8]>::len)
    }

    fn data(&self) -> Option<&[u8]> {
        match self {
            Self::Data(data) => Some(data),
            Self::Joined(data) => Some(data),
            Self::Trailers(_) => None,
        }
    }

    /// What follows the first `sent` of its [`size`](Self::size).
    fn rest(&self, sent: usize) -> Option<Frame<Bytes>> {
        if sent >= self.size() {
            return None;
        }
        Some(match self {
            Self::Data(data) => Frame::data(data.slice(sent..)),
            Self::Joined(data) => Frame::data(Bytes::copy_from_slice(data.get(sent..)?)),
            Self::Trailers(trailers) => Frame::trailers(trailers.clone()),
        })
    }

    /// In bytes; that of trailers is 1.
    fn size(&self) -> usize {
        self.data().map_or(1, <[u8]>::len)
    }
}

impl Source {
    fn is_whole(&self) -> bool {
        !self.overflowed && self.failed.is_none() && (self.ended || self.incoming.is_end_stream())
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.overflowed {
            return;
        }
        if let Some(data) = frame.data_ref() {
            self.kept_bytes += data.len();
            self.keep_data(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.kept.push(Kept::Trailers(trailers.clone()));
        }
        if self.kept_bytes > self.keep_bytes {
            self.overflowed = true;
            self.kept.clear();
            self.copies.clear();
        } else if !self.copies.is_empty() && self.incoming.is_end_stream() {
            self.hand_out();
        }
    }

    fn keep_data(&mut self, data: &Bytes) {
        if data.len() >= TINY_BYTES || self.kept.len() < JOINED_FROM {
            return self.kept.push(Kept::Data(data.clone()));
        }
        match self.kept.last_mut() {
            Some(Kept::Joined(joined)) if joined.len() + data.len() <= JOINED_BYTES => {
                joined.extend_from_slice(data);
            }
            _ => self.kept.push(Kept::Joined(BytesMut::from(&data[..]))),
        }
    }

    /// The end of what is kept.
    fn end(&self) -> Position {
        let last = self.kept.last().map(Kept::size);
        last.map_or_else(Position::default, |within| Position {
            frame: self.kept.len() - 1,
            within,
        })
    }

    /// Moves over frames that were sent, and returns the rest of the one that was not.
    fn next_kept(&self, position: &mut Position) -> Option<Frame<Bytes>> {
        loop {
            let kept = self.kept.get(position.frame)?;
            if let Some(rest) = kept.rest(position.within) {
                position.within = kept.size();
                return Some(rest);
            }
            // The last one may still grow.
            if position.frame + 1 == self.kept.len() {
                return None;
            }
            *position = Position {
                frame: position.frame + 1,
                within: 0,
            };
        }
    }

    /// Whether all that is kept was sent.
    fn is_sent(&self, position: Position) -> bool {
        let is_sent = |kept: &Kept| position.within >= kept.size();
        position.frame + 1 >= self.kept.len() && self.kept.get(position.frame).is_none_or(is_sent)
    }

    /// How many bytes of what is kept are still to be sent.
    fn unsent(&self, position: Position) -> usize {
        let after = self.kept.get(position.frame..).unwrap_or_default();
        let bytes: usize = after.iter().map(Kept::bytes).sum();
        bytes.saturating_sub(position.within)
    }

    fn kept_data(&self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.kept_bytes);
        for data in self.kept.iter().filter_map(Kept::data) {
            whole.extend_from_slice(data);
        }
        whole.freeze()
    }

    /// Gives the whole body to who wants it as well.
    fn hand_out(&mut self) {
        for copy in self.copies.drain(..) {
            // Who gave up waiting misses it.
            let _ = copy.send(Whole(self.kept.clone()));
        }
    }

    fn poll_fresh(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(reason) = self.failed {
            return Poll::Ready(Some(Err(Broken(reason))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.incoming.poll_frame(cx)) {
            None => {
                self.ended = true;
                self.hand_out();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                self.keep(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(reason)) => {
                self.failed = Some(reason);
                Poll::Ready(Some(Err(Broken(reason))))
            }
        }
    }
}

impl Body for ReplayBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let Some(source) = &this.source else {
            return Poll::Ready(None);
        };
        let mut source = source.borrow_mut();
        // Of a body that is all there nobody takes anything from another.
        if source.attempt != this.attempt && !source.is_whole() {
            return Poll::Ready(Some(Err(Broken(Reason::ConnectionReset))));
        }
        if let Some(frame) = source.next_kept(&mut this.position) {
            return Poll::Ready(Some(Ok(frame)));
        }
        let fresh = ready!(source.poll_fresh(cx));
        this.position = source.end();
        Poll::Ready(fresh)
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(|source| {
            let source = source.borrow();
            source.failed.is_none()
                && (source.ended || source.incoming.is_end_stream())
                && source.is_sent(self.position)
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(source) = &self.source else {
            return SizeHint::with_exact(0);
        };
        let source = source.borrow();
        let unsent = source.unsent(self.position) as u64;
        match source.incoming.exact() {
            Some(rest) => SizeHint::with_exact(rest + unsent),
            None => SizeHint::default(),
        }
    }
}
