//! A body that arrives on an HTTP/2 stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::Frame;

/// What is still to come on one stream. The peer may send on as soon as a part was taken.
pub(crate) struct Incoming {
    stream: RecvStream,
    /// Bytes still to come, where the head said how many; h2 holds the peer to it.
    left: Option<u64>,
    data_ended: bool,
}

impl Incoming {
    /// The body behind `headers`.
    pub(crate) fn new(stream: RecvStream, headers: &http::HeaderMap) -> Self {
        let declared = headers.get(http::header::CONTENT_LENGTH);
        let left = declared.and_then(|length| length.to_str().ok()?.parse().ok());
        let ended = stream.is_end_stream();
        Self {
            stream,
            left: if ended { Some(0) } else { left },
            data_ended: ended,
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// How much is still to come, where that is known.
    pub(crate) fn exact(&self) -> Option<u64> {
        self.left
    }

    /// The next frame. A stream that was reset has no end: whatever the code, the body is not whole.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only on a stream that is gone, which the next read says.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}
