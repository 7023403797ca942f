//! Clients that go away, or stay and do not read: what was begun for them ends, at the application too.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use tests::edge::{at, free_port};
use tests::hostile::{Act, Scripted};
use tests::hostile_pair::{HTTP1, Pair};
use tests::wait::{eventually, within};
use tests::{Mesh, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

const SILENT: &str = "/silent";

/// An application that answers nothing to one path, and on another when it is told.
async fn silent(go: &Arc<Notify>) -> Scripted {
    let go = go.clone();
    Scripted::start(move |path| match path {
        SILENT => Some(Vec::new()),
        "/late" => {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate".to_vec();
            Some(vec![Act::Wait(go.clone()), Act::Write(answer)])
        }
        _ => None,
    })
    .await
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: server\r\n\r\n").into_bytes()
}

/// The application's connection on which a path is asked for.
async fn asked(app: &Scripted, path: &str) -> usize {
    asked_again(app, path, 0).await
}

/// The same, after so many others.
async fn asked_again(app: &Scripted, path: &str, number: usize) -> usize {
    eventually("the request reaches the application", || async {
        app.connections(path).get(number).copied()
    })
    .await
}

#[tokio::test]
async fn a_client_whose_connection_is_reset_takes_its_request_along() {
    let app = silent(&Arc::default()).await;
    let pair = Pair::start(app.address, &[]).await;
    for (number, sent) in [get(SILENT), [get(SILENT), get("/next")].concat()]
        .iter()
        .enumerate()
    {
        let mut client = TcpStream::connect(pair.outbound).await.expect("a connection");
        client.write_all(sent).await.expect("sent");
        let connection = asked_again(&app, SILENT, number).await;
        client.set_zero_linger().expect("a socket");
        drop(client);
        app.ended(connection).await;
    }
    pair.assert_unharmed();
}

#[tokio::test]
async fn another_sidecar_that_hangs_up_takes_its_request_along() {
    let app = silent(&Arc::default()).await;
    let pair = Pair::start(app.address, &[]).await;
    let mut sidecar = pair.tls(HTTP1).await;
    sidecar.write_all(&get(SILENT)).await.expect("sent");
    sidecar.flush().await.expect("sent");
    let connection = asked(&app, SILENT).await;
    drop(sidecar);
    app.ended(connection).await;
    pair.assert_unharmed();
}

#[tokio::test]
async fn a_client_that_sends_nothing_more_gets_its_answer() {
    let go = Arc::new(Notify::new());
    let app = silent(&go).await;
    let pair = Pair::start(app.address, &[]).await;
    let mut client = TcpStream::connect(pair.outbound).await.expect("a connection");
    client.write_all(&get("/late")).await.expect("sent");
    client.shutdown().await.expect("half closed");
    asked(&app, "/late").await;
    go.notify_one();
    let mut answer = String::new();
    within("the answer", client.read_to_string(&mut answer))
        .await
        .expect("whole");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("late"),
        "{answer}"
    );
    pair.assert_unharmed();
}

/// Nobody outside the mesh is waited for who sends nothing more, whatever else it has sent before.
#[tokio::test]
async fn a_client_of_a_gateway_that_hangs_up_takes_its_request_along() {
    let (app, port) = (silent(&Arc::default()).await, free_port().await);
    let yaml = yaml::outside("server", 80, "http", &[app.address])
        + &yaml::gateway("edge", &[format!("{{name: web, port: {port}, protocol: HTTP}}")])
        + &yaml::object(
            "HTTPRoute",
            "edge",
            "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: server, port: 80}]}]}",
        );
    let mesh = Mesh::with(&yaml).await;
    let gateway = mesh.gateway("edge").flag("--access-log").start().await;
    let posted = format!("POST {SILENT} HTTP/1.1\r\nHost: server\r\nContent-Length: 4\r\n\r\nbody");
    for (number, sent) in [
        get(SILENT),
        [get(SILENT), get("/next"), get("/next")].concat(),
        posted.into_bytes(),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = TcpStream::connect(at(port)).await.expect("a connection");
        client.write_all(&sent).await.expect("sent");
        let connection = asked_again(&app, SILENT, number).await;
        client.shutdown().await.expect("closed");
        app.ended(connection).await;
        eventually("the record says so", || async {
            let lines = gateway.process.stdout();
            let ended = lines.iter().filter(|line| line.contains("request_aborted"));
            (ended.count() == number + 1).then_some(())
        })
        .await;
    }
    assert!(app.connections("/next").is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_has_its_time_all_the_same() {
    let app = Scripted::start(|path| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let chunk = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
        (path == "/flood").then(|| vec![Act::Write(head), Act::Flood(chunk)])
    })
    .await;
    let pair = Pair::start(app.address, &[]).await;
    let rules = "- matches: [{path: {type: PathPrefix, value: /flood}}]\n  timeouts: {request: 500ms}\n\
         \x20 backendRefs: [{name: server, port: 80}]\n";
    pair.mesh.apply(&yaml::http_route("server", rules)).await;
    let mut client = TcpStream::connect(pair.outbound).await.expect("a connection");
    client.write_all(&get("/flood")).await.expect("sent");
    let connection = asked(&app, "/flood").await;
    app.ended(connection).await;
    drop(client);
    pair.assert_unharmed();
}
