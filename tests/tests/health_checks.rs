//! Endpoints are asked how they are, where a policy says so, and those that are not well are left out until they are.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Full};
use tests::app::text;
use tests::{App, Mesh, Raw, Recorded, Sidecar, eventually, within, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HTTP: &str =
    "healthCheck: {active: {type: HTTP, interval: 30ms, unhealthyThreshold: 2, http: {path: /healthz}}}";

/// Serves everything, but says at `/healthz` that it is not well while the switch is on.
async fn serving(name: &str, ill: &Arc<AtomicBool>) -> App {
    let (name, ill) = (name.to_owned(), ill.clone());
    App::answering(move |request| {
        let is_check = request.uri.path() == "/healthz";
        let status = if is_check && ill.load(Ordering::Relaxed) {
            503
        } else {
            200
        };
        let response = Response::builder().status(status).header("x-app", &name);
        response.body(Bytes::new()).unwrap()
    })
    .await
}

/// Calls until thirty calls in a row were answered by exactly these.
async fn answered_by(visitor: &Sidecar, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let called = async {
        let mut client = visitor.http1().await;
        loop {
            let mut names = BTreeSet::new();
            for _ in 0..30 {
                let answer = client.get("http://pay/").await;
                assert_eq!(answer.status, 200, "{:?}", answer.verdict());
                names.insert(answer.header("x-app").to_owned());
            }
            if names == wanted {
                return;
            }
        }
    };
    within(&format!("answers of {wanted:?} only"), called).await;
}

fn switches() -> [Arc<AtomicBool>; 2] {
    [Arc::default(), Arc::default()]
}

/// A policy under which both of two well endpoints answer within thirty calls.
fn policy(check: &str) -> String {
    yaml::traffic_policy("pay", &format!("loadBalancer: {{type: RoundRobin}}\n{check}"))
}

#[tokio::test]
async fn an_address_that_is_not_well_is_left_out_until_it_is() {
    let [ill, well] = switches();
    let apps = [serving("a", &ill).await, serving("b", &well).await];
    let addresses: Vec<SocketAddr> = apps.iter().map(|app| app.address).collect();
    let mesh = Mesh::with(&(yaml::outside("pay", 80, "http", &addresses) + &policy(HTTP))).await;
    let visitor = mesh.visitor().await;
    answered_by(&visitor, &["a", "b"]).await;
    ill.store(true, Ordering::Relaxed);
    answered_by(&visitor, &["b"]).await;
    ill.store(false, Ordering::Relaxed);
    answered_by(&visitor, &["a", "b"]).await;
    // Where nobody is well, everyone is asked rather than nobody.
    ill.store(true, Ordering::Relaxed);
    well.store(true, Ordering::Relaxed);
    answered_by(&visitor, &["a", "b"]).await;
}

#[tokio::test]
async fn a_workload_is_checked_over_mtls_as_the_service_that_it_is() {
    let [ill, well] = switches();
    let apps = [serving("a", &ill).await, serving("b", &well).await];
    let mesh = Mesh::with(&(yaml::service("pay", 80, "http") + &policy(HTTP))).await;
    let _a = mesh.workload("pay").app(apps[0].address).start().await;
    let _b = mesh.workload("pay").app(apps[1].address).start().await;
    let visitor = mesh.visitor().await;
    ill.store(true, Ordering::Relaxed);
    answered_by(&visitor, &["b"]).await;
    let checks = apps[0].requests();
    let check = checks
        .iter()
        .find(|request| request.uri.path() == "/healthz")
        .unwrap();
    assert_eq!(check.header("user-agent"), "weft-health-check");
    assert_eq!(check.header("host"), "pay.default.svc.cluster.local");
}

fn checks(app: &App) -> Vec<Recorded> {
    let mut requests = app.requests();
    requests.retain(|request| request.uri.path() == "/healthz");
    requests
}

#[tokio::test]
async fn only_services_that_are_called_are_checked_and_by_one_worker() {
    let well = Arc::default();
    let (called, ignored) = (serving("a", &well).await, serving("b", &well).await);
    let mesh = Mesh::with(
        &(yaml::outside("pay", 80, "http", &[called.address])
            + &yaml::outside("ignored", 80, "http", &[ignored.address])
            + &policy(HTTP)
            + &yaml::traffic_policy("ignored", HTTP)),
    )
    .await;
    let visitor = mesh.workload("visitor").arg("--workers", "4").start().await;
    // Open together, they are spread over all workers, each of which meets the service.
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = visitor.http1().await;
        assert_eq!(client.get("http://pay/").await.status, 200);
        clients.push(client);
    }
    eventually("some checks", async || {
        (checks(&called).len() >= 20).then_some(())
    })
    .await;
    // Whoever checks has a connection of its own for it.
    let connections = checks(&called).iter().map(|check| check.connection).collect();
    assert_eq!(BTreeSet::len(&connections), 1, "{connections:?}");
    assert!(ignored.requests().is_empty());
}

/// Speaks gRPC's health protocol: SERVING unless the switch is on.
async fn grpc(name: &str, ill: &Arc<AtomicBool>) -> App {
    let (name, ill) = (name.to_owned(), ill.clone());
    App::http(move |request| {
        let (name, status) = (name.clone(), if ill.load(Ordering::Relaxed) { 2 } else { 1 });
        async move {
            if request.uri().path() != "/grpc.health.v1.Health/Check" {
                let mut answer = text(200, "");
                answer.headers_mut().insert("x-app", name.parse().unwrap());
                return answer;
            }
            let asked = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(&asked[..], b"\x00\x00\x00\x00\x05\x0a\x03pay");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let body = Full::new(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]));
            let body = body.with_trailers(async move { Some(Ok(trailers)) });
            let response = Response::builder().header("content-type", "application/grpc");
            response
                .body(body.map_err(|never| match never {}).boxed_unsync())
                .unwrap()
        }
    })
    .await
}

#[tokio::test]
async fn a_grpc_server_is_asked_by_its_own_protocol() {
    let [ill, well] = switches();
    let apps = [grpc("a", &ill).await, grpc("b", &well).await];
    let check = "healthCheck: {active: {type: GRPC, interval: 30ms, grpc: {service: pay}}}";
    let mesh = Mesh::with(&(yaml::service("pay", 80, "") + &policy(check))).await;
    let _a = mesh.workload("pay").app(apps[0].address).start().await;
    let _b = mesh.workload("pay").app(apps[1].address).start().await;
    let visitor = mesh.visitor().await;
    answered_by(&visitor, &["a", "b"]).await;
    ill.store(true, Ordering::Relaxed);
    answered_by(&visitor, &["b"]).await;
}

#[tokio::test]
async fn an_opaque_server_is_told_by_what_it_answers() {
    let answering = |name: &'static str, says: &'static [u8]| async move {
        App::raw(move |mut stream| async move {
            let mut got = [0; 4];
            if stream.read_exact(&mut got).await.is_err() {
                return;
            }
            let answer = if &got == b"PING" {
                says.to_vec()
            } else {
                format!("HTTP/1.1 200 OK\r\nx-app: {name}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .into_bytes()
            };
            let _ = stream.write_all(&answer).await;
            // What else was sent is read, so that the answer is not lost to a reset.
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        })
        .await
    };
    let apps = [
        answering("a", b"+PONG\r\n").await,
        answering("b", b"-LOADING\r\n").await,
    ];
    let addresses: Vec<SocketAddr> = apps.iter().map(|app| app.address).collect();
    let payloads = "{send: {type: Text, text: PING}, receive: {type: Binary, binary: UE9ORw==}}";
    let check = format!("healthCheck: {{active: {{type: TCP, interval: 30ms, tcp: {payloads}}}}}");
    let mesh = Mesh::with(&(yaml::outside("pay", 80, "http", &addresses) + &policy(&check))).await;
    let visitor = mesh.visitor().await;
    answered_by(&visitor, &["a"]).await;
}

/// Says its name, at once or when a client has said all; while the switch is on it closes the connection instead, as a
/// server does that is not to be used.
async fn closing(name: &'static str, ill: &Arc<AtomicBool>, speaks_first: bool) -> App {
    let ill = ill.clone();
    App::raw(move |mut stream| {
        let ill = ill.clone();
        async move {
            if ill.load(Ordering::Relaxed) {
                return;
            }
            let mut said = Vec::new();
            if !speaks_first && stream.read_to_end(&mut said).await.is_err() {
                return;
            }
            if stream.write_all(name.as_bytes()).await.is_ok() {
                let _ = stream.read_to_end(&mut said).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_opaque_workload_must_keep_a_connection_open() {
    // The last time is shorter than a connection must stay open where there is more time.
    for (time, speaks_first) in [("1s", true), ("1s", false), ("50ms", false)] {
        let [ill, well] = switches();
        let apps = [
            closing("a", &ill, speaks_first).await,
            closing("b", &well, speaks_first).await,
        ];
        let check = format!(
            "healthCheck: {{active: {{type: TCP, timeout: {time}, interval: 30ms, unhealthyThreshold: 9}}}}"
        );
        let mesh = Mesh::with(&(yaml::service("pay", 80, "tcp") + &policy(&check))).await;
        let _a = mesh.workload("pay").app(apps[0].address).start().await;
        let _b = mesh.workload("pay").app(apps[1].address).start().await;
        let visitor = mesh.workload("visitor").local("pay:80").start().await;
        for (is_ill, wanted) in [(false, &["a", "b"][..]), (true, &["b"]), (false, &["a", "b"])] {
            ill.store(is_ill, Ordering::Relaxed);
            let met = async {
                loop {
                    // Nothing is said by one that is not to be used.
                    let mut met = BTreeSet::new();
                    for _ in 0..10 {
                        let mut raw = Raw::connect(visitor.local("pay:80")).await;
                        raw.half_close().await;
                        met.insert(raw.read_to_end().await);
                    }
                    if met.iter().eq(wanted.iter().map(|name| name.as_bytes())) {
                        return;
                    }
                }
            };
            within(
                &format!("connections to {wanted:?} only ({time}, {speaks_first})"),
                met,
            )
            .await;
        }
    }
}

async fn checked_again(app: &App, times: usize) {
    let so_far = checks(app).len();
    tests::eventually("checks", async || {
        (checks(app).len() >= so_far + times).then_some(())
    })
    .await;
}

#[tokio::test]
async fn checks_end_with_their_policy_though_nobody_calls() {
    let apps = [
        serving("a", &switches()[0]).await,
        serving("b", &switches()[0]).await,
        serving("c", &switches()[0]).await,
    ];
    let route = "apiVersion: weft.dev/v1alpha1\nkind: BackendTrafficPolicy\nmetadata: {name: route}\n\
                 spec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: fares}]\n  ";
    let yaml = ["pay", "fares", "other"]
        .iter()
        .zip(&apps)
        .map(|(name, app)| yaml::outside(name, 80, "http", &[app.address]))
        .collect::<String>()
        + &yaml::http_route("fares", "- backendRefs: [{name: fares, port: 80}]")
        + &yaml::traffic_policy("pay", HTTP)
        + &yaml::traffic_policy("other", HTTP)
        + &format!("{route}{HTTP}\n---\n");
    let mesh = Mesh::with(&yaml).await;
    let visitor = mesh.visitor().await;
    for (name, app) in ["pay", "fares", "other"].iter().zip(&apps) {
        assert_eq!(visitor.get(&format!("http://{name}/")).await.status, 200);
        checked_again(app, 1).await;
    }
    for name in ["pay", "route"] {
        let gone = mesh.operator().delete("BackendTrafficPolicy", name).await;
        mesh.operator().in_use(gone).await;
    }
    // What is on its way may still come.
    checked_again(&apps[2], 3).await;
    let so_far = [checks(&apps[0]).len(), checks(&apps[1]).len()];
    checked_again(&apps[2], 20).await;
    assert_eq!([checks(&apps[0]).len(), checks(&apps[1]).len()], so_far);
}

#[tokio::test]
async fn a_session_leaves_an_endpoint_that_is_not_well_at_its_next_request() {
    let [ill, well] = switches();
    let apps = [serving("a", &ill).await, serving("b", &well).await];
    let addresses: Vec<SocketAddr> = apps.iter().map(|app| app.address).collect();
    let keeps = format!("{HTTP}\nsessionPersistence: {{type: Header, sessionName: x-session}}");
    let mesh = Mesh::with(&(yaml::outside("pay", 80, "http", &addresses) + &policy(&keeps))).await;
    let visitor = mesh.visitor().await;
    let token = tests::eventually("a session at a", async || {
        let answer = visitor.get("http://pay/").await;
        (answer.header("x-app") == "a").then(|| answer.header("x-session").to_owned())
    })
    .await;
    let call = async || {
        let call = tests::client::request("GET", "http://pay/").header("x-session", &token);
        let call = call.body(tests::client::nothing()).unwrap();
        visitor.http1().await.send(call).await.header("x-app").to_owned()
    };
    assert_eq!(call().await, "a");
    ill.store(true, Ordering::Relaxed);
    // Two are enough, and no other request tells the cluster.
    checked_again(&apps[0], 4).await;
    assert_eq!(call().await, "b");
}
