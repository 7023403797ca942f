//! Hosts that are no service of the mesh: called as if the application had called them itself, or refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::net::SocketAddr;

use http::Version;
use tests::client::Http;
use tests::{App, Mesh, Raw, Sidecar, eventually, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn metrics(sidecar: &Sidecar) -> String {
    let page = format!("http://{}/metrics", sidecar.metrics);
    let answer = Http::http1(sidecar.metrics).await.get(&page).await;
    answer.text().to_owned()
}

/// One request with this Host, and the answer's head.
async fn asked(proxy: SocketAddr, request: &str) -> String {
    let mut raw = Raw::connect(proxy).await;
    raw.send(request).await;
    String::from_utf8_lossy(&raw.read_until(b"\r\n\r\n").await).into_owned()
}

fn get(host: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

fn connect(host: &str) -> String {
    format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[tokio::test]
async fn plain_http_is_passed_on_unchanged_and_counted_as_one_destination() {
    let app = App::echo("outside").await;
    let other = App::echo("other").await;
    let mesh = Mesh::start().await;
    let visitor = mesh.visitor().await;
    let mut http = visitor.http1().await;
    let hosts = [
        app.address.to_string(),
        format!("localhost:{}", app.address.port()),
        format!("[::ffff:127.0.0.1]:{}", app.address.port()),
    ];
    for host in &hosts {
        for _ in 0..3 {
            let request = tests::client::request("POST", &format!("http://{host}/a?b"))
                .header("x-own", "1")
                .header("x-envoy-expected-rq-timeout-ms", "9000")
                .header("connection", "x-hop")
                .header("x-hop", "1");
            let body = http_body_util::Full::new(bytes::Bytes::from("body"));
            let answer = http.send(request.body(body).unwrap()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("x-app"), answer.text()),
                (200, "outside", "body")
            );
        }
    }
    let seen = app.requests();
    assert_eq!(seen.len(), 9);
    for (at, request) in seen.iter().enumerate() {
        assert_eq!(request.header("host"), hosts[at / 3]);
        assert_eq!((request.header("x-own"), request.header("x-hop")), ("1", ""));
        assert_eq!(request.header("x-envoy-expected-rq-timeout-ms"), "9000");
        assert_eq!(request.header("x-envoy-attempt-count"), "");
    }
    assert_eq!(app.connections(), 1, "connections are kept");
    // HTTP/2 stays HTTP/2.
    let mut h2c = visitor.h2c().await;
    let answer = h2c.get(&format!("http://{}/", other.address)).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-app")), (200, "other"));
    assert_eq!(other.requests()[0].version, Version::HTTP_2);
    let page = metrics(&visitor).await;
    let lines: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("weft_requests_total"))
        .collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("destination=\"outside\"") && lines[0].ends_with(" 10"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_websocket_outside_is_passed_on() {
    let app = App::raw(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
                return;
            }
        }
        let answer =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello";
        let _ = stream.write_all(answer).await;
        let mut bytes = [0; 4];
        if stream.read_exact(&mut bytes).await.is_ok() {
            let _ = stream.write_all(&bytes).await;
        }
    })
    .await;
    let mesh = Mesh::start().await;
    let visitor = mesh.visitor().await;
    let mut raw = visitor.raw().await;
    raw.send(format!(
        "GET /chat HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        app.address
    ))
    .await;
    let head = raw.read_until(b"\r\n\r\n").await;
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    assert_eq!(raw.read_exact(5).await, b"hello");
    raw.send("ping").await;
    assert_eq!(raw.read_to_end().await, b"ping");
}

#[tokio::test]
async fn names_of_the_mesh_are_nobody_outside() {
    let mesh = Mesh::with(&yaml::service("catalogue", 80, "http")).await;
    let visitor = mesh.visitor().await;
    for (host, status, reason) in [
        ("nobody", 404, "unknown_service"),
        ("nobody.default", 404, "unknown_service"),
        ("nobody.default.svc", 404, "unknown_service"),
        ("nobody.default.svc.cluster.local:80", 404, "unknown_service"),
        ("a.b.c.svc.cluster.local", 404, "unknown_service"),
        ("catalogue", 503, "no_endpoint"),
    ] {
        let answer = visitor.get(&format!("http://{host}/")).await;
        assert_eq!(answer.verdict(), (status, reason), "{host}");
    }
    let answer = visitor.get("http://no.such.host.invalid/").await;
    let (status, reason) = answer.verdict();
    assert!(
        [
            (404, "unknown_service"),
            (502, "dns_failed"),
            (504, "dns_timeout")
        ]
        .contains(&(status, reason)),
        "{status} {reason}"
    );
}

#[tokio::test]
async fn the_proxy_is_nobody_outside() {
    let mesh = Mesh::with(&yaml::service("catalogue", 80, "http")).await;
    let visitor = mesh.workload("visitor").local("catalogue:80").start().await;
    for own in [
        visitor.outbound,
        visitor.inbound,
        visitor.admin,
        visitor.metrics,
        visitor.local("catalogue:80"),
    ] {
        let port = own.port();
        for host in [
            "127.0.0.1",
            "localhost",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "127.3.2.1",
        ] {
            let host = format!("{host}:{port}");
            for request in [get(&host), connect(&host)] {
                let head = asked(visitor.outbound, &request).await;
                assert!(head.starts_with("HTTP/1.1 403 "), "{request}: {head}");
                assert!(head.contains("own_port"), "{request}: {head}");
            }
        }
    }
}

#[tokio::test]
async fn a_gateway_calls_nobody_outside() {
    let outside = App::echo("outside").await;
    let mesh = Mesh::start().await;
    let port = tests::edge::free_port().await;
    let listener =
        format!("{{name: web, port: {port}, protocol: HTTP, allowedRoutes: {{namespaces: {{from: Same}}}}}}");
    mesh.apply(&yaml::gateway("edge", &[listener])).await;
    let _gateway = mesh.gateway("edge").start().await;
    let edge = SocketAddr::from(([127, 0, 0, 1], port));
    let host = outside.address.to_string();
    let head = asked(edge, &get(&host)).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let head = asked(edge, &connect(&host)).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(outside.requests().is_empty() && outside.connections() == 0);
}

#[tokio::test]
async fn the_sidecar_or_the_mesh_may_deny_it() {
    let outside = App::echo("outside").await;
    let catalogue = App::echo("catalogue").await;
    let host = outside.address.to_string();
    for (of_mesh, own) in [
        ("allow", Some("deny")),
        ("deny", None),
        ("deny", Some("allow")),
        ("allow", Some("allow")),
    ] {
        let mesh = Mesh::builder().arg("--outside", of_mesh).start().await;
        mesh.apply(&yaml::service("catalogue", 80, "http")).await;
        let _catalogue = mesh.workload("catalogue").app(catalogue.address).start().await;
        let visitor = mesh.workload("visitor");
        let visitor = match own {
            Some(own) => visitor.arg("--outside", own),
            None => visitor,
        };
        let visitor = visitor.start().await;
        let before = outside.connections();
        let denies = of_mesh == "deny" || own == Some("deny");
        for request in [
            get(&host),
            connect(&host),
            get("www.example.com"),
            connect("example.com:443"),
        ] {
            if !denies && request.contains("example") {
                continue;
            }
            let head = asked(visitor.outbound, &request).await;
            let wanted = if denies { "HTTP/1.1 403 " } else { "HTTP/1.1 200 " };
            assert!(head.starts_with(wanted), "{of_mesh} {own:?} {request}: {head}");
            assert_eq!(head.contains("outside_denied"), denies, "{head}");
        }
        assert_eq!(outside.connections() > before, !denies);
        // Services are called all the same.
        let answer = visitor.get("http://catalogue/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-app")),
            (200, "catalogue")
        );
        assert_eq!(
            visitor.get("http://nobody/").await.verdict(),
            (404, "unknown_service")
        );
    }
}

#[tokio::test]
async fn sidecars_follow_what_the_mesh_says_without_a_restart_of_theirs() {
    let outside = App::echo("outside").await;
    let host = outside.address.to_string();
    let mut mesh = Mesh::start().await;
    let visitor = mesh.visitor().await;
    assert!(
        asked(visitor.outbound, &get(&host))
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    mesh.kill_control_plane().await;
    // What is known stays in use meanwhile.
    assert!(
        asked(visitor.outbound, &get(&host))
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    mesh.set_arg("--outside", "deny");
    mesh.start_control_plane().await;
    eventually("it is denied", async || {
        let head = asked(visitor.outbound, &get(&host)).await;
        head.contains("outside_denied").then_some(())
    })
    .await;
    let head = asked(visitor.outbound, &connect("www.example.com:443")).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
}
