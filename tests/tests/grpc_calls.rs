//! gRPC works through two sidecars as if they were not there: every kind of stream, metadata, trailers, statuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::path::Path;

use tests::echo::{self, EchoClient, Words, words};
use tests::{App, Mesh, Sidecar, skip, within, yaml};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

async fn pair() -> (Mesh, Sidecar, Sidecar, App) {
    let mesh = Mesh::with(&yaml::service("echo", 50051, "kubernetes.io/h2c")).await;
    let app = echo::app().await;
    let callee = mesh.workload("echo").app(app.address).start().await;
    let visitor = mesh.workload("visitor").local("echo:50051").start().await;
    (mesh, visitor, callee, app)
}

async fn by_local_port(visitor: &Sidecar) -> EchoClient<Channel> {
    let address = format!("http://{}", visitor.local("echo:50051"));
    EchoClient::connect(address).await.unwrap()
}

/// Through the outbound port: the authority names the service, the connection goes to the sidecar.
async fn by_name(visitor: &Sidecar, service: &str) -> EchoClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", visitor.outbound)).unwrap();
    let endpoint = endpoint.origin(format!("http://{service}").parse().unwrap());
    EchoClient::new(endpoint.connect().await.unwrap())
}

#[tokio::test]
async fn every_kind_of_method() {
    let (_mesh, visitor, _callee, app) = pair().await;
    for mut client in [
        by_local_port(&visitor).await,
        by_name(&visitor, "echo:50051").await,
    ] {
        let mut request = Request::new(words("hello"));
        request.metadata_mut().insert("x-say", "hi".parse().unwrap());
        let answer = within("unary", client.say(request)).await.unwrap();
        assert_eq!(answer.metadata().get("x-said").unwrap(), "hi");
        assert_eq!(answer.into_inner().text, "hello");

        let many = Words {
            text: "again".to_owned(),
            times: 100,
            fail: 0,
        };
        let answers = client.repeat(many).await.unwrap().into_inner();
        let answers: Vec<_> = within("a stream of answers", answers.collect()).await;
        assert_eq!(answers.len(), 100);
        assert!(answers.into_iter().all(|answer| answer.unwrap().text == "again"));

        let said = tokio_stream::iter(["a", "b", "c"].map(words));
        let all = within("a stream of requests", client.collect(said))
            .await
            .unwrap()
            .into_inner();
        assert_eq!((all.text.as_str(), all.times), ("abc", 3));
    }
    for arrived in app.requests() {
        assert!(arrived.uri.path().starts_with(echo::SERVICE));
        assert_eq!(arrived.header("te"), "trailers");
    }
}

#[tokio::test]
async fn both_sides_stream_at_once() {
    let (_mesh, visitor, _callee, _app) = pair().await;
    let mut client = by_local_port(&visitor).await;
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let mut answers = client
        .chat(ReceiverStream::new(requests))
        .await
        .unwrap()
        .into_inner();
    for number in 0..50 {
        let text = format!("line {number}");
        sender.send(words(&text)).await.unwrap();
        // Each answer is awaited before the next request: nothing on the way may hold either back.
        let answer = within("an answer", answers.next()).await.unwrap().unwrap();
        assert_eq!(answer.text, text);
    }
    drop(sender);
    assert!(within("the end", answers.next()).await.is_none());
}

#[tokio::test]
async fn statuses_details_and_trailers_are_kept() {
    let (_mesh, visitor, _callee, _app) = pair().await;
    let mut client = by_local_port(&visitor).await;
    for code in [
        Code::NotFound,
        Code::Unavailable,
        Code::Internal,
        Code::PermissionDenied,
    ] {
        let status = client
            .say(Words {
                fail: code as u32,
                ..words("no")
            })
            .await
            .unwrap_err();
        assert_eq!((status.code(), status.message()), (code, "said: no"));
        assert_eq!(status.metadata().get("x-why").unwrap(), "asked to");
    }
    // After messages the status comes in real trailers.
    let broken = Words {
        times: 3,
        fail: Code::Aborted as u32,
        ..words("three")
    };
    let mut answers = client.repeat(broken).await.unwrap().into_inner();
    for _ in 0..3 {
        assert_eq!(
            within("a message", answers.next()).await.unwrap().unwrap().text,
            "three"
        );
    }
    let status = within("the status", answers.next()).await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Aborted, "said: three"));
    assert_eq!(status.metadata().get("x-why").unwrap(), "asked to");
}

#[tokio::test]
async fn what_the_proxy_answers_itself_is_a_grpc_status() {
    let (mesh, visitor, mut callee, _app) = pair().await;
    mesh.apply(&yaml::service("nobody", 50051, "kubernetes.io/h2c"))
        .await;
    for (service, reason) in [
        ("unknown:50051", "unknown_service"),
        ("nobody:50051", "no_endpoint"),
    ] {
        let status = by_name(&visitor, service)
            .await
            .say(words("x"))
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unavailable, reason),
            "{service}"
        );
    }
    let mut client = by_local_port(&visitor).await;
    client.say(words("x")).await.unwrap();
    callee.kill().await;
    let status = within("an answer", client.say(words("x"))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn a_deadline_of_the_caller_is_kept() {
    let mesh = Mesh::with(&yaml::service("echo", 50051, "kubernetes.io/h2c")).await;
    let app = App::http(|_| std::future::pending()).await;
    let _callee = mesh.workload("echo").app(app.address).start().await;
    let visitor = mesh.workload("visitor").local("echo:50051").start().await;
    // Sent as hyper sends it, so that only the sidecar can enforce `grpc-timeout`.
    let call = tests::client::request("POST", "http://echo/weft.tests.Echo/Say")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "200m")
        .body(tests::client::nothing())
        .unwrap();
    let mut client = tests::Http::h2c(visitor.local("echo:50051")).await;
    let answer = client.send(call).await;
    assert_eq!(answer.header("grpc-status"), "4", "{answer:?}");
}

#[tokio::test]
async fn a_client_of_another_language_streams_through_two_sidecars() {
    let python = tokio::process::Command::new("python3")
        .args(["-c", "import grpc"])
        .output()
        .await;
    if !python.is_ok_and(|output| output.status.success()) {
        skip!("python3 with grpcio");
    }
    let (_mesh, visitor, _callee, app) = pair().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/echo_client.py");
    let mut command = tokio::process::Command::new("python3");
    command
        .arg(script)
        .arg(visitor.local("echo:50051").to_string())
        .kill_on_drop(true);
    command.env_remove("http_proxy").env("no_grpc_proxy", "127.0.0.1");
    let output = within("the Python client", command.output()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "unary repeat collect chat status",
        "{errors}"
    );
    assert!(app.requests()[0].header("user-agent").starts_with("grpc-python"));
}
