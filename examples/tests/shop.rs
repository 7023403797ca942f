//! The shop's services without a mesh: what each does, and that it ends when it should.
#![allow(clippy::expect_used)] // Here a failed expectation is a failed test.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

/// Longest that anything here may take before the test is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// A service of the shop, killed at the latest when the test ends.
struct Shop {
    child: Child,
    address: SocketAddr,
}

impl Shop {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
        for name in [
            "http_proxy",
            "all_proxy",
            "ALL_PROXY",
            "no_proxy",
            "NO_PROXY",
            "LISTEN",
        ] {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("a first line");
        let address = line
            .trim()
            .rsplit(' ')
            .next()
            .and_then(|address| address.parse().ok());
        Self {
            child,
            address: address.expect("the first line ends with the address"),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn send(method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::<Bytes>::from(body.to_owned()))
        .expect("a request");
    let client = Client::builder(TokioExecutor::new()).build_http();
    let (head, body) = client.request(request).await.expect("an answer").into_parts();
    Response::from_parts(head, body.collect().await.expect("a body").to_bytes())
}

#[tokio::test]
async fn a_visitor_buys_from_the_release_that_says_its_name() {
    let payments = Shop::start(&["payments", "--fail-percent", "0"], &[]);
    let checkout = Shop::start(
        &["checkout", "--version", "v2"],
        &[("PAYMENTS_ADDR", &payments.url())],
    );
    let cart = Shop::start(&["cart"], &[]);
    let frontend = Shop::start(
        &["frontend", "--cart", &cart.url(), "--checkout", &checkout.url()],
        &[],
    );

    let home = send("GET", &frontend.url(), &[], "").await;
    assert!(home.status().is_success() && home.body().starts_with(b"<!doctype html>"));
    assert!(
        home.body().windows(5).any(|word| word == b"<li>3"),
        "the cart is empty: {home:?}"
    );
    for method in ["GET", "POST"] {
        let order = send(method, &format!("{}/checkout", frontend.url()), &[], "").await;
        assert_eq!(order.status(), 200, "{order:?}");
        assert_eq!(order.headers()["shop-version"], "v2");
        let order: serde_json::Value = serde_json::from_slice(order.body()).expect("JSON");
        assert_eq!(order["version"], "v2");
        assert!(
            order["payment"]
                .as_str()
                .is_some_and(|payment| payment.starts_with("pay-"))
        );
    }
    let mut visitors = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let url = format!("{}/checkout", frontend.url());
        visitors.spawn(async move { send("POST", &url, &[], "").await.status() });
    }
    let all = tokio::time::timeout(PATIENCE, visitors.join_all())
        .await
        .expect("all answered");
    assert!(all.iter().all(|status| status.is_success()), "{all:?}");
}

#[tokio::test]
async fn payments_fail_about_as_often_as_told_and_checkout_says_so() {
    let payments = Shop::start(&["payments", "--fail-percent", "30"], &[]);
    let checkout = Shop::start(&["checkout"], &[("PAYMENTS_ADDR", &payments.url())]);
    let orders = format!("{}/orders", checkout.url());
    let cart = r#"{"visitor": 1, "items": [], "total": 100}"#;
    let mut failed = 0;
    for _ in 0..400 {
        let answer = send("POST", &orders, &[], cart).await;
        assert!([201, 502].contains(&answer.status().as_u16()), "{answer:?}");
        failed += usize::from(answer.status() == 502);
    }
    // Six standard deviations to either side.
    assert!((65..=175).contains(&failed), "{failed} of 400 failed");
}

#[tokio::test]
async fn a_proxy_is_asked_by_name_and_trace_headers_are_passed_on() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let proxy = format!("http://{}", listener.local_addr().expect("bound"));
    let (seen, mut requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let seen = seen.clone();
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                seen.send((request.uri().clone(), request.headers().clone()))
                    .expect("the test listens");
                let answer =
                    Response::new(Full::<Bytes>::from(r#"{"visitor": 42, "items": [], "total": 0}"#));
                async { Ok::<_, std::convert::Infallible>(answer) }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let frontend = Shop::start(&["frontend"], &[("http_proxy", &proxy)]);
    let checkout = Shop::start(&["checkout"], &[("http_proxy", &proxy)]);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [
        ("traceparent", trace),
        ("tracestate", "a=1"),
        ("baggage", "user=7"),
        ("x-other", "1"),
    ];

    send("GET", &frontend.url(), &headers, "").await;
    let (uri, passed_on) = requests.recv().await.expect("the frontend's call");
    assert_eq!(uri, Uri::from_static("http://cart/cart/42"));
    let expected = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
    for name in ["traceparent", "tracestate", "baggage"] {
        assert_eq!(
            passed_on.get(name).and_then(|value| value.to_str().ok()),
            expected(name)
        );
    }
    assert_eq!(passed_on["host"], "cart");
    assert!(!passed_on.contains_key("x-other"));

    send(
        "POST",
        &format!("{}/orders", checkout.url()),
        &headers,
        r#"{"visitor": 1, "items": [], "total": 1}"#,
    )
    .await;
    let (uri, passed_on) = requests.recv().await.expect("checkout's call");
    assert_eq!(
        uri,
        Uri::from_static("http://payments:50051/shop.v1.Payments/Charge")
    );
    assert_eq!(passed_on["traceparent"], trace);
}

#[tokio::test]
async fn requests_that_make_no_sense_get_an_answer_that_says_so() {
    let cart = Shop::start(&["cart"], &[]);
    let checkout = Shop::start(&["checkout"], &[("PAYMENTS_ADDR", "http://127.0.0.1:1")]);
    let frontend = Shop::start(&["frontend", "--cart", "http://127.0.0.1:1"], &[]);
    let long = "x".repeat(70_000);
    for (method, uri, body, status) in [
        ("GET", format!("{}/cart/x", cart.url()), "", 404),
        ("DELETE", format!("{}/cart/1", cart.url()), "", 405),
        ("POST", format!("{}/orders", checkout.url()), "{", 400),
        ("POST", format!("{}/orders", checkout.url()), &long, 413),
        ("GET", format!("{}/checkout", frontend.url()), "", 502),
    ] {
        let answer = send(method, &uri, &[], body).await;
        assert_eq!(answer.status(), status, "{method} {uri}");
        assert!(answer.body().starts_with(br#"{"error":""#), "{answer:?}");
    }
}

#[tokio::test]
async fn a_signal_ends_a_service_with_success_though_a_connection_is_open() {
    for (service, signal) in [("cart", Signal::TERM), ("payments", Signal::INT)] {
        let mut shop = Shop::start(&[service], &[]);
        let _idle = tokio::net::TcpStream::connect(shop.address)
            .await
            .expect("connects");
        kill_process(Pid::from_child(&shop.child), signal).expect("signalled");
        let ended = tokio::task::spawn_blocking(move || shop.child.wait().expect("ends").code());
        let ended = tokio::time::timeout(PATIENCE, ended)
            .await
            .expect("prompt")
            .expect("no panic");
        assert_eq!(ended, Some(0), "{service}");
    }
}
