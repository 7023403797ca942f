//! A BackendTrafficPolicy bounds what a Service is given: requests, connections, retries and time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Response;
use tests::client::Answer;
use tests::{App, Mesh, Sidecar, eventually, within, yaml};

/// `pay` at this application outside the mesh, and a sidecar to call it from.
async fn pay(app: &App, policy: &str) -> (Mesh, Sidecar) {
    let yaml = yaml::outside("pay", 80, "http", &[app.address]) + &yaml::traffic_policy("pay", policy);
    let mesh = Mesh::with(&yaml).await;
    let visitor = mesh.visitor().await;
    (mesh, visitor)
}

/// A call on a connection of its own, that goes on meanwhile.
fn calling(visitor: &Sidecar) -> tokio::task::JoinHandle<Answer> {
    let outbound = visitor.outbound;
    tokio::spawn(async move {
        tests::client::Http::http1(outbound)
            .await
            .get("http://pay/")
            .await
    })
}

#[tokio::test]
async fn over_the_most_parallel_requests_the_answer_is_503_at_once() {
    let (app, permits) = App::holding().await;
    let (_mesh, visitor) = pay(&app, "circuitBreaker: {maxParallelRequests: 2}").await;
    let held = [calling(&visitor), calling(&visitor)];
    app.arrived(2).await;
    let refused = visitor.get("http://pay/").await;
    assert_eq!(refused.verdict(), (503, "overflow"));
    permits.add_permits(2);
    for call in held {
        assert_eq!(call.await.unwrap().status, 200);
    }
    permits.add_permits(1);
    assert_eq!(visitor.get("http://pay/").await.status, 200);
    assert_eq!(app.requests().len(), 3);
}

#[tokio::test]
async fn a_request_waits_for_one_of_the_connections_and_too_many_do_not() {
    let (app, permits) = App::holding().await;
    let (_mesh, visitor) = pay(&app, "circuitBreaker: {maxConnections: 1, maxPendingRequests: 1}").await;
    let first = calling(&visitor);
    app.arrived(1).await;
    let more = [calling(&visitor), calling(&visitor), calling(&visitor)];
    let mut more = FuturesUnordered::from_iter(more);
    // Of three more one waits, and the others are told so at once.
    for _ in 0..2 {
        let refused = within("a refusal", more.next()).await.unwrap().unwrap();
        assert_eq!(refused.verdict(), (503, "overflow"));
    }
    permits.add_permits(2);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(more.next().await.unwrap().unwrap().status, 200);
    assert_eq!((app.requests().len(), app.connections()), (2, 1));
}

#[tokio::test]
async fn nobody_waits_where_nobody_may() {
    let (app, permits) = App::holding().await;
    let (_mesh, visitor) = pay(&app, "circuitBreaker: {maxConnections: 1, maxPendingRequests: 0}").await;
    let first = calling(&visitor);
    app.arrived(1).await;
    assert_eq!(visitor.get("http://pay/").await.verdict(), (503, "overflow"));
    permits.add_permits(1);
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn one_endpoint_has_no_more_connections_than_it_may() {
    let (app, permits) = App::holding().await;
    let policy = "circuitBreaker: {maxPendingRequests: 0, perEndpoint: {maxConnections: 1}}";
    let (_mesh, visitor) = pay(&app, policy).await;
    let first = calling(&visitor);
    app.arrived(1).await;
    assert_eq!(visitor.get("http://pay/").await.verdict(), (503, "overflow"));
    permits.add_permits(1);
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn who_waits_for_an_endpoint_holds_up_nobody_else() {
    let (app, permits) = App::holding().await;
    let other = App::echo("stock").await;
    let policy = "circuitBreaker: {perEndpoint: {maxConnections: 1}}";
    let (mesh, visitor) = pay(&app, policy).await;
    mesh.apply(&yaml::outside("stock", 80, "http", &[other.address]))
        .await;
    let first = calling(&visitor);
    app.arrived(1).await;
    let second = calling(&visitor);
    for _ in 0..20 {
        assert_eq!(visitor.get("http://stock/").await.status, 200);
    }
    permits.add_permits(2);
    for call in [first, second] {
        assert_eq!(call.await.unwrap().status, 200);
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_connection_is_closed_after_so_many_requests() {
    let app = App::echo("pay").await;
    let (_mesh, visitor) = pay(&app, "circuitBreaker: {maxRequestsPerConnection: 2}").await;
    let mut client = visitor.http1().await;
    for _ in 0..6 {
        assert_eq!(client.get("http://pay/").await.status, 200);
    }
    assert_eq!(app.connections(), 3);
}

#[tokio::test]
async fn a_limit_of_connections_is_kept_over_many_endpoints() {
    let apps = [App::echo("a").await, App::echo("b").await, App::echo("c").await];
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    let policy = "loadBalancer: {type: RoundRobin}\ncircuitBreaker: {maxConnections: 2}";
    let mesh =
        Mesh::with(&(yaml::outside("pay", 80, "http", &addresses) + &yaml::traffic_policy("pay", policy)))
            .await;
    let visitor = mesh.visitor().await;
    let mut client = visitor.http1().await;
    // The third endpoint's connection takes the place of one that is out of use.
    for _ in 0..12 {
        assert_eq!(client.get("http://pay/").await.status, 200);
    }
    assert!(apps.iter().all(|app| app.requests().len() == 4));
    eventually("no more than two connections", async || {
        let open: usize = apps.iter().map(App::open).sum();
        (open <= 2).then_some(())
    })
    .await;
}

/// Fails always, or at first.
async fn failing(failures: usize) -> App {
    let calls = Arc::new(AtomicUsize::new(0));
    App::answering(move |_| {
        let fails = calls.fetch_add(1, Ordering::Relaxed) < failures;
        let response = Response::builder().status(if fails { 503 } else { 200 });
        response.body(Bytes::new()).unwrap()
    })
    .await
}

const RETRY: &str =
    "retry: {numRetries: 2, retryOn: {triggers: [gateway-error]}, perRetry: {backOff: {baseInterval: 1ms}}}";

#[tokio::test]
async fn a_policy_lends_a_service_without_routes_its_retries() {
    let app = failing(2).await;
    let (_mesh, visitor) = pay(&app, RETRY).await;
    assert_eq!(visitor.get("http://pay/").await.status, 200);
    assert_eq!(app.requests().len(), 3);
}

#[tokio::test]
async fn where_no_retry_may_go_on_the_failure_is_delivered() {
    let app = failing(usize::MAX).await;
    let (_mesh, visitor) = pay(
        &app,
        &format!("circuitBreaker: {{maxParallelRetries: 0}}\n{RETRY}"),
    )
    .await;
    let answer = visitor.get("http://pay/").await;
    assert_eq!(answer.verdict(), (503, ""), "the application's own");
    assert_eq!(app.requests().len(), 1);
}

#[tokio::test]
async fn a_retry_constraint_is_the_budget() {
    let app = failing(usize::MAX).await;
    let constraint = "retryConstraint: {budget: {percent: 0}, minRetryRate: {count: 3, interval: 1h}}";
    let (_mesh, visitor) = pay(&app, &format!("{constraint}\n{RETRY}")).await;
    let mut client = visitor.http1().await;
    for _ in 0..20 {
        client.get("http://pay/").await;
    }
    assert_eq!(app.requests().len(), 20 + 3);
}

#[tokio::test]
async fn a_request_that_takes_longer_than_the_policy_allows_is_given_up() {
    let (app, _permits) = App::holding().await;
    let (_mesh, visitor) = pay(&app, "timeout: {http: {requestTimeout: 100ms}}").await;
    assert_eq!(
        visitor.get("http://pay/").await.verdict(),
        (504, "request_timeout")
    );
}

#[tokio::test]
async fn connecting_takes_no_longer_than_the_policy_allows() {
    // Accepts, and never shakes hands.
    let silent = App::raw(|stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let policy =
        "timeout: {tcp: {connectTimeout: 50ms}}\ntcpKeepalive: {idleTime: 10s, interval: 5s, probes: 3}";
    let mesh = Mesh::with(&(yaml::service("pay", 80, "http") + &yaml::traffic_policy("pay", policy))).await;
    let app = App::echo("pay").await;
    let workload = mesh.workload("pay").app(app.address).advertise(silent.address);
    let _pay = workload.start().await;
    let visitor = mesh.visitor().await;
    let began = Instant::now();
    assert_eq!(
        visitor.get("http://pay/").await.verdict(),
        (504, "connect_timeout")
    );
    // The sidecar's own limit is 5 s for each of three attempts.
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn sessions_find_room_beside_connections_that_are_out_of_use() {
    let apps = [App::echo("a").await, App::echo("b").await];
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    let policy = "circuitBreaker: {maxConnections: 1}\nsessionPersistence: {type: Header, sessionName: x-session}\n\
                  loadBalancer: {type: RoundRobin}";
    let mesh =
        Mesh::with(&(yaml::outside("pay", 80, "http", &addresses) + &yaml::traffic_policy("pay", policy)))
            .await;
    let visitor = mesh.visitor().await;
    let mut client = visitor.http1().await;
    let mut sessions = std::collections::BTreeMap::new();
    while sessions.len() < 2 {
        let answer = client.get("http://pay/").await;
        sessions.insert(
            answer.header("x-app").to_owned(),
            answer.header("x-session").to_owned(),
        );
    }
    for (name, token) in sessions.iter().cycle().take(6) {
        let call = tests::client::request("GET", "http://pay/").header("x-session", token);
        let answer = client.send(call.body(tests::client::nothing()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-app")), (200, &**name));
    }
}

#[tokio::test]
async fn the_retries_of_a_second_are_for_all_workers_together() {
    let app = App::echo("pay").await;
    // Where nobody listens.
    let nobody = ([127, 0, 0, 1], 1).into();
    let mesh = Mesh::with(&yaml::outside("pay", 80, "http", &[app.address, nobody])).await;
    let visitor = mesh.workload("visitor").arg("--workers", "16").start().await;
    // Each on a connection, and so perhaps on a worker, of its own.
    for _ in 0..9 {
        let answer = visitor.get("http://pay/").await;
        assert_eq!(answer.status, 200, "{:?}", answer.verdict());
    }
}
