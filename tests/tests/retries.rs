//! A failed attempt is tried again where the route says so, elsewhere, within its time and within a budget.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use tests::client::{Http, nothing, request, trickling};
use tests::{App, Mesh, Relay, Sidecar, text, yaml};

/// Fails with `status` until it has been called `failures` times, then echoes.
async fn failing(status: u16, failures: usize) -> App {
    let calls = Arc::new(AtomicUsize::new(0));
    App::answering(move |request| {
        let failed = calls.fetch_add(1, Ordering::Relaxed) < failures;
        let response = Response::builder().status(if failed { status } else { 200 });
        response.body(request.body.clone()).unwrap()
    })
    .await
}

/// The service `flaky` under a route whose only rule ends with these lines.
async fn mesh(rule: &str) -> Mesh {
    let rule = format!("- backendRefs: [{{name: flaky, port: 80}}]\n{rule}").replace('\n', "\n  ");
    Mesh::with(&(yaml::service("flaky", 80, "http") + &yaml::http_route("flaky", &rule))).await
}

async fn flaky(mesh: &Mesh, app: &App) -> Sidecar {
    mesh.workload("flaky").app(app.address).start().await
}

#[tokio::test]
async fn the_codes_of_the_route_are_tried_again_and_no_others() {
    let mesh = mesh("retry: {codes: [503, 500], attempts: 3, backoff: 1ms}").await;
    let visitor = mesh.visitor().await;
    for (status, failures, (expected, attempts)) in [
        (503, 1, (200, 2)),
        (500, 3, (200, 4)),
        (503, 4, (503, 4)),
        (502, 1, (502, 1)),
        (429, 1, (429, 1)),
    ] {
        let app = failing(status, failures).await;
        let mut sidecar = flaky(&mesh, &app).await;
        assert_eq!(
            visitor.get("http://flaky/").await.status,
            expected,
            "{failures} × {status}"
        );
        assert_eq!(app.requests().len(), attempts, "{failures} × {status}");
        sidecar.terminate().await;
        mesh.operator().settled().await;
    }
}

#[tokio::test]
async fn without_a_policy_an_answer_is_an_answer() {
    let mesh = Mesh::with(&yaml::service("flaky", 80, "http")).await;
    let app = failing(503, 1).await;
    let _flaky = flaky(&mesh, &app).await;
    let visitor = mesh.visitor().await;
    assert_eq!(visitor.get("http://flaky/").await.status, 503);
    assert_eq!(app.requests().len(), 1);
}

#[tokio::test]
async fn the_next_attempt_goes_to_another_endpoint() {
    let mesh = mesh("retry: {codes: [503], attempts: 1, backoff: 1ms}").await;
    let (bad, good) = (failing(503, usize::MAX).await, failing(503, 0).await);
    let _bad = flaky(&mesh, &bad).await;
    let _good = flaky(&mesh, &good).await;
    let visitor = mesh.visitor().await;
    let mut client = visitor.http1().await;
    // The budget allows that many retries at once.
    let mut calls = 0;
    while bad.requests().len() < 8 {
        assert_eq!(client.get("http://flaky/").await.status, 200);
        calls += 1;
    }
    assert_eq!(good.requests().len(), calls);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_not_noticed_even_without_a_policy() {
    let mesh = Mesh::with(&yaml::service("flaky", 80, "http")).await;
    let (app, gone) = (App::echo("here").await, App::echo("gone").await);
    let _here = flaky(&mesh, &app).await;
    let relay = Relay::start().await;
    let dead = mesh
        .workload("flaky")
        .app(gone.address)
        .advertise(relay.address)
        .start()
        .await;
    relay.set_target(dead.inbound);
    let visitor = mesh.visitor().await;
    let mut client = visitor.http1().await;
    assert_eq!(client.get("http://flaky/").await.status, 200);
    // From now on its connections are closed before the handshake; the control plane still calls it healthy.
    relay.cut();
    for _ in 0..60 {
        let answer = client.post("http://flaky/", "body").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-app")), (200, "here"));
    }
}

#[tokio::test]
async fn a_sidecar_whose_application_refuses_is_tried_again_elsewhere() {
    let mesh = Mesh::with(&yaml::service("flaky", 80, "http")).await;
    let (app, mut gone) = (App::echo("here").await, App::echo("gone").await);
    let _here = flaky(&mesh, &app).await;
    let _gone = flaky(&mesh, &gone).await;
    let visitor = mesh.visitor().await;
    gone.stop().await;
    let mut client = visitor.http1().await;
    for _ in 0..60 {
        let answer = client.post("http://flaky/", "body").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-app")), (200, "here"));
    }
}

#[tokio::test]
async fn a_body_up_to_64_kib_is_sent_again_and_a_larger_one_is_not() {
    let mesh = mesh("retry: {codes: [503], attempts: 2, backoff: 1ms}").await;
    let visitor = mesh.visitor().await;
    for (size, expected, attempts) in [
        (1, 200, 3),
        (64 * 1024, 200, 3),
        (64 * 1024 + 1, 503, 1),
        (1 << 20, 503, 1),
    ] {
        let app = failing(503, 2).await;
        let mut sidecar = flaky(&mesh, &app).await;
        let body: Bytes = (0..size).map(|at| (at % 251) as u8).collect();
        let answer = visitor.post("http://flaky/", body.clone()).await;
        assert_eq!(answer.status, expected, "{size} bytes");
        let arrived = app.requests();
        assert_eq!(arrived.len(), attempts, "{size} bytes");
        assert!(
            arrived.iter().all(|request| request.body == body),
            "{size} bytes came changed"
        );
        sidecar.terminate().await;
        mesh.operator().settled().await;
    }
}

#[tokio::test]
async fn a_body_in_many_pieces_is_sent_again_like_any_other() {
    let mesh = mesh("retry: {codes: [503], attempts: 2, backoff: 1ms}").await;
    let app = failing(503, 2).await;
    let _flaky = flaky(&mesh, &app).await;
    let body: Bytes = (0..64 * 1024).map(|at| (at % 251) as u8).collect();
    let call = request("POST", "http://flaky/").body(trickling(&body)).unwrap();
    let answer = mesh.visitor().await.http1().await.send(call).await;
    assert_eq!(answer.status, 200);
    let arrived = app.requests();
    assert_eq!(arrived.len(), 3);
    assert!(arrived.iter().all(|request| request.body == body));
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_tried_again_under_a_policy_only() {
    let with_policy = mesh("retry: {codes: [502], attempts: 2, backoff: 1ms}").await;
    let without = Mesh::with(&yaml::service("flaky", 80, "http")).await;
    let exhausted = (503, "retries_exhausted");
    let broken_once = (502, "connection_reset");
    for (mesh, attempts, verdict, expected) in [
        (&with_policy, 3, exhausted, [200, 200]),
        (&without, 1, broken_once, [200, 502]),
    ] {
        let (broken, requests) = breaking().await;
        let (_broken, visitor) = (flaky(mesh, &broken).await, mesh.visitor().await);
        assert_eq!(visitor.get("http://flaky/").await.verdict(), verdict);
        assert_eq!(requests.load(Ordering::Relaxed), attempts);
        let app = App::echo("here").await;
        let _healthy = flaky(mesh, &app).await;
        // A caller that knows neither endpoint yet asks each with one of its first two requests.
        let visitor = mesh.visitor().await;
        let mut statuses = Vec::new();
        for _ in 0..2 {
            statuses.push(visitor.get("http://flaky/").await.status.as_u16());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, expected);
        // Under the policy the broken one may be asked twice, and neither caller notices.
        let asked = requests.load(Ordering::Relaxed) - attempts;
        assert!(asked == 1 || (asked == 2 && attempts > 1), "{asked}");
    }
}

/// Reads a request and hangs up; counts how often.
async fn breaking() -> (App, Arc<AtomicUsize>) {
    use tokio::io::AsyncReadExt;
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let app = App::raw(move |mut stream| {
        let counted = counted.clone();
        async move {
            // The sidecar's looks at whether the application accepts send nothing.
            if let Ok(1..) = stream.read(&mut [0; 4096]).await {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
    (app, requests)
}

#[tokio::test]
async fn timeouts_of_the_whole_request_and_of_one_attempt() {
    let mesh = mesh("timeouts: {request: 2s, backendRequest: 2s}").await;
    let app = App::http(|request| async move {
        if request.uri().path() == "/quick" {
            text(200, "")
        } else {
            std::future::pending().await
        }
    })
    .await;
    let _flaky = flaky(&mesh, &app).await;
    let visitor = mesh.visitor().await;
    assert_eq!(visitor.get("http://flaky/quick").await.status, 200);
    let started = Instant::now();
    let answer = visitor.get("http://flaky/slow").await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(started.elapsed() >= Duration::from_secs(2));

    // Zero is no limit: this takes longer than any of the others.
    mesh.apply(&yaml::http_route(
        "flaky",
        "- backendRefs: [{name: flaky, port: 80}]\n  timeouts: {request: 0s, backendRequest: 0s}",
    ))
    .await;
    let slow = tokio::time::timeout(Duration::from_secs(3), visitor.get("http://flaky/slow"));
    assert!(slow.await.is_err(), "it is waited for");

    // One attempt's time is used up, another attempt is made; the whole has time for both, and then is over.
    mesh.apply(&yaml::http_route(
        "flaky",
        "- backendRefs: [{name: flaky, port: 80}]\n  timeouts: {request: 20s, backendRequest: 500ms}\n  \
         retry: {attempts: 2, backoff: 1ms}",
    ))
    .await;
    let before = app.requests().len();
    let answer = visitor.get("http://flaky/slow").await;
    assert_eq!(answer.verdict(), (504, "attempt_timeout"));
    assert_eq!(app.requests().len() - before, 3);
}

#[tokio::test]
async fn a_request_timeout_also_ends_an_answer_that_does_not_end() {
    let mesh = mesh("timeouts: {request: 2s}").await;
    let app = App::http(|_| async {
        use http_body_util::BodyExt;
        let frames = futures_util::stream::once(async {
            Ok::<_, tests::BoxError>(http_body::Frame::data(Bytes::from_static(b"begun")))
        });
        let endless = futures_util::StreamExt::chain(frames, futures_util::stream::pending());
        Response::new(http_body_util::StreamBody::new(endless).boxed_unsync())
    })
    .await;
    let _flaky = flaky(&mesh, &app).await;
    let visitor = mesh.visitor().await;
    let response = visitor
        .http1()
        .await
        .open(request("GET", "http://flaky/").body(nothing()).unwrap())
        .await;
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    assert!(
        tests::within("the cut", tests::Answer::read(response))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn when_everything_fails_the_budget_bounds_the_retries() {
    let mesh = mesh("retry: {codes: [503], attempts: 5, backoff: 1ms}").await;
    let app = failing(503, usize::MAX).await;
    let _flaky = flaky(&mesh, &app).await;
    let visitor = mesh.visitor().await;
    let started = Instant::now();
    let requests = 600;
    let clients = futures_util::future::join_all((0..6).map(|_| async {
        let mut client = Http::h2c(visitor.outbound).await;
        for _ in 0..requests / 6 {
            assert_eq!(client.get("http://flaky/").await.status, 503);
        }
    }));
    tests::within("the calls", clients).await;
    // 20 % of the requests, and 10 in each second that has begun.
    let seconds = 1 + started.elapsed().as_secs();
    let allowed = requests / 5 + 10 * usize::try_from(seconds).unwrap();
    let retries = app.requests().len() - requests;
    assert!(retries <= allowed, "{retries} retries for {requests} requests");
    assert!(
        retries >= requests / 5,
        "only {retries} retries: without the budget there would be {}",
        requests * 5
    );
}
