//! The status of Gateway API's objects, and what else is shown of them.

use serde_json::{Value, json};

use super::*;

const EDGE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {gatewayClassName: weft, listeners: [{name: web, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{name: edge}, {group: '', kind: Service, name: cart}]
  rules: [{backendRefs: [{name: cart, port: 80}, {name: gone, port: 80}]}]
";

async fn shown(plane: &Plane, kind: &str, name: &str, secrets: bool) -> Value {
    let wanted = v1::GetRequest {
        kind: kind.to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        secrets,
    };
    let answer = soon(plane.operator().await.get(wanted))
        .await
        .unwrap()
        .into_inner();
    let object = answer.objects.first().expect("exists");
    crate::sources::value_of(&object.yaml).expect("is YAML")
}

/// `type status reason generation` of a list of conditions.
fn conditions(list: &Value) -> Vec<String> {
    let told = |condition: &Value| {
        let time = condition["lastTransitionTime"].as_str().expect("a time");
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        let word = |field: &str| condition[field].as_str().expect("a word").to_owned();
        format!(
            "{} {} {} {}",
            word("type"),
            word("status"),
            word("reason"),
            condition["observedGeneration"]
        )
    };
    list.as_array().expect("a list").iter().map(told).collect()
}

#[tokio::test]
async fn a_gateway_is_programmed_while_a_proxy_serves_its_ports() {
    let plane = Plane::start().await;
    plane.apply(CART).await;
    plane.apply(EDGE).await;
    let edge = shown(&plane, "Gateway", "edge", false).await;
    assert_eq!(edge["metadata"]["generation"], 1);
    assert_eq!(
        conditions(&edge["status"]["conditions"]),
        [
            "Accepted True Accepted 1",
            "ResolvedRefs True ResolvedRefs 1",
            "Programmed False Pending 1"
        ]
    );
    let web = &edge["status"]["listeners"][0];
    assert_eq!((&web["name"], &web["attachedRoutes"]), (&json!("web"), &json!(1)));
    let kinds: Vec<&Value> = web["supportedKinds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| &kind["kind"])
        .collect();
    assert_eq!(kinds, ["HTTPRoute", "GRPCRoute"]);
    assert_eq!(
        conditions(&web["conditions"]),
        [
            "Accepted True Accepted 1",
            "Conflicted False NoConflicts 1",
            "ResolvedRefs True ResolvedRefs 1",
            "Programmed False Pending 1"
        ]
    );

    let hello = v1::Hello {
        workload_id: "edge-1".to_owned(),
        gateway: "edge".to_owned(),
        ready: true,
        ..v1::Hello::default()
    };
    let mut proxy = plane.stream(&plane.join("edge").await, hello).await.unwrap();
    proxy.used().await;
    let report = |failure: &str| {
        let addresses = match failure {
            "" => vec!["127.0.0.1:80".to_owned()],
            _ => Vec::new(),
        };
        let port = v1::BoundPort {
            port: 80,
            addresses,
            failure: failure.to_owned(),
            no_address: failure.contains("not available"),
        };
        Message::Listeners(v1::ListenerReport { ports: vec![port] })
    };
    let programmed = async |expected: &str| {
        soon(async {
            loop {
                let edge = shown(&plane, "Gateway", "edge", false).await;
                let told = conditions(&edge["status"]["conditions"]).remove(2);
                if told == expected {
                    return edge;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    };
    proxy.send(report("address in use")).await;
    let failed = programmed("Programmed False PortUnavailable 1").await;
    assert_eq!(
        failed["status"]["conditions"][2]["message"],
        "proxy edge-1 cannot bind port 80: address in use"
    );
    proxy.send(report("10.9.8.7:80: address not available")).await;
    let failed = programmed("Programmed False AddressNotUsable 1").await;
    assert_eq!(
        conditions(&failed["status"]["listeners"][0]["conditions"])[3],
        "Programmed False PortUnavailable 1",
        "Gateway API has no such reason for listeners"
    );
    proxy.send(report("")).await;
    let bound = programmed("Programmed True Programmed 1").await;
    assert_eq!(
        bound["status"]["addresses"],
        json!([{"type": "IPAddress", "value": "127.0.0.1"}])
    );
    assert_eq!(
        conditions(&bound["status"]["listeners"][0]["conditions"])[3],
        "Programmed True Programmed 1"
    );
    drop(proxy);
    programmed("Programmed False Pending 1").await;
}

#[tokio::test]
async fn a_route_has_a_status_for_each_parent_and_counts_its_versions() {
    let plane = Plane::start().await;
    plane.apply(CART).await;
    plane.apply(EDGE).await;
    let parents = async || {
        let route = shown(&plane, "HTTPRoute", "cart", false).await;
        let told = |parent: &Value| {
            assert_eq!(parent["controllerName"], "weft.dev/gateway-controller");
            let told = conditions(&parent["conditions"]);
            format!(
                "{} {}",
                parent["parentRef"]["kind"].as_str().unwrap(),
                told.join(", ")
            )
        };
        let parents = route["status"]["parents"].as_array().unwrap();
        parents.iter().map(told).collect::<Vec<_>>()
    };
    let both = |generation: u64| {
        ["Gateway", "Service"].map(|kind| {
            format!(
                "{kind} Accepted True Accepted {generation}, ResolvedRefs False BackendNotFound {generation}"
            )
        })
    };
    assert_eq!(parents().await, both(1));
    // Neither the same again, nor a comment, nor what was shown is another version.
    plane.apply(&format!("# again\n{EDGE}")).await;
    assert_eq!(parents().await, both(1));
    plane.apply(&EDGE.replace("name: gone", "name: also-gone")).await;
    assert_eq!(parents().await, both(2));
}

#[tokio::test]
async fn what_a_secret_holds_is_shown_when_asked_for() {
    let plane = Plane::start().await;
    let text = "{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: shop}, stringData: {a: b}}";
    plane.apply(text).await;
    let hidden = shown(&plane, "Secret", "s", false).await;
    assert_eq!(hidden["stringData"], Value::Null);
    assert!(
        !hidden["data"]["a"].as_str().unwrap().contains('b')
            || hidden["data"]["a"].as_str().unwrap().len() > 1
    );
    assert_eq!(shown(&plane, "Secret", "s", true).await["stringData"]["a"], "b");
    let yaml = crate::sources::yaml_of(&hidden);
    let files = vec![v1::SourceFile {
        name: "hidden.yaml".to_owned(),
        text: yaml,
    }];
    let request = v1::ApplyRequest {
        files,
        dry_run: false,
    };
    let answer = soon(plane.operator().await.apply(request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.errors[0].field, "data.a", "it takes the place of nothing");
}
