//! What rules do to requests, at the edge of the mesh: the same as between services, with what a gateway's client sees.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::collections::BTreeSet;

use tests::client::{Http, nothing, request};
use tests::edge::{at, free_port};
use tests::{Answer, App, Mesh, Sidecar, yaml};

/// The Gateway `edge` with one plain listener, and `red` and `blue` behind it; `red` has two workloads.
struct Edge {
    port: u16,
    red: [App; 2],
    blue: App,
    _mesh: Mesh,
    _sidecars: Vec<Sidecar>,
}

impl Edge {
    async fn start(rules: &str) -> Self {
        let port = free_port().await;
        let listener = format!("{{name: web, port: {port}, protocol: HTTP}}");
        let route = yaml::object(
            "HTTPRoute",
            "shop",
            &format!("{{parentRefs: [{{name: edge}}], rules: [{rules}]}}"),
        );
        let services = ["red", "blue"]
            .map(|name| yaml::service(name, 80, "http"))
            .concat();
        let mesh = Mesh::with(&(services + &yaml::gateway("edge", &[listener]) + &route)).await;
        let red = [App::echo("red-1").await, App::echo("red-2").await];
        let blue = App::echo("blue").await;
        let mut sidecars = Vec::new();
        for (service, app) in [("red", &red[0]), ("red", &red[1]), ("blue", &blue)] {
            sidecars.push(mesh.workload(service).app(app.address).start().await);
        }
        sidecars.push(mesh.gateway("edge").start().await);
        Self {
            port,
            red,
            blue,
            _mesh: mesh,
            _sidecars: sidecars,
        }
    }

    async fn call(&self, url: &str, headers: &[(&str, &str)]) -> Answer {
        let mut call = request("GET", url);
        for (name, value) in headers {
            call = call.header(*name, *value);
        }
        Http::http1(at(self.port))
            .await
            .send(call.body(nothing()).unwrap())
            .await
    }
}

#[tokio::test]
async fn a_redirect_has_the_port_of_the_listener_unless_it_names_another_scheme() {
    let edge = Edge::start(
        "{matches: [{path: {value: /secure}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}, \
         {filters: [{type: RequestRedirect, requestRedirect: {hostname: b.example}}]}",
    )
    .await;
    let port = edge.port;
    for (url, location) in [
        // Whatever port a client writes, or a balancer in front of the gateway has.
        (
            "http://a.example/x?y".to_owned(),
            format!("http://b.example:{port}/x?y"),
        ),
        (
            "http://a.example:81/".to_owned(),
            format!("http://b.example:{port}/"),
        ),
        (
            format!("http://a.example:{port}/secure"),
            "https://a.example/secure".to_owned(),
        ),
    ] {
        let answer = edge.call(&url, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location")),
            (302, location.as_str()),
            "{url}"
        );
    }
}

#[tokio::test]
async fn rewrites_mirrors_and_sessions_work_for_clients_outside() {
    let edge = Edge::start(
        "{matches: [{path: {value: /old}}], sessionPersistence: {sessionName: cart}, filters: [\
         {type: URLRewrite, urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}, \
         {type: RequestMirror, requestMirror: {backendRef: {name: blue, port: 80}}}, \
         {type: CORS, cors: {allowOrigins: ['http://a.example']}}], backendRefs: [{name: red, port: 80}]}",
    )
    .await;
    let first = edge
        .call("http://shop.example/old/1", &[("origin", "http://a.example")])
        .await;
    assert_eq!(first.header("access-control-allow-origin"), "http://a.example");
    let cookie = first.header("set-cookie").split(';').next().unwrap().to_owned();
    let mut served = BTreeSet::from([first.header("x-app").to_owned()]);
    for _ in 0..10 {
        let answer = edge
            .call("http://shop.example/old/1", &[("cookie", &cookie)])
            .await;
        served.insert(answer.header("x-app").to_owned());
    }
    assert_eq!(served.len(), 1, "{served:?}");
    let arrived = edge.red.iter().flat_map(App::requests).next().unwrap();
    let copied = edge.blue.arrived(11).await.remove(0);
    for request in [arrived, copied] {
        assert_eq!(
            (request.uri.path(), request.header("host")),
            ("/new/1", "inner.example")
        );
        assert_eq!(request.header("x-forwarded-host"), "shop.example");
    }
}
