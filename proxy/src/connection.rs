//! One accepted connection: TLS if it is from the mesh, then its protocol, then whoever speaks that.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use decision::message::detect::{Detected, detect};
use model::{AppProtocol, ServicePort};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
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
    Inbound(Arc<rustls::ServerConfig>),
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
            Role::Inbound(tls) => inbound(worker, stream, client, tls.clone()).await,
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
    let detected = match declared {
        AppProtocol::Tcp => Detected::Opaque,
        // HTTP/1.1 and HTTP/2 are told apart by the preface, whichever was declared.
        _ => first_bytes(&worker, &mut stream, &mut first).await,
    };
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
        (_, Some(service)) => {
            let service = service.clone();
            tcp::outbound(&downstream, &service, stream, first).await;
        }
        (_, None) if first.is_empty() => {}
        (_, None) => tracing::debug!(%client, "closed: neither HTTP/1.1 nor HTTP/2"),
    }
}

async fn inbound(worker: Rc<Worker>, stream: TcpStream, client: SocketAddr, tls: Arc<rustls::ServerConfig>) {
    let handshake = TlsAcceptor::from(tls).accept(stream);
    let mut stream = match tokio::time::timeout(worker.limits.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::info!(%client, %error, "mTLS handshake refused"),
        Err(_) => return tracing::info!(%client, "mTLS handshake not over in time"),
    };
    let Some(downstream) = identify(worker, client, &stream) else {
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
        let mut first = BytesMut::new();
        // No request: nothing to look at, and nothing lost.
        let worker = downstream.worker.clone();
        if first_bytes(&worker, &mut stream, &mut first).await == Detected::Http1 {
            server::http1(Rc::new(downstream), stream, first).await;
        } else {
            tracing::debug!(%client, "closed: not the HTTP/1.1 that was agreed");
        }
    }
}

/// Who called, and which service: known before the first byte of the request.
fn identify(worker: Rc<Worker>, client: SocketAddr, stream: &TlsStream<TcpStream>) -> Option<Downstream> {
    let connection = stream.get_ref().1;
    let Some(peer) = certs::verified_peer(connection) else {
        tracing::info!(%client, "closed: no verified peer");
        return None;
    };
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

/// Reads until the protocol is clear. A client that says nothing waits for the server to speak: opaque.
async fn first_bytes<S: AsyncRead + AsyncWrite + Unpin>(
    worker: &Worker,
    stream: &mut S,
    first: &mut BytesMut,
) -> Detected {
    let look = async {
        loop {
            first.reserve(DETECT_BYTES);
            match stream.read_buf(first).await {
                Ok(0) | Err(_) => return Detected::Opaque,
                Ok(_) => match detect(first) {
                    Detected::NeedMore => {}
                    detected => return detected,
                },
            }
        }
    };
    tokio::time::timeout(worker.limits.detect_timeout, look)
        .await
        .unwrap_or(Detected::Opaque)
}
