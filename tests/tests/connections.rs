//! A BackendTrafficPolicy says how long connections to a Service are kept, and how the kernel looks after them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt::{socket_keepalive, tcp_keepcnt, tcp_keepidle, tcp_keepintvl};
use tests::app::text;
use tests::{App, Http, Mesh, Raw, Sidecar, skip, within, yaml};

/// What a Service outside the mesh declares to be called in each version of HTTP.
const PROTOCOLS: [&str; 2] = ["http", "kubernetes.io/h2c"];

/// `pay` at this application outside the mesh, and a sidecar to call it from.
async fn pay(app: &App, protocol: &str, policy: &str) -> (Mesh, Sidecar) {
    let yaml = yaml::outside("pay", 80, protocol, &[app.address]) + &yaml::traffic_policy("pay", policy);
    let mesh = Mesh::with(&yaml).await;
    let visitor = mesh.visitor().await;
    (mesh, visitor)
}

/// Answers each request after so long.
async fn slow(time: Duration) -> App {
    App::http(move |_| async move {
        tokio::time::sleep(time).await;
        text(200, "done")
    })
    .await
}

#[tokio::test]
async fn a_connection_out_of_use_is_closed_in_time() {
    for protocol in PROTOCOLS {
        let app = App::echo("pay").await;
        let policy = "timeout: {http: {connectionIdleTimeout: 200ms}}";
        let (_mesh, visitor) = pay(&app, protocol, policy).await;
        let mut client = visitor.http1().await;
        // All of them together are closed before any would be that is looked at now and then.
        let rounds = async {
            for count in 1..=6 {
                assert_eq!(client.get("http://pay/").await.status, 200);
                app.ended(count).await;
                assert_eq!(app.connections(), count, "{protocol}");
            }
        };
        within(&format!("connections of {protocol} to be closed"), rounds).await;
    }
}

#[tokio::test]
async fn a_connection_in_use_is_not_idle() {
    let idle = Duration::from_millis(100);
    for protocol in PROTOCOLS {
        let app = slow(idle * 6).await;
        let policy = "timeout: {http: {connectionIdleTimeout: 100ms}}";
        let (_mesh, visitor) = pay(&app, protocol, policy).await;
        let outbound = visitor.outbound;
        let first = tokio::spawn(async move { Http::http1(outbound).await.get("http://pay/").await });
        app.arrived(1).await;
        tokio::time::sleep(idle * 2).await;
        // HTTP/2 has room for another request on the connection that is not idle.
        assert_eq!(visitor.get("http://pay/").await.status, 200, "{protocol}");
        assert_eq!(first.await.unwrap().status, 200, "{protocol}");
        let connections = if protocol == "http" { 2 } else { 1 };
        assert_eq!(app.connections(), connections, "{protocol}");
        app.ended(connections).await;
        assert_eq!(app.requests().len(), 2, "{protocol}: nothing was sent twice");
    }
}

#[tokio::test]
async fn an_old_connection_ends_what_it_has_and_takes_nothing_new() {
    for protocol in PROTOCOLS {
        // A connection is too old before its first answer is there.
        let app = slow(Duration::from_millis(300)).await;
        let policy = "timeout: {http: {maxConnectionDuration: 100ms}}";
        let (_mesh, visitor) = pay(&app, protocol, policy).await;
        let mut client = visitor.http1().await;
        let rounds = async {
            for count in 1..=4 {
                assert_eq!(client.get("http://pay/").await.status, 200);
                assert_eq!(app.connections(), count, "{protocol}");
                app.ended(count).await;
            }
        };
        within(&format!("connections of {protocol} to be closed"), rounds).await;
        assert_eq!(app.requests().len(), 4, "{protocol}: nothing was sent twice");
    }
}

#[tokio::test]
async fn without_a_limit_of_age_a_connection_is_kept() {
    for protocol in PROTOCOLS {
        let app = slow(Duration::from_millis(50)).await;
        let policy = "timeout: {http: {maxConnectionDuration: 0s}}";
        let (_mesh, visitor) = pay(&app, protocol, policy).await;
        let mut client = visitor.http1().await;
        for _ in 0..5 {
            assert_eq!(client.get("http://pay/").await.status, 200);
        }
        assert_eq!(app.connections(), 1, "{protocol}");
    }
}

/// Seconds without a byte, seconds between probes, and probes, of each connection to `peer`; `None` for one that has no
/// keepalive. Nothing at all where this system does not say.
fn keepalives(sidecar: &Sidecar, peer: SocketAddr) -> Option<Vec<Option<(u64, u64, u32)>>> {
    let connections = sidecar.process.connections_to(peer)?;
    let of = |connection: &std::net::TcpStream| {
        socket_keepalive(connection).unwrap().then(|| {
            (
                tcp_keepidle(connection).unwrap().as_secs(),
                tcp_keepintvl(connection).unwrap().as_secs(),
                tcp_keepcnt(connection).unwrap(),
            )
        })
    };
    Some(connections.iter().map(of).collect())
}

const KEEPALIVE: &str = "tcpKeepalive: {idleTime: 100s, interval: 7s, probes: 4}";
const KEPT_ALIVE: Option<(u64, u64, u32)> = Some((100, 7, 4));

#[tokio::test]
async fn the_kernel_asks_whether_the_other_side_is_still_there() {
    for protocol in PROTOCOLS {
        let app = App::echo("pay").await;
        let (_mesh, visitor) = pay(&app, protocol, KEEPALIVE).await;
        assert_eq!(visitor.get("http://pay/").await.status, 200);
        let Some(found) = keepalives(&visitor, app.address) else {
            skip!("pidfd_getfd, to look at another process's sockets");
        };
        assert_eq!(found, [KEPT_ALIVE], "{protocol}");
    }
}

#[tokio::test]
async fn the_kernel_is_not_asked_to_where_no_policy_says_so() {
    let app = App::echo("pay").await;
    let (_mesh, visitor) = pay(&app, "http", "timeout: {http: {connectionIdleTimeout: 60s}}").await;
    assert_eq!(visitor.get("http://pay/").await.status, 200);
    let Some(found) = keepalives(&visitor, app.address) else {
        skip!("pidfd_getfd, to look at another process's sockets");
    };
    assert_eq!(found, [None]);
}

#[tokio::test]
async fn opaque_connections_between_sidecars_are_kept_alive_too() {
    let app = App::tcp_echo().await;
    let yaml = yaml::service("db", 5432, "tcp") + &yaml::traffic_policy("db", KEEPALIVE);
    let mesh = Mesh::with(&yaml).await;
    let db = mesh.workload("db").app(app.address).start().await;
    let visitor = mesh.workload("visitor").local("db:5432").start().await;
    let mut raw = Raw::connect(visitor.local("db:5432")).await;
    raw.send("ping").await;
    assert_eq!(raw.read_exact(4).await, b"ping");
    let Some(found) = keepalives(&visitor, db.inbound) else {
        skip!("pidfd_getfd, to look at another process's sockets");
    };
    assert_eq!(found, [KEPT_ALIVE]);
}
