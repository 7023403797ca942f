//! Between sidecars there is nothing but TLS 1.3 with both sides verified, and nobody else is let in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::process::Stdio;
use std::sync::Arc;

use certs::{CertificateDer, TrustBundle};
use model::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tests::client::request;
use tests::peer::Peer;
use tests::{App, Mesh, Raw, Relay, Sidecar, skip, within, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;

/// What no one between the sidecars may see.
const MARKER: &str = "xyzzy-secret-marker";

async fn checkout(mesh: &Mesh) -> (Sidecar, App) {
    mesh.apply(&yaml::service("checkout", 80, "http")).await;
    let app = App::echo("checkout").await;
    let checkout = mesh.workload("checkout").app(app.address).start().await;
    (checkout, app)
}

/// GET over a connection that is open; what came back, as text. Empty where the connection was closed instead.
async fn get(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> String {
    let _ = stream
        .write_all(b"GET /x HTTP/1.1\r\nHost: checkout\r\nConnection: close\r\n\r\n")
        .await;
    let mut answer = Vec::new();
    // A refusal breaks off with an alert, which is an error.
    let _ = within("an answer or the end", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_peer_of_the_mesh_is_let_in_and_its_identity_is_known() {
    let mesh = Mesh::start().await;
    let (checkout, app) = checkout(&mesh).await;
    let peer = Peer::join(&mesh, "mallory").await;
    let stream = peer
        .connect(
            checkout.inbound,
            &checkout.spiffe_id(),
            &checkout.sni(80),
            b"http/1.1",
        )
        .await;
    let stream = stream.unwrap();
    let connection = stream.get_ref().1;
    assert_eq!(
        connection.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    assert_eq!(connection.alpn_protocol(), Some(&b"http/1.1"[..]));
    let group = connection.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(
        certs::verified_peer(connection).unwrap().id(),
        &checkout.spiffe_id()
    );
    assert!(get(stream).await.starts_with("HTTP/1.1 200"));
    assert_eq!(app.requests().len(), 1);
}

#[tokio::test]
async fn no_certificate_or_one_of_another_authority_or_trust_domain_is_refused() {
    let mesh = Mesh::start().await;
    let (checkout, app) = checkout(&mesh).await;
    let (bundle, sni) = (mesh.operator().bundle.clone(), checkout.sni(80));
    let own = bundle.trust_domain().to_string();
    for domain in [own.as_str(), "other.example"] {
        // It would believe the callee: what ends this is that the callee does not believe it.
        let peer = Peer::of_another_authority(domain, &bundle);
        let id = checkout.spiffe_id();
        if let Ok(stream) = peer.connect(checkout.inbound, &id, &sni, b"http/1.1").await {
            assert_eq!(get(stream).await, "", "{domain}");
        }
    }
    let stream = TcpStream::connect(checkout.inbound).await.unwrap();
    let name = ServerName::try_from(sni).unwrap();
    if let Ok(stream) = TlsConnector::from(anonymous()).connect(name, stream).await {
        assert_eq!(get(stream).await, "", "no certificate");
    }
    assert!(
        app.requests().is_empty(),
        "a stranger's request reached the application"
    );
}

#[tokio::test]
async fn a_caller_refuses_an_endpoint_with_another_identity() {
    let mesh = Mesh::start().await;
    let (checkout, _app) = checkout(&mesh).await;
    let peer = Peer::join(&mesh, "visitor").await;
    let domain = mesh.operator().bundle.trust_domain();
    let other: SpiffeId = format!("spiffe://{domain}/ns/default/sa/payments")
        .parse()
        .unwrap();
    let error = peer
        .connect(checkout.inbound, &other, &checkout.sni(80), b"h2")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");

    // And so does a sidecar: where another workload answers at the address of an endpoint, nothing is sent to it.
    mesh.apply(&yaml::service("payments", 80, "http")).await;
    let relay = Relay::start().await;
    let app = App::echo("payments").await;
    let _payments = mesh
        .workload("payments")
        .app(app.address)
        .advertise(relay.address)
        .start()
        .await;
    relay.set_target(checkout.inbound);
    let visitor = mesh.visitor().await;
    assert_eq!(
        visitor.get("http://payments/").await.verdict(),
        (503, "peer_refused")
    );
}

#[tokio::test]
async fn an_unknown_service_in_the_sni_is_answered_and_nonsense_is_closed() {
    let mesh = Mesh::start().await;
    let (checkout, app) = checkout(&mesh).await;
    let peer = Peer::join(&mesh, "visitor").await;
    let id = checkout.spiffe_id();
    let other = checkout.sni(80).replace("checkout", "payments");
    let stream = peer
        .connect(checkout.inbound, &id, &other, b"http/1.1")
        .await
        .unwrap();
    assert!(get(stream).await.starts_with("HTTP/1.1 404"));
    let stream = peer
        .connect(checkout.inbound, &id, "www.example.com", b"http/1.1")
        .await
        .unwrap();
    assert_eq!(get(stream).await, "");
    assert!(
        peer.connect(checkout.inbound, &id, &checkout.sni(80), b"spdy/3")
            .await
            .is_err()
    );
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn nothing_between_sidecars_is_plaintext() {
    let mesh = Mesh::with(&yaml::service("checkout", 80, "http")).await;
    let app = App::echo(MARKER).await;
    let relay = Relay::start().await;
    let checkout = mesh
        .workload("checkout")
        .app(app.address)
        .advertise(relay.address)
        .start()
        .await;
    relay.set_target(checkout.inbound);
    let visitor = mesh.visitor().await;
    for mut client in [visitor.http1().await, visitor.h2c().await] {
        let url = format!("http://checkout/{MARKER}?{MARKER}");
        let call = request("POST", &url).header("x-secret", MARKER);
        let answer = client
            .send(call.body(http_body_util::Full::new(MARKER.into())).unwrap())
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-app"), answer.text()),
            (200, MARKER, MARKER)
        );
    }
    let taken = relay.taken();
    assert!(!taken.is_empty(), "the calls did not pass the relay");
    for connection in taken {
        for (way, bytes) in [("forth", &connection.forth), ("back", &connection.back)] {
            assert_tls_records(way, bytes);
            let seen = bytes
                .windows(MARKER.len())
                .any(|window| window.eq_ignore_ascii_case(MARKER.as_bytes()));
            assert!(!seen, "{way}: the marker was readable");
        }
    }
}

/// Every byte belongs to a TLS record (RFC 8446 section 5.1), and after the hellos all of them are encrypted.
fn assert_tls_records(way: &str, mut bytes: &[u8]) {
    let mut number = 0;
    while !bytes.is_empty() {
        assert!(
            bytes.len() >= 5,
            "{way}: {} bytes after record {number}",
            bytes.len()
        );
        let (kind, major, length) = (
            bytes[0],
            bytes[1],
            usize::from(bytes[3]) << 8 | usize::from(bytes[4]),
        );
        let is_hello = number == 0;
        let expected = if is_hello {
            kind == 22
        } else {
            matches!(kind, 20 | 23)
        };
        assert!(
            expected && major == 3 && length <= 16640,
            "{way}: record {number} is of type {kind}"
        );
        // The last one may still be on its way.
        bytes = bytes.get(5 + length..).unwrap_or_default();
        number += 1;
    }
}

#[tokio::test]
async fn garbage_on_the_mtls_port_closes_it_and_the_sidecar_lives_on() {
    let mesh = Mesh::start().await;
    let (mut checkout, _app) = checkout(&mesh).await;
    let hello_of_no_end = [&[0x16, 0x03, 0x01, 0x40, 0x00][..], &[0xff; 20_000]].concat();
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: checkout\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 4096],
        &[0xff; 4096],
        &[0x16, 0x03, 0x01, 0x00, 0x02, 0x01, 0x00],
        &hello_of_no_end,
    ];
    for bytes in garbage {
        let mut raw = Raw::connect(checkout.inbound).await;
        raw.send(bytes).await;
        raw.half_close().await;
        let answer = raw.read_to_end().await;
        assert!(
            answer.len() < 100,
            "{:?} was answered with {answer:?}",
            &bytes[..5]
        );
    }
    let visitor = mesh.visitor().await;
    assert_eq!(visitor.get("http://checkout/").await.status, 200);
    assert!(checkout.process.is_running());
    let panics = checkout
        .process
        .stderr()
        .into_iter()
        .filter(|line| line.contains("panicked"));
    assert_eq!(panics.count(), 0);
}

#[tokio::test]
async fn openssl_is_refused_without_and_let_in_with_a_certificate_of_the_mesh() {
    if !Command::new("openssl")
        .arg("version")
        .output()
        .await
        .is_ok_and(|output| output.status.success())
    {
        skip!("openssl");
    }
    let mesh = Mesh::start().await;
    let (checkout, app) = checkout(&mesh).await;
    let (ours, strangers) = (mesh.path().join("ours.pem"), mesh.path().join("strangers.pem"));
    let pem = |peer: &Peer| peer.cell.current().unwrap().identity.to_pem();
    std::fs::write(&ours, pem(&Peer::join(&mesh, "visitor").await)).unwrap();
    let bundle: &TrustBundle = &mesh.operator().bundle;
    let stranger = Peer::of_another_authority(bundle.trust_domain().as_str(), bundle);
    std::fs::write(&strangers, pem(&stranger)).unwrap();
    for (credential, is_let_in) in [(None, false), (Some(&strangers), false), (Some(&ours), true)] {
        let mut command = Command::new("openssl");
        command.args([
            "s_client",
            "-quiet",
            "-verify_quiet",
            "-ign_eof",
            "-alpn",
            "http/1.1",
        ]);
        command.args([
            "-connect",
            &checkout.inbound.to_string(),
            "-servername",
            &checkout.sni(80),
        ]);
        if let Some(path) = credential {
            command
                .arg("-cert")
                .arg(path)
                .arg("-cert_chain")
                .arg(path)
                .arg("-key")
                .arg(path);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may be gone before it is told anything.
        let _ = stdin
            .write_all(b"GET / HTTP/1.1\r\nHost: checkout\r\nConnection: close\r\n\r\n")
            .await;
        let output = within("openssl", child.wait_with_output()).await.unwrap();
        drop(stdin);
        let (out, errors) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(
            out.starts_with("HTTP/1.1 200"),
            is_let_in,
            "{credential:?}: {out} {errors}"
        );
        let refused = errors.contains("certificate required") || errors.contains("unknown ca");
        assert_eq!(refused, !is_let_in, "{credential:?}: {errors}");
    }
    // TLS 1.2 is not spoken at all.
    let mut old = Command::new("openssl");
    old.args(["s_client", "-tls1_2", "-connect", &checkout.inbound.to_string()])
        .stdin(Stdio::null());
    assert!(!within("openssl", old.output()).await.unwrap().status.success());
    assert_eq!(app.requests().len(), 1);
}

/// A client that believes every server and shows no certificate.
fn anonymous() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
