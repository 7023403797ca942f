//! A body that leaves on an HTTP/2 stream, as fast as the peer's window lets it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http_body::Body;

/// Why a body was not sent whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendFailure {
    #[error("the stream ended: {0}")]
    Stream(#[from] h2::Error),
    /// Whoever the body comes from broke off.
    #[error("the body ended early")]
    Incomplete,
}

/// Sends on what there is of `body`, until all is sent.
pub(crate) fn poll_send<B>(
    stream: &mut SendStream<Bytes>,
    body: &mut B,
    cx: &mut Context<'_>,
) -> Poll<Result<(), SendFailure>>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        ready!(poll_room(stream, cx))?;
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(Ok(stream.send_data(Bytes::new(), true)?)),
            Some(Err(_)) => return Poll::Ready(Err(SendFailure::Incomplete)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let is_last = body.is_end_stream();
                    stream.send_data(data, is_last)?;
                    if is_last {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(frame) => {
                    // Let go of what was reserved for data that never came.
                    stream.reserve_capacity(0);
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(Ok(stream.send_trailers(trailers)?));
                }
            },
        }
    }
}

/// Ready when the peer's window has room for a byte at least; so much may wait in the codec, not a whole body.
fn poll_room(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(capacity) => drop(capacity?),
            None => return Poll::Ready(Err(h2::Reason::CANCEL.into())),
        }
    }
    match stream.poll_reset(cx) {
        Poll::Ready(reset) => Poll::Ready(Err(reset?.into())),
        Poll::Pending => Poll::Ready(Ok(())),
    }
}
