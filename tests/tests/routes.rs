//! An HTTPRoute or GRPCRoute on a Service decides where its callers' requests go, and what is changed in them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Response;
use tests::client::{nothing, request};
use tests::echo::{self, EchoClient, words};
use tests::{App, Mesh, Sidecar, yaml};
use tonic::Code;
use tonic::transport::Endpoint;

/// The service `shop` and, as its backends, `red`, `green` and `blue`, each with an application of its own.
struct Colours {
    mesh: Mesh,
    visitor: Sidecar,
    apps: BTreeMap<&'static str, App>,
    _sidecars: Vec<Sidecar>,
}

impl Colours {
    async fn start(rules: &str) -> Self {
        let names = ["red", "green", "blue"];
        let services: String = names.iter().map(|name| yaml::service(name, 80, "http")).collect();
        let mesh = Mesh::with(&(services + &yaml::service("shop", 80, "http"))).await;
        let (mut apps, mut sidecars) = (BTreeMap::new(), Vec::new());
        for name in names {
            let app = App::echo(name).await;
            sidecars.push(mesh.workload(name).app(app.address).start().await);
            apps.insert(name, app);
        }
        let visitor = mesh.visitor().await;
        mesh.apply(&yaml::http_route("shop", rules)).await;
        Self {
            mesh,
            visitor,
            apps,
            _sidecars: sidecars,
        }
    }

    /// Who answers, or the proxy's reason.
    async fn answer_to(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> String {
        let mut call = request(method, &format!("http://shop{target}"));
        for (name, value) in headers {
            call = call.header(*name, *value);
        }
        let answer = self
            .visitor
            .http1()
            .await
            .send(call.body(nothing()).unwrap())
            .await;
        let (status, reason) = answer.verdict();
        if status == 200 {
            answer.header("x-app").to_owned()
        } else {
            format!("{status} {reason}")
        }
    }
}

#[tokio::test]
async fn requests_go_where_the_most_specific_match_says() {
    let colours = Colours::start(
        r#"
- matches:
    - path: {type: PathPrefix, value: /cart}
  backendRefs: [{name: red, port: 80}]
- matches:
    - path: {type: Exact, value: /cart/pay}
    - method: DELETE
      path: {type: PathPrefix, value: /cart}
  backendRefs: [{name: green, port: 80}]
- matches:
    - path: {type: RegularExpression, value: "/v[0-9]+/.*"}
    - headers: [{name: x-team, value: blue}]
    - headers: [{name: x-number, type: RegularExpression, value: "[0-9]{3}"}]
    - queryParams: [{name: colour, value: blue}]
  backendRefs: [{name: blue, port: 80}]
"#,
    )
    .await;
    for (method, target, headers, expected) in [
        ("GET", "/cart", &[][..], "red"),
        ("GET", "/cart/", &[], "red"),
        ("GET", "/cart/1?x=y", &[], "red"),
        ("GET", "/cartoon", &[], "404 no_route"),
        ("GET", "/", &[], "404 no_route"),
        ("GET", "/cart/pay", &[], "green"),
        ("GET", "/cart/pay/", &[], "red"),
        ("DELETE", "/cart/1", &[], "green"),
        ("GET", "/v2/x", &[], "blue"),
        ("GET", "/vx/x", &[], "404 no_route"),
        ("GET", "/", &[("x-team", "blue")], "blue"),
        ("GET", "/", &[("X-Team", "blue")], "blue"),
        ("GET", "/", &[("x-team", "Blue")], "404 no_route"),
        ("GET", "/", &[("x-number", "123")], "blue"),
        ("GET", "/", &[("x-number", "1234")], "404 no_route"),
        ("GET", "/?colour=blue", &[], "blue"),
        ("GET", "/?colour=red&colour=blue", &[], "404 no_route"),
        ("GET", "/?x=1&colour=%62lue", &[], "blue"),
        // A longer path comes before headers.
        ("GET", "/cart", &[("x-team", "blue")], "red"),
    ] {
        assert_eq!(
            colours.answer_to(method, target, headers).await,
            expected,
            "{method} {target} {headers:?}"
        );
    }
    assert!(
        colours.apps["red"]
            .requests()
            .iter()
            .all(|arrived| arrived.uri.path().starts_with("/cart"))
    );
}

#[tokio::test]
async fn weights_split_the_requests() {
    let colours = Colours::start(
        "- backendRefs:\n    - {name: red, port: 80, weight: 90}\n    - {name: green, port: 80, weight: 10}\n    \
         - {name: blue, port: 80, weight: 0}",
    )
    .await;
    let mut client = colours.visitor.h2c().await;
    let calls = 1000;
    for _ in 0..calls {
        assert_eq!(client.get("http://shop/").await.status, 200);
    }
    let count = |name| colours.apps[name].requests().len();
    assert_eq!((count("red") + count("green"), count("blue")), (calls, 0));
    // Six standard deviations (9.5 each): wrong by chance twice in a billion runs.
    assert!(
        (43..=157).contains(&count("green")),
        "{} of {calls}",
        count("green")
    );
}

#[tokio::test]
async fn header_modifiers_change_requests_and_answers() {
    let services = yaml::service("shop", 80, "http") + &yaml::service("red", 80, "http");
    let mesh = Mesh::with(&services).await;
    let app = App::answering(|_| {
        let answer = Response::builder()
            .header("x-drop", "1")
            .header("x-set", "old")
            .header("x-add", "first");
        answer.body(Bytes::new()).unwrap()
    })
    .await;
    let _red = mesh.workload("red").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let route = yaml::http_route(
        "shop",
        r#"
- filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        remove: [x-drop]
        set: [{name: x-set, value: new}]
        add: [{name: x-add, value: second}]
    - type: ResponseHeaderModifier
      responseHeaderModifier:
        remove: [x-drop]
        set: [{name: x-set, value: new}]
        add: [{name: x-add, value: second}]
  backendRefs:
    - name: red
      port: 80
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier:
            set: [{name: x-backend, value: red}]
"#,
    );
    mesh.apply(&route).await;
    let call = request("GET", "http://shop/");
    let call = call
        .header("x-drop", "1")
        .header("x-set", "old")
        .header("x-add", "first");
    let answer = visitor.http1().await.send(call.body(nothing()).unwrap()).await;
    let arrived = app.requests().remove(0);
    for (side, headers) in [("request", &arrived.headers), ("answer", &answer.headers)] {
        let values = |name| {
            headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().unwrap())
                .collect::<Vec<_>>()
        };
        assert!(values("x-drop").is_empty(), "{side}");
        assert_eq!(values("x-set"), ["new"], "{side}");
        assert_eq!(values("x-add"), ["first,second"], "{side}");
    }
    assert_eq!(arrived.header("x-backend"), "red");
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_500_for_its_share_only() {
    let colours = Colours::start(
        r#"
- matches: [{path: {value: /gone}}]
  backendRefs: [{name: gone, port: 80}]
- matches: [{path: {value: /port}}]
  backendRefs: [{name: red, port: 8080}]
- matches: [{path: {value: /none}}]
- matches: [{path: {value: /forbidden}}]
  backendRefs: [{name: red, port: 80, namespace: elsewhere}]
- matches: [{path: {value: /bucket}}]
  backendRefs: [{kind: Bucket, group: example.com, name: red}]
- matches: [{path: {value: /zero}}]
  backendRefs: [{name: red, port: 80, weight: 0}, {name: green, port: 80, weight: 0}]
- matches: [{path: {value: /half}}]
  backendRefs: [{name: red, port: 80}, {name: gone, port: 80}]
- backendRefs: [{name: red, port: 80}]
"#,
    )
    .await;
    for target in ["/gone", "/port", "/none", "/forbidden", "/bucket", "/zero"] {
        assert_eq!(
            colours.answer_to("GET", target, &[]).await,
            "500 backend_not_found",
            "{target}"
        );
    }
    assert_eq!(colours.answer_to("GET", "/", &[]).await, "red");
    let mut halves = [0, 0];
    for _ in 0..20 {
        match colours.answer_to("GET", "/half", &[]).await.as_str() {
            "red" => halves[0] += 1,
            "500 backend_not_found" => halves[1] += 1,
            other => panic!("{other}"),
        }
    }
    // The dice fall evenly.
    assert!(halves.iter().all(|half| (8..=12).contains(half)), "{halves:?}");
    let object = colours
        .mesh
        .operator()
        .get("HTTPRoute", "shop")
        .await
        .objects
        .remove(0);
    let condition = |kind: &str| {
        let found = object
            .conditions
            .iter()
            .find(|condition| condition.r#type == kind);
        found.unwrap().clone()
    };
    assert!(condition("Accepted").status, "a bad backend is no bad route");
    let condition = condition("ResolvedRefs");
    assert!(
        !condition.status && condition.reason == "BackendNotFound",
        "{condition:?}"
    );
    // The backend that comes into being is used without another apply of the route.
    colours
        .mesh
        .apply(&yaml::service_selecting("gone", "app: blue", 80, "http"))
        .await;
    assert_eq!(colours.answer_to("GET", "/gone", &[]).await, "blue");
}

#[tokio::test]
async fn deleting_the_route_gives_the_service_back_to_its_endpoints() {
    let colours = Colours::start("- backendRefs: [{name: red, port: 80}]").await;
    assert_eq!(colours.answer_to("GET", "/", &[]).await, "red");
    let generation = colours.mesh.operator().delete("HTTPRoute", "shop").await;
    colours.mesh.operator().in_use(generation).await;
    assert_eq!(colours.answer_to("GET", "/", &[]).await, "503 no_endpoint");
}

#[tokio::test]
async fn a_grpc_route_matches_by_service_and_method() {
    let services = yaml::service("echo", 50051, "kubernetes.io/h2c")
        + &yaml::service("real", 50051, "kubernetes.io/h2c");
    let mesh = Mesh::with(&services).await;
    let app = echo::app().await;
    let _real = mesh.workload("real").app(app.address).start().await;
    let visitor = mesh.workload("visitor").local("echo:50051").start().await;
    let rules = r#"
- matches:
    - method: {service: weft.tests.Echo, method: Say}
      headers: [{name: x-say, value: hi}]
  backendRefs: [{name: real, port: 50051}]
"#;
    mesh.apply(&yaml::grpc_route("echo", rules)).await;
    let address = Endpoint::from_shared(format!("http://{}", visitor.local("echo:50051"))).unwrap();
    let mut client = EchoClient::new(address.connect().await.unwrap());
    let mut call = tonic::Request::new(words("hello"));
    call.metadata_mut().insert("x-say", "hi".parse().unwrap());
    assert_eq!(client.say(call).await.unwrap().into_inner().text, "hello");
    let status = client.say(words("hello")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unimplemented, "no_route")
    );
    let mut other = tonic::Request::new(words("hello"));
    other.metadata_mut().insert("x-say", "hi".parse().unwrap());
    assert_eq!(
        client.repeat(other).await.unwrap_err().code(),
        Code::Unimplemented
    );
    assert_eq!(app.requests().len(), 1);
}
