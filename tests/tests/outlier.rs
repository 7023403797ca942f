//! An endpoint whose answers are bad is left out, where a policy says so, and comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Response;
use tests::{App, Load, Mesh, yaml};

/// Answers 500 while the switch is on.
async fn ill(name: &str, switch: &Arc<AtomicBool>) -> App {
    let (name, switch) = (name.to_owned(), switch.clone());
    App::answering(move |request| {
        let status = if switch.load(Ordering::Relaxed) { 500 } else { 200 };
        let response = Response::builder().status(status).header("x-app", &name);
        response.body(request.body.clone()).unwrap()
    })
    .await
}

/// Five endpoints of `pay`, the first of which is ill while the switch is on.
async fn five(switch: &Arc<AtomicBool>, policy: &str) -> (Vec<App>, Mesh) {
    let mut apps = vec![ill("ill", switch).await];
    for number in 1..5 {
        apps.push(App::echo(&format!("pay-{number}")).await);
    }
    let addresses: Vec<SocketAddr> = apps.iter().map(|app| app.address).collect();
    let mesh = Mesh::with(&(yaml::outside("pay", 80, "http", &addresses) + policy)).await;
    (apps, mesh)
}

/// Tolerance: of 1,000 requests after the ejection fewer than 5.
#[tokio::test]
async fn after_five_bad_answers_in_a_row_an_endpoint_is_hardly_touched_any_more() {
    let switch = Arc::new(AtomicBool::new(true));
    let policy = yaml::traffic_policy(
        "pay",
        "outlierDetection: {baseEjectionTime: 5m}\nloadBalancer: {type: Random}",
    );
    let (apps, mesh) = five(&switch, &policy).await;
    let visitor = mesh.visitor().await;
    let mut client = visitor.http1().await;
    while apps[0].requests().len() < 5 {
        client.get("http://pay/").await;
    }
    for _ in 0..1_000 {
        assert_eq!(client.get("http://pay/").await.status, 200);
    }
    assert!(apps[0].requests().len() < 5 + 5);
}

#[tokio::test]
async fn it_comes_back_when_its_time_is_over() {
    let switch = Arc::new(AtomicBool::new(true));
    let policy = yaml::traffic_policy(
        "pay",
        "healthCheck: {passive: {consecutive5XxErrors: 2, baseEjectionTime: 300ms}}",
    );
    let (apps, mesh) = five(&switch, &policy).await;
    let visitor = mesh.visitor().await;
    let load = Load::start(visitor.outbound, "http://pay/");
    apps[0].arrived(2).await;
    switch.store(false, Ordering::Relaxed);
    load.until("an answer of the endpoint that was ill", |counts| {
        counts.by_app.contains_key("ill")
    })
    .await;
    load.stop().await;
}

#[tokio::test]
async fn without_a_policy_nobody_is_left_out() {
    let switch = Arc::new(AtomicBool::new(true));
    let (apps, mesh) = five(&switch, "").await;
    let visitor = mesh.visitor().await;
    let mut client = visitor.http1().await;
    // Five in a row would be enough where somebody counted.
    let asked_again = async {
        while apps[0].requests().len() <= 20 {
            client.get("http://pay/").await;
        }
    };
    tests::within("bad answers to be asked for again and again", asked_again).await;
}

#[tokio::test]
async fn a_policy_that_does_not_count_says_why() {
    let service = yaml::service("pay", 80, "http");
    let mesh = Mesh::with(&(service + &yaml::traffic_policy("pay", "outlierDetection: {}"))).await;
    let younger = yaml::traffic_policy("pay", "loadBalancer: {type: Random}").replacen(
        "{name: pay, ",
        "{name: younger, ",
        1,
    );
    mesh.apply(&younger).await;
    let shown = mesh
        .weft(&["get", "BackendTrafficPolicy", "younger", "-o", "yaml"])
        .await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("reason: Conflicted"), "{shown}");
    assert!(
        shown.contains("BackendTrafficPolicy/default/pay counts for Service pay"),
        "{shown}"
    );
}
