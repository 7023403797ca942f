//! The gRPC port: TCP, TLS, and HTTP/2 within limits; then who may call what.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::body::Body;
use tonic::service::Routes;

use crate::callers::{Caller, authorize};
use crate::metrics::Metrics;
use crate::settings::Limits;
use crate::tasks::Tasks;

/// How long accepting pauses when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bad connections are logged at most this often; the others are counted.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Flow control windows in bytes: config streams are many and mostly idle.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes that wait to be sent to one peer.
const SEND_BUFFER: usize = 1024 * 1024;
/// Resets by the peer of calls that have not begun (CVE-2023-44487), and resets that the peer provokes
/// (CVE-2025-8671), before the connection is closed.
const MAX_RESETS: usize = 20;

/// Accepts connections and serves calls on them.
pub(crate) struct Door {
    pub(crate) routes: Routes,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: Tasks,
    pub(crate) log: SeldomLog,
}

impl Door {
    /// Runs until the control plane stops. Connections are tasks of their own.
    pub(crate) async fn serve(self, listener: TcpListener, tls: Arc<ServerConfig>) {
        let door = Arc::new(self);
        let acceptor = TlsAcceptor::from(tls);
        let places = Arc::new(Semaphore::new(door.limits.connections));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = door.tasks.stopping() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    door.log
                        .say(|more| tracing::warn!(%error, more, "no connection can be accepted"));
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                door.metrics.connections_refused.inc();
                door.log
                    .say(|more| tracing::warn!(%address, more, "too many connections"));
                continue;
            };
            let (connection, acceptor) = (door.clone(), acceptor.clone());
            door.tasks.spawn(async move {
                connection.connection(stream, address, acceptor).await;
                drop(place);
            });
        }
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr, acceptor: TlsAcceptor) {
        let shaken = tokio::select! {
            shaken = shake_hands(stream, acceptor, self.limits.handshake_timeout) => shaken,
            () = self.tasks.stopping() => return,
        };
        match shaken {
            Ok(stream) => {
                let caller = Caller {
                    peer: certs::verified_peer(stream.get_ref().1),
                };
                self.calls(stream, caller).await;
            }
            Err(error) => {
                self.metrics.handshakes_failed.inc();
                self.log
                    .say(|more| tracing::info!(%address, %error, more, "a TLS handshake failed"));
            }
        }
    }

    async fn calls(&self, stream: TlsStream<TcpStream>, caller: Caller) {
        let is_anonymous = caller.peer.is_none();
        let routes = TowerToHyperService::new(self.routes.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let allowed = authorize(request.uri().path(), &caller);
            request.extensions_mut().insert(caller.clone());
            // Its message is not even looked at where the caller may not send it.
            let answer = allowed.map(|()| routes.call(request));
            async move {
                match answer {
                    Ok(answer) => answer.await,
                    Err(status) => Ok::<Response<Body>, Infallible>(status.into_http()),
                }
            }
        });
        let connection = self.http2().serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let overdue = async {
            match is_anonymous {
                true => sleep(self.limits.anonymous_timeout).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut connection => return ended_with(ended),
            () = overdue => return,
            () = self.tasks.stopping() => connection.as_mut().graceful_shutdown(),
        }
        ended_with(connection.await);
    }

    fn http2(&self) -> http2::Builder<Tasks> {
        let limits = &self.limits;
        let mut builder = http2::Builder::new(self.tasks.clone());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.keepalive_interval)
            .keep_alive_timeout(limits.keepalive_timeout)
            .max_concurrent_streams(limits.calls_per_connection)
            .max_header_list_size(limits.header_bytes)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS);
        builder
    }
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    within: Duration,
) -> io::Result<TlsStream<TcpStream>> {
    // Fails only on a socket that is already dead.
    let _ = stream.set_nodelay(true);
    timeout(within, acceptor.accept(stream))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")))
}

fn ended_with(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection broke");
    }
}

/// Lines that strangers can provoke, at most one every [`LOG_INTERVAL`].
#[derive(Debug, Default)]
pub(crate) struct SeldomLog {
    last: Mutex<Option<Instant>>,
    /// Lines left out since the last one.
    left_out: AtomicU64,
}

impl SeldomLog {
    /// Logs a line, which is told how many like it were left out, or leaves it out.
    fn say(&self, log: impl FnOnce(u64)) {
        let now = Instant::now();
        let due = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let due = last.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
            if due {
                *last = Some(now);
            }
            due
        };
        match due {
            true => log(self.left_out.swap(0, Ordering::Relaxed)),
            false => drop(self.left_out.fetch_add(1, Ordering::Relaxed)),
        }
    }
}
