//! The gRPC port: accepts, shakes hands, and hands connections with their verified peers to tonic.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use certs::VerifiedPeer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::metrics::Metrics;
use crate::settings::Limits;

/// Connections whose handshake is over and that tonic has not taken yet.
const READY_QUEUE: usize = 64;
/// How long accepting pauses when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// `None`: showed no certificate, as one who has yet to join.
    pub(crate) peer: Option<VerifiedPeer>,
}

/// A connection after its handshake.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    _place: OwnedSemaphorePermit,
}

/// Accepts until stopped; what comes out is ready for tonic.
pub(crate) fn connections(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    limits: &Limits,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
) -> mpsc::Receiver<Result<Connection, io::Error>> {
    let (ready, taken) = mpsc::channel(READY_QUEUE);
    let places = Arc::new(Semaphore::new(limits.connections));
    let (acceptor, timeout) = (TlsAcceptor::from(tls), limits.handshake_timeout);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopping.cancelled() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                metrics.connections_refused.inc();
                continue;
            };
            let (acceptor, ready, metrics) = (acceptor.clone(), ready.clone(), metrics.clone());
            tokio::spawn(async move {
                if let Some(connection) = shake_hands(acceptor, stream, address, place, timeout).await {
                    // Nobody takes it any more when the server stops.
                    let _ = ready.send(Ok(connection)).await;
                } else {
                    metrics.handshakes_failed.inc();
                }
            });
        }
    });
    taken
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
    timeout: Duration,
) -> Option<Connection> {
    // Fails only on a socket that is already dead.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let peer = certs::verified_peer(stream.get_ref().1);
            Some(Connection {
                stream,
                caller: Caller { peer },
                _place: place,
            })
        }
        Ok(Err(error)) => {
            tracing::info!(%address, %error, "TLS handshake refused");
            None
        }
        Err(_) => {
            tracing::info!(%address, "TLS handshake not over in time");
            None
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
