//! Mirrors get copies of requests, and neither delay nor fail the requests themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use tests::client::{nothing, request};
use tests::echo::{self, EchoClient, words};
use tests::{App, Http, Mesh, Sidecar, eventually, text, yaml};
use tonic::transport::Endpoint;

/// The service `shop`, with `red` as backend and `blue` and `green` beside it.
struct Shop {
    mesh: Mesh,
    visitor: Sidecar,
    red: App,
    blue: App,
    green: App,
    _sidecars: Vec<Sidecar>,
}

impl Shop {
    async fn start(rules: &str) -> Self {
        let names = ["shop", "red", "blue", "green"];
        let mesh = Mesh::with(&names.map(|name| yaml::service(name, 80, "http")).concat()).await;
        let (red, blue, green) = (
            App::echo("red").await,
            App::echo("blue").await,
            App::echo("green").await,
        );
        let sidecars = vec![
            mesh.workload("red").app(red.address).start().await,
            mesh.workload("blue").app(blue.address).start().await,
            mesh.workload("green").app(green.address).start().await,
        ];
        let visitor = mesh.visitor().await;
        mesh.apply(&yaml::http_route("shop", rules)).await;
        Self {
            mesh,
            visitor,
            red,
            blue,
            green,
            _sidecars: sidecars,
        }
    }

    /// How many copies ended like this.
    async fn copies(&self, outcome: &str) -> u64 {
        let page = format!("http://{}/metrics", self.visitor.metrics);
        let page = Http::http1(self.visitor.metrics).await.get(&page).await;
        let name = format!("weft_mirrored_requests_total{{outcome=\"{outcome}\"}} ");
        let line = page.text().lines().find_map(|line| line.strip_prefix(&name));
        line.expect("it is counted").parse().unwrap()
    }

    async fn until_copies(&self, outcome: &str, count: u64) {
        eventually(&format!("{count} {outcome}"), async || {
            (self.copies(outcome).await == count).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn every_mirror_gets_the_request_as_its_backend_does() {
    let shop = Shop::start(
        r#"
- filters:
    - {type: RequestMirror, requestMirror: {backendRef: {name: blue, port: 80}}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-add, value: second}], remove: [x-drop]}}
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}
  backendRefs:
    - name: red
      port: 80
      filters: [{type: RequestMirror, requestMirror: {backendRef: {name: green, port: 80}}}]
"#,
    )
    .await;
    let body = "x".repeat(20_000);
    let post = request("POST", "http://shop/a?b")
        .header("x-add", "first")
        .header("x-drop", "1")
        .body(Full::new(Bytes::from(body.clone())))
        .unwrap();
    let answer = shop.visitor.http1().await.send(post).await;
    assert_eq!((answer.header("x-app"), answer.text()), ("red", body.as_str()));
    let answer = shop.visitor.h2c().await.get("http://shop/c").await;
    assert_eq!(answer.header("x-app"), "red");
    let mut expected = shop.red.arrived(2).await;
    expected.sort_by_key(|arrived| arrived.uri.path().to_owned());
    for mirror in [&shop.blue, &shop.green] {
        let mut copies = mirror.arrived(2).await;
        copies.sort_by_key(|arrived| arrived.uri.path().to_owned());
        for (copy, original) in copies.iter().zip(&expected) {
            assert_eq!(copy.method, original.method);
            assert_eq!(copy.uri.path_and_query(), original.uri.path_and_query());
            assert_eq!(copy.body, original.body);
            for name in ["host", "x-add", "x-drop", "content-length"] {
                assert_eq!(copy.header(name), original.header(name), "{name}");
            }
        }
    }
    assert_eq!(expected[0].uri.path(), "/new/a");
    assert_eq!(expected[0].header("x-add"), "first,second");
    shop.until_copies("answered", 4).await;
    assert_eq!(
        (shop.copies("failed").await, shop.copies("abandoned").await),
        (0, 0)
    );
}

#[tokio::test]
async fn a_share_of_the_requests_is_mirrored() {
    let shop = Shop::start(
        r#"
- filters:
    - {type: RequestMirror, requestMirror: {backendRef: {name: blue, port: 80}, percent: 0}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: green, port: 80}, fraction: {numerator: 1, denominator: 4}}}
  backendRefs: [{name: red, port: 80}]
"#,
    )
    .await;
    let mut client = shop.visitor.http1().await;
    let calls = 600;
    for _ in 0..calls {
        assert_eq!(client.get("http://shop/").await.header("x-app"), "red");
    }
    let ended =
        async || shop.copies("answered").await + shop.copies("failed").await + shop.copies("abandoned").await;
    eventually("copies that have ended", async || {
        (ended().await == shop.green.requests().len() as u64).then_some(())
    })
    .await;
    let copies = shop.green.requests().len();
    // Six standard deviations (10.6 each).
    assert!((87..=213).contains(&copies), "{copies} of {calls}");
    assert!(shop.blue.requests().is_empty());
}

#[tokio::test]
async fn what_a_mirror_does_is_no_business_of_the_request() {
    let shop = Shop::start(
        r#"
- matches: [{path: {value: /silent}}]
  filters: [{type: RequestMirror, requestMirror: {backendRef: {name: silent, port: 80}}}]
  backendRefs: [{name: red, port: 80}]
- matches: [{path: {value: /nobody}}]
  filters: [{type: RequestMirror, requestMirror: {backendRef: {name: nobody, port: 80}}}]
  backendRefs: [{name: red, port: 80}]
- matches: [{path: {value: /missing}}]
  filters: [{type: RequestMirror, requestMirror: {backendRef: {name: missing, port: 80}}}]
  backendRefs: [{name: red, port: 80}]
- filters: [{type: RequestMirror, requestMirror: {backendRef: {name: blue, port: 80}}}]
  backendRefs: [{name: red, port: 80}]
"#,
    )
    .await;
    let silent = App::http(|_| async {
        std::future::pending::<()>().await;
        text(200, "")
    })
    .await;
    shop.mesh
        .apply(&(yaml::service("silent", 80, "http") + &yaml::service("nobody", 80, "http")))
        .await;
    let _silent = shop.mesh.workload("silent").app(silent.address).start().await;
    for path in ["/silent", "/nobody", "/missing"] {
        let started = std::time::Instant::now();
        let answer = shop.visitor.get(&format!("http://shop{path}")).await;
        assert_eq!(answer.header("x-app"), "red", "{path}");
        assert!(
            started.elapsed() < Duration::from_secs(8),
            "it does not wait for the mirror's 10 s: {path}"
        );
    }
    shop.until_copies("failed", 1).await;
    silent.arrived(1).await;
    // A body that is not kept whole is not sent to the mirror; the request itself goes on.
    let large = "x".repeat(200_000);
    let answer = shop.visitor.post("http://shop/", large.clone()).await;
    assert_eq!(answer.text(), large);
    shop.until_copies("abandoned", 1).await;
    assert!(shop.blue.requests().is_empty() && shop.green.requests().is_empty());
    let object = shop
        .mesh
        .operator()
        .get("HTTPRoute", "shop")
        .await
        .objects
        .remove(0);
    let is = |kind: &str| object.conditions.iter().find(|one| one.r#type == kind).unwrap();
    assert!(is("Accepted").status);
    let resolved = is("ResolvedRefs");
    assert!(
        !resolved.status && resolved.reason == "BackendNotFound",
        "{resolved:?}"
    );
    // The Service that comes into being gets copies without another apply of the route.
    shop.mesh
        .apply(&yaml::service_selecting("missing", "app: green", 80, "http"))
        .await;
    let call = request("GET", "http://shop/missing").body(nothing()).unwrap();
    shop.visitor.http1().await.send(call).await;
    assert_eq!(shop.green.arrived(1).await[0].uri.path(), "/missing");
}

#[tokio::test]
async fn calls_of_grpc_are_mirrored() {
    let services = ["echo", "copy"].map(|name| yaml::service(name, 50051, "kubernetes.io/h2c"));
    let mesh = Mesh::with(&services.concat()).await;
    let (app, copy) = (echo::app().await, echo::app().await);
    let _echo = mesh.workload("echo").app(app.address).start().await;
    let _copy = mesh.workload("copy").app(copy.address).start().await;
    let visitor = mesh.workload("visitor").local("echo:50051").start().await;
    let rules = r#"
- filters: [{type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 50051}}}]
  backendRefs: [{name: echo, port: 50051}]
"#;
    mesh.apply(&yaml::grpc_route("echo", rules)).await;
    let address = Endpoint::from_shared(format!("http://{}", visitor.local("echo:50051"))).unwrap();
    let mut client = EchoClient::new(address.connect().await.unwrap());
    assert_eq!(
        client.say(words("hello")).await.unwrap().into_inner().text,
        "hello"
    );
    let arrived = copy.arrived(1).await.remove(0);
    assert_eq!(arrived.uri.path(), "/weft.tests.Echo/Say");
    assert_eq!(
        (arrived.header("content-type"), arrived.header("te")),
        ("application/grpc", "trailers")
    );
}
