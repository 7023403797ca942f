//! Sidecars that meet again resume their session, and no certificate is believed longer for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::time::SystemTime;

use certs::ClientTls;
use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use tests::client::Http;
use tests::peer::Peer;
use tests::{App, Mesh, Relay, Sidecar, eventually, within, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How many handshakes a sidecar has counted: full ones, and resumed ones.
async fn handshakes(sidecar: &Sidecar) -> (u64, u64) {
    let page = Http::http1(sidecar.metrics)
        .await
        .get(&format!("http://{}/metrics", sidecar.metrics))
        .await;
    let count = |kind: &str| {
        let start = format!("weft_tls_handshakes_total{{kind=\"{kind}\"}} ");
        let mut lines = page.text().lines();
        let found = lines.find_map(|line| line.strip_prefix(&start));
        found.expect("a count of handshakes").parse().expect("a number")
    };
    (count("full"), count("resumed"))
}

async fn answers(visitor: &Sidecar) {
    eventually("an answer", || async {
        (visitor.get("http://checkout/").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_broke_is_made_again_by_resuming() {
    let mesh = Mesh::with(&yaml::service("checkout", 80, "http")).await;
    let app = App::echo("checkout").await;
    let relay = Relay::start().await;
    let workload = mesh.workload("checkout").app(app.address);
    let mut checkout = workload.advertise(relay.address).start().await;
    relay.set_target(checkout.inbound);
    let visitor = mesh.visitor().await;
    answers(&visitor).await;
    let (full, resumed) = handshakes(&checkout).await;
    assert!(full >= 1 && resumed == 0, "{full} full, {resumed} resumed");
    // Another way to the same callee: connections on the way before are cut, new ones are made.
    let detour = Relay::start().await;
    detour.set_target(checkout.inbound);
    for (times, way) in [(1, detour.address), (2, checkout.inbound), (3, detour.address)] {
        relay.set_target(way);
        let now_resumed = eventually("a resumed handshake", || async {
            answers(&visitor).await;
            let (_, resumed) = handshakes(&checkout).await;
            (resumed >= times).then_some(resumed)
        })
        .await;
        assert_eq!(handshakes(&checkout).await, (full, now_resumed));
    }

    // A callee that knows nothing of the session is met in full.
    checkout.restart().await;
    relay.set_target(checkout.inbound);
    answers(&visitor).await;
    let (full, resumed) = handshakes(&checkout).await;
    assert!(full >= 1 && resumed == 0, "{full} full, {resumed} resumed");
}

/// A caller that keeps sessions, as a sidecar does.
struct Caller<'a> {
    tls: ClientTls,
    callee: &'a Sidecar,
}

impl Caller<'_> {
    /// One connection with one call; the server's ticket comes before its answer.
    async fn call(&self) -> (HandshakeKind, TlsStream<TcpStream>) {
        let stream = TcpStream::connect(self.callee.inbound).await.unwrap();
        let name = ServerName::try_from(self.callee.sni(80)).unwrap();
        let connector = TlsConnector::from(self.tls.config().unwrap());
        let mut stream = within("a handshake", connector.connect(name, stream))
            .await
            .unwrap();
        let connection = stream.get_ref().1;
        self.tls.verified_peer(connection, SystemTime::now()).unwrap();
        let kind = connection.handshake_kind().unwrap();
        let head = b"GET / HTTP/1.1\r\nHost: checkout\r\nConnection: close\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let mut answer = Vec::new();
        within("an answer", stream.read_to_end(&mut answer))
            .await
            .unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        (kind, stream)
    }
}

#[tokio::test]
async fn a_new_certificate_of_either_side_ends_all_sessions() {
    // Renewed after about 5 s.
    let mesh = Mesh::builder().arg("--certificate-lifetime", "10s").start().await;
    mesh.apply(&yaml::service("checkout", 80, "http")).await;
    let app = App::echo("checkout").await;
    let callee = mesh.workload("checkout").app(app.address).start().await;
    let peer = Peer::join(&mesh, "cart").await;
    let caller = Caller {
        tls: ClientTls::new(&peer.cell, &[b"http/1.1"], callee.spiffe_id()),
        callee: &callee,
    };
    assert_eq!(caller.call().await.0, HandshakeKind::Full);
    let (kind, before) = caller.call().await;
    assert_eq!(kind, HandshakeKind::Resumed);

    let renewed = Peer::join(&mesh, "cart").await.cell.current().unwrap();
    let pem = renewed.identity.to_pem();
    let identity = certs::Identity::from_pem(&pem, &renewed.bundle, SystemTime::now()).unwrap();
    peer.cell.set(identity, renewed.bundle.clone());
    assert_eq!(caller.call().await.0, HandshakeKind::Full);

    let after = eventually("a full handshake after the callee's renewal", || async {
        let (kind, stream) = caller.call().await;
        (kind == HandshakeKind::Full).then_some(stream)
    })
    .await;
    let leaf = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_ne!(leaf(&before), leaf(&after));
}
