//! A request whose answer takes long is sent to another endpoint as well, and a Service is given no more at a time than it
//! answers, where a policy says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::net::SocketAddr;

use tests::app::text;
use tests::{App, Mesh, Sidecar, within, yaml};

/// Never answers.
async fn stuck() -> App {
    App::http(|_| async {
        std::future::pending::<()>().await;
        text(200, "never")
    })
    .await
}

/// `pay` at a stuck application and at one that answers, whose turns follow each other.
async fn pay(policy: &str) -> ([App; 2], Mesh, Sidecar) {
    let apps = [stuck().await, App::echo("quick").await];
    let addresses: Vec<SocketAddr> = apps.iter().map(|app| app.address).collect();
    let policy = format!("loadBalancer: {{type: RoundRobin}}\n{policy}");
    let mesh =
        Mesh::with(&(yaml::outside("pay", 80, "http", &addresses) + &yaml::traffic_policy("pay", &policy)))
            .await;
    let visitor = mesh.visitor().await;
    (apps, mesh, visitor)
}

#[tokio::test]
async fn who_does_not_answer_is_overtaken_by_another() {
    let ([stuck, quick], _mesh, visitor) = pay("hedging: {delay: 20ms}").await;
    for _ in 0..10 {
        let answer = visitor.get("http://pay/").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-app")), (200, "quick"));
    }
    assert!(stuck.requests().len() >= 4 && quick.requests().len() == 10);
}

#[tokio::test]
async fn what_may_happen_only_once_is_sent_once() {
    let ([stuck, quick], _mesh, visitor) =
        pay("hedging: {delay: 20ms}\ntimeout: {http: {requestTimeout: 1s}}").await;
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(visitor.post("http://pay/", "pay me").await.status.as_u16());
    }
    outcomes.sort_unstable();
    assert_eq!(outcomes, [200, 200, 504, 504]);
    assert_eq!(stuck.requests().len() + quick.requests().len(), 4);
}

#[tokio::test]
async fn an_upgrade_is_sent_once() {
    let ([stuck, quick], _mesh, visitor) =
        pay("hedging: {delay: 20ms}\ntimeout: {http: {requestTimeout: 1s}}").await;
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        let mut raw = visitor.raw().await;
        raw.send(
            "GET / HTTP/1.1\r\nHost: pay\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
        let (head, _) = raw.read_response().await;
        outcomes.push(head.split(' ').nth(1).unwrap().to_owned());
    }
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["200", "200", "504", "504"]);
    assert_eq!(stuck.requests().len() + quick.requests().len(), 4);
}

#[tokio::test]
async fn the_budget_bounds_what_is_sent_beside() {
    let constraint = "retryConstraint: {budget: {percent: 0}, minRetryRate: {count: 2, interval: 1h}}";
    let timeout = "timeout: {http: {requestTimeout: 300ms}}";
    let (apps, _mesh, visitor) = pay(&format!("hedging: {{delay: 20ms}}\n{constraint}\n{timeout}")).await;
    let mut failed = 0;
    for _ in 0..10 {
        failed += usize::from(visitor.get("http://pay/").await.verdict() == (504, "request_timeout"));
    }
    // Of those that came to the stuck one two were overtaken.
    assert_eq!(apps[0].requests().len(), failed + 2);
    assert!(failed >= 2);
}

#[tokio::test]
async fn a_service_is_given_no_more_than_it_answers() {
    let app = stuck().await;
    let policy = "adaptiveConcurrency: {type: AIMD, minConcurrency: 2, maxConcurrency: 2}";
    let mesh = Mesh::with(
        &(yaml::outside("pay", 80, "http", &[app.address]) + &yaml::traffic_policy("pay", policy)),
    )
    .await;
    let visitor = mesh.visitor().await;
    let calls = [visitor.outbound; 2].map(|outbound| {
        tokio::spawn(async move {
            tests::client::Http::http1(outbound)
                .await
                .try_send(
                    tests::client::request("GET", "http://pay/")
                        .body(tests::client::nothing())
                        .unwrap(),
                )
                .await
                .is_ok()
        })
    });
    app.arrived(2).await;
    let answer = within("a refusal", visitor.get("http://pay/")).await;
    assert_eq!(answer.verdict(), (503, "concurrency_limit"));
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn what_answers_usually_take_is_known_under_the_next_configuration() {
    let ([stuck, quick], mesh, visitor) = pay("timeout: {http: {requestTimeout: 9s}}").await;
    drop(stuck);
    let alone = yaml::outside("pay", 80, "http", &[quick.address]);
    let with = |percentile: u8| {
        let policy = format!("loadBalancer: {{type: RoundRobin}}\nhedging: {{percentile: {percentile}}}");
        yaml::traffic_policy("pay", &policy)
    };
    mesh.operator().delete("EndpointSlice", "pay-0").await;
    let mut client = visitor.http1().await;
    mesh.apply(&(alone.replace("pay-0", "pay-1") + &with(90))).await;
    for _ in 0..30 {
        assert_eq!(client.get("http://pay/").await.status, 200);
    }
    let stuck = self::stuck().await;
    let both = yaml::outside("pay", 80, "http", &[stuck.address, quick.address]);
    mesh.apply(&(both + &with(95))).await;
    for _ in 0..4 {
        let answer = within("an answer of the other", client.get("http://pay/")).await;
        assert_eq!(answer.header("x-app"), "quick");
    }
    assert!(!stuck.requests().is_empty());
}

#[tokio::test]
async fn a_request_whose_body_comes_slowly_is_overtaken_once_it_is_there() {
    let ([stuck, quick], _mesh, visitor) = pay("hedging: {delay: 1ms}").await;
    for _ in 0..2 {
        let mut raw = visitor.raw().await;
        raw.send("PUT / HTTP/1.1\r\nHost: pay\r\nContent-Length: 4\r\n\r\npa")
            .await;
        tests::eventually("the request's head", async || {
            (stuck.connections() + quick.connections() > 0).then_some(())
        })
        .await;
        // Several delays pass.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        raw.send("y!").await;
        let (head, _) = within("an answer", raw.read_response()).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
    assert!(!stuck.requests().is_empty());
}
