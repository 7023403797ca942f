//! A sidecar that is told to stop tells its peers, finishes what it has, and nobody notices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::net::SocketAddr;

use rustix::process::Signal;
use tests::client::{nothing, request};
use tests::{Answer, App, Load, Mesh, Sidecar, text, within, yaml};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Answers `/slow` only when it is let, and everything else at once.
async fn slow() -> (App, watch::Sender<bool>) {
    let (go, wait) = watch::channel(false);
    let app = App::http(move |request| {
        let mut wait = wait.clone();
        async move {
            if request.uri().path() == "/slow" {
                let _ = wait.wait_for(|go| *go).await;
            }
            text(200, "done")
        }
    })
    .await;
    (app, go)
}

async fn pair(app: &App, drain: &str) -> (Mesh, Sidecar, Sidecar) {
    let mesh = Mesh::with(&yaml::service("checkout", 80, "http")).await;
    let checkout = mesh
        .workload("checkout")
        .app(app.address)
        .arg("--drain-timeout", drain)
        .start()
        .await;
    let visitor = mesh
        .workload("visitor")
        .arg("--drain-timeout", drain)
        .start()
        .await;
    (mesh, visitor, checkout)
}

/// A call to `/slow` that has reached the application.
async fn begin(visitor: &Sidecar, app: &App) -> tokio::task::JoinHandle<Result<Answer, tests::BoxError>> {
    let mut client = visitor.http1().await;
    let call = request("GET", "http://checkout/slow").body(nothing()).unwrap();
    let call = tokio::spawn(async move { client.try_send(call).await });
    app.arrived(1).await;
    call
}

#[tokio::test]
async fn the_callees_sidecar_finishes_a_running_request_and_gets_no_new_one() {
    let (app, go) = slow().await;
    let (mesh, visitor, mut checkout) = pair(&app, "20s").await;
    let call = begin(&visitor, &app).await;
    checkout.process.signal(Signal::TERM);
    checkout.process.log_line("left the mesh").await;
    // Its callers know before it ends.
    mesh.operator()
        .until(&checkout.workload, |proxy| {
            proxy.is_none_or(|proxy| !proxy.connected)
        })
        .await;
    mesh.operator().settled().await;
    assert_eq!(
        visitor.get("http://checkout/").await.verdict(),
        (503, "no_endpoint")
    );
    assert!(
        checkout.process.is_running(),
        "it did not wait for its running request"
    );
    go.send_replace(true);
    let answer = within("the slow answer", call).await.unwrap().unwrap();
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "done"));
    assert!(checkout.process.ended().await.success());
}

#[tokio::test]
async fn the_callers_sidecar_finishes_what_its_application_asked() {
    let (app, go) = slow().await;
    let (_mesh, mut visitor, _checkout) = pair(&app, "20s").await;
    let call = begin(&visitor, &app).await;
    visitor.process.signal(Signal::TERM);
    refused(visitor.outbound).await;
    go.send_replace(true);
    let answer = within("the slow answer", call).await.unwrap().unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.header("connection")),
        (200, "close")
    );
    assert!(visitor.process.ended().await.success());
}

#[tokio::test]
async fn what_does_not_end_is_broken_off_after_the_drain_timeout() {
    let (app, _go) = slow().await;
    let (_mesh, visitor, mut checkout) = pair(&app, "300ms").await;
    let call = begin(&visitor, &app).await;
    assert!(checkout.terminate().await.success());
    let answer = within("the broken call", call).await.unwrap().unwrap();
    assert_eq!(answer.status, 502, "{answer:?}");
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let (app, _go) = slow().await;
    let (_mesh, visitor, mut checkout) = pair(&app, "1h").await;
    let _call = begin(&visitor, &app).await;
    checkout.process.signal(Signal::TERM);
    checkout.process.log_line("stopping").await;
    checkout.process.signal(Signal::INT);
    assert!(checkout.process.ended().await.success());
}

#[tokio::test]
async fn sidecars_are_replaced_one_by_one_and_no_call_fails() {
    let mesh = Mesh::with(&yaml::service("checkout", 80, "http")).await;
    let app = App::echo("checkout").await;
    let start = || mesh.workload("checkout").app(app.address).start();
    let (mut old, mut other) = (start().await, start().await);
    let visitor = mesh.visitor().await;
    let load = Load::start(visitor.outbound, "http://checkout/");
    for _ in 0..3 {
        load.more(100).await;
        assert!(old.terminate().await.success());
        load.more(100).await;
        old = std::mem::replace(&mut other, start().await);
    }
    load.stop().await.assert_no_failure();
}

#[tokio::test]
async fn an_endpoint_that_dies_is_not_noticed_where_nothing_was_lost_on_the_way() {
    let route = yaml::http_route(
        "checkout",
        "- backendRefs: [{name: checkout, port: 80}]\n  retry: {attempts: 2, backoff: 1ms}",
    );
    let mesh = Mesh::with(&(yaml::service("checkout", 80, "http") + &route)).await;
    let app = App::echo("checkout").await;
    let _stays = mesh.workload("checkout").app(app.address).start().await;
    let mut dies = mesh.workload("checkout").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let load = Load::start(visitor.outbound, "http://checkout/");
    load.more(100).await;
    dies.kill().await;
    load.more(200).await;
    load.stop().await.assert_no_failure();
}

/// Waits until nobody listens there any more.
async fn refused(address: SocketAddr) {
    tests::eventually(&format!("the end of listening on {address}"), || async {
        TcpStream::connect(address).await.err()
    })
    .await;
}
