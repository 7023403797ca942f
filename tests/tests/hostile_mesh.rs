//! Garbage on the ports that only the mesh should talk to: they live on, say it once in the log, and stay small.
#![allow(clippy::expect_used, clippy::panic)]

use std::io::Write as _;

use model::SpiffeId;
use tests::hostile::{self, Recorder, Wire};
use tests::hostile_h2::{self as h2, Ending, Frames};
use tests::hostile_pair::{HTTP1, HTTP2, Pair, peak_bytes};
use tests::peer::Peer;
use tests::process::Process;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const GET: &str = "GET /right HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n";
/// What all of it together may cost a process.
const MEMORY: u64 = 48 * 1024 * 1024;

async fn pair() -> (Pair, Recorder) {
    let app = Recorder::start().await;
    (Pair::start(app.address, &[]).await, app)
}

/// No client of the mesh begins like this.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    // A record that announces more than may be, and a handshake message that never ends.
    let record = |length: u16, body: &[u8]| [&[0x16, 3, 1][..], &length.to_be_bytes(), body].concat();
    let noise: Vec<u8> = (0..65_536_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    vec![
        ("HTTP", GET.into()),
        (
            "HTTP/2",
            [h2::PREFACE, &h2::frame(h2::SETTINGS, 0, 0, &[])].concat(),
        ),
        ("zeros", vec![0; 65_536]),
        ("ones", vec![0xff; 65_536]),
        ("noise", noise.clone()),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("a record of 64 KiB", record(u16::MAX, &[1; 20_000])),
        ("an empty record", record(0, &[])),
        (
            "a ClientHello of 16 MiB",
            record(4, &[1, 0xff, 0xff, 0xff]).repeat(1000),
        ),
        (
            "noise in a ClientHello",
            record(16_000, &[&[1, 0, 0x3e, 0x7c][..], &noise[..15_996]].concat()),
        ),
        ("an alert", vec![0x15, 3, 3, 0, 2, 2, 40]),
        (
            "application data",
            [&[0x17, 3, 3, 0x10, 0][..], &noise[..4096]].concat(),
        ),
        (
            "SSL 2",
            vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 1, 0, 0x80],
        ),
    ]
}

/// The beginning of a handshake that is right.
async fn client_hello() -> Vec<u8> {
    let identity = tokio_rustls::rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(
        tokio_rustls::rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("protocol versions")
    .with_root_certificates(tokio_rustls::rustls::RootCertStore::empty())
    .with_no_client_auth();
    let name = "80.server.default.svc.cluster.local".try_into().expect("a name");
    let mut client = tokio_rustls::rustls::ClientConnection::new(identity.into(), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a hello");
    hello
}

fn assert_small_and_calm(name: &str, process: &Process, before: u64) {
    let grown = peak_bytes(process) - before;
    println!("{name}: {} KiB more", grown / 1024);
    assert!(grown < MEMORY, "{name}: {} MiB more", grown >> 20);
    let log = process.stderr();
    assert_eq!(log.iter().find(|line| line.contains("panicked")), None, "{name}");
}

#[tokio::test]
async fn garbage_on_the_mtls_port() {
    let (pair, app) = pair().await;
    let before = peak_bytes(&pair.server.process);
    let hello = client_hello().await;
    let mut all: Vec<Vec<u8>> = garbage().into_iter().map(|(_, bytes)| bytes).collect();
    all.extend([1, 5, 6, 43, 100, hello.len() - 1].map(|end| hello[..end].to_vec()));
    // A whole ClientHello, and then something else.
    all.push([&hello[..], GET.as_bytes()].concat());
    all.push(hello.repeat(20));
    for bytes in &all {
        // What comes back, if anything, is an alert and never an answer.
        let answer = hostile::converse(pair.server.inbound, bytes).await;
        assert!(
            !answer.starts_with(b"HTTP"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        assert_eq!(hostile::ask(pair.outbound, GET).await.status(), 200);
    }
    let said = pair
        .server
        .process
        .stderr()
        .iter()
        .filter(|line| line.contains("mTLS handshake"))
        .count();
    assert!(said <= all.len(), "{said} lines for {} connections", all.len());
    // Half handshakes that just stay are closed after a while, all at the same time.
    let mut silent = Vec::new();
    for end in [0, 1, 5, 100, hello.len()] {
        let mut wire = Wire::connect(pair.server.inbound).await;
        wire.send(&hello[..end]).await;
        silent.push(wire);
    }
    for mut wire in silent {
        wire.rest().await;
    }
    assert_small_and_calm("server", &pair.server.process, before);
    assert!(
        app.record()
            .requests
            .iter()
            .all(|request| request.target() == "/right")
    );
}

#[tokio::test]
async fn names_that_no_sidecar_has() {
    let (pair, app) = pair().await;
    for (sni, status) in [
        ("example.com", None),
        ("server.default.svc.cluster.local", None),
        ("0.server.default.svc.cluster.local", None),
        ("99999.server.default.svc.cluster.local", None),
        ("80.server.default.svc.other.local", None),
        (
            "80.nobody.default.svc.cluster.local",
            Some((404, "unknown_service")),
        ),
        (
            "81.server.default.svc.cluster.local",
            Some((404, "unknown_service")),
        ),
        (
            "80.server.other.svc.cluster.local",
            Some((404, "unknown_service")),
        ),
    ] {
        let mut wire = Wire::new(pair.tls_to(sni, HTTP1).await.expect("a handshake"));
        wire.send(GET.as_bytes()).await;
        let answer = wire
            .answer("GET")
            .await
            .map(|answer| (answer.status(), hostile::detail(&answer)));
        assert_eq!(
            answer,
            status.map(|(status, detail)| (status, detail.to_owned())),
            "{sni}"
        );
    }
    // A protocol that sidecars do not speak.
    for alpn in [&b"http/0.9"[..], b"weft-udp", b"h3"] {
        assert!(
            pair.tls_to("80.server.default.svc.cluster.local", alpn)
                .await
                .is_err()
        );
    }
    // What was agreed is not what is spoken.
    for (alpn, bytes) in [
        (HTTP2, GET.as_bytes()),
        (HTTP1, h2::PREFACE),
        (HTTP1, b"\x16\x03\x01\x00\x05hello"),
        (HTTP2, &[0xff; 4096]),
    ] {
        let mut wire = Wire::new(pair.tls(alpn).await);
        wire.send(bytes).await;
        wire.finish().await;
        assert!(!wire.rest().await.starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(app.record().requests.len(), 0);
    assert_eq!(hostile::ask(pair.outbound, GET).await.status(), 200);
    pair.assert_unharmed();
}

#[tokio::test]
async fn bytes_behind_the_end_of_tls_hold_nobody_up() {
    let (pair, _app) = pair().await;
    for alpn in [HTTP1, HTTP2] {
        let (mut socket, mut session) = pair.tls(alpn).await.into_inner();
        session.writer().write_all(GET.as_bytes()).expect("a request");
        session.send_close_notify();
        let mut bytes = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut bytes).expect("memory");
        }
        // More than TLS reads at once, in the same piece as what ends it.
        bytes.resize(bytes.len() + 32 * 1024, 0x17);
        // The other side may close before it has read all of it.
        let _ = socket.write_all(&bytes).await;
        assert_eq!(hostile::ask(pair.outbound, GET).await.status(), 200);
    }
    pair.assert_unharmed();
}

/// One gRPC call, with whatever bytes as its messages.
async fn call(mesh: &Pair, peer: &Peer, path: &str, body: &[u8], ends: bool) -> Ending {
    let domain = mesh.mesh.operator().bundle.trust_domain();
    let expected = SpiffeId::control_plane(domain);
    let stream = peer
        .connect(mesh.mesh.grpc_address(), &expected, "control-plane.weft", b"h2")
        .await;
    let mut frames = Frames::open(Wire::new(stream.expect("a handshake"))).await;
    let head = h2::block(&[
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"control-plane"),
        (b":path", path.as_bytes()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]);
    frames.send(h2::HEADERS, h2::END_HEADERS, 1, &head).await;
    // As much as the windows take; nobody gives more to a message that is too large.
    let body = &body[..body.len().min(65_535)];
    for piece in body.chunks(16 * 1024) {
        if !frames.send(h2::DATA, 0, 1, piece).await {
            break;
        }
    }
    if ends {
        frames.send(h2::DATA, h2::END_STREAM, 1, &[]).await;
    }
    frames.ending(1).await
}

fn message(length: u32, bytes: &[u8]) -> Vec<u8> {
    [&[0][..], &length.to_be_bytes(), bytes].concat()
}

#[tokio::test]
async fn garbage_on_the_control_planes_port() {
    let (mut pair, _app) = pair().await;
    let before = peak_bytes(pair.mesh.control_plane());
    let address = pair.mesh.grpc_address();
    for (name, bytes) in garbage() {
        let answer = hostile::converse(address, &bytes).await;
        assert!(
            !answer.starts_with(b"HTTP"),
            "{name}: {:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    let peer = Peer::join(&pair.mesh, "visitor").await;
    let noise: Vec<u8> = (0..60_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect();
    let noisy = message(u32::try_from(noise.len()).expect("a length"), &noise);
    for path in [
        "/weft.v1.Configuration/Stream",
        "/weft.v1.Identity/Join",
        "/weft.v1.Identity/Renew",
        "/weft.v1.Operator/Apply",
        "/weft.v1.Operator/Status",
        "/nobody.Knows/This",
        "/",
        "/weft.v1.Configuration/../Stream",
    ] {
        for body in [
            &b""[..],
            b"\0",
            &message(u32::MAX, b"four gigabytes"),
            &message(64 << 20, &noise),
            &message(5, b"\xff\xff\xff\xff\xff"),
            &noisy,
            // Compressed, though nothing was agreed.
            &[&[1][..], &5_u32.to_be_bytes(), b"hello"].concat(),
            &noise,
        ] {
            let ending = call(&pair, &peer, path, body, true).await;
            assert_ne!(ending, Ending::Closed, "{path}");
        }
    }
    // A stream whose first message is no Hello, and one that says nothing at all.
    let acknowledge = message(4, &[0x1a, 2, 8, 1]);
    let ending = call(&pair, &peer, "/weft.v1.Configuration/Stream", &acknowledge, false).await;
    assert!(
        matches!(ending, Ending::Answered { .. } | Ending::Reset(_)),
        "{ending:?}"
    );

    let status = pair.mesh.operator().status().await;
    assert_eq!(status.proxies.iter().filter(|proxy| proxy.connected).count(), 2);
    assert_eq!(hostile::ask(pair.outbound, GET).await.status(), 200);
    assert_small_and_calm("control plane", pair.mesh.control_plane(), before);
    pair.assert_unharmed();
}

#[tokio::test]
async fn many_half_connections() {
    let (mut pair, _app) = pair().await;
    let before = (
        peak_bytes(&pair.server.process),
        peak_bytes(pair.mesh.control_plane()),
    );
    let hello = client_hello().await;
    let mut open = Vec::new();
    for number in 0..400 {
        let address = if number % 2 == 0 {
            pair.server.inbound
        } else {
            pair.mesh.grpc_address()
        };
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream
            .write_all(&hello[..number % hello.len()])
            .await
            .expect("a write");
        open.push(stream);
    }
    // The others are served meanwhile.
    assert_eq!(hostile::ask(pair.outbound, GET).await.status(), 200);
    assert_eq!(pair.mesh.operator().status().await.proxies.len(), 2);
    drop(open);
    assert_eq!(hostile::ask(pair.outbound, GET).await.status(), 200);
    assert_small_and_calm("server", &pair.server.process, before.0);
    assert_small_and_calm("control plane", pair.mesh.control_plane(), before.1);
}
