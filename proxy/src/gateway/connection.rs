//! One connection to a gateway's port: told apart by what the port is for, and by the name in its handshake.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use model::gateway::Transport;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::plan::{Ending, Socket};
use super::streams;
use crate::connection::speak_http;
use crate::downstream::{Downstream, Front};
use crate::hello;
use crate::http::{http1, http2};
use crate::leg::Leg;
use crate::socket::Socket as Stream;
use crate::stats::Direction;
use crate::tls::ALPN_HTTP2;
use crate::worker::Worker;

/// A fatal `unrecognized_name` as a TLS record (RFC 6066 section 3): what a client is told whose name no listener has.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// Serves a connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, client: SocketAddr, port: u16) {
    let plan = worker.plan();
    match plan.transport(Socket::tcp(port)) {
        Some(Transport::Http) => {
            let front = Front {
                is_tls: false,
                port: Some(port),
            };
            speak_http(downstream(worker, client, front, None), Leg::Plain(stream)).await;
        }
        Some(Transport::Tls) => Box::pin(tls(worker, stream, client, port)).await,
        Some(Transport::Tcp) => {
            let (listener, leg) = (plan.only(Socket::tcp(port)), Leg::Plain(stream));
            Box::pin(streams::carry(
                &worker,
                plan,
                listener,
                None,
                leg,
                BytesMut::new(),
            ))
            .await;
        }
        // The port was given up a moment ago.
        Some(Transport::Udp) | None => {}
    }
}

async fn tls(worker: Rc<Worker>, mut stream: TcpStream, client: SocketAddr, port: u16) {
    let mut first = BytesMut::new();
    let patience = worker.limits.handshake_timeout;
    let said = tokio::time::timeout(patience, hello::server_name(&mut stream, &mut first)).await;
    let sni = match said {
        Ok(Ok(sni)) => sni,
        Ok(Err(error)) => return tracing::debug!(%client, %error, "closed: no TLS handshake"),
        Err(_) => return tracing::debug!(%client, "closed: no TLS handshake in time"),
    };
    let plan = worker.plan();
    let Some(place) = plan.by_sni(port, &sni) else {
        tracing::debug!(%client, port, %sni, "closed: no listener has this name");
        if plan.ends_all_tls(port) {
            // A client that has gone misses the alert.
            let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
        }
        return;
    };
    match plan.ending(place) {
        Ending::Passthrough => {
            let leg = Leg::Plain(stream);
            streams::carry(&worker, plan, Some(place), Some(&sni), leg, first).await;
        }
        Ending::Bytes(config) => {
            if let Some(leg) = handshake(&worker, client, config, stream, first).await {
                streams::carry(&worker, plan, Some(place), Some(&sni), leg, BytesMut::new()).await;
            }
        }
        Ending::Http(config) => {
            drop(plan);
            if let Some(leg) = handshake(&worker, client, config, stream, first).await {
                https(worker, client, port, sni, leg).await;
            }
        }
        Ending::Nowhere => tracing::debug!(%client, port, %sni, "closed: TLS cannot end here"),
    }
}

async fn https(worker: Rc<Worker>, client: SocketAddr, port: u16, sni: Box<str>, leg: Leg) {
    let front = Front {
        is_tls: true,
        port: Some(port),
    };
    let is_http2 = leg.alpn() == Some(ALPN_HTTP2);
    let downstream = Rc::new(downstream(worker, client, front, Some(sni)));
    if is_http2 {
        http2::server::serve(downstream, leg, BytesMut::new()).await;
    } else {
        http1::server::serve(downstream, leg, BytesMut::new()).await;
    }
}

/// Ends TLS here; `first` was already read.
async fn handshake(
    worker: &Worker,
    client: SocketAddr,
    config: Arc<ServerConfig>,
    stream: TcpStream,
    first: BytesMut,
) -> Option<Leg> {
    let accept = TlsAcceptor::from(config).accept(Stream::with(stream, first));
    match tokio::time::timeout(worker.limits.handshake_timeout, accept).await {
        Ok(Ok(stream)) => Some(Leg::Tls(Box::new(stream.into()))),
        Ok(Err(error)) => {
            tracing::debug!(%client, %error, "TLS handshake refused");
            None
        }
        Err(_) => {
            tracing::debug!(%client, "TLS handshake not over in time");
            None
        }
    }
}

fn downstream(worker: Rc<Worker>, client: SocketAddr, front: Front, sni: Option<Box<str>>) -> Downstream {
    Downstream {
        worker,
        client,
        front,
        sni,
        direction: Direction::Outbound,
        peer: None,
        service: None,
        labels: None,
    }
}
