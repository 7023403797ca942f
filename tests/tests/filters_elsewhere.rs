//! Redirects tell a client to look elsewhere, and rewrites look there for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use tests::client::{nothing, request};
use tests::{Answer, App, Http, Mesh, Sidecar, yaml};

/// The service `shop`, the backends `red` and `blue`, and a visitor that calls by mTLS.
struct Shop {
    mesh: Mesh,
    visitor: Sidecar,
    red: App,
    blue: App,
    _sidecars: Vec<Sidecar>,
}

impl Shop {
    async fn start(rules: &str) -> Self {
        let services: String = ["shop", "red", "blue"]
            .map(|name| yaml::service(name, 80, "http"))
            .concat();
        let mesh = Mesh::with(&services).await;
        let (red, blue) = (App::echo("red").await, App::echo("blue").await);
        let sidecars = vec![
            mesh.workload("red").app(red.address).start().await,
            mesh.workload("blue").app(blue.address).start().await,
        ];
        let visitor = mesh.visitor().await;
        mesh.apply(&yaml::http_route("shop", rules)).await;
        Self {
            mesh,
            visitor,
            red,
            blue,
            _sidecars: sidecars,
        }
    }

    async fn call(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let mut call = request(method, &format!("http://shop{target}"));
        for (name, value) in headers {
            call = call.header(*name, *value);
        }
        let mut client = self.visitor.http1().await;
        client.send(call.body(nothing()).unwrap()).await
    }
}

#[tokio::test]
async fn a_redirect_is_answered_by_the_sidecar() {
    let shop = Shop::start(
        r#"
- matches: [{path: {value: /prefix}}]
  filters:
    - type: RequestRedirect
      requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new/}}
- matches: [{path: {value: /full}}]
  filters:
    - type: RequestRedirect
      requestRedirect:
        scheme: https
        hostname: example.org
        port: 8443
        statusCode: 308
        path: {type: ReplaceFullPath, replaceFullPath: /other}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {set: [{name: x-unused, value: "1"}]}
- matches: [{path: {value: /backend}}]
  backendRefs:
    - name: red
      port: 80
      filters:
        - type: RequestRedirect
          requestRedirect: {hostname: red.example, statusCode: 301}
- matches: [{path: {value: /}}]
  filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https}
"#,
    )
    .await;
    for (target, status, location) in [
        ("/prefix/a?b=%20c", 302, "http://shop/new/a?b=%20c"),
        ("/prefix", 302, "http://shop/new"),
        (":80/prefix/", 302, "http://shop/new/"),
        ("/full/x", 308, "https://example.org:8443/other"),
        ("/backend/x?y", 301, "http://red.example/backend/x?y"),
        ("/", 302, "https://shop/"),
    ] {
        let answer = shop.call("GET", target, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location"), answer.text()),
            (status, location, ""),
            "{target}"
        );
        assert!(
            !answer.headers.contains_key("proxy-status"),
            "it is no failure: {target}"
        );
    }
    let answer = shop.visitor.h2c().await.get("http://shop/prefix/a").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("location")),
        (302, "http://shop/new/a")
    );
    // The body of a request that is not sent on does no harm to the next request.
    let mut client = shop.visitor.http1().await;
    for _ in 0..2 {
        let answer = client.post("http://shop/prefix", "x".repeat(100)).await;
        assert_eq!(answer.status.as_u16(), 302);
    }
    assert!(shop.red.requests().is_empty() && shop.blue.requests().is_empty());
    let page = format!("http://{}/metrics", shop.visitor.metrics);
    let metrics = Http::http1(shop.visitor.metrics).await.get(&page).await;
    let counted = r#"weft_requests_total{direction="outbound",destination="default/shop:80",backend="",route="HTTPRoute/default/shop#0"}"#;
    assert!(metrics.text().contains(counted), "{}", metrics.text());
}

#[tokio::test]
async fn a_rewrite_changes_what_the_application_gets() {
    let shop = Shop::start(
        r#"
- matches: [{path: {value: /host}}]
  filters: [{type: URLRewrite, urlRewrite: {hostname: outside.example.org}}]
  backendRefs: [{name: red, port: 80}]
- matches: [{path: {value: /prefix/one}}]
  filters:
    - {type: URLRewrite, urlRewrite: {hostname: a.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /one}}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-add, value: second}]}}
  backendRefs: [{name: red, port: 80}]
- matches: [{path: {value: /strip}}]
  filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
  backendRefs: [{name: red, port: 80}]
- matches: [{path: {value: /full}}]
  filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /rule}}}]
  backendRefs:
    - name: red
      port: 80
      filters: [{type: URLRewrite, urlRewrite: {hostname: red.example, path: {type: ReplaceFullPath, replaceFullPath: /backend}}}]
"#,
    )
    .await;
    let table = [
        ("/host/x?y=%2F", "/host/x?y=%2F", "outside.example.org"),
        ("/prefix/one/two?a", "/one/two?a", "a.example"),
        ("/strip", "/", "shop"),
        ("/strip/", "/", "shop"),
        ("/strip/three?x=y", "/three?x=y", "shop"),
        ("/full/one/two?z", "/backend?z", "red.example"),
    ];
    for (target, path, host) in table {
        let before = shop.red.requests().len();
        let answer = shop.call("GET", target, &[("x-add", "first")]).await;
        assert_eq!(answer.status.as_u16(), 200, "{target}");
        let arrived = shop.red.arrived(before + 1).await.remove(before);
        let told = arrived.uri.path_and_query().unwrap().as_str().to_owned();
        assert_eq!((told.as_str(), arrived.header("host")), (path, host), "{target}");
        let added = if target.starts_with("/prefix") {
            "first,second"
        } else {
            "first"
        };
        let values: Vec<_> = arrived.headers.get_all("x-add").iter().collect();
        assert_eq!(values, [added], "one line: {target}");
    }
    // What comes as HTTP/2 is rewritten where HTTP/2 has it.
    let before = shop.red.requests().len();
    let answer = shop.visitor.h2c().await.get("http://shop/prefix/one/two?a").await;
    assert_eq!(answer.status.as_u16(), 200);
    let arrived = shop.red.arrived(before + 1).await.remove(before);
    assert_eq!(arrived.uri.path_and_query().unwrap().as_str(), "/one/two?a");
    assert_eq!(arrived.header("host"), "a.example");
    assert!(shop.blue.requests().is_empty());
}

#[tokio::test]
async fn a_rewrite_is_lifted_with_its_route() {
    let shop = Shop::start(
        "- filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /a}}}]\n  \
         backendRefs: [{name: red, port: 80}]",
    )
    .await;
    shop.call("GET", "/x", &[]).await;
    assert_eq!(shop.red.arrived(1).await[0].uri.path(), "/a");
    shop.mesh
        .apply(&yaml::http_route(
            "shop",
            "- backendRefs: [{name: blue, port: 80}]",
        ))
        .await;
    shop.call("GET", "/x", &[]).await;
    assert_eq!(shop.blue.arrived(1).await[0].uri.path(), "/x");
}

#[tokio::test]
async fn a_redirect_without_a_port_leads_to_the_port_that_is_called_as_explain_says() {
    let redirect = "- filters:\n    - type: RequestRedirect\n      \
                    requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}}";
    let mesh = Mesh::with(&(yaml::service("old", 8080, "http") + &yaml::http_route("old", redirect))).await;
    let visitor = mesh.visitor().await;
    for url in ["http://old/x", "http://old:8080/x"] {
        let answer = visitor.get(url).await;
        assert_eq!(answer.header("location"), "http://old:8080/new", "{url}");
        let output = mesh.weft(&["explain", "GET", url]).await;
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.ends_with("location     http://old:8080/new\n"), "{told}");
    }
}
