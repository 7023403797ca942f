//! What is accepted, and what it means.

use std::time::Duration;

use model::filter::Filter;
use model::route::PathMatch;
use model::service::{AppProtocol, TargetPort};

use super::*;

#[test]
fn a_service_is_read_with_its_defaults() {
    let text = service(
        "  clusterIP: None\n  selector: {app: checkout}\n  ports:
    - {name: web, port: 80, targetPort: http, appProtocol: http}
    - {name: db, port: 5432, appProtocol: tcp, protocol: TCP}\n",
    );
    let Object::Service(service) = only(&text) else {
        panic!("a Service")
    };
    assert_eq!(service.name.to_string(), "default/checkout");
    let (web, db) = (&service.ports[&80], &service.ports[&5432]);
    assert_eq!(
        (web.protocol, &web.target),
        (AppProtocol::Http, &TargetPort::Name("http".into()))
    );
    assert_eq!(
        (db.protocol, &db.target),
        (AppProtocol::Tcp, &TargetPort::Number(5432))
    );
}

#[test]
fn an_http_route_is_read_whole() {
    let text = rule(
        "      matches:
        - path: {value: /pay/}
          method: PUT
          headers: [{name: X-Tier, value: gold}, {name: x-tier, value: ignored}]
          queryParams: [{name: v, value: '[12]', type: RegularExpression}]
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier: {add: [{name: X-Via, value: mesh}], remove: [x-debug]}
      timeouts: {request: 1m30s, backendRequest: 0s}
      retry: {codes: [500, 503], attempts: 3, backoff: 250ms}
      backendRefs:
        - {name: v1, port: 8080, weight: 90}
        - {name: v2, port: 8080, namespace: next}\n",
    );
    let route = only_route(&text);
    assert_eq!(route.key.to_string(), "HTTPRoute/default/checkout");
    assert_eq!(
        route.parents[0].to,
        Parent::Service("default/checkout".parse().unwrap())
    );
    let rule = &route.rules[0];
    let request = &rule.matches[0];
    assert_eq!(request.path, PathMatch::Prefix("/pay".into()));
    assert_eq!(request.method, Some(http::Method::PUT));
    assert!(request.headers.len() == 1 && request.headers[0].1.is_match("gold"));
    assert!(request.query[0].1.is_match("2") && !request.query[0].1.is_match("3"));
    assert!(matches!(&rule.filters[0], Filter::RequestHeaders(m) if m.add.len() == 1 && m.remove.len() == 1));
    assert_eq!(rule.timeouts.request, Some(Duration::from_secs(90)));
    assert_eq!(rule.timeouts.backend_request, Some(Duration::ZERO));
    let retry = rule.retry.as_ref().expect("given");
    assert_eq!((retry.attempts, retry.backoff), (3, Duration::from_millis(250)));
    let backends: Vec<_> = rule
        .backends
        .iter()
        .map(|b| (b.target.to_string(), b.weight))
        .collect();
    assert_eq!(
        backends,
        [("default/v1:8080".to_owned(), 90), ("next/v2:8080".to_owned(), 1)]
    );
}

#[test]
fn a_grpc_route_matches_by_service_and_method() {
    let table = [
        (
            "{service: shop.Pay, method: Charge}",
            PathMatch::exact("/shop.Pay/Charge"),
        ),
        ("{service: shop.Pay}", PathMatch::prefix("/shop.Pay")),
        ("{method: Charge}", PathMatch::regex("/[^/]+/Charge")),
        (
            "{type: RegularExpression, service: 'shop[.].*'}",
            PathMatch::regex("/(?:shop[.].*)/[^/]+"),
        ),
    ];
    let text = |method: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: pay, namespace: shop}}\n\
             spec:\n  parentRefs: [{{group: '', kind: Service, name: pay, port: 9000}}]\n  rules:\n\
             \x20   - matches: [{{method: {method}}}]\n      backendRefs: [{{name: pay, port: 9000}}]\n"
        )
    };
    for (method, path) in table {
        let route = only_route(&text(method));
        assert_eq!(route.key.kind, Kind::GrpcRoute);
        assert_eq!(route.parents[0].port, Some(9000));
        let request = &route.rules[0].matches[0];
        assert_eq!(Ok(&request.path), path.as_ref(), "{method}");
        assert!(request.grpc_only && request.method == Some(http::Method::POST));
    }
    let route = only_route(&text("{type: RegularExpression, service: 'a)', method: '(b'}"));
    let unusable: Vec<String> = route.rules[0].unusable.iter().map(ToString::to_string).collect();
    assert_eq!(
        unusable,
        [
            "spec.rules[0].matches[0].method.service: is not a regular expression: unopened group",
            "spec.rules[0].matches[0].method.method: is not a regular expression: unclosed group",
        ]
    );
    assert_eq!(complaints(&text("{service: a/b}")).len(), 1);
    assert_eq!(complaints(&text("{}")).len(), 1);
}

#[test]
fn a_route_without_rules_has_the_standards_default() {
    let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec: {}\n";
    let route = only_route(text);
    assert_eq!(route.rules[0].matches, [model::route::RequestMatch::default()]);
}

#[test]
fn each_document_keeps_its_own_text() {
    let one = service("  ports: [{port: 80}]\n");
    let two = one.replace("checkout", "cart");
    let text = format!(
        "\u{feff}# first\n{one}---\n\n{two}...\n---\n# nothing\n--- # third\n{}",
        rule("")
    );
    let documents = parse_documents("f.yaml", &text).expect("valid");
    let lines: Vec<u32> = documents.iter().map(|document| document.line).collect();
    assert_eq!(lines, [2, 10, 20]);
    assert_eq!(documents[1].text, two);
    assert!(documents[0].text.starts_with("# first\napiVersion"));
    for document in documents {
        assert_eq!(only(&document.text), document.object);
    }
}

#[test]
fn an_app_protocol_is_the_same_in_capitals_and_opaque_where_somebody_elses() {
    let of = |protocol: &str| {
        let text = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {{ports: [{{port: 1, appProtocol: {protocol}}}]}}}}"
        );
        match only(&text) {
            Object::Service(service) => service.ports[&1].protocol,
            other => panic!("{other:?}"),
        }
    };
    for (written, same) in [
        ("HTTPS", "https"),
        ("Http", "http"),
        ("Kubernetes.io/H2C", "h2c"),
        ("redis", "tcp"),
        ("acme.io/rpc", "tcp"),
    ] {
        assert_eq!(of(written), of(same), "{written}");
    }
}
