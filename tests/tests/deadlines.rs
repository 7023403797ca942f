//! Time and attempts are counted over all hops of a request: nobody works for a caller that has left, and retries do not
//! multiply.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use tests::chain::Chain;
use tests::client::{Answer, Http, nothing, request};
use tests::{App, Mesh, yaml};

const EXPECTED: &str = "x-envoy-expected-rq-timeout-ms";
const ATTEMPT: &str = "x-envoy-attempt-count";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn always(status: u16) -> App {
    App::answering(move |_| Response::builder().status(status).body(Bytes::new()).unwrap()).await
}

/// Services with one route each, whose only rule ends with these lines.
async fn mesh(rules: &[(&str, &str)]) -> Mesh {
    let mut text = String::new();
    for (name, rule) in rules {
        text += &yaml::service(name, 80, "http");
        if !rule.is_empty() {
            let rule = format!("- backendRefs: [{{name: {name}, port: 80}}]\n  {rule}");
            text += &yaml::http_route(name, &rule);
        }
    }
    Mesh::with(&text).await
}

async fn traced(client: &mut Http, url: &str) -> Answer {
    let request = request("GET", url).header("traceparent", TRACE);
    client.send(request.body(nothing()).unwrap()).await
}

#[tokio::test]
async fn an_attempt_is_told_its_time_and_its_number() {
    let mesh = mesh(&[(
        "slow",
        "timeouts: {request: 60s, backendRequest: 20s}\n  retry: {codes: [503], attempts: 2, backoff: 1ms}",
    )])
    .await;
    let app = always(503).await;
    let _slow = mesh.workload("slow").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    assert_eq!(visitor.get("http://slow/").await.status, 503);
    let arrived = app.requests();
    let numbers: Vec<_> = arrived.iter().map(|request| request.header(ATTEMPT)).collect();
    assert_eq!(numbers, ["", "2", "3"]);
    for request in &arrived {
        let millis: u64 = request.header(EXPECTED).parse().unwrap();
        assert!((15_000..=20_000).contains(&millis), "{millis}");
    }
    // What the caller says itself counts where it is less.
    let hasty = request("GET", "http://slow/").header(EXPECTED, "10000");
    visitor.http1().await.send(hasty.body(nothing()).unwrap()).await;
    let millis: u64 = app.requests().last().unwrap().header(EXPECTED).parse().unwrap();
    assert!((5_000..=10_000).contains(&millis), "{millis}");
}

#[tokio::test]
async fn a_grpc_timeout_is_passed_on_as_what_is_left_of_it() {
    let mesh = Mesh::with(&yaml::service("calls", 80, "grpc")).await;
    let app = always(200).await;
    let _calls = mesh.workload("calls").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let call = request("POST", "http://calls/shop.Cart/Add")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "30S");
    let mut client = visitor.h2c().await;
    client.send(call.body(nothing()).unwrap()).await;
    let told = app.requests()[0].header("grpc-timeout").to_owned();
    let micros: u64 = told.strip_suffix('u').expect("microseconds").parse().unwrap();
    assert!((25_000_000..30_000_000).contains(&micros), "{told}");
    assert_eq!(app.requests()[0].header(EXPECTED), "");
}

#[tokio::test]
async fn calls_of_an_application_inherit_the_time_of_the_request_they_are_made_for() {
    let mesh = mesh(&[("front", "timeouts: {request: 30s}"), ("back", "")]).await;
    let app = always(200).await;
    let chain = Chain::start(&mesh, &["front", "back"], &app).await;
    let mut client = chain.visitor.http1().await;
    traced(&mut client, "http://front/").await;
    let millis: u64 = app.requests()[0].header(EXPECTED).parse().unwrap();
    assert!((20_000..=30_000).contains(&millis), "{millis}");
    // Without a trace nothing says what the call is for.
    client.get("http://front/").await;
    assert_eq!(app.requests()[1].header(EXPECTED), "");
}

#[tokio::test]
async fn an_attempt_that_cannot_be_in_time_is_not_made() {
    let mesh = mesh(&[("far", "")]).await;
    let app = App::http(|_| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tests::text(200, "at last")
    })
    .await;
    let _far = mesh.workload("far").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let mut client = visitor.http1().await;
    let mut within = async |millis: &str| {
        let request = request("GET", "http://far/").header(EXPECTED, millis);
        let began = Instant::now();
        let answer = client.send(request.body(nothing()).unwrap()).await;
        let (status, reason) = answer.verdict();
        (status, reason.to_owned(), began.elapsed())
    };
    assert_eq!(within("0").await.1, "request_timeout");
    assert_eq!(app.requests().len(), 0, "nobody waits any more");
    assert_eq!(within("60000").await.0, 200);
    // Nothing was ever answered within 200 ms.
    let (status, reason, _) = within("200").await;
    assert_eq!((status, reason.as_str()), (504, "request_timeout"));
    assert_eq!(app.requests().len(), 1);
}

#[tokio::test]
async fn what_was_tried_again_below_is_not_tried_again_above() {
    let again = "retry: {codes: [503], attempts: 2, backoff: 1ms}";
    let mesh = mesh(&[("front", again), ("middle", again), ("back", again)]).await;
    let app = always(503).await;
    let chain = Chain::start(&mesh, &["front", "middle", "back"], &app).await;
    let mut client = chain.visitor.http1().await;
    let answer = traced(&mut client, "http://front/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-should-retry")),
        (503, "")
    );
    let requests: Vec<_> = chain.apps.iter().map(|app| app.requests().len()).collect();
    assert_eq!((requests, app.requests().len()), (vec![1, 1], 3));
}

#[tokio::test]
async fn a_hop_that_only_lacks_the_time_leaves_the_retry_to_one_that_has_it() {
    let mesh = mesh(&[
        (
            "front",
            "timeouts: {request: 60s, backendRequest: 5s}\n  retry: {codes: [503], attempts: 1, backoff: 1ms}",
        ),
        ("back", "retry: {codes: [503], attempts: 1, backoff: 30s}"),
    ])
    .await;
    let app = always(503).await;
    let chain = Chain::start(&mesh, &["front", "back"], &app).await;
    let mut client = chain.visitor.http1().await;
    assert_eq!(traced(&mut client, "http://front/").await.status, 503);
    let arrived = app.requests();
    assert_eq!((chain.apps[0].requests().len(), arrived.len()), (2, 2));
    assert_eq!(arrived[1].header(ATTEMPT), "2", "counted over all hops");
}

#[tokio::test]
async fn an_application_says_that_its_answer_is_final() {
    let mesh = mesh(&[("fussy", "retry: {codes: [503], attempts: 2, backoff: 1ms}")]).await;
    let app = App::answering(|_| {
        let answer = Response::builder().status(503).header("x-should-retry", "false");
        answer.body(Bytes::new()).unwrap()
    })
    .await;
    let _fussy = mesh.workload("fussy").app(app.address).start().await;
    assert_eq!(mesh.visitor().await.get("http://fussy/").await.status, 503);
    assert_eq!(app.requests().len(), 1);
}

/// Offered for five seconds at a steady rate, through three hops that all have retries.
#[tokio::test]
async fn a_backend_that_is_down_gets_a_fifth_more_than_is_offered_and_ten_a_second() {
    const OFFERED: usize = 1000;
    let again = "retry: {codes: [503], attempts: 3, backoff: 1ms}";
    let mesh = mesh(&[("front", again), ("middle", again), ("back", again)]).await;
    let app = always(503).await;
    let chain = Chain::start(&mesh, &["front", "middle", "back"], &app).await;
    let began = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(5) / OFFERED as u32);
    for number in 0..OFFERED {
        ticks.tick().await;
        let outbound = chain.visitor.outbound;
        callers.spawn(async move {
            let trace = format!("00-{:032x}-00f067aa0ba902b7-01", number + 1);
            let request = request("GET", "http://front/").header("traceparent", trace);
            let mut client = Http::http1(outbound).await;
            client.send(request.body(nothing()).unwrap()).await.status
        });
    }
    while let Some(status) = callers.join_next().await {
        assert_eq!(status.unwrap(), 503);
    }
    let most = OFFERED as f64 * 1.2 + 10.0 * began.elapsed().as_secs_f64().ceil();
    let got = app.requests().len();
    println!("{got} requests of {OFFERED} offered, at most {most:.0}");
    assert!(got as f64 <= most, "{got} of at most {most}");
    assert!(got > OFFERED, "nothing was tried again");
}

#[tokio::test]
async fn a_rule_that_says_zero_has_no_limit_whatever_a_policy_says() {
    let policy = "timeout: {http: {requestTimeout: 60s}}\nretry: {perRetry: {timeout: 20s}}";
    let mesh = Mesh::with(&(yaml::service("pay", 80, "http") + &yaml::traffic_policy("pay", policy))).await;
    let app = always(200).await;
    let _pay = mesh.workload("pay").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    for (timeouts, expected) in [
        ("{}", Some(10_000..=20_000)),
        ("{request: 0s}", Some(10_000..=20_000)),
        ("{backendRequest: 0s}", Some(50_000..=60_000)),
        ("{request: 30s, backendRequest: 0s}", Some(20_001..=30_000)),
        ("{request: 0s, backendRequest: 0s}", None),
    ] {
        let rule = format!("- backendRefs: [{{name: pay, port: 80}}]\n  timeouts: {timeouts}");
        mesh.apply(&yaml::http_route("pay", &rule)).await;
        assert_eq!(visitor.get("http://pay/").await.status, 200);
        let told = app.requests().last().unwrap().header(EXPECTED).to_owned();
        match expected {
            Some(expected) => assert!(
                expected.contains(&told.parse::<u64>().unwrap()),
                "{timeouts}: {told}"
            ),
            None => assert_eq!(told, "", "{timeouts}"),
        }
    }
}
