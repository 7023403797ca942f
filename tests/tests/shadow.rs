//! Routes in shadow are compared with live requests and touch none of them; `weft diff --live` says what would move.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use serde_json::Value;
use tests::client::Http;
use tests::edge::{at, free_port};
use tests::shadow::compared;
use tests::{App, Mesh, yaml};

/// An HTTPRoute of the Service `shop`, with these annotations.
fn route(name: &str, annotations: &str, rules: &str) -> String {
    let rules = rules.trim().replace('\n', "\n    ");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {name}, namespace: default, annotations: {{{annotations}}}}}\nspec:\n  parentRefs:\n    \
         - {{group: \"\", kind: Service, name: shop}}\n  rules:\n    {rules}\n---\n"
    )
}

fn services() -> String {
    let names = ["shop", "next"];
    names.iter().map(|name| yaml::service(name, 80, "http")).collect()
}

/// Everything to `shop`.
const ALL_TO_SHOP: &str = "- backendRefs: [{name: shop, port: 80}]";
/// Orders to `next`, the rest to `shop`.
const ORDERS_TO_NEXT: &str = "\
- matches: [{path: {type: PathPrefix, value: /orders}, method: POST}]
  backendRefs: [{name: next, port: 80}]
- backendRefs: [{name: shop, port: 80, weight: 7}]";
/// Orders only.
const ORDERS: &str = "\
- matches: [{path: {type: PathPrefix, value: /orders}}]
  backendRefs: [{name: shop, port: 80}]";
const SHADOW: &str = "weft.dev/shadow: \"true\"";
const REPLACES_SHOP: &str = "weft.dev/shadow: \"true\", weft.dev/shadow-replaces: shop";

#[tokio::test]
async fn a_route_in_shadow_moves_no_request_and_its_differences_are_told_by_caller() {
    let mesh = Mesh::with(&(services() + &route("next", SHADOW, ORDERS_TO_NEXT))).await;
    let (shop, next) = (App::echo("shop").await, App::echo("next").await);
    let _shop = mesh.workload("shop").app(shop.address).start().await;
    let _next = mesh.workload("next").app(next.address).start().await;
    let (web, batch) = (
        mesh.workload("web").start().await,
        mesh.workload("batch").start().await,
    );
    let output = mesh.weft(&["diff", "--live"]).await;
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &*stdout),
        (Some(0), "no request was compared yet\n")
    );

    for _ in 0..3 {
        assert_eq!(
            web.post("http://shop/orders?card=1234", "x")
                .await
                .header("x-app"),
            "shop"
        );
    }
    assert_eq!(web.get("http://shop/orders").await.header("x-app"), "shop");
    assert_eq!(batch.get("http://shop/").await.header("x-app"), "shop");

    let (code, told) = compared(&mesh, 5).await;
    assert_eq!(code, 1);
    assert_eq!(told["routes"], serde_json::json!(["HTTPRoute/default/next"]));
    let callers: Vec<&str> = told["callers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|caller| caller["caller"].as_str().unwrap())
        .collect();
    assert_eq!(
        callers,
        [
            "spiffe://cluster.local/ns/default/sa/batch",
            "spiffe://cluster.local/ns/default/sa/web"
        ]
    );
    // What would go where it goes anyway is no difference.
    assert_eq!(
        told["callers"][0]["destinations"][0]["differences"],
        serde_json::json!([])
    );
    let of_web = serde_json::json!({
        "destination": "default/shop:80",
        "requests": 4,
        "differences": [{
            "from": "service",
            "to": "HTTPRoute/default/next#0",
            "requests": 3,
            "example": {"method": "POST", "authority": "shop", "path": "/orders"},
        }],
        "others": 0,
    });
    assert_eq!(told["callers"][1]["destinations"], serde_json::json!([of_web]));
    assert_eq!(next.requests().len(), 0, "nothing follows it");

    let output = mesh.weft(&["diff", "--live"]).await;
    let page = String::from_utf8(output.stdout).unwrap();
    let row = "spiffe://cluster.local/ns/default/sa/web  default/shop:80  service  HTTPRoute/default/next#0  3 of 4    POST shop/orders";
    assert_eq!(output.status.code(), Some(1));
    assert!(page.contains(row), "{page}");
    assert!(
        page.ends_with("\n3 of 5 requests would go elsewhere, be delayed or be refused\n"),
        "{page}"
    );
    assert_eq!(
        mesh.weft(&["diff", "--live", "--exit-zero"]).await.status.code(),
        Some(0)
    );
}

#[tokio::test]
async fn what_would_be_refused_and_what_would_be_found_are_differences() {
    // One that is attached beside nothing else refuses what it does not fit.
    let mesh = Mesh::with(&(services() + &route("next", SHADOW, ORDERS))).await;
    let shop = App::echo("shop").await;
    let _shop = mesh.workload("shop").app(shop.address).start().await;
    let web = mesh.workload("web").start().await;
    assert_eq!(web.get("http://shop/help").await.status, 200);
    assert_eq!(web.get("http://shop/orders").await.status, 200);
    let (code, told) = compared(&mesh, 2).await;
    let difference = |told: &Value| {
        let differences = &told["callers"][0]["destinations"][0]["differences"];
        assert_eq!(differences.as_array().unwrap().len(), 1, "{told:#}");
        let difference = &differences[0];
        let text = |field: &str| difference[field].as_str().unwrap().to_owned();
        (
            text("from"),
            text("to"),
            difference["example"]["path"].as_str().unwrap().to_owned(),
        )
    };
    let of = |texts: [&str; 3]| (texts[0].to_owned(), texts[1].to_owned(), texts[2].to_owned());
    assert_eq!(code, 1);
    assert_eq!(difference(&told), of(["service", "404 no_route", "/help"]));

    // The other way round: what is refused now would be served. The counts began anew with the rules.
    mesh.apply(&(route("shop", "", ORDERS) + &route("next", REPLACES_SHOP, ALL_TO_SHOP)))
        .await;
    assert_eq!(web.get("http://shop/orders").await.status, 200);
    assert_eq!(web.get("http://shop/help").await.verdict(), (404, "no_route"));
    let (code, told) = compared(&mesh, 2).await;
    assert_eq!(code, 1);
    assert_eq!(
        difference(&told),
        of(["404 no_route", "HTTPRoute/default/next#0", "/help"])
    );
}

#[tokio::test]
async fn what_is_replaced_does_not_count_beside_its_successor_and_what_is_gone_is_forgotten() {
    let old = "- matches: [{path: {type: Exact, value: /orders}}]\n  backendRefs: [{name: next, port: 80}]";
    let both = route("shop", "", old) + &route("next", REPLACES_SHOP, ALL_TO_SHOP);
    let mesh = Mesh::with(&(services() + &both)).await;
    let next = App::echo("next").await;
    let _next = mesh.workload("next").app(next.address).start().await;
    let web = mesh.workload("web").start().await;
    assert_eq!(web.get("http://shop/orders").await.header("x-app"), "next");
    let (code, told) = compared(&mesh, 1).await;
    let difference = &told["callers"][0]["destinations"][0]["differences"][0];
    assert_eq!(code, 1);
    assert_eq!(
        (difference["from"].as_str(), difference["to"].as_str()),
        (Some("HTTPRoute/default/shop#0"), Some("HTTPRoute/default/next#0"),)
    );

    // Beside the old one it would not be met.
    mesh.apply(&route("next", SHADOW, ALL_TO_SHOP)).await;
    assert_eq!(web.get("http://shop/orders").await.header("x-app"), "next");
    let (code, told) = compared(&mesh, 1).await;
    assert_eq!(code, 0, "{told:#}");

    mesh.operator().delete("HTTPRoute", "next").await;
    mesh.operator().settled().await;
    assert_eq!(web.get("http://shop/orders").await.header("x-app"), "next");
    let (code, _) = compared(&mesh, 0).await;
    assert_eq!(code, 0);
    let output = mesh.weft(&["diff", "--live"]).await;
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "nothing is in shadow\n"
    );
}

#[tokio::test]
async fn counts_outlive_the_control_plane_and_whoever_asks_where_there_is_none_is_told() {
    let mut mesh = Mesh::with(&(services() + &route("next", SHADOW, ORDERS_TO_NEXT))).await;
    let shop = App::echo("shop").await;
    let _shop = mesh.workload("shop").app(shop.address).start().await;
    let web = mesh.workload("web").start().await;
    assert_eq!(web.post("http://shop/orders", "x").await.header("x-app"), "shop");
    compared(&mesh, 1).await;
    mesh.kill_control_plane().await;
    assert_eq!(mesh.weft(&["diff", "--live"]).await.status.code(), Some(2));
    assert_eq!(web.post("http://shop/orders", "x").await.header("x-app"), "shop");
    mesh.start_control_plane().await;
    let (code, told) = compared(&mesh, 2).await;
    assert_eq!(code, 1);
    assert_eq!(
        told["callers"][0]["destinations"][0]["differences"][0]["requests"],
        2
    );
    // Also where nothing was asked for meanwhile.
    mesh.kill_control_plane().await;
    mesh.start_control_plane().await;
    compared(&mesh, 2).await;
}

#[tokio::test]
async fn a_gateway_compares_what_clients_outside_ask_for() {
    let (inside, port) = (App::echo("inside").await, free_port().await);
    let listeners = ["one", "two"]
        .map(|name| format!("{{name: {name}, port: {port}, protocol: HTTP, hostname: {name}.org}}"));
    let to = |name: &str| {
        format!("{{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{{name: {name}, port: 80}}]}}]}}")
    };
    let next = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                metadata: {name: next, annotations: {weft.dev/shadow: \"true\", weft.dev/shadow-replaces: shop}}\n\
                spec: {parentRefs: [{name: edge}], hostnames: [two.org], rules: [{backendRefs: [{name: next, port: 80}]}]}\n---\n";
    let yaml = services()
        + &yaml::outside("inside", 80, "http", &[inside.address])
        + &yaml::gateway("edge", &listeners)
        + &yaml::object("HTTPRoute", "shop", &to("inside"))
        + next;
    let mesh = Mesh::with(&yaml).await;
    let _gateway = mesh.gateway("edge").start().await;
    for host in ["one.org", "two.org", "two.org"] {
        let answer = Http::http1(at(port)).await.get(&format!("http://{host}/x")).await;
        assert_eq!(answer.header("x-app"), "inside", "{host}");
    }
    let (code, told) = compared(&mesh, 3).await;
    assert_eq!(code, 1);
    let caller = &told["callers"][0];
    assert_eq!(caller["caller"], "spiffe://cluster.local/ns/default/sa/edge");
    assert_eq!(caller["isGateway"], true);
    let seen: Vec<_> = caller["destinations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|place| {
            assert_eq!(place["destination"], format!("default/edge:{port}"));
            let difference = &place["differences"][0];
            let texts = [
                &place["listener"],
                &difference["from"],
                &difference["to"],
                &difference["example"]["authority"],
            ];
            (
                texts.map(|text| text.as_str().unwrap().to_owned()),
                difference["requests"].as_u64().unwrap(),
            )
        })
        .collect();
    let shop = "HTTPRoute/default/shop#0";
    let expected = [
        (["one", shop, "404 no_route", "one.org"], 1),
        (["two", shop, "HTTPRoute/default/next#0", "two.org"], 2),
    ];
    assert_eq!(
        seen,
        expected.map(|(texts, requests)| (texts.map(str::to_owned), requests))
    );
}
