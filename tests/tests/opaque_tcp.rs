//! A protocol that the mesh does not know passes through it byte for byte, over mTLS, whoever speaks first.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use tests::sidecar::Workload;
use tests::{App, Mesh, Raw, Relay, Sidecar, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn pair(app: &App, protocol: &str) -> (Mesh, Sidecar, Sidecar) {
    let mesh = Mesh::with(&yaml::service("db", 5432, protocol)).await;
    let db = mesh.workload("db").app(app.address).start().await;
    let visitor = mesh.workload("visitor").local("db:5432").start().await;
    (mesh, visitor, db)
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_direction_ends_on_its_own() {
    // Reads to the end, and only then answers: the end itself must pass.
    let app = App::raw(|mut stream| async move {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).await.is_ok() {
            all.reverse();
            let _ = stream.write_all(&all).await;
        }
    })
    .await;
    let (_mesh, visitor, _db) = pair(&app, "tcp").await;
    let mut raw = Raw::connect(visitor.local("db:5432")).await;
    let sent: Vec<u8> = (0..1_000_000).map(|at| (at % 251) as u8).collect();
    raw.send(&sent).await;
    raw.half_close().await;
    let mut got = raw.read_to_end().await;
    got.reverse();
    assert!(got == sent, "{} bytes came back, or changed", got.len());
}

#[tokio::test]
async fn the_server_may_speak_first_and_the_bytes_between_sidecars_are_tls() {
    let app = App::raw(|mut stream| async move {
        let _ = stream.write_all(b"220 plaintext-marker ready\r\n").await;
        let mut line = [0; 5];
        if stream.read_exact(&mut line).await.is_ok() {
            let _ = stream.write_all(&line).await;
        }
    })
    .await;
    let mesh = Mesh::with(&yaml::service("db", 5432, "tcp")).await;
    let relay = Relay::start().await;
    let db = mesh
        .workload("db")
        .app(app.address)
        .advertise(relay.address)
        .start()
        .await;
    relay.set_target(db.inbound);
    let visitor = mesh.workload("visitor").local("db:5432").start().await;
    let mut raw = Raw::connect(visitor.local("db:5432")).await;
    assert_eq!(raw.read_until(b"\r\n").await, b"220 plaintext-marker ready\r\n");
    raw.send("EHLO\n").await;
    assert_eq!(raw.read_to_end().await, b"EHLO\n");
    let passed = relay.taken().concat_all();
    assert!(
        passed.windows(7).any(|window| window == b"weft-tc"),
        "ALPN names opaque TCP"
    );
    assert!(!passed.windows(16).any(|window| window == b"plaintext-marker"));
}

#[tokio::test]
async fn an_undeclared_protocol_is_told_by_its_first_bytes() {
    let app = App::tcp_echo().await;
    let (_mesh, visitor, _db) = pair(&app, "").await;
    let mut raw = Raw::connect(visitor.local("db:5432")).await;
    for line in ["\x00\x01binary", "more of it"] {
        raw.send(line).await;
        assert_eq!(raw.read_exact(line.len()).await, line.as_bytes());
    }
    raw.half_close().await;
    assert!(raw.read_to_end().await.is_empty());
}

#[tokio::test]
async fn a_service_without_endpoints_closes_the_connection() {
    let mesh = Mesh::with(&yaml::service("db", 5432, "tcp")).await;
    let visitor = mesh
        .workload("visitor")
        .local("db:5432")
        .local("unknown:1")
        .start()
        .await;
    for service in ["db:5432", "unknown:1"] {
        let mut raw = Raw::connect(visitor.local(service)).await;
        raw.send("anyone?").await;
        assert!(raw.read_to_end().await.is_empty(), "{service}");
    }
}

#[tokio::test]
async fn a_callee_that_dies_closes_its_callers() {
    let app = App::tcp_echo().await;
    let (_mesh, visitor, mut db) = pair(&app, "tcp").await;
    let mut raw = Raw::connect(visitor.local("db:5432")).await;
    raw.send("ping").await;
    assert_eq!(raw.read_exact(4).await, b"ping");
    db.kill().await;
    assert!(raw.read_to_end().await.is_empty());
}

/// Says its name to whoever connects.
async fn named(name: &'static str) -> App {
    App::raw(move |mut stream| async move {
        let _ = stream.write_all(name.as_bytes()).await;
    })
    .await
}

/// A workload with this label for its zone.
fn in_zone<'m>(mesh: &'m Mesh, service: &str, zone: &str) -> Workload<'m> {
    let workload = mesh
        .workload(service)
        .label("topology.kubernetes.io/region", "eu");
    workload.label("topology.kubernetes.io/zone", zone)
}

#[tokio::test]
async fn connections_stay_in_their_zone_until_it_cannot_be_reached() {
    let policy = "loadBalancer: {type: RoundRobin, zoneAware: {preferLocal: {}}}";
    let mesh = Mesh::with(&(yaml::service("db", 5432, "tcp") + &yaml::traffic_policy("db", policy))).await;
    let (near, far) = (named("near").await, named("far").await);
    let mut near_db = in_zone(&mesh, "db", "a").app(near.address).start().await;
    let _far_db = in_zone(&mesh, "db", "b").app(far.address).start().await;
    let visitor = in_zone(&mesh, "visitor", "a").local("db:5432").start().await;
    let met = async || {
        let mut met = Vec::new();
        for _ in 0..20 {
            met.push(Raw::connect(visitor.local("db:5432")).await.read_to_end().await);
        }
        met
    };
    assert_eq!(met().await, vec![b"near".to_vec(); 20]);
    near_db.kill().await;
    assert_eq!(met().await, vec![b"far".to_vec(); 20]);
}

/// All that passed, as one.
trait ConcatAll {
    fn concat_all(&self) -> Vec<u8>;
}

impl ConcatAll for Vec<tests::relay::Taken> {
    fn concat_all(&self) -> Vec<u8> {
        self.iter()
            .flat_map(|taken| [&taken.forth[..], &taken.back[..]].concat())
            .collect()
    }
}
