//! One open connection, plain or TLS, whichever side opened it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::http::http2::StreamBytes;
use crate::socket::Socket;
use crate::upstream::ConnectionPermit;

/// A connection's two directions of bytes.
pub(crate) enum Leg {
    Plain(TcpStream),
    Tls(Box<TlsStream<Socket>>),
    /// A tunnel within HTTP/2.
    Stream(Box<StreamBytes>),
    /// One that a circuit breaker counts for as long as it is open.
    Counted(Box<(Self, ConnectionPermit)>),
}

impl Leg {
    /// What TLS agreed on.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) | Self::Stream(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Counted(counted) => counted.0.alpn(),
        }
    }
}

/// Room for the content of one TLS record (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16 * 1024;

impl AsyncRead for Leg {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Stream(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            Self::Counted(counted) => Pin::new(&mut counted.0).poll_read(cx, buf),
            Self::Tls(stream) => {
                let mut before = buf.filled().len();
                ready!(Pin::new(stream.as_mut()).poll_read(cx, buf))?;
                // A read gives one record: more of them make one large write of it on the other leg. Where nothing was
                // added the peer has said that it ends, whatever bytes it sent behind that.
                while buf.filled().len() > before
                    && stream.get_ref().0.is_ahead()
                    && buf.remaining() >= RECORD_BYTES
                {
                    before = buf.filled().len();
                    // A failure is said again by the next read; what came before it is good.
                    if !matches!(Pin::new(stream.as_mut()).poll_read(cx, buf), Poll::Ready(Ok(()))) {
                        break;
                    }
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Leg {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Stream(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
            Self::Counted(counted) => Pin::new(&mut counted.0).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Stream(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
            Self::Counted(counted) => Pin::new(&mut counted.0).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Stream(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Counted(counted) => counted.0.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Stream(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Counted(counted) => Pin::new(&mut counted.0).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Stream(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Counted(counted) => Pin::new(&mut counted.0).poll_shutdown(cx),
        }
    }
}
