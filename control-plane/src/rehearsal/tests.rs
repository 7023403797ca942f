//! Cause and effect of asking: this configuration and this request, hence that answer.

use model::MeshDomain;

use super::*;

mod answers;
mod differences;
mod policies;

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart}
spec: {selector: {app: cart}, ports: [{port: 80, name: http, appProtocol: http}, {port: 9000, name: admin}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2}
spec: {selector: {app: cart, version: v2}, ports: [{port: 8080}]}
---
";

/// A route of `cart`, whose rules are given as one flow sequence.
fn route(name: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: cart, port: 80}}], rules: {rules}}}\n---\n"
    )
}

fn read(text: &str) -> Configuration {
    Configuration::read([("mesh.yaml", text)]).expect("valid")
}

fn explained(text: &str, method: &str, url: &str, headers: &[(&str, &str)]) -> Explanation {
    let call = Call::new(method, url, "default/shop".parse().expect("a caller")).expect("a call");
    told(text, call, headers)
}

fn told(text: &str, mut call: Call, headers: &[(&str, &str)]) -> Explanation {
    for (name, value) in headers {
        call.add_header(name, value).expect("a field");
    }
    let state = read(text).state();
    let mesh = Rehearsed {
        state: &state,
        domain: &MeshDomain::default(),
        serving: None,
    };
    explain(&mesh, &call)
}

/// `reference percent` of each backend, or status and reason.
fn end(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Backends(shares) => shares
            .iter()
            .map(|share| {
                let fails = share.unresolved.as_ref().map_or("", |_| " unresolved");
                format!("{} {:.0}{fails}", share.backend, share.percent)
            })
            .collect(),
        Outcome::Answer { status, reason, .. } => vec![format!("{status} {reason}")],
        Outcome::NoConnection { .. } => vec!["no connection".to_owned()],
    }
}

#[test]
fn requests_end_where_the_proxy_would_have_them() {
    let mesh = SERVICES.to_owned()
        + &route(
            "cart",
            "[{matches: [{path: {value: /v2}}], backendRefs: [{name: v2, port: 8080}]}, \
              {matches: [{path: {value: /both}}], backendRefs: [{name: v2, port: 8080, weight: 1}, \
                                                                {name: gone, port: 1, weight: 3}]}, \
              {matches: [{path: {value: /none}}]}, \
              {matches: [{path: {value: /off}}], backendRefs: [{name: v2, port: 8080, weight: 0}]}]",
        );
    for (url, expected) in [
        ("http://cart/v2/x", &["default/v2:8080 100"][..]),
        (
            "http://cart.default.svc.cluster.local:80/v2",
            &["default/v2:8080 100"],
        ),
        (
            "cart/both",
            &["default/v2:8080 25", "default/gone:1 75 unresolved"],
        ),
        ("http://cart/none", &["500 backend_not_found"]),
        ("http://cart/off", &["500 backend_not_found"]),
        ("http://cart/else", &["404 no_route"]),
        ("http://cart:9000/v2", &["default/cart:9000 100"]),
        ("http://cart:7/", &["404 unknown_port"]),
        ("http://v2/", &["default/v2:8080 100"]),
        ("http://nobody/", &["404 unknown_service"]),
        ("http://cart.other/", &["404 unknown_service"]),
        ("http://www.example.com/", &["404 unknown_service"]),
    ] {
        assert_eq!(end(&explained(&mesh, "GET", url, &[]).outcome), expected, "{url}");
    }
    assert_eq!(
        end(&explained(&mesh, "CONNECT", "http://cart/", &[]).outcome),
        ["400 bad_method"]
    );
}

/// `cart` in its own way for callers of namespace `shop`.
const CONSUMER: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ours, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: cart, namespace: default, port: 80}]
  rules: [{matches: [{path: {value: /a}}], backendRefs: [{name: cart, namespace: default, port: 80}]}]
---
";

#[test]
fn callers_with_routes_of_their_own_meet_those() {
    let mesh = SERVICES.to_owned() + &route("cart", "[{backendRefs: [{name: v2, port: 8080}]}]") + CONSUMER;
    for (from, path, expected) in [
        ("shop/web", "/a", "default/cart:80 100"),
        ("shop/", "/b", "404 no_route"),
        ("default/web", "/a", "default/v2:8080 100"),
    ] {
        let url = format!("http://cart.default{path}");
        let call = Call::new("GET", &url, from.parse().expect("a caller")).expect("a call");
        assert_eq!(end(&told(&mesh, call, &[]).outcome), [expected], "{from}");
    }
    let without = mesh.replace(CONSUMER, "");
    let difference = compared(&without, &mesh);
    let moved: Vec<_> = difference
        .moved
        .iter()
        .map(|moved| format!("{}{}", moved.request, moved.by))
        .collect();
    let expected = [
        "GET http://cart.default/ from shop",
        "GET http://cart.default/a from shop",
    ];
    assert_eq!(moved, expected);
}

/// A Gateway with a listener for every host and one for those under `example.com`, and a route on both.
fn edge(rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\n\
         spec:\n  gatewayClassName: weft\n  listeners:\n\
         \x20 - {{name: all, port: 80, protocol: HTTP}}\n\
         \x20 - {{name: example, port: 80, protocol: HTTP, hostname: '*.example.com'}}\n\
         \x20 - {{name: other, port: 81, protocol: HTTP, hostname: other.org}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: edge}}\n\
         spec: {{parentRefs: [{{name: edge}}], hostnames: [www.example.com, other.org], rules: {rules}}}\n---\n"
    )
}

#[test]
fn requests_from_outside_meet_the_listener_of_their_host_and_the_rules_of_every_name() {
    let to = |backend: &str| {
        format!("[{{matches: [{{path: {{value: /a}}}}], backendRefs: [{{name: {backend}}}]}}]")
    };
    let wide = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: wide}\n\
                spec: {parentRefs: [{name: edge, sectionName: example}], rules: [{backendRefs: [{name: cart, port: 80}]}]}\n---\n";
    let mesh = SERVICES.to_owned() + &edge(&to("v2, port: 8080")) + wide;
    let through = |url: &str| {
        let mut call = Call::new("GET", url, "default/".parse().expect("a caller")).expect("a call");
        call.through("edge").expect("a name");
        told(&mesh, call, &[])
    };
    for (url, listener, expected) in [
        ("http://www.example.com/a", Some("example"), "default/v2:8080 100"),
        (
            "http://WWW.example.com./b",
            Some("example"),
            "default/cart:80 100",
        ),
        ("http://api.example.com/a", Some("example"), "default/cart:80 100"),
        ("http://other.org:81/a", Some("other"), "default/v2:8080 100"),
        ("http://other.org/a", Some("all"), "default/v2:8080 100"),
        ("http://nobody.org/a", Some("all"), "404 no_route"),
        ("http://nobody.org:81/a", None, "404 no_listener"),
        ("http://www.example.com:82/a", None, "no connection"),
        ("https://www.example.com:80/a", None, "no connection"),
    ] {
        let told = through(url);
        assert_eq!(
            told.listener.as_ref().map(|found| found.name.as_str()),
            listener,
            "{url}"
        );
        assert_eq!(end(&told.outcome), [expected], "{url}");
    }
    let lines: Vec<_> = through("http://www.example.com/a")
        .matches
        .iter()
        .map(|candidate| {
            format!(
                "{:?} {} {:?}",
                candidate.hostname, candidate.rule, candidate.verdict
            )
        })
        .collect();
    let expected = [
        "Some(\"www.example.com\") HTTPRoute/default/edge#0 Chosen",
        "Some(\"*.example.com\") HTTPRoute/default/wide#0 Hidden",
    ];
    assert_eq!(lines, expected);

    let difference = compared(
        &mesh,
        &(SERVICES.to_owned() + &edge(&to("cart, port: 80")) + wide),
    );
    let rules: Vec<_> = difference
        .rules
        .iter()
        .map(|rule| rule.destination.as_str())
        .collect();
    assert_eq!(
        rules,
        [
            "Gateway/default/edge all",
            "Gateway/default/edge example",
            "Gateway/default/edge other"
        ]
    );
    let moved: Vec<_> = difference
        .moved
        .iter()
        .map(|moved| moved.request.as_str())
        .collect();
    let expected = [
        "GET http://other.org/a",
        "GET http://www.example.com/a",
        "GET http://other.org:81/a",
    ];
    assert_eq!(moved, expected);
    assert!(
        difference
            .moved
            .iter()
            .all(|moved| moved.by == " through default/edge")
    );
}

/// What is different between two meshes of files.
fn compared(before: &str, after: &str) -> Difference {
    let (before, after) = (read(before).state(), read(after).state());
    let domain = MeshDomain::default();
    let of = |state| Rehearsed {
        state,
        domain: &domain,
        serving: None,
    };
    diff(&of(&before), &of(&after))
}

#[test]
fn every_match_says_why_it_is_not_the_chosen_one() {
    let rule = |wanted: &str| format!("[{{matches: [{wanted}], backendRefs: [{{name: v2, port: 8080}}]}}]");
    let mesh = SERVICES.to_owned()
        + &route(
            "b",
            &rule("{path: {value: /a}, headers: [{name: x-u, value: beta}]}"),
        )
        + &route(
            "a",
            &rule("{path: {value: /a}, method: POST}, {path: {type: Exact, value: /a}}"),
        )
        + &route(
            "c",
            &rule(
                "{path: {value: /a}, queryParams: [{name: k, value: v}]}, {path: {type: Exact, value: /a}}",
            ),
        );
    let told = explained(&mesh, "GET", "http://cart/a?k=w", &[("x-u", "beta")]);
    let lines: Vec<String> = told
        .matches
        .iter()
        .map(|candidate| {
            format!(
                "{} {:?} {}",
                candidate.rule,
                candidate.verdict,
                candidate.why.join("; ")
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "HTTPRoute/default/a#0 Chosen ",
            "HTTPRoute/default/c#0 Hidden HTTPRoute/default/a#0 is as specific and its route, of the same age, is first by name",
            "HTTPRoute/default/a#0 Misses the method is GET",
            "HTTPRoute/default/b#0 Hidden HTTPRoute/default/a#0 takes precedence: its path is of a more specific kind",
            "HTTPRoute/default/c#0 Misses query k is \"w\"",
        ]
    );
}

#[test]
fn filters_are_shown_by_what_they_change() {
    let mesh = SERVICES.to_owned()
        + &route(
            "cart",
            "[{filters: [{type: RequestHeaderModifier, requestHeaderModifier: \
                            {set: [{name: x-a, value: '1'}], add: [{name: x-b, value: '2'}], remove: [x-c]}}, \
                         {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [server]}}], \
               backendRefs: [{name: v2, port: 8080}]}]",
        );
    let told = explained(
        &mesh,
        "GET",
        "http://cart/",
        &[("x-a", "1"), ("x-b", "1"), ("x-c", "1")],
    );
    let Outcome::Backends(shares) = &told.outcome else {
        panic!("{told:?}");
    };
    // x-a was so already.
    let expected = HeaderChange {
        set: [("x-b".to_owned(), "1,2".to_owned())].into(),
        removed: vec!["x-c".to_owned()],
    };
    assert_eq!(shares[0].request_headers, expected);
    assert_eq!(shares[0].response_headers.removed, ["server"]);
}

#[test]
fn a_condition_that_would_be_false_is_an_error_at_its_object() {
    let mesh = SERVICES.to_owned() + &route("cart", "[{backendRefs: [{name: gone, port: 1}]}]");
    let findings = review(&read(&mesh));
    let lines: Vec<_> = findings
        .iter()
        .map(|finding| (finding.severity, finding.line, finding.message.as_str()))
        .collect();
    let message =
        "HTTPRoute/default/cart: ResolvedRefs=False (BackendNotFound: Service default/gone does not exist)";
    assert_eq!(lines, [(Severity::Error, 12, message)]);
    assert!(review(&read(SERVICES)).is_empty());
}
