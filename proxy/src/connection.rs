//! One accepted connection: TLS if it is from the mesh, then its protocol, then whoever speaks that.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use certs::ServerTls;
use decision::message::detect::{Detected, detect};
use model::{AppProtocol, ServicePort};
use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::doorkeeper::Permit;
use crate::downstream::Downstream;
use crate::http::server;
use crate::stats::Direction;
use crate::tcp;
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
}

/// A connection on its way to a worker.
pub(crate) struct Handover {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) client: SocketAddr,
    pub(crate) role: Arc<Role>,
    pub(crate) permit: Permit,
}

/// Serves a connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, accepted: Handover) {
    let Handover {
        stream,
        client,
        role,
        permit,
    } = accepted;
    match TcpStream::from_std(stream) {
        Ok(stream) => match role.as_ref() {
            Role::Outbound => outbound(worker, stream, client, None).await,
            Role::Local(service) => outbound(worker, stream, client, Some(service.clone())).await,
            Role::Inbound(tls) => inbound(worker, stream, client, tls).await,
        },
        Err(error) => tracing::debug!(%client, %error, "a connection was lost"),
    }
    drop(permit);
}

async fn outbound(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    client: SocketAddr,
    service: Option<ServicePort>,
) {
    let declared = match &service {
        None => AppProtocol::Detect,
        Some(service) => tcp::declared_protocol(&worker, service).await,
    };
    let mut first = BytesMut::new();
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
            detected = first_bytes(&mut stream, &mut first, patience) => detected,
            () = worker.shared.draining.cancelled() => return,
        },
    };
    let is_http_only = declared != AppProtocol::Tcp && declared != AppProtocol::Detect;
    let downstream = Downstream {
        worker,
        client,
        direction: Direction::Outbound,
        peer: None,
        service,
    };
    match (detected, &downstream.service) {
        (Detected::Http1, _) => server::http1(Rc::new(downstream), stream, first).await,
        (Detected::Http2, _) => server::http2(Rc::new(downstream), stream, first).await,
        (_, Some(service)) if !is_http_only => {
            let service = service.clone();
            tcp::outbound(&downstream, &service, stream, first).await;
        }
        _ if first.is_empty() => {}
        _ => tracing::debug!(%client, "closed: neither HTTP/1.1 nor HTTP/2"),
    }
}

async fn inbound(worker: Rc<Worker>, stream: TcpStream, client: SocketAddr, tls: &ServerTls) {
    let config = match tls.config() {
        Ok(config) => config,
        Err(error) => return tracing::error!(%client, %error, "no TLS server settings"),
    };
    let handshake = TlsAcceptor::from(config).accept(stream);
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
        tcp::inbound(&downstream, stream).await;
    } else if alpn_http2 {
        server::http2(Rc::new(downstream), stream, BytesMut::new()).await;
    } else {
        // Agreed on, so there is nothing to tell: the guard judges the first byte as every other.
        server::http1(Rc::new(downstream), stream, BytesMut::new()).await;
    }
}

/// Who called, and which service: known before the first byte of the request.
fn identify(
    worker: Rc<Worker>,
    client: SocketAddr,
    tls: &ServerTls,
    stream: &TlsStream<TcpStream>,
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
    Some(Downstream {
        worker,
        client,
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
