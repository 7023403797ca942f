//! Policies in shadow do nothing to requests, and `weft diff --live` says to which they would.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::time::Duration;

use tests::app::text;
use tests::client::{Answer, Http};
use tests::edge::{at, free_port};
use tests::shadow::{compared, differences, live};
use tests::{App, Mesh, Sidecar, eventually, yaml};

/// A policy of ours, in shadow where it has annotations, with this spec beside its target.
fn policy(kind: &str, name: &str, annotations: &str, target: &str, spec: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: default, annotations: {{{annotations}}}}}\n\
         spec: {{targetRefs: [{target}], {spec}}}\n---\n"
    )
}

const FAULT: &str = "FaultInjectionPolicy";
const TRAFFIC: &str = "BackendTrafficPolicy";
const PAY: &str = "{kind: Service, name: pay}";
const SHADOW: &str = "weft.dev/shadow: \"true\"";

fn replaces(name: &str) -> String {
    format!("{SHADOW}, weft.dev/shadow-replaces: {name}")
}

fn of(caller: &str, from: &str, to: &str, requests: u64) -> (String, String, String, u64) {
    (caller.to_owned(), from.to_owned(), to.to_owned(), requests)
}

fn calling(visitor: &Sidecar, url: &str) -> tokio::task::JoinHandle<Answer> {
    let (outbound, url) = (visitor.outbound, url.to_owned());
    tokio::spawn(async move { Http::http1(outbound).await.get(&url).await })
}

#[tokio::test]
async fn faults_in_shadow_are_done_to_nobody_and_told_by_caller() {
    let abort = "matches: [{path: {value: /charge}}], abort: {httpStatus: 418}";
    let delay = "matches: [{path: {value: /refund}}], delay: {fixedDelay: 1h}";
    let mesh = Mesh::with(
        &(yaml::service("pay", 80, "http")
            + &policy(FAULT, "chaos", SHADOW, PAY, abort)
            + &policy(FAULT, "slow", SHADOW, PAY, delay)),
    )
    .await;
    let app = App::echo("pay").await;
    let _pay = mesh.workload("pay").app(app.address).start().await;
    let (web, batch) = (
        mesh.workload("web").start().await,
        mesh.workload("batch").start().await,
    );
    for (caller, path, calls) in [
        (&web, "charge?card=1", 3),
        (&web, "", 1),
        (&batch, "charge", 1),
        (&batch, "refund", 2),
    ] {
        for _ in 0..calls {
            let answer = caller.get(&format!("http://pay/{path}")).await;
            assert_eq!(answer.status, 200);
        }
    }
    assert_eq!(app.requests().len(), 7);
    let aborted = "418 fault_injected (FaultInjectionPolicy/default/chaos)";
    let expected = [
        of("batch", "service", aborted, 1),
        of(
            "batch",
            "service",
            "delayed 3600s (FaultInjectionPolicy/default/slow)",
            2,
        ),
        of("web", "service", aborted, 3),
    ];
    assert_eq!(differences(&mesh, 6).await, expected);
    let (code, told) = compared(&mesh, 7).await;
    assert_eq!(code, 1);
    assert_eq!(told["routes"], serde_json::json!([]));
    let policies = [
        "FaultInjectionPolicy/default/chaos",
        "FaultInjectionPolicy/default/slow",
    ];
    assert_eq!(told["policies"], serde_json::json!(policies));
    let example = &told["callers"][1]["destinations"][0]["differences"][0]["example"];
    assert_eq!(example["path"], "/charge", "without its query");

    // A route that is in shadow beside them counts the same requests once.
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                 metadata: {name: next, annotations: {weft.dev/shadow: \"true\"}}\nspec:\n  \
                 parentRefs: [{group: \"\", kind: Service, name: pay}]\n  \
                 rules: [{matches: [{path: {value: /charge}}], backendRefs: [{name: pay, port: 80}]}]\n---\n";
    mesh.apply(route).await;
    for path in ["charge", "other"] {
        assert_eq!(web.get(&format!("http://pay/{path}")).await.status, 200);
    }
    let expected = [
        of("web", "service", "404 no_route", 1),
        of("web", "service", aborted, 1),
    ];
    assert_eq!(differences(&mesh, 2).await, expected);
    compared(&mesh, 2).await;
}

#[tokio::test]
async fn a_fault_that_would_be_gone_or_another_is_a_difference_and_the_same_again_is_none() {
    let half = "abort: {httpStatus: 503, percentage: 50}";
    let in_force = policy(FAULT, "chaos", "", PAY, half);
    let mesh = Mesh::with(&(yaml::service("pay", 80, "http") + &in_force)).await;
    let app = App::echo("pay").await;
    let _pay = mesh.workload("pay").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let mut client = visitor.http1().await;
    mesh.apply(&policy(FAULT, "next", &replaces("chaos"), PAY, half))
        .await;
    for _ in 0..50 {
        client.get("http://pay/").await;
    }
    let (code, told) = compared(&mesh, 50).await;
    assert_eq!(code, 0, "the same dice: {told:#}");

    let none = "matches: [{path: {value: /nothing}}], abort: {httpStatus: 503}";
    mesh.apply(&policy(FAULT, "next", &replaces("chaos"), PAY, none))
        .await;
    let mut aborted = 0;
    for _ in 0..50 {
        aborted += u64::from(client.get("http://pay/").await.status == 503);
    }
    let now = "503 fault_injected (FaultInjectionPolicy/default/chaos)";
    let expected = of("visitor", now, "service", aborted);
    assert_eq!(differences(&mesh, aborted).await, [expected]);
}

#[tokio::test]
async fn a_circuit_breaker_in_shadow_lets_everybody_in_and_counts_whom_it_would_not() {
    let mesh = Mesh::with(
        &(yaml::service("pay", 80, "http")
            + &policy(
                TRAFFIC,
                "next",
                SHADOW,
                PAY,
                "circuitBreaker: {maxParallelRequests: 2}",
            )),
    )
    .await;
    let (app, permits) = App::holding().await;
    let _pay = mesh.workload("pay").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let mut held = Vec::new();
    for call in 1..=4 {
        held.push(calling(&visitor, "http://pay/"));
        app.arrived(call).await;
    }
    permits.add_permits(100);
    for call in held {
        assert_eq!(call.await.unwrap().status, 200);
    }
    let refused = "503 overflow (BackendTrafficPolicy/default/next)";
    assert_eq!(
        differences(&mesh, 2).await,
        [of("visitor", "service", refused, 2)]
    );
    // One at a time is not too many: those before have left.
    for _ in 0..5 {
        assert_eq!(visitor.get("http://pay/").await.status, 200);
    }
    compared(&mesh, 9).await;
    assert_eq!(differences(&mesh, 2).await.len(), 1);

    // What is in force refuses, and what is in shadow would not.
    let tight = policy(
        TRAFFIC,
        "now",
        "",
        PAY,
        "circuitBreaker: {maxParallelRequests: 1}",
    );
    let wide = policy(
        TRAFFIC,
        "next",
        &replaces("now"),
        PAY,
        "circuitBreaker: {maxParallelRequests: 9}",
    );
    mesh.apply(&(tight + &wide)).await;
    permits.forget_permits(100);
    let before = app.requests().len();
    let first = calling(&visitor, "http://pay/");
    app.arrived(before + 1).await;
    for _ in 0..3 {
        assert_eq!(visitor.get("http://pay/").await.verdict(), (503, "overflow"));
    }
    permits.add_permits(1);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(
        differences(&mesh, 3).await,
        [of("visitor", "503 overflow", "service", 3)]
    );

    // The same limit is no difference, whatever else is in shadow.
    let same = policy(
        TRAFFIC,
        "next",
        &replaces("now"),
        PAY,
        "circuitBreaker: {maxParallelRequests: 1}",
    );
    let never = "matches: [{path: {value: /never}}], abort: {httpStatus: 503}";
    mesh.apply(&(same + &policy(FAULT, "never", SHADOW, PAY, never)))
        .await;
    let before = app.requests().len();
    let first = calling(&visitor, "http://pay/");
    app.arrived(before + 1).await;
    assert_eq!(visitor.get("http://pay/").await.verdict(), (503, "overflow"));
    permits.add_permits(1);
    assert_eq!(first.await.unwrap().status, 200);
    let (code, told) = compared(&mesh, 2).await;
    assert_eq!(code, 0, "{told:#}");
}

#[tokio::test]
async fn a_timeout_in_shadow_counts_the_requests_that_took_longer() {
    let rules = "- matches: [{path: {value: /own}}]\n  timeouts: {request: 0s}\n  \
                 backendRefs: [{name: pay, port: 80}]\n- backendRefs: [{name: pay, port: 80}]";
    let route = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}";
    let timeout = "timeout: {http: {requestTimeout: 20ms}}";
    let mesh = Mesh::with(
        &(yaml::service("shop", 80, "http")
            + &yaml::service("pay", 80, "http")
            + &yaml::http_route("shop", rules)
            + &policy(TRAFFIC, "hasty", SHADOW, route, timeout)),
    )
    .await;
    let app = App::http(|_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        text(200, "done")
    })
    .await;
    let _pay = mesh.workload("pay").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    for path in ["", "", "own"] {
        assert_eq!(visitor.get(&format!("http://shop/{path}")).await.status, 200);
    }
    let late = "504 request_timeout (BackendTrafficPolicy/default/hasty)";
    // A rule that says that there is no limit has none.
    let expected = [of("visitor", "HTTPRoute/default/shop#1", late, 2)];
    assert_eq!(differences(&mesh, 2).await, expected);
    let (_, told) = compared(&mesh, 2).await;
    assert_eq!(
        told["callers"][0]["destinations"][0]["destination"],
        "default/shop:80"
    );

    let patient = "timeout: {http: {requestTimeout: 1h}}";
    mesh.apply(&policy(TRAFFIC, "hasty", SHADOW, route, patient))
        .await;
    assert_eq!(visitor.get("http://shop/").await.status, 200);
    let (code, _) = compared(&mesh, 1).await;
    assert_eq!(code, 0);
}

#[tokio::test]
async fn counts_outlive_endpoints_and_end_with_the_policy() {
    let abort = "abort: {httpStatus: 418}";
    let chaos = policy(FAULT, "chaos", SHADOW, PAY, abort);
    let mesh = Mesh::with(&(yaml::service("pay", 80, "http") + &chaos)).await;
    let app = App::echo("pay").await;
    let _one = mesh.workload("pay").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    assert_eq!(visitor.get("http://pay/").await.status, 200);
    differences(&mesh, 1).await;
    let other = App::echo("other").await;
    let _two = mesh.workload("pay").app(other.address).start().await;
    eventually("both serve", async || {
        visitor.get("http://pay/").await;
        (!other.requests().is_empty()).then_some(())
    })
    .await;
    let calls = (app.requests().len() + other.requests().len()) as u64;
    differences(&mesh, calls).await;

    // In force it is a fault, and in shadow no more.
    mesh.apply(&policy(FAULT, "chaos", "", PAY, abort)).await;
    assert_eq!(
        visitor.get("http://pay/").await.verdict(),
        (418, "fault_injected")
    );
    let (code, told) = compared(&mesh, 0).await;
    assert_eq!((code, &told["policies"]), (0, &serde_json::json!([])));
    let output = mesh.weft(&["diff", "--live"]).await;
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "nothing is in shadow\n"
    );
}

#[tokio::test]
async fn a_gateway_holds_what_clients_outside_ask_for_against_policies() {
    let (inside, port) = (App::echo("inside").await, free_port().await);
    let listener = format!("{{name: web, port: {port}, protocol: HTTP}}");
    let text = yaml::outside("pay", 80, "http", &[inside.address])
        + &yaml::gateway("edge", &[listener])
        + &yaml::object(
            "HTTPRoute",
            "shop",
            "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: pay, port: 80}]}]}",
        )
        + &policy(FAULT, "chaos", SHADOW, PAY, "abort: {grpcStatus: 14}");
    let mesh = Mesh::with(&text).await;
    let _gateway = mesh.gateway("edge").start().await;
    for _ in 0..2 {
        let answer = Http::http1(at(port)).await.get("http://shop.org/x").await;
        assert_eq!(answer.header("x-app"), "inside");
    }
    let aborted = "grpc-status 14 fault_injected (FaultInjectionPolicy/default/chaos)";
    assert_eq!(
        differences(&mesh, 2).await,
        [of("edge", "HTTPRoute/default/shop#0", aborted, 2)]
    );
    let (_, told) = live(&mesh).await;
    let place = &told["callers"][0]["destinations"][0];
    assert_eq!(
        (&place["listener"], &place["requests"]),
        (&"web".into(), &2.into())
    );
}

#[tokio::test]
async fn what_of_a_policy_requests_are_not_held_against_is_said_when_it_is_applied() {
    let mesh = Mesh::with(&yaml::service("pay", 80, "http")).await;
    let spec = "loadBalancer: {type: Random}, circuitBreaker: {maxConnections: 9, maxParallelRequests: 3}, \
                timeout: {http: {requestTimeout: 1s}}";
    let file = mesh.path().join("next.yaml");
    std::fs::write(&file, policy(TRAFFIC, "next", &replaces("old"), PAY, spec)).unwrap();
    let output = mesh.weft(&["apply", "-f", file.to_str().unwrap()]).await;
    let told = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    let warning = "in shadow, requests are held against circuitBreaker.maxParallelRequests and \
                   timeout.http.requestTimeout, and not against loadBalancer, other limits of circuitBreaker";
    assert!(told.contains(warning), "{told}");
    let output = mesh
        .weft(&["get", "BackendTrafficPolicy", "next", "-o", "yaml"])
        .await;
    let shown = String::from_utf8(output.stdout).unwrap();
    let note = "the policy is in shadow: requests are compared with it, and none follows it; \
                BackendTrafficPolicy/default/old, which it would replace, does not exist";
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&shown).contains(&words(note)), "{shown}");
}
