//! A failed call of gRPC is tried again by its status, as long as it brought no message.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tests::echo::{EchoClient, words};
use tests::{App, BoxError, Mesh, Sidecar, yaml};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// How a call fails.
#[derive(Clone, Copy, PartialEq)]
enum Failing {
    /// The status is in the answer's head.
    TrailersOnly,
    /// There is a head, and trailers right behind it.
    Trailers,
    /// There is a message between them.
    Message,
}

/// Fails with this status as often as that, and then answers "well".
async fn failing(how: Failing, status: u8, failures: usize) -> App {
    let calls = Arc::new(AtomicUsize::new(0));
    App::http(move |_| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            let fails = call < failures;
            let status = HeaderValue::from(u16::from(if fails { status } else { 0 }));
            let mut answer = Response::builder().header("content-type", "application/grpc");
            let mut frames = Vec::new();
            if !fails || how == Failing::Message {
                // Words { text: "well" }, as a message of gRPC.
                frames.push(Frame::data(Bytes::from_static(b"\0\0\0\0\x06\x0a\x04well")));
            }
            if fails && how == Failing::TrailersOnly {
                answer = answer.header("grpc-status", status);
            } else {
                frames.push(Frame::trailers(HeaderMap::from_iter([(
                    "grpc-status".parse().unwrap(),
                    status,
                )])));
            }
            let frames = futures_util::stream::iter(frames.into_iter().map(Ok::<_, BoxError>));
            answer.body(StreamBody::new(frames).boxed_unsync()).unwrap()
        }
    })
    .await
}

struct Pair {
    app: App,
    client: EchoClient<Channel>,
    _mesh: Mesh,
    _sidecars: [Sidecar; 2],
}

impl Pair {
    async fn start(app: App) -> Self {
        let policy = "retry:\n  numRetries: 3\n  retryOn: {triggers: [unavailable, resource-exhausted]}\n  \
                      perRetry: {backOff: {baseInterval: 1ms}}";
        let yaml = yaml::service("echo", 50051, "kubernetes.io/h2c") + &yaml::traffic_policy("echo", policy);
        let mesh = Mesh::with(&yaml).await;
        let echo = mesh.workload("echo").app(app.address).start().await;
        let visitor = mesh.workload("visitor").local("echo:50051").start().await;
        let address = Endpoint::from_shared(format!("http://{}", visitor.local("echo:50051"))).unwrap();
        Self {
            app,
            client: EchoClient::new(address.connect().await.unwrap()),
            _mesh: mesh,
            _sidecars: [echo, visitor],
        }
    }
}

#[tokio::test]
async fn statuses_that_the_policy_names_are_tried_again_wherever_they_stand() {
    for (how, status) in [
        (Failing::TrailersOnly, 14),
        (Failing::Trailers, 14),
        (Failing::Trailers, 8),
    ] {
        let mut pair = Pair::start(failing(how, status, 2).await).await;
        let said = pair.client.say(words("how?")).await.unwrap();
        assert_eq!(said.into_inner().text, "well");
        assert_eq!(pair.app.requests().len(), 3);
    }
}

#[tokio::test]
async fn other_statuses_and_calls_with_a_message_are_delivered() {
    for (how, status, code) in [
        (Failing::TrailersOnly, 5, Code::NotFound),
        (Failing::Trailers, 13, Code::Internal),
        (Failing::Message, 14, Code::Unavailable),
    ] {
        let mut pair = Pair::start(failing(how, status, 2).await).await;
        assert_eq!(pair.client.say(words("how?")).await.unwrap_err().code(), code);
        assert_eq!(pair.app.requests().len(), 1, "{code:?}");
    }
    let mut pair = Pair::start(failing(Failing::Trailers, 14, 9).await).await;
    let failed = pair.client.say(words("how?")).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable, "as often as the policy says");
    assert_eq!(pair.app.requests().len(), 4);
}

#[tokio::test]
async fn a_stream_that_begins_with_silence_has_begun_all_the_same() {
    let given = Arc::new(tokio::sync::Semaphore::new(0));
    let speaks = given.clone();
    let app = App::http(move |_| {
        let speaks = speaks.clone();
        async move {
            let word = Frame::data(Bytes::from_static(b"\0\0\0\0\x06\x0a\x04well"));
            let end = Frame::trailers(HeaderMap::from_iter([(
                "grpc-status".parse().unwrap(),
                HeaderValue::from(0),
            )]));
            let frames = futures_util::stream::once(async move {
                speaks.acquire().await.unwrap().forget();
                Ok::<_, BoxError>(word)
            });
            let frames =
                futures_util::StreamExt::chain(frames, futures_util::stream::once(async { Ok(end) }));
            let answer = Response::builder().header("content-type", "application/grpc");
            answer.body(StreamBody::new(frames).boxed_unsync()).unwrap()
        }
    })
    .await;
    let mut pair = Pair::start(app).await;
    let repeated = tests::within("the head", pair.client.repeat(words("how?"))).await;
    let mut repeated = repeated.unwrap().into_inner();
    given.add_permits(1);
    assert_eq!(repeated.message().await.unwrap().unwrap().text, "well");
    assert!(repeated.message().await.unwrap().is_none());
}
