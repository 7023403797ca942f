//! Opens one connection: mTLS to another sidecar, plain to the application, plain or TLS to what is outside the mesh.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use certs::{CertError, ClientTls, IdentityCell};
use decision::Reason;
use model::traffic_policy::TcpKeepalive;
use model::{AppProtocol, SpiffeId};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::outside::OutsideTls;
use crate::leg::Leg;
use crate::socket::Socket;
use crate::tls::{ALPN_HTTP1, ALPN_HTTP2, ALPN_TCP};

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
    Tcp,
    /// TLS of the client's own, on its way to whoever ends it: as TCP, and not wrapped in TLS again.
    Tls,
}

impl Spoken {
    /// What a request is sent in without a sidecar on the other side: what the application declares; undeclared,
    /// HTTP/2 for gRPC, which knows nothing else.
    pub(crate) fn to_app(protocol: AppProtocol, is_upgrade: bool, is_grpc: bool) -> Self {
        match protocol {
            _ if is_upgrade => Self::Http1,
            AppProtocol::Http2 => Self::Http2,
            AppProtocol::Http | AppProtocol::Detect if is_grpc => Self::Http2,
            AppProtocol::Http | AppProtocol::Detect | AppProtocol::Tcp => Self::Http1,
        }
    }
}

/// Where a connection leads.
pub(crate) enum Route {
    /// To the application beside this sidecar.
    App(SocketAddr),
    /// To another sidecar.
    Mesh(MeshRoute),
    /// To an address that the mesh does not run, in plain or by TLS.
    Outside(SocketAddr, Option<OutsideTls>),
    /// To an address of that kind whose TLS cannot be spoken: its policy is no use.
    Nowhere(SocketAddr),
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
    async fn secure(&self, stream: TcpStream, spoken: Spoken) -> Result<Leg, Reason> {
        let alpn = match spoken {
            Spoken::Http1 => ALPN_HTTP1,
            Spoken::Http2 => ALPN_HTTP2,
            Spoken::Tcp | Spoken::Tls => ALPN_TCP,
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
            .connect(self.sni.clone(), Socket::new(stream));
        let stream = handshake.await.map_err(|error| {
            tracing::debug!(%address, %expected, %error, "handshake failed");
            handshake_reason(&error)
        })?;
        match self.tls.verified_peer(stream.get_ref().1, SystemTime::now()) {
            Ok(_) => Ok(Leg::Tls(Box::new(stream.into()))),
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
            Self::App(address) | Self::Outside(address, _) | Self::Nowhere(address) => *address,
            Self::Mesh(mesh) => mesh.address,
        }
    }

    /// Opens a connection, handshake included, within `timeout`.
    pub(crate) async fn dial(
        &self,
        spoken: Spoken,
        timeout: Duration,
        keepalive: Option<TcpKeepalive>,
    ) -> Result<Leg, Reason> {
        match tokio::time::timeout(timeout, self.connect(spoken, keepalive)).await {
            Ok(result) => result,
            Err(_) => Err(Reason::ConnectTimeout),
        }
    }

    async fn connect(&self, spoken: Spoken, keepalive: Option<TcpKeepalive>) -> Result<Leg, Reason> {
        if matches!(self, Self::Nowhere(_)) && spoken != Spoken::Tls {
            return Err(Reason::TlsFailed);
        }
        let stream = TcpStream::connect(self.address()).await.map_err(|error| {
            tracing::debug!(address = %self.address(), %error, "connection failed");
            Reason::ConnectFailed
        })?;
        // Refused only where the socket is already dead, which the next write will say.
        let _ = stream.set_nodelay(true);
        if let Some(keepalive) = keepalive {
            keep_alive(&stream, keepalive);
        }
        match self {
            Self::App(_) | Self::Outside(_, None) | Self::Nowhere(_) => Ok(Leg::Plain(stream)),
            Self::Outside(_, Some(_)) if spoken == Spoken::Tls => Ok(Leg::Plain(stream)),
            Self::Outside(_, Some(tls)) => tls.secure(stream, spoken).await,
            Self::Mesh(mesh) => mesh.secure(stream, spoken).await,
        }
    }
}

/// Whatever of it this system does not know stays as it is.
fn keep_alive(stream: &TcpStream, wanted: TcpKeepalive) {
    let mut keepalive = socket2::TcpKeepalive::new();
    if let Some(idle) = wanted.idle {
        keepalive = keepalive.with_time(idle);
    }
    if let Some(interval) = wanted.interval {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(probes) = wanted.probes {
        keepalive = keepalive.with_retries(probes);
    }
    let set = socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive);
    if let Err(error) = set {
        tracing::debug!(%error, "a connection has no keepalive");
    }
}

pub(super) fn handshake_reason(error: &io::Error) -> Reason {
    match error
        .get_ref()
        .and_then(|carried| carried.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::InvalidCertificate(_)) => Reason::PeerRefused,
        _ => Reason::TlsFailed,
    }
}
