//! Gateway API's status as operators see it: a Gateway is programmed by a real proxy, and `weft get` tells it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::process::Output;

use serde_json::Value;
use tests::edge::{at, free_port};
use tests::{App, Mesh, Raw, eventually, yaml};
use tokio::io::AsyncWriteExt;

/// Success, standard output and standard error.
fn out(output: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// `weft get KIND NAME -o yaml`.
async fn shown(mesh: &Mesh, kind: &str, name: &str) -> Value {
    let (success, stdout, stderr) = out(&mesh.weft(&["get", kind, name, "-o", "yaml"]).await);
    assert!(success, "{stderr}");
    serde_saphyr::from_str(&stdout).unwrap_or_else(|error| panic!("is YAML: {error}: {stdout}"))
}

/// `type=status/reason` of every condition.
fn conditions(list: &Value) -> Vec<String> {
    let word = |condition: &Value, field: &str| condition[field].as_str().unwrap().to_owned();
    let conditions = list.as_array().expect("a list of conditions").iter();
    conditions
        .map(|condition| {
            let [kind, status, reason] = ["type", "status", "reason"].map(|field| word(condition, field));
            format!("{kind}={status}/{reason}")
        })
        .collect()
}

fn listener(name: &str, port: u16) -> String {
    format!("{{name: {name}, port: {port}, protocol: HTTP}}")
}

fn route(name: &str, parents: &str, rules: &str) -> String {
    yaml::object(
        "HTTPRoute",
        name,
        &format!("{{parentRefs: [{parents}], rules: [{rules}]}}"),
    )
}

#[tokio::test]
async fn a_gateway_is_programmed_by_its_proxy_and_by_nobody_else() {
    let port = free_port().await;
    let app = App::echo("shop").await;
    let edge = yaml::gateway("edge", &[listener("web", port)]);
    let to_shop = "{backendRefs: [{name: shop, port: 80}]}";
    let mesh =
        Mesh::with(&(yaml::service("shop", 80, "http") + &edge + &route("shop", "{name: edge}", to_shop)))
            .await;
    let _shop = mesh.workload("shop").app(app.address).start().await;
    let waiting = shown(&mesh, "gateway", "edge").await;
    assert_eq!(
        conditions(&waiting["status"]["conditions"]),
        [
            "Accepted=True/Accepted",
            "ResolvedRefs=True/ResolvedRefs",
            "Programmed=False/Pending"
        ]
    );

    let gateway = mesh.gateway("edge").start().await;
    let programmed = eventually("a Gateway that is programmed", || async {
        let edge = shown(&mesh, "gateway", "edge").await;
        let told = conditions(&edge["status"]["conditions"]);
        (told.last().map(String::as_str) == Some("Programmed=True/Programmed")).then_some(edge)
    })
    .await;
    let web = &programmed["status"]["listeners"][0];
    assert_eq!(
        (web["name"].as_str(), web["attachedRoutes"].as_u64()),
        (Some("web"), Some(1))
    );
    assert!(conditions(&web["conditions"]).contains(&"Programmed=True/Programmed".to_owned()));
    assert!(
        !programmed["status"]["addresses"].as_array().unwrap().is_empty(),
        "{programmed}"
    );
    let (success, stdout, _) = out(&mesh.weft(&["get", "gtw"]).await);
    assert!(
        success && stdout.contains("edge") && stdout.contains("Accepted, ResolvedRefs, Programmed"),
        "{stdout}"
    );

    // A port that somebody else has is said, with why.
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let both = yaml::gateway("edge", &[listener("web", port), listener("taken", taken_port)]);
    let generation = mesh.operator().apply(&both).await;
    assert!(generation > 0);
    let failed = eventually("a listener that is not programmed", || async {
        let edge = shown(&mesh, "gateway", "edge").await;
        let told = conditions(&edge["status"]["listeners"][1]["conditions"]);
        told.contains(&"Programmed=False/PortUnavailable".to_owned())
            .then_some(edge)
    })
    .await;
    assert_eq!(failed["metadata"]["generation"], 2);
    assert_eq!(failed["status"]["conditions"][2]["observedGeneration"], 2);
    assert!(
        conditions(&failed["status"]["listeners"][0]["conditions"])
            .contains(&"Programmed=True/Programmed".to_owned()),
        "{failed}"
    );

    drop(gateway);
    eventually("a Gateway without a proxy", || async {
        let edge = shown(&mesh, "gateway", "edge").await;
        let told = conditions(&edge["status"]["conditions"]);
        (told[2] == "Programmed=False/Pending").then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_parent_of_a_route_has_its_own_verdict() {
    let mesh = Mesh::with(
        &(yaml::service("shop", 80, "http")
            + &yaml::gateway("edge", &[listener("web", 8080)])
            + &route(
                "shop",
                "{name: edge}, {name: gone}, {group: '', kind: Service, name: shop}",
                "{backendRefs: [{name: shop, port: 80}, {name: away, namespace: other, port: 80}]}",
            )),
    )
    .await;
    let verdicts = async || {
        let route = shown(&mesh, "httproute", "shop").await;
        let parents = route["status"]["parents"].as_array().unwrap().clone();
        let told = |parent: &Value| {
            assert_eq!(parent["controllerName"], "weft.dev/gateway-controller");
            let name = parent["parentRef"]["name"].as_str().unwrap();
            format!("{name} {}", conditions(&parent["conditions"]).join(" "))
        };
        parents.iter().map(told).collect::<Vec<_>>()
    };
    let unresolved = "ResolvedRefs=False/RefNotPermitted";
    assert_eq!(
        verdicts().await,
        [
            format!("edge Accepted=True/Accepted {unresolved}"),
            format!("gone Accepted=False/NoMatchingParent {unresolved}"),
            format!("shop Accepted=True/Accepted {unresolved}"),
        ]
    );
    let grant = "---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: shop, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: '', kind: Service}]
---
apiVersion: v1
kind: Service
metadata: {name: away, namespace: other}
spec: {selector: {app: away}, ports: [{port: 80}]}
";
    mesh.apply(grant).await;
    assert_eq!(
        verdicts().await[0],
        "edge Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs"
    );
}

#[tokio::test]
async fn what_is_hardly_meant_is_warned_of_and_applied() {
    let mesh = Mesh::with(&yaml::service("shop", 80, "http")).await;
    let to_shop = "{backendRefs: [{name: shop, port: 80}]}";
    let parent = "{group: '', kind: Service, name: shop}";
    let text = route(
        "shop",
        parent,
        &format!(
            "{to_shop}, {to_shop}, {{matches: [{{method: GET}}], backendRefs: [{{name: shop, port: 80, weight: 0}}]}}"
        ),
    );
    std::fs::write(mesh.path().join("shop.yaml"), &text).unwrap();
    let (success, stdout, stderr) = out(&mesh.weft(&["apply", "-f", "shop.yaml"]).await);
    assert!(
        success && stdout.contains("HTTPRoute/default/shop created"),
        "{stdout}{stderr}"
    );
    let warnings: Vec<&str> = stderr.lines().collect();
    assert_eq!(warnings.len(), 2, "{stderr}");
    assert!(
        warnings[0].starts_with("shop.yaml:")
            && warnings[0].ends_with(
                "warning: is never followed: HTTPRoute/default/shop#0 takes every request that it matches \
                 (field spec.rules[1])"
            ),
        "{stderr}"
    );
    assert!(
        warnings[1].ends_with(
            "warning: every weight is 0: whatever follows the rule is answered with status 500 \
             (field spec.rules[2].backendRefs)"
        ),
        "{stderr}"
    );
    assert_eq!(mesh.operator().get("HTTPRoute", "shop").await.objects.len(), 1);
}

#[tokio::test]
async fn secrets_are_shown_to_whoever_asks_for_them() {
    let secret = "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {password: hunter2}}";
    let mesh = Mesh::with(secret).await;
    let (success, stdout, _) = out(&mesh.weft(&["get", "secret", "s", "-o", "yaml"]).await);
    assert!(
        success && stdout.contains("password") && !stdout.contains("hunter2"),
        "{stdout}"
    );
    let (success, stdout, _) = out(&mesh
        .weft(&["get", "secret", "s", "-o", "yaml", "--show-secrets"])
        .await);
    assert!(success && stdout.contains("hunter2"), "{stdout}");
}

#[tokio::test]
async fn an_address_that_the_machine_has_not_is_said_to_be_of_no_use() {
    let port = free_port().await;
    let at = |addresses: &str| {
        yaml::gateway("edge", &[listener("web", port)]).replace(
            "addresses: [{value: 127.0.0.1}]",
            &format!("addresses: [{addresses}]"),
        )
    };
    let becomes = async |mesh: &Mesh, expected: &str| {
        eventually(expected, || async {
            let edge = shown(mesh, "gateway", "edge").await;
            let told = conditions(&edge["status"]["conditions"]);
            assert_eq!(told[0], "Accepted=True/Accepted");
            (told[2] == expected).then_some(edge)
        })
        .await
    };
    let mesh = Mesh::with(&at("{value: 127.0.0.1}")).await;
    let _gateway = mesh.gateway("edge").start().await;
    // Of those that documentation has for itself (RFC 5737).
    let both = at("{value: 192.0.2.1}, {value: 127.0.0.1}");
    mesh.operator().apply(&both).await;
    let edge = becomes(&mesh, "Programmed=False/AddressNotUsable").await;
    let message = edge["status"]["conditions"][2]["message"].as_str().unwrap();
    assert!(message.contains(&format!("192.0.2.1:{port}")), "{message}");
    mesh.operator().apply(&at("{value: 127.0.0.1}")).await;
    let edge = becomes(&mesh, "Programmed=True/Programmed").await;
    let addresses = edge["status"]["addresses"].as_array().unwrap();
    assert!(
        addresses.len() == 1 && addresses[0]["value"] == "127.0.0.1",
        "{addresses:?}"
    );
    // One without a value is any that there is.
    mesh.operator().apply(&at("{type: IPAddress}")).await;
    let edge = eventually("other addresses", || async {
        let edge = becomes(&mesh, "Programmed=True/Programmed").await;
        (edge["status"]["addresses"][0]["value"] != "127.0.0.1").then_some(edge)
    })
    .await;
    assert!(!edge["status"]["addresses"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn of_two_routes_for_connections_the_older_has_them_and_both_are_attached() {
    let port = free_port().await;
    let named = async |name: &'static str| {
        App::raw(move |mut stream| async move {
            let _ = stream.write_all(name.as_bytes()).await;
        })
        .await
    };
    let (older, newer) = (named("older").await, named("newer").await);
    let route = |name: &str, backend: &str| {
        let spec = format!(
            "{{parentRefs: [{{name: edge, sectionName: raw}}], rules: [{{backendRefs: [{{name: {backend}, port: 1}}]}}]}}"
        );
        yaml::object("TCPRoute", name, &spec)
    };
    let yaml = yaml::outside("older", 1, "tcp", &[older.address])
        + &yaml::outside("newer", 1, "tcp", &[newer.address])
        + &yaml::gateway("edge", &[format!("{{name: raw, port: {port}, protocol: TCP}}")])
        + &route("z", "older");
    let mesh = Mesh::with(&yaml).await;
    let _gateway = mesh.gateway("edge").start().await;
    mesh.apply(&route("a", "newer")).await;
    for _ in 0..10 {
        let mut raw = Raw::connect(at(port)).await;
        assert_eq!(raw.read_to_end().await, b"older");
    }
    let edge = shown(&mesh, "gateway", "edge").await;
    assert_eq!(edge["status"]["listeners"][0]["attachedRoutes"], 2);
    for name in ["a", "z"] {
        let route = shown(&mesh, "tcproute", name).await;
        assert_eq!(
            conditions(&route["status"]["parents"][0]["conditions"])[0],
            "Accepted=True/Accepted"
        );
    }
}
