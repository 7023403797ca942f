//! Opens one connection: plain to the application, mTLS to another sidecar.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use certs::{CertError, ClientTls, IdentityCell};
use decision::Reason;
use model::SpiffeId;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::{ALPN_HTTP1, ALPN_HTTP2, ALPN_TCP};

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
    Tcp,
}

/// Where a connection leads.
pub(crate) enum Route {
    /// To the application beside this sidecar.
    App(SocketAddr),
    /// To another sidecar.
    Mesh(MeshRoute),
}

/// How to reach a service at another sidecar, and who must answer there.
pub(crate) struct MeshRoute {
    pub(crate) address: SocketAddr,
    pub(crate) sni: ServerName<'static>,
    tls: ClientTls,
}

impl MeshRoute {
    pub(crate) fn new(
        address: SocketAddr,
        sni: ServerName<'static>,
        expected: SpiffeId,
        cell: IdentityCell,
    ) -> Self {
        Self {
            address,
            sni,
            // Each connection names its own protocol; a session may be resumed for another one.
            tls: ClientTls::new(&cell, &[], expected),
        }
    }

    /// The handshake, and the judgement of whoever answered: a resumed session has none of its own.
    async fn secure(&self, stream: TcpStream, spoken: Spoken) -> Result<TlsStream<TcpStream>, Reason> {
        let alpn = match spoken {
            Spoken::Http1 => ALPN_HTTP1,
            Spoken::Http2 => ALPN_HTTP2,
            Spoken::Tcp => ALPN_TCP,
        };
        let (address, expected) = (self.address, self.tls.expected());
        let config = self.tls.config().map_err(|error| match error {
            CertError::NoIdentity => Reason::NoIdentity,
            error => {
                tracing::error!(%error, "no TLS client settings");
                Reason::Internal
            }
        })?;
        let connector = TlsConnector::from(config);
        let handshake = connector
            .with_alpn(vec![alpn.to_vec()])
            .connect(self.sni.clone(), stream);
        let stream = handshake.await.map_err(|error| {
            tracing::debug!(%address, %expected, %error, "handshake failed");
            handshake_reason(&error)
        })?;
        match self.tls.verified_peer(stream.get_ref().1, SystemTime::now()) {
            Ok(_) => Ok(stream),
            Err(error) => {
                tracing::debug!(%address, %expected, %error, "peer refused");
                Err(Reason::PeerRefused)
            }
        }
    }
}

impl Route {
    /// Whether what is sent this way is encrypted and both ends are verified.
    pub(crate) fn is_mtls(&self) -> bool {
        matches!(self, Self::Mesh(_))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::App(address) => *address,
            Self::Mesh(mesh) => mesh.address,
        }
    }

    /// Opens a connection, handshake included, within `timeout`.
    pub(crate) async fn dial(&self, spoken: Spoken, timeout: Duration) -> Result<Leg, Reason> {
        match tokio::time::timeout(timeout, self.connect(spoken)).await {
            Ok(result) => result,
            Err(_) => Err(Reason::ConnectTimeout),
        }
    }

    async fn connect(&self, spoken: Spoken) -> Result<Leg, Reason> {
        let stream = TcpStream::connect(self.address()).await.map_err(|error| {
            tracing::debug!(address = %self.address(), %error, "connection failed");
            Reason::ConnectFailed
        })?;
        // Refused only where the socket is already dead, which the next write will say.
        let _ = stream.set_nodelay(true);
        match self {
            Self::App(_) => Ok(Leg::Plain(stream)),
            Self::Mesh(mesh) => Ok(Leg::Mtls(Box::new(mesh.secure(stream, spoken).await?))),
        }
    }
}

fn handshake_reason(error: &io::Error) -> Reason {
    match error
        .get_ref()
        .and_then(|carried| carried.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::InvalidCertificate(_)) => Reason::PeerRefused,
        _ => Reason::TlsFailed,
    }
}

/// An open connection to an upstream.
pub(crate) enum Leg {
    Plain(TcpStream),
    Mtls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Leg {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Mtls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Leg {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Mtls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Mtls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Mtls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Mtls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Mtls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
