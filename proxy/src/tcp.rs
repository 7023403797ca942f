//! Opaque TCP: bytes in both directions, with no framing of our own.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use decision::Reason;
use decision::message::detect::{Detected, detect};
use decision::traffic::balance;
use decision::traffic::retry::Outcome;
use decision::traffic::{split, stream};
use model::gateway::StreamRule;
use model::traffic_policy::Algorithm;
use model::{AppProtocol, EndpointSet, ServicePort, Snapshot, TrafficPolicy};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};

use crate::config::Learned;
use crate::downstream::Downstream;
use crate::hello;
use crate::leg::Leg;
use crate::upstream::{Cluster, Wanted};
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
    match destination.and_then(|known| known.ports.get(&service.port)) {
        // Rules for opaque bytes and none for requests say it as well.
        Some(port) if port.rules.is_empty() && !port.streams.is_empty() => AppProtocol::Tcp,
        Some(port) => port.protocol,
        None => AppProtocol::Detect,
    }
}

/// Carries a connection of the application to an endpoint of `service`, or where its rules say; `first` was already read
/// from it.
pub(crate) async fn outbound<S>(
    downstream: &Downstream,
    service: &ServicePort,
    mut client: S,
    mut first: BytesMut,
) -> Result<Passed, Reason>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let worker = &downstream.worker;
    let source = downstream.client.ip();
    let reached = match downstream.endpoint {
        Some(address) => reach_endpoint(worker, address, source).await,
        None => reach(worker, service, source, &mut client, &mut first).await,
    };
    match reached {
        Ok(upstream) => Ok(carry(client, first, upstream, worker.limits.idle_timeout).await),
        Err(reason) => {
            tracing::info!(%service, reason = reason.detail(), "closed: no connection to an endpoint");
            // Nothing can be said on an opaque connection but that it ends.
            let _ = client.shutdown().await;
            Err(reason)
        }
    }
}

/// Bytes that passed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Passed {
    pub(crate) from_client: u64,
    pub(crate) to_client: u64,
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
    match worker.app(served.app).open_tcp(false).await {
        Ok(app) => {
            tunnel(client, app, worker.limits.idle_timeout).await;
        }
        Err(reason) => tracing::info!(app = %served.app, reason = reason.detail(), "closed: no application"),
    }
}

/// Opens a connection to the endpoint that has this address.
async fn reach_endpoint(worker: &Worker, address: SocketAddr, source: IpAddr) -> Result<Leg, Reason> {
    let known = worker.destinations.endpoint(worker, address).await?;
    let lane = known.lane(worker, None, 0)?;
    let endpoints = lane.endpoints.as_ref().ok_or(Reason::NoEndpoint)?;
    open_one(worker, &lane.cluster, (endpoints, None), source, false).await
}

/// Opens a connection to an endpoint of the service that was called, or of a backend that its rules choose.
async fn reach<S: AsyncRead + Unpin>(
    worker: &Worker,
    service: &ServicePort,
    source: IpAddr,
    client: &mut S,
    first: &mut BytesMut,
) -> Result<Leg, Reason> {
    let learned = worker
        .shared
        .config
        .learn(&service.service, worker.limits.discovery_timeout)
        .await;
    let snapshot = match learned {
        Learned::Exists(snapshot) => snapshot,
        Learned::DoesNotExist(_) => return Err(Reason::UnknownService),
        Learned::TimedOut => return Err(Reason::DiscoveryTimeout),
        Learned::TooMany { .. } => return Err(Reason::Overloaded),
    };
    let destination = snapshot
        .destinations
        .get(&service.service)
        .and_then(Option::as_ref);
    let port = destination.and_then(|destination| destination.ports.get(&service.port));
    let Some(port) = port.filter(|port| !port.streams.is_empty()) else {
        return open(worker, &snapshot, service, source, false).await;
    };
    let sni = if stream::asks_for_sni(&port.streams) {
        server_name(client, first, worker.limits.detect_timeout).await
    } else {
        None
    };
    let target = choose(worker, &port.streams, sni.as_deref())?;
    open(worker, &snapshot, target, source, sni.is_some()).await
}

/// Where a connection, or a datagram, goes by these rules.
pub(crate) fn choose<'r>(
    worker: &Worker,
    rules: &'r [StreamRule],
    sni: Option<&str>,
) -> Result<&'r ServicePort, Reason> {
    let backends = &stream::choose(rules, sni).ok_or(Reason::NoRoute)?.backends;
    // Rolled only where there is a choice: dice that are thrown away are missing from an even split.
    let dice = if backends.len() > 1 {
        worker.split_dice()
    } else {
        0
    };
    let backend = split::pick_backend(backends, dice).and_then(|place| backends.get(place));
    backend
        .and_then(|backend| backend.target.as_ref())
        .ok_or(Reason::BackendNotFound)
}

/// The name in the handshake that a client begins within `patience`; `None` where it does not begin one.
async fn server_name<S: AsyncRead + Unpin>(
    client: &mut S,
    first: &mut BytesMut,
    patience: Duration,
) -> Option<Box<str>> {
    let read = async {
        loop {
            match detect(first) {
                Detected::Tls => return hello::server_name(client, first).await.ok(),
                Detected::NeedMore => match client.read_buf(first).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                },
                _ => return None,
            }
        }
    };
    let name = tokio::time::timeout(patience, read).await.ok()??;
    Some(name).filter(|name| !name.is_empty())
}

/// Opens a connection to an endpoint of `service`, for a client at `source`. `is_tls`: what will pass on it is TLS already.
pub(crate) async fn open(
    worker: &Worker,
    snapshot: &Snapshot,
    service: &ServicePort,
    source: IpAddr,
    is_tls: bool,
) -> Result<Leg, Reason> {
    let endpoints = snapshot
        .endpoints
        .get(&service.service)
        .ok_or(Reason::NoEndpoint)?;
    let policy = endpoints.governing(service.port);
    let cluster = worker.cluster(&(service.clone(), None));
    open_one(worker, &cluster, (endpoints, policy), source, is_tls).await
}

async fn open_one(
    worker: &Worker,
    cluster: &Cluster,
    (endpoints, policy): (&Arc<EndpointSet>, Option<&Arc<TrafficPolicy>>),
    source: IpAddr,
    is_tls: bool,
) -> Result<Leg, Reason> {
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
            session: None,
            key,
            dice: worker.dice(),
            now: Instant::now(),
        };
        let Some(picked) = cluster.pick(&wanted) else {
            break;
        };
        let opened = picked.member.upstream.open_tcp(is_tls).await;
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

/// As [`tunnel`], where something was already read from the client.
pub(crate) async fn carry<S>(client: S, first: BytesMut, mut upstream: Leg, idle: Duration) -> Passed
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match upstream.write_all(&first).await {
        Ok(()) => {
            let already = first.len() as u64;
            drop(first);
            let passed = tunnel(client, upstream, idle).await;
            Passed {
                from_client: passed.from_client + already,
                ..passed
            }
        }
        Err(error) => {
            tracing::debug!(%error, "a tunnel broke");
            Passed::default()
        }
    }
}

/// As [`tunnel`], for two connections from each of which something was already read.
pub(crate) async fn tunnel_with(
    (mut client, from_client): (Leg, BytesMut),
    (mut upstream, from_upstream): (Leg, BytesMut),
    idle: Duration,
) {
    let sent = tokio::try_join!(upstream.write_all(&from_client), client.write_all(&from_upstream));
    match sent {
        Ok(_) => {
            tunnel(client, upstream, idle).await;
        }
        Err(error) => tracing::debug!(%error, "a tunnel broke"),
    }
}

/// Copies both ways until both sides have ended, or no byte moved for `idle`.
pub(crate) async fn tunnel<A, B>(client: A, mut upstream: B, idle: Duration) -> Passed
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let last = Rc::new(Cell::new(Instant::now()));
    let mut client = Watched {
        io: client,
        last: last.clone(),
        passed: Passed::default(),
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
    client.passed
}

/// Notes when bytes last moved in either direction, and how many.
struct Watched<S> {
    io: S,
    last: Rc<Cell<Instant>>,
    passed: Passed,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_ready() {
            self.passed.from_client += (buf.filled().len() - before) as u64;
            self.last.set(Instant::now());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(written) = &written {
            self.passed.to_client += *written.as_ref().unwrap_or(&0) as u64;
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
