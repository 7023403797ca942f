//! One request leaves one trace: every hop and every attempt is a span, named and related as OpenTelemetry says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tests::chain::calling;
use tests::client::{Http, nothing, request};
use tests::otlp::{Receiver, Span};
use tests::{App, Mesh, Sidecar, yaml};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A chain of services, each with a sidecar that sends its spans to one receiver.
struct Shop {
    receiver: Receiver,
    sidecars: BTreeMap<&'static str, Sidecar>,
    payments: App,
    _apps: Vec<App>,
    _mesh: Mesh,
}

impl Shop {
    /// frontend → checkout → payments; payments fails `failures` times.
    async fn start(failures: usize) -> Self {
        let route = yaml::http_route(
            "payments",
            "- backendRefs: [{name: payments, port: 80}]\n  retry: {codes: [503], attempts: 3, backoff: 1ms}",
        );
        let names = ["frontend", "checkout", "payments"];
        let services: String = names.iter().map(|name| yaml::service(name, 80, "http")).collect();
        let mesh = Mesh::with(&(services + &route)).await;
        let receiver = Receiver::start().await;
        let calls = Arc::new(AtomicUsize::new(0));
        let payments = App::answering(move |_| {
            let failed = calls.fetch_add(1, Ordering::Relaxed) < failures;
            Response::builder()
                .status(if failed { 503 } else { 200 })
                .body(Bytes::from_static(b"paid"))
                .unwrap()
        })
        .await;
        let (frontend_out, frontend_in) = tokio::sync::watch::channel(None);
        let (checkout_out, checkout_in) = tokio::sync::watch::channel(None);
        let frontend = calling(frontend_in, "http://checkout/order").await;
        let checkout = calling(checkout_in, "http://payments/charge?amount=5").await;
        let mut sidecars = BTreeMap::new();
        for (name, app) in [
            ("frontend", &frontend),
            ("checkout", &checkout),
            ("payments", &payments),
        ] {
            let sidecar = mesh
                .workload(name)
                .app(app.address)
                .label("version", "v7")
                .traces(&receiver);
            sidecars.insert(name, sidecar.start().await);
        }
        sidecars.insert(
            "visitor",
            mesh.workload("visitor").traces(&receiver).start().await,
        );
        frontend_out.send_replace(Some(sidecars["frontend"].outbound));
        checkout_out.send_replace(Some(sidecars["checkout"].outbound));
        Self {
            receiver,
            sidecars,
            payments,
            _apps: vec![frontend, checkout],
            _mesh: mesh,
        }
    }
}

#[tokio::test]
async fn two_failed_attempts_and_a_good_one_span_by_span() {
    let shop = Shop::start(2).await;
    let call = request("GET", "http://frontend/buy?x=1")
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .header("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
        .header("baggage", "customer=alice,tier=gold");
    let answer = shop.sidecars["visitor"]
        .http1()
        .await
        .send(call.body(nothing()).unwrap())
        .await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "paid"));

    // Per hop: CLIENT at the caller's sidecar, its attempts, SERVER at the callee's for each.
    let count = 3 + (1 + 1 + 3) + (1 + 1 + 3);
    let spans = shop.receiver.trace(TRACE, |spans| spans.len() >= count).await;
    assert_eq!(spans.len(), count, "{spans:#?}");
    let tree = Tree(&spans);

    let mut parent = CALLER.to_owned();
    for (caller, callee, method, target) in [
        ("visitor", "frontend", "GET", "/buy?x=1"),
        ("frontend", "checkout", "POST", "/order"),
    ] {
        let client = tree.only(caller, SpanKind::Client, &parent);
        check_client(client, callee, method, target, 1);
        let attempt = tree.only(caller, SpanKind::Client, &client.id);
        check_attempt(attempt, 1, &shop.sidecars[callee], 200, false);
        let server = tree.only(callee, SpanKind::Server, &attempt.id);
        check_server(server, caller, method, target, 200);
        parent.clone_from(&server.id);
    }

    let client = tree.only("checkout", SpanKind::Client, &parent);
    check_client(client, "payments", "POST", "/charge?amount=5", 3);
    let attempts = tree.children("checkout", SpanKind::Client, &client.id);
    assert_eq!(attempts.len(), 3, "{attempts:#?}");
    for (number, attempt) in (1..).zip(attempts) {
        let status = if number == 3 { 200 } else { 503 };
        check_attempt(attempt, number, &shop.sidecars["payments"], status, number < 3);
        let server = tree.only("payments", SpanKind::Server, &attempt.id);
        check_server(server, "checkout", "POST", "/charge?amount=5", status);
    }

    // What arrived at the application carries all of it on, each attempt with a parent of its own.
    let arrived = shop.payments.requests();
    let parents: Vec<_> = arrived
        .iter()
        .map(|arrived| arrived.header("traceparent"))
        .collect();
    for (arrived, parent) in arrived.iter().zip(&parents) {
        assert!(
            parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-01"),
            "{parent}"
        );
        let of_server = spans
            .iter()
            .any(|span| span.kind == SpanKind::Server && parent.contains(&span.id));
        assert!(of_server, "{parent} is no server span");
        assert_eq!(
            arrived.header("tracestate"),
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
        );
        assert_eq!(arrived.header("baggage"), "customer=alice,tier=gold");
    }
    assert_ne!(parents[0], parents[1]);
}

fn check_client(span: &Span, callee: &str, method: &str, target: &str, attempts: usize) {
    assert_eq!(span.name, method);
    assert_eq!(span.status, 0, "{span:#?}");
    for (name, value) in [
        ("http.request.method", method),
        ("http.response.status_code", "200"),
        ("server.address", callee),
        ("url.full", &format!("http://{callee}{target}")),
        ("network.protocol.version", "1.1"),
        ("weft.attempts", &attempts.to_string()),
        ("weft.destination", &format!("default/{callee}:80")),
        ("weft.backend", &format!("default/{callee}:80")),
    ] {
        assert_eq!(span.attribute(name), value, "{name} of {span:#?}");
    }
    check_resource(span);
}

fn check_attempt(span: &Span, number: usize, callee: &Sidecar, status: u16, retried: bool) {
    let resent = if number == 1 {
        String::new()
    } else {
        (number - 1).to_string()
    };
    for (name, value) in [
        ("weft.attempt", number.to_string()),
        ("http.request.resend_count", resent),
        ("http.response.status_code", status.to_string()),
        ("network.peer.address", callee.inbound.ip().to_string()),
        ("network.peer.port", callee.inbound.port().to_string()),
        ("weft.endpoint", callee.workload.clone()),
        ("weft.retried", retried.to_string()),
        (
            "weft.retry.reason",
            if retried {
                status.to_string()
            } else {
                String::new()
            },
        ),
        (
            "error.type",
            if status < 400 {
                String::new()
            } else {
                status.to_string()
            },
        ),
    ] {
        assert_eq!(span.attribute(name), value, "{name} of {span:#?}");
    }
    assert_eq!(span.status, if status < 400 { 0 } else { 2 });
}

fn check_server(span: &Span, caller: &str, method: &str, target: &str, status: u16) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    for (name, value) in [
        ("http.request.method", method),
        ("http.response.status_code", &status.to_string()),
        ("url.scheme", "http"),
        ("url.path", path),
        ("url.query", query),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(span.attribute(name), value, "{name} of {span:#?}");
    }
    let peer = span.attribute("weft.peer.identity");
    assert!(peer.ends_with(&format!("/ns/default/sa/{caller}")), "{peer}");
    assert_eq!(span.status, if status < 500 { 0 } else { 2 });
    check_resource(span);
}

fn check_resource(span: &Span) {
    assert_eq!(span.resource["service.namespace"], "default");
    assert!(span.resource["service.instance.id"].starts_with(&span.service));
    if span.service != "visitor" {
        assert_eq!(span.resource["service.version"], "v7");
    }
    assert!(span.end_unix_nano >= span.start_unix_nano && span.start_unix_nano > 0);
}

/// The spans of one trace, by who made them and under whom.
struct Tree<'s>(&'s [Span]);

impl<'s> Tree<'s> {
    fn children(&self, service: &str, kind: SpanKind, parent: &str) -> Vec<&'s Span> {
        let fits = |span: &&Span| span.service == service && span.kind == kind && span.parent == parent;
        let mut found: Vec<_> = self.0.iter().filter(fits).collect();
        found.sort_by_key(|span| span.start_unix_nano);
        found
    }

    fn only(&self, service: &str, kind: SpanKind, parent: &str) -> &'s Span {
        let found = self.children(service, kind, parent);
        assert_eq!(
            found.len(),
            1,
            "{kind:?} spans of {service} under {parent} in {:#?}",
            self.0
        );
        found[0]
    }
}

#[tokio::test]
async fn a_trace_is_started_where_there_is_none_and_a_broken_context_is_not_passed_on() {
    let shop = Shop::start(0).await;
    let visitor = &shop.sidecars["visitor"];
    for (number, bad) in [
        None,
        Some("00-zz-1-01"),
        Some("00-00000000000000000000000000000000-0000000000000000-01"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut call = request("POST", "http://payments/charge");
        if let Some(bad) = bad {
            call = call.header("traceparent", bad).header("tracestate", "left=over");
        }
        assert_eq!(
            visitor
                .http1()
                .await
                .send(call.body(nothing()).unwrap())
                .await
                .status,
            200
        );
        let arrived = shop.payments.requests().remove(number);
        let parts: Vec<_> = arrived.header("traceparent").split('-').collect();
        assert_eq!(
            (parts[0], parts[1].len(), parts[2].len(), parts[3]),
            ("00", 32, 16, "01"),
            "{bad:?}"
        );
        assert_eq!(arrived.header("tracestate"), "", "{bad:?}");
        let spans = shop.receiver.trace(parts[1], |spans| spans.len() >= 3).await;
        assert!(
            spans
                .iter()
                .any(|span| span.parent.is_empty() && span.kind == SpanKind::Client)
        );
    }
}

#[tokio::test]
async fn the_callers_decision_not_to_sample_is_kept() {
    let shop = Shop::start(0).await;
    let call =
        request("POST", "http://payments/charge").header("traceparent", format!("00-{TRACE}-{CALLER}-00"));
    let visitor = &shop.sidecars["visitor"];
    assert_eq!(
        visitor
            .http1()
            .await
            .send(call.body(nothing()).unwrap())
            .await
            .status,
        200
    );
    let arrived = shop.payments.requests().remove(0);
    assert!(arrived.header("traceparent").starts_with(&format!("00-{TRACE}-")));
    assert!(
        arrived.header("traceparent").ends_with("-00"),
        "{}",
        arrived.header("traceparent")
    );
    // A later, sampled call is exported by the same pipeline; nothing of the first came before it.
    assert_eq!(visitor.post("http://payments/charge", "").await.status, 200);
    let later = shop.payments.requests()[1]
        .header("traceparent")
        .split('-')
        .nth(1)
        .unwrap()
        .to_owned();
    shop.receiver.trace(&later, |spans| spans.len() >= 3).await;
    assert!(shop.receiver.spans().iter().all(|span| span.trace_id != TRACE));
}

#[tokio::test]
async fn the_sampler_is_taken_from_the_environment() {
    let mesh = Mesh::with(&yaml::service("payments", 80, "http")).await;
    let receiver = Receiver::start().await;
    let app = App::echo("payments").await;
    let _payments = mesh
        .workload("payments")
        .app(app.address)
        .traces(&receiver)
        .start()
        .await;
    let quiet = mesh
        .workload("quiet")
        .traces(&receiver)
        .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
    let quiet = quiet.env("OTEL_TRACES_SAMPLER_ARG", "0").start().await;
    assert_eq!(quiet.get("http://payments/").await.status, 200);
    assert!(app.requests()[0].header("traceparent").ends_with("-00"));
    // But a caller that samples is followed.
    let call = request("GET", "http://payments/").header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    quiet.http1().await.send(call.body(nothing()).unwrap()).await;
    receiver.trace(TRACE, |spans| spans.len() >= 3).await;
    assert!(receiver.spans().iter().all(|span| span.trace_id == TRACE));
}

#[tokio::test]
async fn without_a_backend_headers_pass_untouched_and_a_dead_backend_delays_nothing() {
    let mesh = Mesh::with(&yaml::service("payments", 80, "http")).await;
    let app = App::echo("payments").await;
    let _payments = mesh.workload("payments").app(app.address).start().await;
    let silent = mesh.visitor().await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let call = request("GET", "http://payments/").header("traceparent", &parent);
    silent.http1().await.send(call.body(nothing()).unwrap()).await;
    assert_eq!(app.requests()[0].header("traceparent"), parent);

    let nobody = tests::Relay::start().await;
    let dead = mesh.workload("dead").env(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        &format!("http://{}", nobody.address),
    );
    let dead = dead
        .env("OTEL_BSP_SCHEDULE_DELAY", "10")
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "10");
    let mut dead = dead.start().await;
    let mut client = dead.http1().await;
    for _ in 0..100 {
        assert_eq!(client.get("http://payments/").await.status, 200);
    }
    // What could not be sent is counted.
    let dropped = tests::eventually("a count of dropped spans", || async {
        let page = Http::http1(dead.metrics)
            .await
            .get(&format!("http://{}/metrics", dead.metrics))
            .await;
        let line = page
            .text()
            .lines()
            .find(|line| line.contains("spans_dropped_total"))
            .map(str::to_owned)?;
        line.rsplit(' ')
            .next()?
            .parse::<f64>()
            .ok()
            .filter(|count| *count > 0.0)
    })
    .await;
    assert!(dropped >= 1.0);
    assert!(dead.terminate().await.success());
}
