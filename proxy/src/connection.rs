//! One accepted connection: TLS if it is from the mesh, then its protocol, then whoever speaks that.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use certs::ServerTls;
use decision::Reason;
use decision::message::detect::{Detected, detect};
use model::{AppProtocol, ServicePort};
use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::doorkeeper::Permit;
use crate::downstream::{Downstream, Front};
use crate::gateway;
use crate::http::{http1, http2};
use crate::leg::Leg;
use crate::socket::Socket;
use crate::stats::Direction;
use crate::tcp::{self, Passed};
use crate::tls::{ALPN_HTTP2, ALPN_TCP};
use crate::worker::Worker;

/// Bytes looked at to tell a protocol.
const DETECT_BYTES: usize = 1024;

/// What a listener is for.
pub(crate) enum Role {
    /// The application's calls; the service is named by Host.
    Outbound,
    /// The application's calls to one service.
    Local(ServicePort),
    /// mTLS from other sidecars.
    Inbound(ServerTls),
    /// A port of a gateway; what is served there is for the configuration to say.
    Gateway(u16),
}

/// A connection that is not served yet.
pub(crate) struct Accepted<S = TcpStream> {
    pub(crate) stream: S,
    pub(crate) client: SocketAddr,
    pub(crate) role: Arc<Role>,
    pub(crate) permit: Permit,
}

impl Accepted {
    /// Takes the connection off this thread. `None`: it is lost.
    pub(crate) fn leave(self) -> Option<Accepted<std::net::TcpStream>> {
        let stream = self.stream.into_std().ok()?;
        Some(Accepted {
            stream,
            client: self.client,
            role: self.role,
            permit: self.permit,
        })
    }
}

impl Accepted<std::net::TcpStream> {
    /// Takes the connection up on this thread. `None`: it is lost.
    pub(crate) fn arrive(self) -> Option<Accepted> {
        let stream = TcpStream::from_std(self.stream).ok()?;
        Some(Accepted {
            stream,
            client: self.client,
            role: self.role,
            permit: self.permit,
        })
    }
}

/// Serves a connection to its end. What needs much room for a moment, or is rare, is boxed: most connections wait for
/// an HTTP/1.1 request most of the time, and should hold no more than that takes.
pub(crate) async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let Accepted {
        stream,
        client,
        role,
        permit,
    } = accepted;
    match role.as_ref() {
        Role::Outbound => {
            let plain = (Leg::Plain(stream), BytesMut::new());
            // Opaque bytes for nobody never pass.
            let _ = outbound(worker, plain, client, None, None).await;
        }
        Role::Local(service) => {
            let plain = (Leg::Plain(stream), BytesMut::new());
            // A connection of opaque bytes has no record that could keep this.
            let _ = outbound(worker, plain, client, Some(service.clone()), None).await;
        }
        Role::Inbound(tls) => inbound(worker, stream, client, tls).await,
        Role::Gateway(port) => Box::pin(gateway::connection::serve(worker, stream, client, *port)).await,
    }
    drop(permit);
}

/// Serves what comes through a tunnel to a service, of which `first` was already read, as on a local port for that service;
/// or for the one of its endpoints that has this address.
///
/// # Errors
/// Why opaque bytes went nowhere.
pub(crate) async fn inside(
    worker: Rc<Worker>,
    leg: Leg,
    first: BytesMut,
    client: SocketAddr,
    (service, endpoint): (ServicePort, Option<SocketAddr>),
) -> Result<Passed, Reason> {
    outbound(worker, (leg, first), client, Some(service), endpoint).await
}

/// Serves a connection of the application. What passed in it, where that was opaque.
async fn outbound(
    worker: Rc<Worker>,
    (mut leg, mut first): (Leg, BytesMut),
    client: SocketAddr,
    service: Option<ServicePort>,
    endpoint: Option<SocketAddr>,
) -> Result<Passed, Reason> {
    let declared = match &service {
        None => AppProtocol::Detect,
        Some(service) => Box::pin(tcp::declared_protocol(&worker, service)).await,
    };
    let limits = &worker.limits;
    let look = match (declared, &service) {
        (AppProtocol::Tcp, _) => None,
        (AppProtocol::Detect, Some(_)) => Some((limits.detect_timeout, limits.detect_timeout)),
        // Only HTTP can come: a silent client is one that keeps a connection ready.
        _ => Some((limits.idle_timeout, limits.header_timeout)),
    };
    let detected = match look {
        None => Detected::Opaque,
        // HTTP/1.1 and HTTP/2 are told apart by the preface, whichever was declared.
        Some(patience) => tokio::select! {
            detected = first_bytes(&mut leg, &mut first, patience) => detected,
            () = worker.shared.draining.cancelled() => return Ok(Passed::default()),
        },
    };
    let is_http_only = declared != AppProtocol::Tcp && declared != AppProtocol::Detect;
    let downstream = Downstream {
        worker,
        client,
        front: Front::default(),
        entry: None,
        direction: Direction::Outbound,
        peer: None,
        service,
        endpoint,
        labels: None,
    };
    match (detected, &downstream.service) {
        (Detected::Http1, _) => http1::server::serve(Rc::new(downstream), leg, first).await,
        (Detected::Http2, _) => {
            Box::pin(http2::server::serve(Rc::new(downstream), leg, first)).await;
        }
        (_, Some(service)) if !is_http_only => {
            let service = service.clone();
            return Box::pin(tcp::outbound(&downstream, &service, leg, first)).await;
        }
        _ if first.is_empty() => {}
        _ => tracing::debug!(%client, "closed: neither HTTP/1.1 nor HTTP/2"),
    }
    Ok(Passed::default())
}

/// Serves either version of HTTP to its end, on a connection where nothing else can come.
pub(crate) async fn speak_http(downstream: Downstream, mut leg: Leg) {
    let (worker, client) = (downstream.worker.clone(), downstream.client);
    let mut first = BytesMut::new();
    let patience = (worker.limits.idle_timeout, worker.limits.header_timeout);
    let detected = tokio::select! {
        detected = first_bytes(&mut leg, &mut first, patience) => detected,
        () = worker.shared.draining.cancelled() => return,
    };
    match detected {
        Detected::Http1 => http1::server::serve(Rc::new(downstream), leg, first).await,
        Detected::Http2 => Box::pin(http2::server::serve(Rc::new(downstream), leg, first)).await,
        _ if first.is_empty() => {}
        _ => tracing::debug!(%client, "closed: neither HTTP/1.1 nor HTTP/2"),
    }
}

async fn inbound(worker: Rc<Worker>, stream: TcpStream, client: SocketAddr, tls: &ServerTls) {
    let config = match tls.config() {
        Ok(config) => config,
        Err(error) => return tracing::error!(%client, %error, "no TLS server settings"),
    };
    let handshake = Box::pin(TlsAcceptor::from(config).accept(Socket::new(stream)));
    let stream = match tokio::time::timeout(worker.limits.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::info!(%client, %error, "mTLS handshake refused"),
        Err(_) => return tracing::info!(%client, "mTLS handshake not over in time"),
    };
    let Some(downstream) = identify(worker, client, tls, &stream) else {
        return;
    };
    let (alpn_tcp, alpn_http2) = {
        let alpn = stream.get_ref().1.alpn_protocol();
        (alpn == Some(ALPN_TCP), alpn == Some(ALPN_HTTP2))
    };
    if alpn_tcp {
        Box::pin(tcp::inbound(&downstream, stream)).await;
    } else if alpn_http2 {
        Box::pin(http2::server::serve(
            Rc::new(downstream),
            mtls(stream),
            BytesMut::new(),
        ))
        .await;
    } else {
        // Agreed on, so there is nothing to tell: the guard judges the first byte as every other.
        http1::server::serve(Rc::new(downstream), mtls(stream), BytesMut::new()).await;
    }
}

fn mtls(stream: TlsStream<Socket>) -> Leg {
    Leg::Tls(Box::new(stream.into()))
}

/// Who called, and which service: known before the first byte of the request.
fn identify(
    worker: Rc<Worker>,
    client: SocketAddr,
    tls: &ServerTls,
    stream: &TlsStream<Socket>,
) -> Option<Downstream> {
    let connection = stream.get_ref().1;
    let peer = match tls.verified_peer(connection, SystemTime::now()) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::info!(%client, %error, "closed: no verified peer");
            return None;
        }
    };
    let registry = &worker.shared.registry;
    let handshakes = match connection.handshake_kind() {
        Some(HandshakeKind::Resumed) => &registry.handshakes_resumed,
        _ => &registry.handshakes_full,
    };
    handshakes.fetch_add(1, Relaxed);
    let sni = connection.server_name().unwrap_or_default();
    let Some(service) = ServicePort::from_sni(sni, &worker.shared.domain) else {
        tracing::info!(%client, peer = %peer.id(), sni, "closed: the SNI names no service");
        return None;
    };
    let labels = worker
        .recorder
        .labels(Direction::Inbound, Some(&service), Some(&service), None);
    Some(Downstream {
        endpoint: None,
        labels: Some(labels),
        worker,
        client,
        front: Front::default(),
        entry: None,
        direction: Direction::Inbound,
        peer: Some(peer),
        service: Some(service),
    })
}

/// Reads until the protocol is clear. Waits so long for the first byte, and so long for each read after it; a client
/// that says nothing by then waits for the server to speak, or has gone away.
async fn first_bytes<S: AsyncRead + Unpin>(
    stream: &mut S,
    first: &mut BytesMut,
    (silence, pause): (Duration, Duration),
) -> Detected {
    // A tunnel may have begun with what its client sent right behind its head.
    if !first.is_empty() {
        match detect(first) {
            Detected::NeedMore => {}
            detected => return detected,
        }
    }
    loop {
        first.reserve(DETECT_BYTES);
        let wait = if first.is_empty() { silence } else { pause };
        match tokio::time::timeout(wait, stream.read_buf(first)).await {
            Ok(Ok(0) | Err(_)) | Err(_) => return Detected::Opaque,
            Ok(Ok(_)) => match detect(first) {
                Detected::NeedMore => {}
                detected => return detected,
            },
        }
    }
}
