//! An application calls a service by name, over HTTP/1.1 or HTTP/2, through two sidecars, and notices nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tests::client::{nothing, request};
use tests::{App, BoxError, Http, Mesh, Raw, Sidecar, text, within, yaml};

/// Larger than every window and buffer on the way.
const LARGE: usize = 10 * 1024 * 1024;

/// A caller, and an application that echoes beside another sidecar.
async fn pair() -> (Mesh, Sidecar, Sidecar, App) {
    let mesh = Mesh::with(&yaml::service("checkout", 80, "http")).await;
    let app = App::echo("checkout").await;
    let checkout = mesh.workload("checkout").app(app.address).start().await;
    let visitor = mesh.workload("visitor").local("checkout:80").start().await;
    (mesh, visitor, checkout, app)
}

#[tokio::test]
async fn every_name_of_a_service_reaches_it() {
    let (_mesh, visitor, _checkout, app) = pair().await;
    for host in [
        "checkout",
        "checkout:80",
        "checkout.default",
        "checkout.default.svc",
        "checkout.default.svc.cluster.local",
        "CHECKOUT.default:80",
    ] {
        // As a client with `http_proxy` sends it,
        let answer = visitor.get(&format!("http://{host}/cart?x=1")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-app")),
            (200, "checkout"),
            "{host}"
        );
        // and as one that only names the host.
        let by_host = request("GET", "/cart?x=1")
            .header(HOST, host)
            .body(nothing())
            .unwrap();
        let answer = visitor.http1().await.send(by_host).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-app")),
            (200, "checkout"),
            "{host}"
        );
    }
    for arrived in app.requests() {
        assert_eq!(arrived.uri.to_string(), "/cart?x=1");
        assert_eq!(arrived.version, Version::HTTP_11);
        assert!(arrived.header("host").to_lowercase().starts_with("checkout"));
    }
}

#[tokio::test]
async fn a_local_port_stands_for_a_service_whatever_the_host_says() {
    let (_mesh, visitor, _checkout, app) = pair().await;
    let address = visitor.local("checkout:80");
    let call = request("GET", "/cart")
        .header(HOST, address.to_string())
        .body(nothing())
        .unwrap();
    let answer = Http::http1(address).await.send(call).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-app")),
        (200, "checkout")
    );
    let answer = Http::h2c(address).await.get("http://localhost/cart").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-app")),
        (200, "checkout")
    );
    assert_eq!(app.requests().len(), 2);
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_and_multiplexed() {
    let (_mesh, visitor, _checkout, _app) = pair().await;
    let mut client = visitor.h2c().await;
    let answer = client.post("http://checkout/cart", "two apples").await;
    assert_eq!(
        (answer.status.as_u16(), answer.version, answer.text()),
        (200, Version::HTTP_2, "two apples")
    );
    let mut open = Vec::new();
    for number in 0..20 {
        let body = Full::new(Bytes::from(format!("order {number}")));
        open.push(
            client
                .open(request("POST", "http://checkout/").body(body).unwrap())
                .await
                .unwrap(),
        );
    }
    for (number, response) in open.into_iter().enumerate() {
        let answer = tests::Answer::read(response).await.unwrap();
        assert_eq!(answer.text(), format!("order {number}"));
    }
}

#[tokio::test]
async fn headers_and_status_arrive_as_they_were_sent_but_for_those_of_one_hop() {
    let mesh = Mesh::with(&yaml::service("checkout", 80, "http")).await;
    let app = App::answering(|_| {
        let response = Response::builder()
            .status(418)
            .header("x-answer", "a")
            .header("x-answer", "b");
        let response = response.header("keep-alive", "timeout=5").header("server", "pot");
        response.body(Bytes::from_static(b"short and stout")).unwrap()
    })
    .await;
    let _checkout = mesh.workload("checkout").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let call = request("PATCH", "http://checkout/tea")
        .header("x-twice", "1")
        .header("x-twice", "2")
        .header("connection", "x-mine")
        .header("x-mine", "not for you")
        .header("proxy-authorization", "Basic x")
        .header("te", "gzip")
        .header("cookie", "a=1; b=2")
        .body(nothing())
        .unwrap();
    let answer = visitor.http1().await.send(call).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (418, "short and stout"));
    let values: Vec<_> = answer.headers.get_all("x-answer").iter().collect();
    assert_eq!(values, ["a", "b"]);
    assert_eq!(answer.header("server"), "pot");
    assert_eq!(answer.header("keep-alive"), "");
    let arrived = app.requests().remove(0);
    assert_eq!(arrived.method, "PATCH");
    assert_eq!(
        arrived.headers.get_all("x-twice").iter().collect::<Vec<_>>(),
        ["1", "2"]
    );
    assert_eq!(arrived.header("cookie"), "a=1; b=2");
    for gone in ["x-mine", "te", "keep-alive", "proxy-authorization"] {
        assert_eq!(arrived.header(gone), "", "{gone}");
    }
}

#[tokio::test]
async fn large_bodies_pass_both_ways_unchanged() {
    let (_mesh, visitor, _checkout, app) = pair().await;
    let body: Bytes = (0..LARGE).map(|at| (at % 251) as u8).collect();
    for mut client in [visitor.http1().await, visitor.h2c().await] {
        let answer = client.post("http://checkout/upload", body.clone()).await;
        assert_eq!(answer.status, 200);
        assert!(
            answer.body == body,
            "the body came back changed, {} bytes of it",
            answer.body.len()
        );
    }
    assert!(
        app.requests()
            .iter()
            .all(|arrived| arrived.header("content-length") == LARGE.to_string())
    );
}

#[tokio::test]
async fn a_chunked_body_without_a_length_streams_both_ways() {
    let mesh = Mesh::with(&yaml::service("checkout", 80, "http")).await;
    // Answers each part as it comes: neither side waits for the other's end.
    let app = App::http(|request| async move {
        let frames = request.into_body().into_data_stream();
        let frames = frames.map(|part| part.map(Frame::data).map_err(BoxError::from));
        Response::new(StreamBody::new(frames).boxed_unsync())
    })
    .await;
    let _checkout = mesh.workload("checkout").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    for mut client in [visitor.http1().await, visitor.h2c().await] {
        let (sender, parts) = tokio::sync::mpsc::channel::<Bytes>(1);
        let parts = tokio_stream::wrappers::ReceiverStream::new(parts);
        let body = StreamBody::new(parts.map(|part| Ok::<_, BoxError>(Frame::data(part))));
        sender.send(Bytes::from_static(b"first")).await.unwrap();
        let response = client
            .open(request("POST", "http://checkout/talk").body(body).unwrap())
            .await
            .unwrap();
        assert!(!response.headers().contains_key(CONTENT_LENGTH));
        let mut answer = response.into_body();
        for part in ["second", "third"] {
            let frame = within("a part", answer.frame()).await.unwrap().unwrap();
            assert!(!frame.into_data().unwrap().is_empty());
            sender.send(Bytes::from_static(part.as_bytes())).await.unwrap();
        }
        drop(sender);
        within("the rest", answer.collect()).await.unwrap();
    }
    assert!(
        app.requests()
            .iter()
            .all(|arrived| arrived.header(TRANSFER_ENCODING.as_str()) == "chunked")
    );
}

#[tokio::test]
async fn head_has_no_body_and_keeps_the_length() {
    let mesh = Mesh::with(&yaml::service("checkout", 80, "http")).await;
    let app = App::http(|_| async {
        let mut response = text(200, "");
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from_static("1234"));
        response
    })
    .await;
    let _checkout = mesh.workload("checkout").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let mut raw = visitor.raw().await;
    for _ in 0..2 {
        raw.send("HEAD http://checkout/ HTTP/1.1\r\nHost: checkout\r\n\r\n")
            .await;
        let head = String::from_utf8(raw.read_until(b"\r\n\r\n").await)
            .unwrap()
            .to_lowercase();
        assert!(
            head.starts_with("http/1.1 200") && head.contains("content-length: 1234"),
            "{head}"
        );
    }
    let answer = visitor
        .h2c()
        .await
        .send(request("HEAD", "http://checkout/").body(nothing()).unwrap())
        .await;
    assert_eq!((answer.header("content-length"), answer.body.len()), ("1234", 0));
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body() {
    let (_mesh, visitor, _checkout, app) = pair().await;
    let mut raw = visitor.raw().await;
    raw.send("POST http://checkout/ HTTP/1.1\r\nHost: checkout\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await;
    let interim = raw.read_until(b"\r\n\r\n").await;
    assert!(
        interim.starts_with(b"HTTP/1.1 100"),
        "{}",
        String::from_utf8_lossy(&interim)
    );
    raw.send("hello").await;
    let (head, body) = raw.read_response().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, b"hello");
    assert_eq!(app.requests().len(), 1);
    let odd = request("POST", "http://checkout/")
        .header(EXPECT, "200-maybe")
        .body(nothing())
        .unwrap();
    assert_eq!(
        visitor.http1().await.send(odd).await.verdict(),
        (417, "bad_expectation")
    );
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let mesh = Mesh::with(&yaml::service("checkout", 80, "kubernetes.io/h2c")).await;
    let app = App::http(|request| async move {
        let collected = request.into_body().collect().await.unwrap();
        let mut trailers = HeaderMap::new();
        let got = collected
            .trailers()
            .and_then(|trailers| trailers.get("x-sum"))
            .cloned();
        trailers.insert("x-echo", got.unwrap_or(HeaderValue::from_static("none")));
        let frames = [
            Ok(Frame::data(collected.to_bytes())),
            Ok(Frame::trailers(trailers)),
        ];
        Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed_unsync())
    })
    .await;
    let _checkout = mesh.workload("checkout").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let frames = [
        Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"body"))),
        Ok(Frame::trailers(trailers)),
    ];
    let call = request("POST", "http://checkout/")
        .body(StreamBody::new(tokio_stream::iter(frames)))
        .unwrap();
    let answer = visitor.h2c().await.send(call).await;
    assert_eq!(
        (
            answer.text(),
            answer.trailers.get("x-echo").unwrap().to_str().unwrap()
        ),
        ("body", "42")
    );
    assert_eq!(app.requests()[0].version, Version::HTTP_2);
}

#[tokio::test]
async fn a_connection_is_used_again_for_the_next_request() {
    let (_mesh, visitor, _checkout, app) = pair().await;
    let mut raw = visitor.raw().await;
    for number in 0..5 {
        let body = format!("order {number}");
        let length = body.len();
        raw.send(format!(
            "POST /{number} HTTP/1.1\r\nHost: checkout\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
        let (head, answer) = raw.read_response().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(answer, body.as_bytes());
    }
    // Besides the sidecar's own looks, which send no request, one connection carries all five.
    let uris: Vec<_> = app
        .requests()
        .iter()
        .map(|arrived| arrived.uri.to_string())
        .collect();
    assert_eq!(uris, ["/0", "/1", "/2", "/3", "/4"]);
    // Pipelined requests are answered in their order.
    raw.send("GET /a HTTP/1.1\r\nHost: checkout\r\n\r\nGET /b HTTP/1.1\r\nHost: checkout\r\n\r\n")
        .await;
    for _ in 0..2 {
        assert!(raw.read_response().await.0.starts_with("HTTP/1.1 200"));
    }
    // Who says close is closed on, after the answer.
    raw.send("GET /end HTTP/1.1\r\nHost: checkout\r\nConnection: close\r\n\r\n")
        .await;
    let rest = raw.read_to_end().await;
    assert!(
        rest.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&rest)
    );
}

#[tokio::test]
async fn an_http_1_0_client_is_served_and_closed_on() {
    let (_mesh, visitor, _checkout, _app) = pair().await;
    let mut raw = visitor.raw().await;
    raw.send("GET /old HTTP/1.0\r\nHost: checkout\r\n\r\n").await;
    let answer = String::from_utf8(raw.read_to_end().await).unwrap();
    assert!(
        answer.starts_with("HTTP/1.") && answer.contains(" 200 "),
        "{answer}"
    );
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
}

#[tokio::test]
async fn what_cannot_be_reached_is_answered_with_a_reason() {
    let mesh =
        Mesh::with(&(yaml::service("checkout", 80, "http") + &yaml::service("nobody", 80, "http"))).await;
    let mut app = App::echo("checkout").await;
    let _checkout = mesh.workload("checkout").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    for (url, verdict) in [
        ("http://unknown/", (404, "unknown_service")),
        ("http://checkout.other/", (404, "unknown_service")),
        ("http://www.nobody.invalid/", (404, "unknown_service")),
        ("http://checkout:81/", (404, "unknown_port")),
        ("http://nobody/", (503, "no_endpoint")),
    ] {
        assert_eq!(visitor.get(url).await.verdict(), verdict, "{url}");
        let answer = visitor.h2c().await.get(url).await;
        assert_eq!(answer.verdict(), verdict, "{url} over h2c");
        assert!(
            answer.header("proxy-status").starts_with("weft; error="),
            "{answer:?}"
        );
    }
    assert_eq!(visitor.get("http://checkout/").await.status, 200);
    // The sidecar may not have noticed yet that its application is gone, or may have.
    app.stop().await;
    let answer = visitor.get("http://checkout/").await;
    assert!(
        [(503, "connect_failed"), (503, "no_endpoint")].contains(&answer.verdict()),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_client_that_goes_away_frees_the_application() {
    let mesh = Mesh::with(&yaml::service("checkout", 80, "http")).await;
    let (noted, mut gone) = tokio::sync::mpsc::channel::<()>(1);
    // Its future is dropped when the connection to it breaks off.
    let app = App::http(move |_| {
        let noted = noted.clone();
        async move {
            let _noted = noted;
            std::future::pending().await
        }
    })
    .await;
    let checkout = mesh.workload("checkout").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let mut raw = Raw::connect(visitor.outbound).await;
    raw.send("GET / HTTP/1.1\r\nHost: checkout\r\n\r\n").await;
    app.arrived(1).await;
    drop(raw);
    drop(app);
    within("the end of the application's work", gone.recv()).await;
    drop(checkout);
}
