//! Pages are shown at once, however many connections to their port say nothing or do not read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tests::{Mesh, Raw, within};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// More than the connections that a page's port serves at once.
const MANY: usize = 200;
/// Far less than a silent connection's time.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Connections that send `begun`, and then nothing.
async fn stuck(address: SocketAddr, begun: &[u8]) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..MANY {
        let mut stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        // It may have been closed for a newer one already.
        let _ = stream.write_all(begun).await;
        connections.push(stream);
    }
    connections
}

async fn shows(address: SocketAddr, path: &str) {
    let begun = Instant::now();
    let mut client = Raw::connect(address).await;
    client
        .send(format!("GET {path} HTTP/1.1\r\nHost: page\r\n\r\n").as_bytes())
        .await;
    let answer = client.read_to_end().await;
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{path}: {:?}",
        String::from_utf8_lossy(&answer)
    );
    assert!(begun.elapsed() < AT_ONCE, "{path} after {:?}", begun.elapsed());
}

#[tokio::test]
async fn silent_connections_hold_up_no_page() {
    let mesh = Mesh::start().await;
    let sidecar = mesh.visitor().await;
    let pages = [
        (sidecar.admin, "/config"),
        (sidecar.metrics, "/readyz"),
        (sidecar.metrics, "/metrics"),
        (mesh.admin_address(), "/readyz"),
        (mesh.admin_address(), "/metrics"),
    ];
    for begun in [&b""[..], b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: page\r\n"] {
        for (address, path) in pages {
            let _stuck = stuck(address, begun).await;
            shows(address, path).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_no_page() {
    let mesh = Mesh::start().await;
    let sidecar = mesh.visitor().await;
    let _stuck = stuck(sidecar.metrics, b"GET /metrics HTTP/1.1\r\nHost: page\r\n\r\n").await;
    shows(sidecar.metrics, "/readyz").await;
}
