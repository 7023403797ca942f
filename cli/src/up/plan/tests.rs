//! Which plans are followed, and what is said about the others.

use super::*;

const GOOD: &str = r#"
name: shop
config: mesh
build: [cargo, build]
workloads:
  - name: frontend
    command: ["${TARGET}/release/shop", frontend, --listen, "${APP}"]
    env: {http_proxy: "http://${OUTBOUND}"}
  - name: checkout-v1
    service: checkout
    labels: {app: checkout, version: v1}
    local: ["payments:50051"]
    command: [shop, "--payments=${LOCAL:payments:50051}"]
  - name: visitor
traffic:
  from: visitor
  requestsPerSecond: 25
  requests:
    - {url: "http://frontend/"}
    - {method: POST, url: "http://frontend/checkout", weight: 3}
  splitOf: checkout
"#;

fn read(text: &str) -> Result<Plan, String> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(FILE), text).expect("written");
    let plan = Plan::read(folder.path()).map_err(|error| error.to_string());
    plan.map(|plan| Plan {
        config: plan.config.strip_prefix(folder.path()).expect("inside").into(),
        ..plan
    })
}

#[test]
fn names_follow_from_each_other() {
    let plan = read(GOOD).expect("valid");
    assert_eq!(plan.config, Path::new("mesh"));
    let [frontend, checkout, visitor] = plan.workloads.as_slice() else {
        panic!("three workloads")
    };
    assert_eq!(frontend.service_account.as_str(), "frontend");
    assert_eq!(frontend.labels.get("app"), Some("frontend"));
    assert_eq!(checkout.service_account.as_str(), "checkout");
    assert_eq!(
        checkout.local["payments:50051"].to_string(),
        "default/payments:50051"
    );
    assert!(visitor.command.is_empty());
    let traffic = plan.traffic.expect("traffic");
    assert_eq!(
        traffic.split_of.expect("a service").to_string(),
        "default/checkout"
    );
    assert_eq!(
        traffic
            .requests
            .iter()
            .map(|request| request.weight)
            .collect::<Vec<_>>(),
        [1, 3]
    );
}

#[test]
fn the_shop_of_the_readme_is_a_plan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop");
    let plan = Plan::read(&folder).expect("valid");
    assert!(plan.config.is_dir() && plan.traffic.is_some());
}

#[test]
fn what_is_wrong_is_named_with_its_field() {
    for (from, to, expected) in [
        ("name: shop", "name: Shop", "name: \"Shop\" is not a DNS label"),
        (
            "name: visitor",
            "name: frontend",
            "workloads[2].name: another workload is called frontend",
        ),
        (
            "from: visitor",
            "from: nobody",
            "traffic.from: no workload is called \"nobody\"",
        ),
        ("PerSecond: 25", "PerSecond: 0", "traffic.requestsPerSecond"),
        ("PerSecond: 25", "PerSecond: .nan", "traffic.requestsPerSecond"),
        ("weight: 3", "weight: -3", "-3"),
        (
            "http://frontend/checkout",
            "https://frontend/",
            "traffic.requests[1].url",
        ),
        ("${APP}", "${PORT}", "workloads[0].command[3]: ${PORT}"),
        (
            "${OUTBOUND}",
            "${LOCAL:payments:50051}",
            "workloads[0].env.http_proxy: ${LOCAL:payments:50051}",
        ),
        (
            "\"payments:50051\"]",
            "\"payments\"]",
            "workloads[1].local[0]: \"payments\" is not service:port",
        ),
        ("splitOf: checkout", "splitOf: a_b", "traffic.splitOf"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = read(&GOOD.replacen(from, to, 1)).expect_err(to);
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn an_unknown_field_is_shown_with_its_line() {
    let error = read(&GOOD.replacen("service: checkout", "servise: checkout", 1)).expect_err("unknown field");
    assert!(
        error.contains("up.yaml:10:5: error: unknown field `servise`"),
        "{error}"
    );
}
