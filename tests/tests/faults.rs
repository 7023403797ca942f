//! FaultInjectionPolicy: requests are delayed and aborted on purpose, by share and by match, and nothing else is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::time::{Duration, Instant};

use tests::client::{nothing, request};
use tests::{App, Mesh, yaml};

/// A policy with this spec beside its target.
fn policy(name: &str, target: &str, spec: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: FaultInjectionPolicy\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{targetRefs: [{target}], {spec}}}\n---\n"
    )
}

const PAY: &str = "{kind: Service, name: pay}";

#[tokio::test]
async fn a_share_of_what_matches_is_aborted() {
    let fault = "matches: [{path: {value: /charge}}], abort: {httpStatus: 418, percentage: 30}";
    let mesh = Mesh::with(&(yaml::service("pay", 80, "http") + &policy("chaos", PAY, fault))).await;
    let app = App::echo("pay").await;
    let _pay = mesh.workload("pay").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let mut client = visitor.http1().await;
    let mut aborted = 0;
    for _ in 0..1000 {
        match client.get("http://pay/charge/1").await.verdict() {
            (200, "") => {}
            (418, "fault_injected") => aborted += 1,
            other => panic!("{other:?}"),
        }
    }
    // 30 % of 1,000 within five standard deviations.
    assert!((228..=372).contains(&aborted), "{aborted}");
    assert_eq!(app.requests().len(), 1000 - aborted);
    for _ in 0..50 {
        assert_eq!(client.get("http://pay/refund").await.status, 200);
    }
    let gone = mesh.operator().delete("FaultInjectionPolicy", "chaos").await;
    mesh.operator().in_use(gone).await;
    for _ in 0..50 {
        assert_eq!(client.get("http://pay/charge/1").await.status, 200);
    }
}

#[tokio::test]
async fn a_delay_is_waited_for_within_the_requests_time() {
    let route = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: pay}";
    let rule = "- backendRefs: [{name: pay, port: 80}]\n  timeouts: {request: 400ms}";
    let text = yaml::service("pay", 80, "http")
        + &yaml::http_route("pay", rule)
        + &policy(
            "slow",
            route,
            "matches: [{path: {value: /slow}}], delay: {fixedDelay: 200ms}",
        )
        + &policy("stuck", route, "delay: {fixedDelay: 1h}");
    let mesh = Mesh::with(&text).await;
    let app = App::echo("pay").await;
    let _pay = mesh.workload("pay").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let began = Instant::now();
    assert_eq!(visitor.get("http://pay/slow").await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(200));
    let stuck = visitor.get("http://pay/").await;
    assert_eq!(stuck.verdict(), (504, "request_timeout"));
    assert_eq!(app.requests().len(), 1);
}

#[tokio::test]
async fn a_grpc_call_is_aborted_with_a_grpc_status() {
    let fault = "abort: {grpcStatus: 8}";
    let mesh = Mesh::with(&(yaml::service("pay", 80, "grpc") + &policy("chaos", PAY, fault))).await;
    let app = App::echo("pay").await;
    let _pay = mesh.workload("pay").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let call = request("POST", "http://pay/shop.Pay/Charge").header("content-type", "application/grpc");
    let answer = visitor.h2c().await.send(call.body(nothing()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, "8"));
    let plain = visitor.get("http://pay/").await;
    assert_eq!(plain.verdict(), (429, "fault_injected"));
    assert_eq!(app.requests().len(), 0);
}

#[tokio::test]
async fn what_names_a_rule_is_for_its_requests_alone() {
    let rules = "- {name: cards, matches: [{path: {value: /cards}}], backendRefs: [{name: pay, port: 80}]}\n\
                 - {name: rest, backendRefs: [{name: pay, port: 80}]}";
    let of = |rule: &str| {
        format!("{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: pay, sectionName: {rule}}}")
    };
    let timeout = format!(
        "apiVersion: weft.dev/v1alpha1\nkind: BackendTrafficPolicy\nmetadata: {{name: quick, namespace: default}}\n\
         spec: {{targetRefs: [{}], timeout: {{http: {{requestTimeout: 100ms}}}}}}\n---\n",
        of("rest")
    );
    let text = yaml::service("pay", 80, "http")
        + &yaml::http_route("pay", rules)
        + &policy("chaos", &of("cards"), "abort: {httpStatus: 418}")
        + &policy(
            "stuck",
            &of("rest"),
            "matches: [{path: {value: /slow}}], delay: {fixedDelay: 1h}",
        )
        + &timeout;
    let mesh = Mesh::with(&text).await;
    let app = App::echo("pay").await;
    let _pay = mesh.workload("pay").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let verdict = async |path: &str| {
        let answer = visitor.get(&format!("http://pay{path}")).await;
        let (status, reason) = answer.verdict();
        (status, reason.to_owned())
    };
    assert_eq!(verdict("/cards").await, (418, "fault_injected".to_owned()));
    assert_eq!(verdict("/").await.0, 200);
    assert_eq!(verdict("/slow").await, (504, "request_timeout".to_owned()));
    mesh.apply(&policy("chaos", &of("cards"), "delay: {fixedDelay: 200ms}"))
        .await;
    assert_eq!(
        verdict("/cards").await.0,
        200,
        "its time is not that of the other rule"
    );
}
