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

use super::plan::{Ending, Plan, Socket};
use super::streams;
use crate::connection::speak_http;
use crate::downstream::{Downstream, Entry, Front};
use crate::hello;
use crate::http::{http1, http2};
use crate::leg::Leg;
use crate::socket::Socket as Stream;
use crate::stats::Direction;
use crate::tls::ALPN_HTTP2;
use crate::worker::Worker;

/// A fatal `unrecognized_name` as a TLS record (RFC 6066 section 3): what a client is told whose name no listener has.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// Serves a connection to its end. What needs much room for a moment is boxed: most connections wait most of the time.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, client: SocketAddr, port: u16) {
    let plan = worker.plan();
    match plan.transport(Socket::tcp(port)) {
        Some(Transport::Http) => {
            drop(plan);
            let downstream = downstream(worker, client, port, None);
            speak_http(downstream, Leg::Plain(stream)).await;
        }
        Some(Transport::Tls) => {
            drop(plan);
            match Box::pin(admit(&worker, stream, client, port)).await {
                Some(Admitted::Http { entry, leg }) => {
                    let is_http2 = leg.alpn() == Some(ALPN_HTTP2);
                    // From here on the connection is told of changes; one during its handshake it has missed.
                    if !worker.plan().still_admits(port, &entry) {
                        return tracing::debug!(%client, "closed: other clients are let in by now");
                    }
                    let downstream = Rc::new(downstream(worker, client, port, Some(entry)));
                    if is_http2 {
                        Box::pin(http2::server::serve(downstream, leg, BytesMut::new())).await;
                    } else {
                        http1::server::serve(downstream, leg, BytesMut::new()).await;
                    }
                }
                Some(Admitted::Bytes {
                    plan,
                    listener,
                    sni,
                    leg,
                    first,
                }) => {
                    Box::pin(streams::carry(
                        &worker,
                        plan,
                        Some(listener),
                        Some(&sni),
                        client.ip(),
                        leg,
                        first,
                    ))
                    .await;
                }
                None => {}
            }
        }
        Some(Transport::Tcp) => {
            let (listener, leg) = (plan.only(Socket::tcp(port)), Leg::Plain(stream));
            Box::pin(streams::carry(
                &worker,
                plan,
                listener,
                None,
                client.ip(),
                leg,
                BytesMut::new(),
            ))
            .await;
        }
        // The port was given up a moment ago.
        Some(Transport::Udp) | None => {}
    }
}

/// A TLS client that was let in by the name in its handshake.
enum Admitted {
    /// Its TLS has ended here.
    Http { entry: Rc<Entry>, leg: Leg },
    /// Its TLS has ended here, or goes on to a backend with what was read of it.
    Bytes {
        plan: Arc<Plan>,
        listener: usize,
        sni: Box<str>,
        leg: Leg,
        first: BytesMut,
    },
}

/// Reads whom a client wants, and ends TLS where that is to be done here; both within the time of one handshake.
async fn admit(worker: &Worker, stream: TcpStream, client: SocketAddr, port: u16) -> Option<Admitted> {
    let patience = worker.limits.handshake_timeout;
    let Ok(admitted) = tokio::time::timeout(patience, shake_hands(worker, stream, client, port)).await else {
        tracing::debug!(%client, "closed: TLS handshake not over in time");
        return None;
    };
    admitted
}

async fn shake_hands(
    worker: &Worker,
    mut stream: TcpStream,
    client: SocketAddr,
    port: u16,
) -> Option<Admitted> {
    let mut first = BytesMut::new();
    let sni = match hello::server_name(&mut stream, &mut first).await {
        Ok(sni) => sni,
        Err(error) => {
            tracing::debug!(%client, %error, "closed: no TLS handshake");
            return None;
        }
    };
    let plan = worker.plan();
    let Some(listener) = plan.by_sni(port, &sni) else {
        tracing::debug!(%client, port, %sni, "closed: no listener has this name");
        if plan.ends_all_tls(port) {
            // A client that has gone misses the alert.
            let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
        }
        return None;
    };
    match plan.ending(listener) {
        Ending::Http(config) => {
            let leg = end_tls(client, config, stream, first).await?;
            let admits = plan.admits(listener);
            let entry = Rc::new(Entry { sni, admits });
            Some(Admitted::Http { entry, leg })
        }
        Ending::Bytes(config) => {
            let leg = end_tls(client, config, stream, first).await?;
            let first = BytesMut::new();
            Some(Admitted::Bytes {
                plan,
                listener,
                sni,
                leg,
                first,
            })
        }
        Ending::Passthrough => {
            let leg = Leg::Plain(stream);
            Some(Admitted::Bytes {
                plan,
                listener,
                sni,
                leg,
                first,
            })
        }
        Ending::Nowhere => {
            tracing::debug!(%client, port, %sni, "closed: TLS cannot end here");
            None
        }
    }
}

/// Ends TLS here; `first` was already read.
async fn end_tls(
    client: SocketAddr,
    config: Arc<ServerConfig>,
    stream: TcpStream,
    first: BytesMut,
) -> Option<Leg> {
    match TlsAcceptor::from(config)
        .accept(Stream::with(stream, first))
        .await
    {
        Ok(stream) => Some(Leg::Tls(Box::new(stream.into()))),
        Err(error) => {
            tracing::debug!(%client, %error, "TLS handshake refused");
            None
        }
    }
}

fn downstream(worker: Rc<Worker>, client: SocketAddr, port: u16, entry: Option<Rc<Entry>>) -> Downstream {
    Downstream {
        endpoint: None,
        worker,
        client,
        front: Front {
            is_tls: entry.is_some(),
            port: Some(port),
        },
        entry,
        direction: Direction::Outbound,
        peer: None,
        service: None,
        labels: None,
    }
}
