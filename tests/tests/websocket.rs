//! A WebSocket upgrade passes through two sidecars, and after it bytes pass both ways until either side closes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use http::{HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use tests::{App, Mesh, Raw, eventually, text, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The key of RFC 6455 section 1.3, and its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: chat\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: talk\r\n\r\n";

/// What makes the application hang up.
const BYE: &[u8] = b"bye";

/// Upgrades `/chat` and says every byte back until [`BYE`]; refuses any other path with 403.
async fn app() -> App {
    App::http(|mut request| async move {
        if request.uri().path() != "/chat" {
            return text(403, "no");
        }
        assert_eq!(request.headers()["sec-websocket-key"], KEY);
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = read.read(&mut buffer).await {
                if buffer[..count] == *BYE || write.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
            let _ = write.shutdown().await;
        });
        let mut response = text(101, "");
        let headers = response.headers_mut();
        headers.insert("connection", HeaderValue::from_static("upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("sec-websocket-accept", HeaderValue::from_static(ACCEPT));
        headers.insert("sec-websocket-protocol", HeaderValue::from_static("talk"));
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        response
    })
    .await
}

/// A text frame of a client, masked as RFC 6455 section 5.3 says.
fn frame(text: &str) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let length = u8::try_from(text.len()).unwrap() | 0x80;
    let mut frame = vec![0x81, length];
    frame.extend(mask);
    frame.extend(
        text.bytes()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

async fn switched(raw: &mut Raw) {
    let head = String::from_utf8(raw.read_until(b"\r\n\r\n").await)
        .unwrap()
        .to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("upgrade: websocket"), "{head}");
    assert!(
        head.contains(&format!("sec-websocket-accept: {}", ACCEPT.to_lowercase())),
        "{head}"
    );
    assert!(head.contains("sec-websocket-protocol: talk"), "{head}");
}

#[tokio::test]
async fn frames_pass_both_ways_and_the_end_does_too() {
    let mesh = Mesh::with(&yaml::service("chat", 80, "kubernetes.io/ws")).await;
    let app = app().await;
    let _chat = mesh.workload("chat").app(app.address).start().await;
    let visitor = mesh.workload("visitor").local("chat:80").start().await;
    for address in [visitor.outbound, visitor.local("chat:80")] {
        let mut raw = Raw::connect(address).await;
        raw.send(UPGRADE).await;
        switched(&mut raw).await;
        for number in 0..20 {
            let sent = frame(&format!("message {number}"));
            raw.send(&sent).await;
            assert_eq!(raw.read_exact(sent.len()).await, sent);
        }
        let large: Vec<u8> = (0..300_000).map(|at| (at % 253) as u8).collect();
        let (mut read, mut write) = raw.stream.split();
        let mut back = vec![0; large.len()];
        let (sent, got) = tokio::join!(write.write_all(&large), read.read_exact(&mut back));
        sent.unwrap();
        got.unwrap();
        assert!(back == large, "bytes came back changed");
        raw.half_close().await;
        assert!(raw.read_to_end().await.is_empty());
    }
    // A frame sent together with the request is not lost.
    let mut raw = visitor.raw().await;
    let early = frame("early");
    raw.send([UPGRADE.as_bytes(), &early].concat()).await;
    switched(&mut raw).await;
    assert_eq!(raw.read_exact(early.len()).await, early);
    // An application that hangs up closes the caller's connection.
    raw.send(BYE).await;
    assert!(raw.read_to_end().await.is_empty());
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer_and_the_connection_goes_on() {
    let mesh = Mesh::with(&yaml::service("chat", 80, "http")).await;
    let app = app().await;
    let _chat = mesh.workload("chat").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let mut raw = visitor.raw().await;
    raw.send(UPGRADE.replace("/chat", "/other")).await;
    let (head, body) = raw.read_response().await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert_eq!(body, b"no");
    raw.send("GET /again HTTP/1.1\r\nHost: chat\r\n\r\n").await;
    assert!(raw.read_response().await.0.starts_with("HTTP/1.1 403"));
    assert_eq!(app.requests().len(), 2);
}

#[tokio::test]
async fn it_is_a_request_to_a_circuit_breaker_until_it_ends() {
    let app = app().await;
    let policy = yaml::traffic_policy("chat", "circuitBreaker: {maxParallelRequests: 1}");
    let mesh = Mesh::with(&(yaml::outside("chat", 80, "http", &[app.address]) + &policy)).await;
    let visitor = mesh.visitor().await;
    let mut raw = visitor.raw().await;
    raw.send(UPGRADE).await;
    switched(&mut raw).await;
    for _ in 0..3 {
        let answer = visitor.get("http://chat/other").await;
        assert_eq!(answer.verdict(), (503, "overflow"));
    }
    drop(raw);
    eventually("the next one is let in", || async {
        let answer = visitor.get("http://chat/other").await;
        (answer.status == StatusCode::FORBIDDEN).then_some(())
    })
    .await;
}
