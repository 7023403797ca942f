//! Whoever calls has no say in what proxies believe of each other, and cannot speak ill of endpoints by being in a hurry.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tests::app::text;
use tests::client::{Http, nothing, request};
use tests::edge::{at, free_port};
use tests::{App, Mesh, Sidecar, yaml};

const EXPECTED: &str = "x-envoy-expected-rq-timeout-ms";
const URL: &str = "http://pay/";
const HANG: &str = "/bank.Account/Hang";
const TO_PAY: &str = "backendRefs: [{name: pay, port: 80}]";
/// More than enough failures for any endpoint of two to be left out.
const MANY: usize = 14;

/// Answers with its name, but never to [`HANG`].
async fn hanging(name: &str) -> App {
    let name = name.to_owned();
    App::http(move |request| {
        let name = name.clone();
        async move {
            if request.uri().path() == HANG {
                std::future::pending::<()>().await;
            }
            text(200, &name)
        }
    })
    .await
}

/// `pay` at two endpoints whose turns follow each other, called at a sidecar and at a gateway.
struct Pay {
    gateway: SocketAddr,
    visitor: Sidecar,
    _apps: [App; 2],
    _gateway: Sidecar,
    _mesh: Mesh,
}

impl Pay {
    /// `time` is of every call to [`HANG`].
    async fn start(time: &str) -> Self {
        let (apps, port) = ([hanging("one").await, hanging("two").await], free_port().await);
        let addresses: Vec<SocketAddr> = apps.iter().map(|app| app.address).collect();
        let policy = "outlierDetection: {baseEjectionTime: 5m}\nloadBalancer: {type: RoundRobin}";
        let rules = format!(
            "{{matches: [{{path: {{value: {HANG}}}}}], timeouts: {{{time}}}, {TO_PAY}}}, {{{TO_PAY}}}"
        );
        let parent = "{group: '', kind: Service, name: pay}";
        let yaml = yaml::outside("pay", 80, "kubernetes.io/h2c", &addresses)
            + &yaml::traffic_policy("pay", policy)
            + &edge(port, &rules)
            + &route("pay", parent, &rules);
        let mesh = Mesh::with(&yaml).await;
        Self {
            gateway: at(port),
            visitor: mesh.visitor().await,
            _gateway: mesh.gateway("edge").start().await,
            _apps: apps,
            _mesh: mesh,
        }
    }
}

fn edge(port: u16, rules: &str) -> String {
    yaml::gateway("edge", &[format!("{{name: web, port: {port}, protocol: HTTP}}")])
        + &route("edge", "{name: edge}", rules)
}

fn route(name: &str, parent: &str, rules: &str) -> String {
    yaml::object(
        "HTTPRoute",
        name,
        &format!("{{parentRefs: [{parent}], rules: [{rules}]}}"),
    )
}

/// Calls that are not answered in the time that they have.
async fn hang(client: &mut Http, fields: &[(&str, &str)]) {
    for _ in 0..MANY {
        let mut call = request("POST", &format!("http://pay{HANG}"));
        for (name, value) in fields {
            call = call.header(*name, *value);
        }
        let answer = client.send(call.body(nothing()).unwrap()).await;
        assert_eq!(answer.verdict().1, "request_timeout");
    }
}

/// How many of twenty requests each endpoint answers.
async fn turns(client: &mut Http) -> BTreeMap<String, u32> {
    let mut turns = BTreeMap::new();
    for _ in 0..20 {
        let answer = client.get(URL).await;
        *turns.entry(answer.text().to_owned()).or_default() += 1;
    }
    turns
}

fn even() -> BTreeMap<String, u32> {
    [("one".to_owned(), 10), ("two".to_owned(), 10)].into()
}

#[tokio::test]
async fn callers_in_a_hurry_put_no_endpoint_out() {
    let pay = Pay::start("").await;
    let grpc = [("content-type", "application/grpc"), ("grpc-timeout", "20m")];
    for (address, fields) in [
        (pay.gateway, &grpc[..]),
        (pay.visitor.outbound, &grpc),
        (pay.visitor.outbound, &[(EXPECTED, "20")]),
    ] {
        let mut client = Http::h2c(address).await;
        hang(&mut client, fields).await;
        assert_eq!(turns(&mut client).await, even(), "{fields:?}");
    }
}

#[tokio::test]
async fn who_hangs_is_left_out_where_callers_give_time_enough() {
    let pay = Pay::start("").await;
    let calls = (0..MANY).map(async |_| {
        let mut client = Http::h2c(pay.visitor.outbound).await;
        let call = request("POST", &format!("http://pay{HANG}")).header(EXPECTED, "1200");
        client
            .send(call.body(nothing()).unwrap())
            .await
            .verdict()
            .1
            .to_owned()
    });
    let verdicts = futures_util::future::join_all(calls).await;
    assert_eq!(verdicts, ["request_timeout"; MANY]);
    let mut client = Http::h2c(pay.visitor.outbound).await;
    assert_eq!(turns(&mut client).await.len(), 1);
}

#[tokio::test]
async fn who_does_not_keep_to_the_time_of_the_route_is_left_out() {
    let pay = Pay::start("request: 20ms").await;
    for address in [pay.gateway, pay.visitor.outbound] {
        let mut client = Http::h2c(address).await;
        hang(&mut client, &[]).await;
        assert_eq!(turns(&mut client).await.len(), 1);
    }
}

#[tokio::test]
async fn what_proxies_say_to_each_other_is_not_taken_from_a_client() {
    let ((app, permits), port) = (App::holding().await, free_port().await);
    let mesh = Mesh::with(&(yaml::service("pay", 80, "http") + &edge(port, &format!("{{{TO_PAY}}}")))).await;
    let _pay = mesh.workload("pay").app(app.address).start().await;
    let _gateway = mesh.gateway("edge").start().await;
    for (number, mut client) in [Http::http1(at(port)).await, Http::h2c(at(port)).await]
        .into_iter()
        .enumerate()
    {
        let said = [
            (EXPECTED, "20"),
            ("x-envoy-attempt-count", "255"),
            ("x-envoy-upstream-rq-timeout-ms", "20"),
            ("x-envoy-max-retries", "100"),
            ("x-forwarded-client-cert", "By=spiffe://a/b;URI=spiffe://a/root"),
            ("x-should-retry", "false"),
            ("x-own", "kept"),
        ];
        let call = said.iter().fold(request("GET", URL), |call, (name, value)| {
            call.header(*name, *value)
        });
        let call = tokio::spawn(async move { client.send(call.body(nothing()).unwrap()).await });
        let arrived = app.arrived(number + 1).await.remove(number);
        // Had its word counted, its time were over long before this.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        permits.add_permits(1);
        assert_eq!(call.await.unwrap().status, 200);
        for (name, _) in &said[..6] {
            assert_eq!(arrived.header(name), "", "{name}");
        }
        assert_eq!(arrived.header("x-own"), "kept");
    }
}
