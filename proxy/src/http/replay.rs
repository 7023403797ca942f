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
    Trailers(http::HeaderMap),
}

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
    /// How many of the kept frames this attempt has sent.
    position: usize,
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
            position: 0,
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
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
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
            self.kept.push(Kept::Data(data.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.kept.push(Kept::Trailers(trailers.clone()));
        }
        // Many tiny frames cost more than their bytes.
        if self.kept_bytes > self.keep_bytes || self.kept.len() > 1024 {
            self.overflowed = true;
            self.kept.clear();
            self.copies.clear();
        } else if !self.copies.is_empty() && self.incoming.is_end_stream() {
            self.hand_out();
        }
    }

    fn kept_data(&self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.kept_bytes);
        for kept in &self.kept {
            if let Kept::Data(data) = kept {
                whole.extend_from_slice(data);
            }
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
        let again = source.kept.get(this.position).map(|kept| match kept {
            Kept::Data(data) => Frame::data(data.clone()),
            Kept::Trailers(trailers) => Frame::trailers(trailers.clone()),
        });
        this.position += 1;
        if let Some(frame) = again {
            return Poll::Ready(Some(Ok(frame)));
        }
        let fresh = source.poll_fresh(cx);
        if fresh.is_pending() {
            this.position -= 1;
        }
        fresh
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(|source| {
            let source = source.borrow();
            source.failed.is_none()
                && (source.ended || source.incoming.is_end_stream())
                && self.position >= source.kept.len()
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(source) = &self.source else {
            return SizeHint::with_exact(0);
        };
        let source = source.borrow();
        let unsent: usize = source.kept[self.position.min(source.kept.len())..]
            .iter()
            .map(Kept::bytes)
            .sum();
        match source.incoming.exact() {
            Some(rest) => SizeHint::with_exact(rest + unsent as u64),
            None => SizeHint::default(),
        }
    }
}
