//! Cables are cut, hosts fall silent and links lose packets: what callers see of it. Needs root, for network namespaces.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tests::client::{nothing, request};
use tests::network::Host;
use tests::{App, Load, Mesh, Network, Sidecar, skip, within, yaml};

const NEEDS: &str = "root, ip and nft, for network namespaces";

/// The Service `pair`, with a mesh that hosts of `network` can reach.
async fn mesh(network: &Network, rule: &str) -> Mesh {
    let mesh = Mesh::builder().reached_at(network.address()).start().await;
    let rule = format!("- backendRefs: [{{name: pair, port: 80}}]\n  {rule}");
    mesh.apply(&(yaml::service("pair", 80, "http") + &yaml::http_route("pair", &rule)))
        .await;
    mesh
}

/// An endpoint of `pair` on a host of its own, whose application names itself in `x-app`.
async fn endpoint(mesh: &Mesh, host: &Arc<Host>, name: &str) -> (App, Sidecar) {
    let app = host.start(App::echo(name));
    let sidecar = mesh.workload("pair").on(host).app(app.address).start().await;
    (app, sidecar)
}

#[tokio::test]
async fn a_cable_that_is_cut_costs_no_request_where_a_retry_is_allowed() {
    let Some(network) = Network::start() else {
        skip!(NEEDS)
    };
    let [left, right, caller] = ["left", "right", "caller"].map(|name| network.host(name));
    let mesh = mesh(
        &network,
        "timeouts: {backendRequest: 500ms}\n  retry: {codes: [503, 504], attempts: 3, backoff: 10ms}",
    )
    .await;
    // Whoever was slow is not avoided for long, so that the test need not wait for it.
    mesh.apply(&yaml::traffic_policy("pair", "loadBalancer: {type: RoundRobin}"))
        .await;
    let _left = endpoint(&mesh, &left, "left").await;
    let _right = endpoint(&mesh, &right, "right").await;
    let visitor = mesh
        .workload("visitor")
        .on(&caller)
        .arg("--connect-timeout", "500ms")
        .start()
        .await;

    let load = Load::start(visitor.outbound, "http://pair/");
    load.until("both answer", |counts| counts.by_app.len() == 2).await;
    left.cut();
    let before = load.counts();
    load.more(100).await;
    let without = load.counts();
    assert!(
        without.by_app["right"] >= before.by_app["right"] + 90,
        "{before:?} {without:?}"
    );
    left.mend();
    let so_far = without.by_app["left"] + 2;
    load.until("the host is back", |counts| counts.by_app["left"] > so_far)
        .await;
    load.stop().await.assert_no_failure();
}

#[tokio::test]
async fn a_host_that_swallows_connections_is_left_for_another_without_any_retry() {
    let Some(network) = Network::start() else {
        skip!(NEEDS)
    };
    let [left, right, caller] = ["left", "right", "caller"].map(|name| network.host(name));
    let mesh = mesh(&network, "timeouts: {request: 20s}").await;
    let _left = endpoint(&mesh, &left, "left").await;
    let _right = endpoint(&mesh, &right, "right").await;
    let visitor = mesh
        .workload("visitor")
        .on(&caller)
        .arg("--connect-timeout", "300ms")
        .start()
        .await;

    // Nothing was sent to it yet: a connection that cannot be made may always be made elsewhere.
    left.drop_from(caller.address);
    let load = Load::start(visitor.outbound, "http://pair/");
    load.more(40).await;
    let counts = load.stop().await;
    counts.assert_no_failure();
    assert_eq!(counts.by_app.keys().collect::<Vec<_>>(), ["right"]);
}

#[tokio::test]
async fn packets_that_are_lost_cost_time_and_no_request() {
    let Some(network) = Network::start() else {
        skip!(NEEDS)
    };
    let [server, caller] = ["server", "caller"].map(|name| network.host(name));
    let mesh = mesh(&network, "timeouts: {request: 25s}").await;
    let _server = endpoint(&mesh, &server, "server").await;
    let visitor = mesh
        .workload("visitor")
        .on(&caller)
        .arg("--connect-timeout", "20s")
        .start()
        .await;

    server.lose(5);
    caller.lose(5);
    let load = Load::start(visitor.outbound, "http://pair/");
    load.more(30).await;
    load.stop().await.assert_no_failure();
}

#[tokio::test]
async fn a_stream_over_a_link_that_is_gone_ends_and_new_requests_take_a_new_connection() {
    let Some(network) = Network::start() else {
        skip!(NEEDS)
    };
    let [server, caller] = ["server", "caller"].map(|name| network.host(name));
    let mesh = mesh(&network, "timeouts: {request: 0s}").await;
    let (app, _permits) = server.start(App::holding());
    let _server = mesh.workload("pair").on(&server).app(app.address).start().await;
    let visitor = mesh
        .workload("visitor")
        .on(&caller)
        .arg("--keepalive-interval", "1s")
        .arg("--keepalive-timeout", "1s")
        .start()
        .await;

    let mut client = visitor.h2c().await;
    let call = request("GET", "http://pair/").body(nothing()).unwrap();
    let held = tokio::spawn(async move { client.try_send(call).await });
    app.arrived(1).await;
    server.cut();
    let begun = Instant::now();
    let answer = within("the end of the stream", held).await.unwrap().unwrap();
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());

    // The next one does not wait for the dead connection.
    server.mend();
    let mut client = visitor.h2c().await;
    let call = request("GET", "http://pair/").body(nothing()).unwrap();
    tokio::spawn(async move { client.try_send(call).await });
    app.arrived(2).await;
}

#[tokio::test]
async fn traffic_goes_on_where_only_the_control_plane_cannot_be_reached() {
    let Some(network) = Network::start() else {
        skip!(NEEDS)
    };
    let [server, caller] = ["server", "caller"].map(|name| network.host(name));
    let mesh = mesh(&network, "timeouts: {request: 5s}").await;
    let _server = endpoint(&mesh, &server, "server").await;
    let visitor = mesh.workload("visitor").on(&caller).start().await;

    let load = Load::start(visitor.outbound, "http://pair/");
    load.more(10).await;
    for host in [&caller, &server] {
        host.drop_answers_of(mesh.control_plane_address());
    }
    load.more(200).await;
    for host in [&caller, &server] {
        host.lose_nothing();
    }
    load.more(10).await;
    load.stop().await.assert_no_failure();
    mesh.apply(&yaml::service("another", 80, "http")).await;
}
