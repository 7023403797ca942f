//! Routes of which a part cannot be done: what is wrong with one rule is that rule's alone, and status and `weft apply` say so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use tests::client::Http;
use tests::echo::{self, EchoClient, words};
use tests::edge::{at, free_port};
use tests::{App, Mesh, Sidecar, yaml};
use tonic::Code;
use tonic::transport::Endpoint;

/// `red` behind a Gateway and behind its own Service, with the same rules at both.
struct Shop {
    mesh: Mesh,
    port: u16,
    red: App,
    visitor: Sidecar,
    _others: [Sidecar; 2],
}

impl Shop {
    async fn start() -> Self {
        let port = free_port().await;
        let listener = format!("{{name: web, port: {port}, protocol: HTTP}}");
        let yaml = yaml::service("red", 80, "http") + &yaml::gateway("edge", &[listener]);
        let mesh = Mesh::with(&yaml).await;
        let red = App::echo("red").await;
        let workload = mesh.workload("red").app(red.address).start().await;
        let gateway = mesh.gateway("edge").start().await;
        let visitor = mesh.visitor().await;
        Self {
            mesh,
            port,
            red,
            visitor,
            _others: [workload, gateway],
        }
    }

    /// Applies the route `shop` with these rules.
    async fn apply(&self, rules: &str) {
        let spec = format!(
            "{{parentRefs: [{{name: edge}}, {{group: '', kind: Service, name: red}}], rules: [{rules}]}}"
        );
        self.mesh.apply(&yaml::object("HTTPRoute", "shop", &spec)).await;
    }

    /// What becomes of a request, by the gateway and by a sidecar: the application, or status and reason.
    async fn expect(&self, path: &str, expected: &str) {
        let edge = Http::http1(at(self.port))
            .await
            .get(&format!("http://red{path}"))
            .await;
        let mesh = self.visitor.get(&format!("http://red{path}")).await;
        for (place, answer) in [("edge", edge), ("mesh", mesh)] {
            let told = match answer.header("x-app") {
                "" => format!("{} {}", answer.verdict().0, answer.verdict().1),
                app => app.to_owned(),
            };
            assert_eq!(told, expected, "{path} at the {place}");
        }
    }

    async fn conditions(&self) -> Vec<String> {
        let object = self
            .mesh
            .operator()
            .get("HTTPRoute", "shop")
            .await
            .objects
            .remove(0);
        let told = object.conditions.iter().map(|condition| {
            let sign = if condition.status { "" } else { "!" };
            format!("{sign}{} {}", condition.r#type, condition.reason)
        });
        told.collect()
    }
}

#[tokio::test]
async fn a_filter_that_nobody_knows_fails_the_requests_it_is_for_and_no_others() {
    let shop = Shop::start().await;
    let unknown = "{type: ExtensionRef, extensionRef: {group: acme.io, kind: Lua, name: script}}";
    let queue = "backendRef: {group: acme.io, kind: Queue, name: q}";
    let to_red = "backendRefs: [{name: red, port: 80}]";
    shop.apply(&format!(
        "{{matches: [{{path: {{value: /rule}}}}], filters: [{unknown}], {to_red}}}, \
         {{matches: [{{path: {{value: /redirect}}}}], filters: [{{type: RequestRedirect, requestRedirect: {{}}}}, {unknown}]}}, \
         {{matches: [{{path: {{value: /backend}}}}], \
           backendRefs: [{{name: red, port: 80, weight: 0}}, {{name: red, port: 80, filters: [{unknown}]}}]}}, \
         {{matches: [{{path: {{value: /mirror}}}}], filters: [{{type: RequestMirror, requestMirror: {{{queue}}}}}], {to_red}}}, \
         {{matches: [{{path: {{value: /auth}}}}], \
           filters: [{{type: ExternalAuth, externalAuth: {{protocol: HTTP, http: {{}}, {queue}}}}}], {to_red}}}, \
         {{{to_red}}}"
    ))
    .await;
    shop.expect("/", "red").await;
    shop.expect("/mirror", "red").await;
    let served = shop.red.requests().len();
    shop.expect("/rule", "500 filter_not_found").await;
    shop.expect("/redirect", "500 filter_not_found").await;
    shop.expect("/backend", "500 filter_not_found").await;
    shop.expect("/auth", "500 backend_not_found").await;
    assert_eq!(
        shop.red.requests().len(),
        served,
        "what is not let through does not arrive"
    );
    assert_eq!(
        shop.conditions().await,
        ["Accepted Accepted", "!ResolvedRefs InvalidKind"]
    );
}

#[tokio::test]
async fn calls_of_grpc_fail_by_a_filter_that_nobody_knows() {
    let mesh = Mesh::with(&yaml::service("echo", 50051, "kubernetes.io/h2c")).await;
    let app = echo::app().await;
    let _echo = mesh.workload("echo").app(app.address).start().await;
    let visitor = mesh.workload("visitor").local("echo:50051").start().await;
    let address = Endpoint::from_shared(format!("http://{}", visitor.local("echo:50051"))).unwrap();
    let mut client = EchoClient::new(address.connect().await.unwrap());
    let filters = "filters: [{type: ExtensionRef, extensionRef: {group: acme.io, kind: Lua, name: script}}]";
    mesh.apply(&yaml::grpc_route(
        "echo",
        &format!("- {{{filters}, backendRefs: [{{name: echo, port: 50051}}]}}"),
    ))
    .await;
    let refused = client.say(words("hello")).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "filter_not_found")
    );
    mesh.apply(&yaml::grpc_route(
        "echo",
        "- {backendRefs: [{name: echo, port: 50051}]}",
    ))
    .await;
    assert_eq!(
        client.say(words("hello")).await.unwrap().into_inner().text,
        "hello"
    );
}

#[tokio::test]
async fn a_rule_that_cannot_be_followed_is_dropped_and_the_others_stay() {
    let shop = Shop::start().await;
    let rule = |matches: &str, answer: &str| {
        format!(
            "{{matches: [{matches}], backendRefs: [{{name: red, port: 80, filters: [{{type: ResponseHeaderModifier, \
             responseHeaderModifier: {{set: [{{name: x-app, value: {answer}}}]}}}}]}}]}}"
        )
    };
    let bad = rule(
        "{path: {value: /one}, headers: [{name: x, type: RegularExpression, value: '(?=a)'}]}",
        "one",
    );
    let [two, rest] = [("/two", "two"), ("/", "rest")]
        .map(|(path, answer)| rule(&format!("{{path: {{value: {path}}}}}"), answer));
    shop.apply(&[bad.as_str(), two.as_str(), rest.as_str()].join(", "))
        .await;
    shop.expect("/two", "two").await;
    shop.expect("/one", "rest").await;
    assert_eq!(
        shop.conditions().await,
        [
            "Accepted Accepted",
            "ResolvedRefs ResolvedRefs",
            "PartiallyInvalid UnsupportedValue"
        ]
    );
    // Whoever applies it is told where.
    let file = shop.mesh.path().join("shop.yaml");
    let spec = format!("{{parentRefs: [{{name: edge}}], rules: [{bad}, {rest}]}}");
    std::fs::write(&file, yaml::object("HTTPRoute", "shop", &spec)).unwrap();
    let output = shop.mesh.weft(&["apply", "-f", "shop.yaml"]).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success()
            && told.contains("spec.rules[0].matches[0].headers[0].value")
            && told.contains("so that the rule is left out"),
        "{told}"
    );
    // With nothing left of it, nobody is governed by it.
    shop.apply(&bad).await;
    assert_eq!(
        shop.conditions().await,
        ["!Accepted UnsupportedValue", "ResolvedRefs ResolvedRefs"]
    );
    let edge = Http::http1(at(shop.port)).await.get("http://red/one").await;
    assert_eq!(edge.verdict().0, 404);
    assert_eq!(shop.visitor.get("http://red/one").await.header("x-app"), "red");
}
