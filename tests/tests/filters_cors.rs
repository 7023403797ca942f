//! Browsers' questions about other origins are answered by the sidecar, and answers say who may read them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use bytes::Bytes;
use http::Response;
use tests::client::{nothing, request};
use tests::{Answer, App, Mesh, Sidecar, yaml};

const RULES: &str = r#"
- matches: [{path: {value: /strict}}]
  filters:
    - type: CORS
      cors:
        allowOrigins: ["https://www.foo.com", "https://*.bar.com"]
        allowMethods: [GET, OPTIONS]
        allowHeaders: [x-header-1, x-header-2]
        exposeHeaders: [x-header-3, x-header-4]
        allowCredentials: true
        maxAge: 3600
  backendRefs: [{name: red, port: 80}]
- matches: [{path: {value: /open}}]
  filters: [{type: CORS, cors: {allowOrigins: ["*"], allowMethods: ["*"], allowHeaders: ["*"]}}]
  backendRefs: [{name: red, port: 80}]
- matches: [{path: {value: /gone}}]
  filters: [{type: CORS, cors: {allowOrigins: ["https://www.foo.com"]}}]
  backendRefs: [{name: gone, port: 80}]
"#;

struct Shop {
    visitor: Sidecar,
    red: App,
    _mesh: Mesh,
    _sidecar: Sidecar,
}

impl Shop {
    async fn start() -> Self {
        let services = yaml::service("shop", 80, "http") + &yaml::service("red", 80, "http");
        let mesh = Mesh::with(&services).await;
        let red = App::answering(|_| {
            let answer = Response::builder().header("access-control-allow-origin", "https://app.says");
            answer.body(Bytes::from("red")).unwrap()
        })
        .await;
        let sidecar = mesh.workload("red").app(red.address).start().await;
        let visitor = mesh.visitor().await;
        mesh.apply(&yaml::http_route("shop", RULES)).await;
        Self {
            visitor,
            red,
            _mesh: mesh,
            _sidecar: sidecar,
        }
    }

    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut call = request(method, &format!("http://shop{path}"));
        for (name, value) in headers {
            call = call.header(*name, *value);
        }
        let mut client = self.visitor.http1().await;
        client.send(call.body(nothing()).unwrap()).await
    }
}

#[tokio::test]
async fn preflights_are_answered_and_never_passed_on() {
    let shop = Shop::start().await;
    let asked = |origin| {
        [
            ("origin", origin),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "x-header-1, x-header-2"),
        ]
    };
    for origin in ["https://www.foo.com", "https://xpto.www.bar.com"] {
        let answer = shop.call("OPTIONS", "/strict/x", &asked(origin)).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (204, ""));
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "GET, OPTIONS"),
            ("access-control-allow-headers", "x-header-1, x-header-2"),
            ("access-control-expose-headers", "x-header-3, x-header-4"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "3600"),
            ("vary", "Origin"),
        ] {
            assert_eq!(answer.header(name), value, "{name} for {origin}");
        }
    }
    let answer = shop
        .call("OPTIONS", "/strict", &asked("https://foobar.com"))
        .await;
    assert_eq!(answer.status.as_u16(), 204);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    let answer = shop
        .call("OPTIONS", "/open", &asked("https://foobar.com:12345"))
        .await;
    for name in ["origin", "methods", "headers"] {
        assert_eq!(
            answer.header(&format!("access-control-allow-{name}")),
            "*",
            "{name}"
        );
    }
    assert_eq!(answer.header("access-control-max-age"), "5");
    // One that only looks like it is any other request.
    let answer = shop
        .call("OPTIONS", "/open", &[("origin", "https://a.org")])
        .await;
    assert_eq!(answer.text(), "red");
    assert_eq!(shop.red.requests().len(), 1);
}

#[tokio::test]
async fn answers_say_who_may_read_them() {
    let shop = Shop::start().await;
    let allowed = |answer: &Answer| answer.header("access-control-allow-origin").to_owned();
    let answer = shop
        .call(
            "GET",
            "/strict",
            &[("origin", "https://www.foo.com"), ("cookie", "a=b")],
        )
        .await;
    assert_eq!(
        (allowed(&answer).as_str(), answer.text()),
        ("https://www.foo.com", "red")
    );
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    assert_eq!(
        answer.header("access-control-expose-headers"),
        "x-header-3, x-header-4"
    );
    assert_eq!(answer.header("vary"), "Origin");
    let answer = shop.call("GET", "/open", &[("origin", "https://any.org")]).await;
    assert_eq!(allowed(&answer), "*");
    // A script may well send a token of its own. Without credentials allowed nothing says that they are.
    for own in [("authorization", "Bearer x"), ("cookie", "a=b")] {
        let answer = shop
            .call("GET", "/open", &[("origin", "https://any.org"), own])
            .await;
        assert_eq!((allowed(&answer).as_str(), answer.text()), ("*", "red"));
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    }
    // Nothing is granted: what the application says itself is left alone.
    for (path, headers) in [
        ("/strict", &[("origin", "https://foobar.com")][..]),
        ("/strict", &[]),
    ] {
        let answer = shop.call("GET", path, headers).await;
        assert_eq!(allowed(&answer), "https://app.says", "{path} {headers:?}");
    }
    // A page may read why the mesh could not answer, too.
    let answer = shop
        .call("GET", "/gone", &[("origin", "https://www.foo.com")])
        .await;
    assert_eq!(answer.verdict(), (500, "backend_not_found"));
    assert_eq!(allowed(&answer), "https://www.foo.com");
}
