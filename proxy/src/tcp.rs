//! Opaque TCP: bytes in both directions, with no framing of our own.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use decision::Reason;
use decision::traffic::balance;
use decision::traffic::retry::Outcome;
use model::traffic_policy::Algorithm;
use model::{AppProtocol, ServicePort};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};

use crate::config::Learned;
use crate::downstream::Downstream;
use crate::leg::Leg;
use crate::upstream::Wanted;
use crate::worker::Worker;

/// How often another endpoint is tried when a connection cannot be opened.
const CONNECT_ATTEMPTS: usize = 3;

/// What is declared to be spoken on a service's port; to be detected where nothing is known.
pub(crate) async fn declared_protocol(worker: &Worker, service: &ServicePort) -> AppProtocol {
    let learned = worker
        .shared
        .config
        .learn(&service.service, worker.limits.discovery_timeout)
        .await;
    let Learned::Exists(snapshot) = learned else {
        return AppProtocol::Detect;
    };
    let destination = snapshot
        .destinations
        .get(&service.service)
        .and_then(Option::as_ref);
    destination
        .and_then(|known| known.ports.get(&service.port))
        .map_or(AppProtocol::Detect, |port| port.protocol)
}

/// Carries a connection of the application to an endpoint of `service`; `first` was already read from it.
pub(crate) async fn outbound<S>(
    downstream: &Downstream,
    service: &ServicePort,
    mut client: S,
    first: BytesMut,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let worker = &downstream.worker;
    match open(worker, service, downstream.client.ip()).await {
        Ok(mut upstream) => {
            if upstream.write_all(&first).await.is_ok() {
                tunnel(client, upstream, worker.limits.idle_timeout).await;
            }
        }
        Err(reason) => {
            tracing::info!(%service, reason = reason.detail(), "closed: no connection to an endpoint");
            // Nothing can be said on an opaque connection but that it ends.
            let _ = client.shutdown().await;
        }
    }
}

/// Carries a connection of another sidecar to the application.
pub(crate) async fn inbound<S>(downstream: &Downstream, client: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let worker = &downstream.worker;
    let snapshot = worker.snapshot();
    let served = downstream
        .service
        .as_ref()
        .and_then(|service| snapshot.inbound.served.get(service));
    let Some(served) = served else {
        return tracing::info!(client = %downstream.client, "closed: that service is not served here");
    };
    match worker.app(served.app).open_tcp().await {
        Ok(app) => tunnel(client, app, worker.limits.idle_timeout).await,
        Err(reason) => tracing::info!(app = %served.app, reason = reason.detail(), "closed: no application"),
    }
}

async fn open(worker: &Worker, service: &ServicePort, source: IpAddr) -> Result<Leg, Reason> {
    match worker
        .shared
        .config
        .learn(&service.service, worker.limits.discovery_timeout)
        .await
    {
        Learned::Exists(_) => {}
        Learned::DoesNotExist(_) => return Err(Reason::UnknownService),
        Learned::TimedOut => return Err(Reason::DiscoveryTimeout),
        Learned::TooMany { .. } => return Err(Reason::Overloaded),
    }
    let snapshot = worker.snapshot();
    let endpoints = snapshot
        .endpoints
        .get(&service.service)
        .ok_or(Reason::NoEndpoint)?;
    let policy = endpoints
        .policies
        .get(&service.port)
        .filter(|policy| policy.governs_endpoints());
    let cluster = worker.cluster(&(service.clone(), None));
    // Of a connection nothing but its source is known.
    let balance = policy.and_then(|policy| policy.balance.as_ref());
    let key = match balance.map(|balance| &balance.algorithm) {
        Some(Algorithm::Maglev(hash) | Algorithm::RingHash(hash)) => {
            balance::key::of_request(&hash.key, &http::HeaderMap::new(), source)
        }
        _ => None,
    };
    let mut tried = Vec::new();
    let mut last = Reason::NoEndpoint;
    for _ in 0..CONNECT_ATTEMPTS {
        let wanted = Wanted {
            set: endpoints,
            policy,
            tried: &tried,
            key,
            dice: worker.dice(),
            now: Instant::now(),
        };
        let Some(picked) = cluster.pick(&wanted) else {
            break;
        };
        let opened = picked.member.upstream.open_tcp().await;
        if policy.is_some() {
            let outcome = match &opened {
                // Nothing more is known of what passes than that it can.
                Ok(_) => Outcome::Status(200),
                Err(reason) => Outcome::NotSent(*reason),
            };
            cluster.judged(&picked, &outcome, Instant::now());
        }
        match opened {
            Ok(leg) => {
                picked.responded(Instant::now());
                return Ok(leg);
            }
            Err(reason) => last = reason,
        }
        picked.failed(Instant::now());
        tried.push(picked.member.place.clone());
    }
    Err(last)
}

/// As [`tunnel`], for two connections from each of which something was already read.
pub(crate) async fn tunnel_with(
    (mut client, from_client): (Leg, BytesMut),
    (mut upstream, from_upstream): (Leg, BytesMut),
    idle: Duration,
) {
    let sent = tokio::try_join!(upstream.write_all(&from_client), client.write_all(&from_upstream));
    match sent {
        Ok(_) => tunnel(client, upstream, idle).await,
        Err(error) => tracing::debug!(%error, "a tunnel broke"),
    }
}

/// Copies both ways until both sides have ended, or no byte moved for `idle`.
pub(crate) async fn tunnel<A, B>(client: A, mut upstream: B, idle: Duration)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let last = Rc::new(Cell::new(Instant::now()));
    let mut client = Watched {
        io: client,
        last: last.clone(),
    };
    let watch = async {
        loop {
            let quiet = last.get().elapsed();
            if quiet >= idle {
                return;
            }
            tokio::time::sleep(idle.saturating_sub(quiet)).await;
        }
    };
    tokio::select! {
        ended = copy_bidirectional(&mut client, &mut upstream) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a tunnel broke");
            }
        }
        () = watch => tracing::debug!("a tunnel was idle for too long"),
    }
}

/// Notes when bytes last moved in either direction.
struct Watched<S> {
    io: S,
    last: Rc<Cell<Instant>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_ready() {
            self.last.set(Instant::now());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if written.is_ready() {
            self.last.set(Instant::now());
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
