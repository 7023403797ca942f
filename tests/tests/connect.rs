//! CONNECT on the outbound port, as clients of gRPC and WebSockets use `http_proxy`: to services, whatever is spoken in the
//! tunnel, and to hosts outside the mesh.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::net::SocketAddr;
use std::time::Duration;

use http::Version;
use hyper_util::rt::TokioIo;
use tests::client::Http;
use tests::{App, Mesh, Raw, Sidecar, echo, eventually, skip, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// `CONNECT` to `authority`, and what the proxy answers.
async fn connect(proxy: SocketAddr, authority: &str) -> (Raw, String) {
    let mut raw = Raw::connect(proxy).await;
    raw.send(format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
    ))
    .await;
    let head = String::from_utf8(raw.read_until(b"\r\n\r\n").await).unwrap();
    (raw, head)
}

async fn tunnel(proxy: SocketAddr, authority: &str) -> Raw {
    let (raw, head) = connect(proxy, authority).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{authority}: {head}");
    assert!(!head.to_lowercase().contains("content-length"), "{head}");
    raw
}

/// The record of a request that the proxy printed, once it has.
async fn record(sidecar: &Sidecar, of: &str) -> serde_json::Value {
    let found = || {
        let lines = sidecar.process.stdout().into_iter().rev();
        let records = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
        { records }.find(|record| record["uri"].as_str().is_some_and(|uri| uri.contains(of)))
    };
    eventually(&format!("a record of {of}"), async || found()).await
}

/// Says everything back, and ends when it has all.
async fn reversing() -> App {
    App::raw(|mut stream| async move {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).await.is_ok() {
            all.reverse();
            let _ = stream.write_all(&all).await;
        }
    })
    .await
}

#[tokio::test]
async fn http_in_a_tunnel_to_a_service_is_served_as_that_service() {
    let app = App::echo("catalogue").await;
    let mesh = Mesh::with(&yaml::service("catalogue", 80, "")).await;
    let _catalogue = mesh.workload("catalogue").app(app.address).start().await;
    let visitor = mesh.workload("visitor").flag("--access-log").start().await;
    for authority in [
        "catalogue:80",
        "catalogue.default:80",
        "Catalogue.default.svc:80",
        "catalogue.default.svc.cluster.local:80",
        "catalogue.default.svc.cluster.local.:80",
    ] {
        let raw = tunnel(visitor.outbound, authority).await;
        let mut http = Http::http1_over(raw.stream).await;
        // The tunnel says whom a request is for, and goes on for the next one.
        for path in ["/one", "/two"] {
            let answer = http.ask("www.example.com", path).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("x-app")),
                (200, "catalogue")
            );
        }
        let raw = tunnel(visitor.outbound, authority).await;
        let mut http = Http::h2c_over(raw.stream).await;
        let answer = http.get("http://catalogue/three").await;
        assert_eq!(
            (answer.version, answer.header("x-app")),
            (Version::HTTP_2, "catalogue")
        );
    }
    let line = record(&visitor, "/two").await;
    assert_eq!(line["destination"], "default/catalogue:80");
    let line = record(&visitor, "catalogue:80").await;
    assert_eq!(
        (&line["method"], &line["status"], &line["destination"]),
        (&"CONNECT".into(), &200.into(), &"default/catalogue:80".into())
    );
}

#[tokio::test]
async fn grpc_in_a_tunnel_by_the_usual_variable() {
    let python = Command::new("python3").args(["-c", "import grpc"]).output().await;
    if !python.is_ok_and(|output| output.status.success()) {
        skip!("python3 with grpcio");
    }
    let app = echo::app().await;
    let mesh = Mesh::with(&yaml::service("echo", 80, "")).await;
    let _echo = mesh.workload("echo").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let script = "import grpc\n\
        channel = grpc.insecure_channel('dns:///echo:80')\n\
        say = channel.unary_unary('/weft.tests.Echo/Say', lambda x: x, lambda x: x)\n\
        print(say(b'\\x0a\\x05hello', timeout=20).hex())\n\
        repeat = channel.unary_stream('/weft.tests.Echo/Repeat', lambda x: x, lambda x: x)\n\
        print(len(list(repeat(b'\\x0a\\x05hello\\x10\\x05', timeout=20))))\n";
    let output = Command::new("python3")
        .args(["-c", script])
        .env("http_proxy", format!("http://{}", visitor.outbound))
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("0a0568656c6c6f"), "{said}{failed}");
    assert!(said.ends_with("\n5\n"), "{said}{failed}");
}

#[tokio::test]
async fn curl_goes_through_a_tunnel_when_it_is_told_to() {
    let app = App::echo("catalogue").await;
    let mesh = Mesh::with(&yaml::service("catalogue", 80, "http")).await;
    let _catalogue = mesh.workload("catalogue").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let outside = App::echo("outside").await;
    for (url, name) in [
        ("http://catalogue/".to_owned(), "catalogue"),
        (format!("http://{}/", outside.address), "outside"),
        (format!("http://localhost:{}/", outside.address.port()), "outside"),
    ] {
        for how in [&["--proxytunnel"][..], &["--proxytunnel", "--proxy1.0"], &[]] {
            let proxy = visitor.outbound.to_string();
            let mut curl = Command::new("curl");
            match how {
                [tunnel, old] => curl.args([*tunnel, *old, &proxy]),
                _ => curl.args(how).args(["--proxy", &proxy]),
            };
            let output = curl
                .args([
                    "--silent",
                    "--show-error",
                    "--noproxy",
                    "",
                    "--include",
                    "--max-time",
                    "20",
                    &url,
                ])
                .output()
                .await;
            let Ok(output) = output else { skip!("curl") };
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(
                said.contains(&format!("x-app: {name}")),
                "{url} {how:?}: {output:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_websocket_in_a_tunnel() {
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
    let mesh = Mesh::with(&yaml::service("chat", 80, "kubernetes.io/ws")).await;
    let _chat = mesh.workload("chat").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    for authority in ["chat:80".to_owned(), app.address.to_string()] {
        let mut raw = tunnel(visitor.outbound, &authority).await;
        raw.send(
            "GET /chat HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
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
}

#[tokio::test]
async fn opaque_bytes_pass_and_none_are_lost_behind_the_head() {
    for protocol in ["tcp", ""] {
        let (app, outside) = (reversing().await, reversing().await);
        let mesh = Mesh::with(&yaml::service("db", 5432, protocol)).await;
        let _db = mesh.workload("db").app(app.address).start().await;
        let visitor = mesh.workload("visitor").flag("--access-log").start().await;
        let sent: Vec<u8> = (0..500_000).map(|at| (at % 251) as u8).collect();
        for authority in ["db:5432".to_owned(), outside.address.to_string()] {
            let mut raw = Raw::connect(visitor.outbound).await;
            let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
            // In one write: a client may not wait for the answer.
            raw.send([head.as_bytes(), &sent].concat()).await;
            raw.half_close().await;
            let answer = raw.read_until(b"\r\n\r\n").await;
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{authority}");
            let mut got = raw.read_to_end().await;
            got.reverse();
            assert!(
                got == sent,
                "{authority} {protocol:?}: {} bytes came back",
                got.len()
            );
            let line = record(&visitor, &authority).await;
            assert_eq!(
                (&line["bytes"], &line["bytes_received"]),
                (&500_000.into(), &500_000.into())
            );
        }
        let line = record(&visitor, "db:5432").await;
        assert_eq!(line["destination"], "default/db:5432");
        let line = record(&visitor, &outside.address.to_string()).await;
        assert_eq!(line["destination"], "outside");
    }
}

#[tokio::test]
async fn a_server_may_speak_first_in_a_tunnel() {
    let app = App::raw(|mut stream| async move {
        let _ = stream.write_all(b"220 ready\r\n").await;
        let mut line = [0; 5];
        if stream.read_exact(&mut line).await.is_ok() {
            let _ = stream.write_all(&line).await;
        }
    })
    .await;
    let mesh = Mesh::with(&yaml::service("mail", 25, "smtp")).await;
    let _mail = mesh.workload("mail").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    for authority in ["mail:25".to_owned(), app.address.to_string()] {
        let mut raw = tunnel(visitor.outbound, &authority).await;
        assert_eq!(raw.read_until(b"\r\n").await, b"220 ready\r\n");
        raw.send("EHLO\n").await;
        assert_eq!(raw.read_to_end().await, b"EHLO\n");
    }
}

#[tokio::test]
async fn an_idle_tunnel_is_closed() {
    let app = App::tcp_echo().await;
    let mesh = Mesh::with(&yaml::service("db", 5432, "tcp")).await;
    let _db = mesh.workload("db").app(app.address).start().await;
    let visitor = mesh.workload("visitor").arg("--idle-timeout", "2s").start().await;
    for authority in ["db:5432".to_owned(), app.address.to_string()] {
        let mut raw = tunnel(visitor.outbound, &authority).await;
        raw.send("ping").await;
        assert_eq!(raw.read_exact(4).await, b"ping");
        let (rest, closed) = raw.read_for(Duration::from_secs(20)).await;
        assert!(rest.is_empty() && closed, "{authority}");
    }
}

#[tokio::test]
async fn what_no_tunnel_can_lead_to_is_refused_with_a_reason() {
    let app = App::echo("catalogue").await;
    let mesh = Mesh::with(&yaml::service("catalogue", 80, "http")).await;
    let _catalogue = mesh.workload("catalogue").app(app.address).start().await;
    let visitor = mesh.workload("visitor").local("catalogue:80").start().await;
    // Nobody listens there any more.
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for (authority, status, reason) in [
        ("catalogue:81", 404, "unknown_port"),
        ("nobody.default.svc.cluster.local:80", 404, "unknown_service"),
        ("nobody.default.svc:80", 404, "unknown_service"),
        ("nobody:80", 404, "unknown_service"),
        ("catalogue", 400, "bad_target"),
        ("catalogue:0", 400, "bad_target"),
        ("catalogue:65536", 400, "bad_target"),
        ("catalogue:http", 400, "bad_target"),
        ("user@catalogue:80", 400, "bad_target"),
        ("http://catalogue:80", 400, "bad_target"),
        ("[::1:80", 400, "bad_target"),
        ("/", 400, "bad_target"),
        (&gone, 503, "connect_failed"),
    ] {
        let mut raw = Raw::connect(visitor.outbound).await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: catalogue\r\n\r\n";
        raw.send(format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: x\r\n\r\n{smuggled}"
        ))
        .await;
        let answer = String::from_utf8_lossy(&raw.read_to_end().await).into_owned();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{authority}: {answer}"
        );
        assert!(
            answer.contains(&format!("details=\"{reason}\"")),
            "{authority}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{authority}: {answer}");
    }
    for fields in [
        "Host: catalogue:80\r\nContent-Length: 5\r\n",
        "Host: catalogue:80\r\nTransfer-Encoding: chunked\r\n",
        "Host: catalogue:80\r\nHost: catalogue:80\r\n",
        "",
    ] {
        let mut raw = Raw::connect(visitor.outbound).await;
        raw.send(format!("CONNECT catalogue:80 HTTP/1.1\r\n{fields}\r\n"))
            .await;
        let answer = String::from_utf8_lossy(&raw.read_to_end().await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields}: {answer}");
    }
    // Nowhere but on the outbound port; inside a tunnel neither.
    let (_, head) = connect(visitor.local("catalogue:80"), "catalogue:80").await;
    assert!(head.contains("bad_method"), "{head}");
    let mut http = Http::h2c(visitor.local("catalogue:80")).await;
    assert_eq!(over_http2(&mut http, "catalogue:80").await.status(), 400);
    let mut raw = tunnel(visitor.outbound, "catalogue:80").await;
    raw.send("CONNECT catalogue:80 HTTP/1.1\r\nHost: catalogue:80\r\n\r\n")
        .await;
    let head = String::from_utf8(raw.read_until(b"\r\n\r\n").await).unwrap();
    assert!(head.contains("bad_method"), "{head}");
    assert!(app.requests().is_empty(), "{:?}", app.requests());
}

/// `CONNECT` on a stream of an HTTP/2 connection to the outbound port.
async fn over_http2(http: &mut Http, authority: &str) -> http::Response<hyper::body::Incoming> {
    let request = tests::client::request("CONNECT", authority).body(tests::client::nothing());
    http.open(request.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_stream_of_http2_may_be_a_tunnel() {
    let (app, db, outside) = (App::echo("catalogue").await, reversing().await, reversing().await);
    let yaml = yaml::service("catalogue", 80, "") + &yaml::service("db", 5432, "");
    let mesh = Mesh::with(&yaml).await;
    let _catalogue = mesh.workload("catalogue").app(app.address).start().await;
    let _db = mesh.workload("db").app(db.address).start().await;
    let visitor = mesh.workload("visitor").flag("--access-log").start().await;
    let mut http = visitor.h2c().await;
    for _ in 0..2 {
        let response = over_http2(&mut http, "catalogue:80").await;
        assert_eq!(response.status(), 200);
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        stream
            .write_all(b"GET /in HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains("x-app: catalogue"),
            "{answer}"
        );
    }
    let sent: Vec<u8> = (0..5_000_000).map(|at| (at % 251) as u8).collect();
    for authority in ["db:5432".to_owned(), outside.address.to_string()] {
        let response = over_http2(&mut http, &authority).await;
        assert_eq!(response.status(), 200, "{authority}");
        let stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let (mut read, mut write) = tokio::io::split(stream);
        let mut got = Vec::new();
        let send = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(send, read.read_to_end(&mut got));
        read.unwrap();
        got.reverse();
        assert!(got == sent, "{authority}: {} bytes came back", got.len());
        let line = record(&visitor, &authority).await;
        assert_eq!(
            (&line["bytes"], &line["bytes_received"]),
            (&5_000_000.into(), &5_000_000.into())
        );
    }
    for (authority, status) in [("catalogue:81", 404), ("nobody:80", 404), ("catalogue", 400)] {
        let response = over_http2(&mut http, authority).await;
        assert_eq!(response.status(), status, "{authority}");
    }
    let own = format!("127.0.0.1:{}", visitor.admin.port());
    assert_eq!(over_http2(&mut http, &own).await.status(), 403);
    // What is asked beside it goes on.
    assert_eq!(http.get("http://catalogue/").await.header("x-app"), "catalogue");
}
