//! Asks endpoints how they are. Each is asked by one worker of the proxy, on a timer of its own; what it says is for all.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use decision::traffic::grpc;
use decision::traffic::health::Health;
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Uri, request};
use model::AppProtocol;
use model::traffic_policy::{Check, HealthCheck};
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::dial::{Route, Spoken};
use super::joint::{Joint, JointEndpoint};
use super::pool::Upstream;
use crate::http::body::{Answer, RequestBody};
use crate::http::replay::ReplaySource;
use crate::settings::Limits;

/// Checks of one Service that go on at a time.
pub(super) const MAX_CHECKS: usize = 16;
/// An interval is longer or shorter by up to this share of it, so that callers do not check together.
const JITTER: f64 = 0.1;
/// An answer's body is read up to this size, bytes; of a longer one the connection is closed.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// A connection through another sidecar must stay open for so long to count as one, or for a quarter of the time of a
/// check where that is less: that sidecar answers before its application does.
const STAYS_OPEN: Duration = Duration::from_millis(100);
const AGENT: HeaderValue = HeaderValue::from_static("weft-health-check");

/// The checks of one endpoint, until it is dropped.
pub(super) struct Checking {
    endpoint: Arc<JointEndpoint>,
    task: AbortHandle,
}

/// What is checked, and how it is reached.
pub(super) struct Subject {
    pub(super) route: Rc<Route>,
    /// Whom requests are for, unless the check says.
    pub(super) authority: Authority,
    /// What is spoken to an address outside the mesh.
    pub(super) protocol: AppProtocol,
}

impl Checking {
    /// Begins to check an endpoint; `None` where another worker does.
    pub(super) fn begin(
        joint: &Arc<Joint>,
        endpoint: &Arc<JointEndpoint>,
        check: &HealthCheck,
        subject: Subject,
        limits: Arc<Limits>,
    ) -> Option<Self> {
        if !endpoint.claim() {
            return None;
        }
        let (joint, checked) = (joint.clone(), endpoint.clone());
        let task = tokio::task::spawn_local(run(joint, checked, check.clone(), subject, limits));
        Some(Self {
            endpoint: endpoint.clone(),
            task: task.abort_handle(),
        })
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        self.task.abort();
        self.endpoint.give_up();
    }
}

async fn run(
    joint: Arc<Joint>,
    endpoint: Arc<JointEndpoint>,
    policy: HealthCheck,
    subject: Subject,
    limits: Arc<Limits>,
) {
    let address = subject.route.address();
    // A pool of its own: a check says nothing about the connections of requests, nor takes one of them.
    let upstream = Upstream::new(subject.route.clone(), limits);
    let mut health = Health::default();
    // The first ones are soon, and not all at once.
    tokio::time::sleep(policy.interval.mul_f64(JITTER * rand::random::<f64>())).await;
    loop {
        let passed = {
            let _turn = joint.checks.acquire().await;
            let asked = timeout(policy.timeout, ask(&upstream, &policy, &subject));
            asked.await.unwrap_or(false)
        };
        if let Some(healthy) = health.checked(passed, &policy) {
            tracing::info!(%address, healthy, "an endpoint's health is another");
            endpoint.set_healthy(healthy);
            joint.changed();
        }
        let jitter = 1.0 + JITTER * (2.0 * rand::random::<f64>() - 1.0);
        tokio::time::sleep(policy.interval.mul_f64(jitter)).await;
    }
}

async fn ask(upstream: &Rc<Upstream>, policy: &HealthCheck, subject: &Subject) -> bool {
    match &policy.check {
        Check::Http {
            hostname,
            path,
            method,
            expected,
        } => {
            let authority = hostname.as_ref().and_then(|name| name.parse().ok());
            let authority = authority.unwrap_or_else(|| subject.authority.clone());
            let spoken = subject.spoken(false);
            let Some(request) = subject.request(method, path, authority, spoken) else {
                return false;
            };
            http(upstream, &request, spoken, expected).await
        }
        Check::Grpc { service } => {
            let spoken = subject.spoken(true);
            let (path, authority) = ("/grpc.health.v1.Health/Check", subject.authority.clone());
            match subject.request(&Method::POST, path, authority, spoken) {
                Some(request) => grpc(upstream, request, spoken, service).await,
                None => false,
            }
        }
        Check::Tcp { send, receive } => {
            let stays_open = STAYS_OPEN.min(policy.timeout / 4);
            tcp(upstream, send, receive, stays_open).await
        }
    }
}

impl Subject {
    fn spoken(&self, is_grpc: bool) -> Spoken {
        match (&*self.route, is_grpc) {
            (Route::Mesh(_), true) => Spoken::Http2,
            (Route::Mesh(_), false) => Spoken::Http1,
            (_, is_grpc) => Spoken::to_app(self.protocol, false, is_grpc),
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        authority: Authority,
        spoken: Spoken,
    ) -> Option<request::Parts> {
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, AGENT);
        let uri = match spoken {
            Spoken::Http2 => {
                let scheme = match &*self.route {
                    Route::Outside(_, Some(_)) => Scheme::HTTPS,
                    _ => Scheme::HTTP,
                };
                Uri::builder()
                    .scheme(scheme)
                    .authority(authority)
                    .path_and_query(path)
                    .build()
                    .ok()?
            }
            Spoken::Http1 | Spoken::Tcp | Spoken::Tls => {
                let host = HeaderValue::from_str(authority.as_str()).ok()?;
                headers.insert(HOST, host);
                path.parse().ok()?
            }
        };
        *request.uri_mut() = uri;
        Some(request.into_parts().0)
    }
}

async fn http(upstream: &Rc<Upstream>, request: &request::Parts, spoken: Spoken, expected: &[u16]) -> bool {
    let body = ReplaySource::new(RequestBody::Empty, 0);
    let Ok(forwarded) = upstream.send(request, &body, spoken).await else {
        return false;
    };
    let passed = expected.binary_search(&forwarded.parts.status.as_u16()).is_ok();
    read(forwarded.answer).await;
    passed
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `ServingStatus.SERVING`.
const SERVING: i32 = 1;
/// A message's flags and its length stand before it.
const GRPC_PREFIX: usize = 5;

async fn grpc(upstream: &Rc<Upstream>, mut request: request::Parts, spoken: Spoken, service: &str) -> bool {
    let asked = HealthCheckRequest {
        service: service.to_owned(),
    };
    let message = asked.encode_to_vec();
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    let headers = &mut request.headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let body = ReplaySource::new(RequestBody::Own(framed.into()), MAX_BODY_BYTES);
    let Ok(forwarded) = upstream.send(&request, &body, spoken).await else {
        return false;
    };
    let in_head = grpc::status(&forwarded.parts.headers);
    let Some((content, in_trailers)) = read(forwarded.answer).await else {
        return false;
    };
    if in_head.or(in_trailers) != Some(0) {
        return false;
    }
    let answered = content.get(GRPC_PREFIX..).map(HealthCheckResponse::decode);
    matches!(answered, Some(Ok(response)) if response.status == SERVING)
}

/// The whole body and the `grpc-status` behind it; its connection can be used again. `None` where it broke off, or is
/// too long.
async fn read(answer: Answer) -> Option<(Bytes, Option<u8>)> {
    let collected = answer.collect(MAX_BODY_BYTES).await.ok()??;
    let status = collected.trailers.as_ref().and_then(grpc::status);
    Some((collected.body, status))
}

async fn tcp(upstream: &Rc<Upstream>, send: &[u8], receive: &[u8], stays_open: Duration) -> bool {
    let Ok(mut leg) = upstream.open_tcp(false).await else {
        return false;
    };
    if leg.write_all(send).await.is_err() || leg.flush().await.is_err() {
        return false;
    }
    let mut got = Vec::new();
    if receive.is_empty() {
        // Its end, and nothing else, says that nobody is behind it.
        let first = timeout(stays_open, leg.read_buf(&mut got)).await;
        return !upstream.route.is_mtls() || matches!(first, Err(_) | Ok(Ok(1..)));
    }
    while got.len() <= MAX_BODY_BYTES && !got.windows(receive.len()).any(|part| part == receive) {
        match leg.read_buf(&mut got).await {
            Ok(1..) => {}
            _ => return false,
        }
    }
    got.len() <= MAX_BODY_BYTES
}
