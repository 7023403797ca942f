//! HTTP at the edge of the mesh: a gateway's listeners, its routes by host name, and what backends are told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::{Response, Version};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rustix::process::Signal;
use tests::client::{Http, nothing, request};
use tests::echo::{self, EchoClient, words};
use tests::edge::{at, free_port};
use tests::otlp::Receiver;
use tests::{App, Load, Mesh, Raw, Sidecar, eventually, within, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn listener(name: &str, port: u16, hostname: &str) -> String {
    let hostname = match hostname {
        "" => String::new(),
        hostname => format!(", hostname: '{hostname}'"),
    };
    format!("{{name: {name}, port: {port}, protocol: HTTP{hostname}}}")
}

/// A rule that sends everything under a path to port 80 of a Service.
fn to(path: &str, service: &str) -> String {
    format!(
        "{{matches: [{{path: {{type: PathPrefix, value: {path}}}}}], backendRefs: [{{name: {service}, port: 80}}]}}"
    )
}

/// An HTTPRoute for the Gateway `edge`, or a section of it after a slash.
fn route(name: &str, parent: &str, hostnames: &str, rules: &[String]) -> String {
    let parent = match parent.split_once('/') {
        Some((gateway, section)) => format!("{{name: {gateway}, sectionName: {section}}}"),
        None => format!("{{name: {parent}}}"),
    };
    let rules = rules.join(", ");
    yaml::object(
        "HTTPRoute",
        name,
        &format!("{{parentRefs: [{parent}], hostnames: [{hostnames}], rules: [{rules}]}}"),
    )
}

/// A Gateway with one listener for any host, `inside` in the mesh and `outside` of it.
struct Edge {
    mesh: Mesh,
    port: u16,
    inside: App,
    outside: App,
    gateway: Sidecar,
    _workload: Sidecar,
}

impl Edge {
    async fn start(routes: &str) -> Self {
        let port = free_port().await;
        Self::with(port, &[listener("web", port, "")], routes).await
    }

    async fn with(port: u16, listeners: &[String], routes: &str) -> Self {
        let (inside, outside) = (App::echo("inside").await, App::echo("outside").await);
        let yaml = yaml::service("inside", 80, "http")
            + &yaml::outside("outside", 80, "http", &[outside.address])
            + &yaml::gateway("edge", listeners)
            + routes;
        let mesh = Mesh::with(&yaml).await;
        let workload = mesh.workload("inside").app(inside.address).start().await;
        let gateway = mesh.gateway("edge").start().await;
        Self {
            mesh,
            port,
            inside,
            outside,
            gateway,
            _workload: workload,
        }
    }

    async fn verdict(&self, url: &str) -> (u16, String) {
        let answer = Http::http1(at(self.port)).await.get(url).await;
        let (status, reason) = answer.verdict();
        let app = answer.header("x-app");
        (status, if app.is_empty() { reason } else { app }.to_owned())
    }

    async fn expect(&self, url: &str, status: u16, what: &str) {
        assert_eq!(self.verdict(url).await, (status, what.to_owned()), "{url}");
    }
}

#[tokio::test]
async fn workloads_and_addresses_outside_are_reached_by_both_versions() {
    let routes = route("shop", "edge", "", &[to("/", "inside"), to("/old", "outside")]);
    let edge = Edge::start(&routes).await;
    for (mut client, version) in [
        (Http::http1(at(edge.port)).await, Version::HTTP_11),
        (Http::h2c(at(edge.port)).await, Version::HTTP_2),
    ] {
        for (path, app) in [("/new", "inside"), ("/old/x", "outside")] {
            let answer = client
                .post(&format!("http://www.example.com{path}"), "body")
                .await;
            assert_eq!((answer.status.as_u16(), answer.text()), (200, "body"));
            assert_eq!((answer.header("x-app"), answer.version), (app, version));
        }
    }
    for app in [&edge.inside, &edge.outside] {
        assert_eq!(app.requests().len(), 2);
        for request in app.requests() {
            assert_eq!(request.header("host"), "www.example.com");
            assert_eq!(request.header("x-forwarded-for"), "127.0.0.1");
            assert_eq!(request.header("x-forwarded-proto"), "http");
            assert_eq!(request.header("x-forwarded-host"), "www.example.com");
        }
    }
    let metrics = Http::http1(edge.gateway.metrics)
        .await
        .get(&format!("http://{}/metrics", edge.gateway.metrics))
        .await;
    let counted = format!(
        "weft_attempts_mtls_total{{direction=\"outbound\",destination=\"default/edge:{}\",\
         backend=\"default/inside:80\",route=\"HTTPRoute/default/shop#0\"}} 2",
        edge.port
    );
    assert!(metrics.text().contains(&counted), "{}", metrics.text());
}

#[tokio::test]
async fn a_client_cannot_forge_what_only_the_gateway_knows() {
    let edge = Edge::start(&route("shop", "edge", "", &[to("/", "outside")])).await;
    let mut raw = Raw::connect(at(edge.port)).await;
    raw.send(
        "GET / HTTP/1.1\r\nhost: WWW.example.com.:80\r\nx-forwarded-for: 203.0.113.7\r\nx-forwarded-proto: https\r\n\
         x-forwarded-host: forged\r\nconnection: x-forwarded-for\r\n\r\n",
    )
    .await;
    raw.read_response().await;
    let request = edge.outside.arrived(1).await.remove(0);
    // What the client itself wants taken off is not passed on, and does not take the gateway's own along.
    assert_eq!(request.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(request.header("x-forwarded-proto"), "http");
    assert_eq!(request.header("x-forwarded-host"), "WWW.example.com.:80");
}

#[tokio::test]
async fn a_request_meets_exactly_one_listener() {
    let port = free_port().await;
    let listeners = [
        listener("any", port, ""),
        listener("wild", port, "*.example.com"),
        listener("one", port, "www.example.com"),
        listener("empty", port, "empty.example.com"),
    ];
    let routes = route("all", "edge/any", "", &[to("/any", "outside")])
        + &route("wild", "edge/wild", "", &[to("/wild", "inside")])
        + &route("one", "edge/one", "", &[to("/one", "outside")]);
    let edge = Edge::with(port, &listeners, &routes).await;
    for (url, status, what) in [
        ("http://other.org/any", 200, "outside"),
        ("http://other.org/wild", 404, "no_route"),
        ("http://10.0.0.1/any", 200, "outside"),
        ("http://a.b.example.com/wild", 200, "inside"),
        ("http://a.b.example.com/any", 404, "no_route"),
        ("http://www.example.com/one", 200, "outside"),
        ("http://WWW.Example.Com:1234/one", 200, "outside"),
        ("http://www.example.com/wild", 404, "no_route"),
        ("http://www.example.com/any", 404, "no_route"),
        ("http://empty.example.com/wild", 404, "no_route"),
        ("http://example.com/any", 200, "outside"),
    ] {
        edge.expect(url, status, what).await;
    }
}

#[tokio::test]
async fn a_host_that_no_listener_has_is_nowhere() {
    let port = free_port().await;
    let listeners = [listener("wild", port, "*.example.com")];
    let edge = Edge::with(port, &listeners, &route("shop", "edge", "", &[to("/", "inside")])).await;
    edge.expect("http://example.com/", 404, "no_listener").await;
    edge.expect("http://www.example.org/", 404, "no_listener").await;
    edge.expect("http://www.example.com/", 200, "inside").await;
}

#[tokio::test]
async fn within_a_listener_the_more_specific_host_name_has_the_first_word_and_not_the_last() {
    let routes = route(
        "wild",
        "edge",
        "'*.example.com'",
        &[to("/", "inside"), to("/long/path", "inside")],
    ) + &route("one", "edge", "www.example.com", &[to("/long", "outside")]);
    let edge = Edge::start(&routes).await;
    for (url, status, what) in [
        ("http://www.example.com/long/path", 200, "outside"),
        ("http://www.example.com/other", 200, "inside"),
        ("http://a.example.com/long/path", 200, "inside"),
        ("http://example.com/long", 404, "no_route"),
    ] {
        edge.expect(url, status, what).await;
    }
}

#[tokio::test]
async fn weights_filters_and_retries_are_those_of_any_route() {
    let failures = Arc::new(AtomicUsize::new(3));
    let flaky = App::answering(move |_| {
        let failed = failures
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
            .is_ok();
        let status = if failed { 503 } else { 200 };
        Response::builder().status(status).body(Bytes::new()).unwrap()
    })
    .await;
    let rule = "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-mark, value: set}]}}], \
                retry: {codes: [503], attempts: 3, backoff: 1ms}, \
                backendRefs: [{name: inside, port: 80, weight: 9}, {name: flaky, port: 80, weight: 1}]}";
    let routes =
        yaml::outside("flaky", 80, "http", &[flaky.address]) + &route("shop", "edge", "", &[rule.to_owned()]);
    let edge = Edge::start(&routes).await;
    let mut client = Http::http1(at(edge.port)).await;
    for _ in 0..100 {
        assert_eq!(client.get("http://www.example.com/").await.status, 200);
    }
    let (inside, flaky) = (edge.inside.requests(), flaky.requests());
    assert!((7..=13).contains(&(flaky.len() - 3)), "{} of 100", flaky.len());
    assert_eq!(inside.len() + flaky.len(), 100 + 3);
    assert!(
        inside
            .iter()
            .chain(&flaky)
            .all(|request| request.header("x-mark") == "set")
    );
}

#[tokio::test]
async fn a_backend_that_does_not_exist_is_an_error_of_the_route() {
    let edge = Edge::start(&route("shop", "edge", "", &[to("/", "nowhere")])).await;
    edge.expect("http://www.example.com/", 500, "backend_not_found")
        .await;
}

#[tokio::test]
async fn grpc_reaches_its_methods() {
    let port = free_port().await;
    let app = echo::app().await;
    let rule = "{matches: [{method: {service: weft.tests.Echo, method: Say}}], backendRefs: [{name: echo, port: 80}]}";
    let routes = yaml::service("echo", 80, "kubernetes.io/h2c")
        + &yaml::object(
            "GRPCRoute",
            "echo",
            &format!("{{parentRefs: [{{name: edge}}], rules: [{rule}]}}"),
        );
    let edge = Edge::with(port, &[listener("web", port, "")], &routes).await;
    let _echo = edge.mesh.workload("echo").app(app.address).start().await;
    let mut client = EchoClient::connect(format!("http://{}", at(port))).await.unwrap();
    let answer = within("unary", client.say(words("hello"))).await.unwrap();
    assert_eq!(answer.into_inner().text, "hello");
    let refused = within("another method", client.repeat(words("hello"))).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn what_changes_beside_it_costs_no_request() {
    let routes = route("shop", "edge", "www.example.com", &[to("/", "inside")]);
    let edge = Edge::start(&routes).await;
    let load = Load::start(at(edge.port), "http://www.example.com/");
    load.more(50).await;
    let other = free_port().await;
    let web = listener("web", edge.port, "");
    let more = yaml::gateway("edge", &[web.clone(), listener("other", other, "")]);
    for _ in 0..3 {
        edge.mesh.apply(&more).await;
        edge.mesh
            .apply(&route("more", "edge/other", "", &[to("/", "outside")]))
            .await;
        let answer = Http::http1(at(other)).await.get("http://a/").await;
        assert_eq!(
            answer.header("x-app"),
            "outside",
            "open and served when it is acknowledged"
        );
        load.more(30).await;
        edge.mesh
            .apply(&yaml::gateway("edge", std::slice::from_ref(&web)))
            .await;
        eventually("the port to be closed", || async {
            tokio::net::TcpStream::connect(at(other))
                .await
                .is_err()
                .then_some(())
        })
        .await;
        load.more(30).await;
    }
    load.stop().await.assert_no_failure();
}

#[tokio::test]
async fn a_gateway_that_stops_finishes_what_it_has() {
    let (held, permits) = App::holding().await;
    let routes = yaml::outside("held", 80, "http", &[held.address])
        + &route("shop", "edge", "", &[to("/", "inside"), to("/held", "held")]);
    let mut edge = Edge::start(&routes).await;
    let mut idle = Http::http1(at(edge.port)).await;
    assert_eq!(idle.get("http://a/").await.status, 200);
    let port = edge.port;
    let call = tokio::spawn(async move { Http::http1(at(port)).await.get("http://a/held").await });
    held.arrived(1).await;
    edge.gateway.process.signal(Signal::TERM);
    // One that waits for a request has nothing to finish.
    let refused = async {
        let call = || request("GET", "http://a/").body(nothing()).unwrap();
        while idle.try_send(call()).await.is_ok() {}
    };
    within("the end of a connection out of use", refused).await;
    permits.add_permits(1);
    let answer = within("the answer", call).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "done"));
    let status = edge.gateway.process.ended().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_websocket_passes() {
    let port = free_port().await;
    let app = App::raw(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
                return;
            }
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        if stream.write_all(answer).await.is_ok() {
            let (mut read, mut write) = stream.into_split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    })
    .await;
    let routes =
        yaml::outside("chat", 80, "http", &[app.address]) + &route("chat", "edge", "", &[to("/", "chat")]);
    let _edge = Edge::with(port, &[listener("web", port, "")], &routes).await;
    let mut raw = Raw::connect(at(port)).await;
    raw.send("GET / HTTP/1.1\r\nhost: chat\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .await;
    let head = raw.read_until(b"\r\n\r\n").await;
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    raw.send("ping").await;
    assert_eq!(raw.read_exact(4).await, b"ping");
}

#[tokio::test]
async fn a_trace_begins_at_the_edge() {
    let (app, port) = (App::echo("app").await, free_port().await);
    let yaml = yaml::outside("app", 80, "http", &[app.address])
        + &yaml::gateway("edge", &[listener("web", port, "")])
        + &route("shop", "edge", "", &[to("/", "app")]);
    let mesh = Mesh::with(&yaml).await;
    let receiver = Receiver::start().await;
    let _gateway = mesh.gateway("edge").traces(&receiver).start().await;
    Http::http1(at(port))
        .await
        .get("http://www.example.com/path")
        .await;
    let root = receiver
        .wait("a span without a parent", |spans| {
            spans.iter().find(|span| span.parent.is_empty()).cloned()
        })
        .await;
    assert_eq!((&*root.service, root.kind), ("edge", SpanKind::Client));
    assert_eq!(root.attribute("url.full"), "http://www.example.com/path");
    assert_eq!(root.attribute("server.port"), port.to_string());
    assert_eq!(root.attribute("weft.route"), "HTTPRoute/default/shop#0");
    let sent = app.requests().remove(0);
    assert!(sent.header("traceparent").contains(&root.trace_id));
}
