//! What is applied as it is written, and said to be hardly meant.

use super::gateway::{any_route, gateway_of};
use super::*;

fn warnings(state: &MeshState, key: &str) -> Vec<String> {
    let told = Judge::of_configuration(state).warnings(&key.parse().expect("a key"));
    told.iter()
        .map(|warning| format!("{}: {}", warning.path, warning.message))
        .collect()
}

#[test]
fn a_rule_that_another_hides_is_told_where_it_is_hidden_everywhere() {
    let first = route(
        "HTTPRoute",
        "shop/a-first",
        "name: cart",
        &["{name: cart, port: 80}", "{name: cart, port: 80}"],
    );
    let second = route(
        "HTTPRoute",
        "shop/second",
        "name: cart",
        &["{name: cart, port: 80}"],
    );
    let cart = service("shop/cart", HTTP);
    let state = mesh(&[&cart, &first, &second]);
    let told = "is never followed: HTTPRoute/shop/a-first#0 takes every request that it matches";
    assert_eq!(
        warnings(&state, "HTTPRoute/shop/a-first"),
        [format!("spec.rules[1]: {told}")]
    );
    assert_eq!(
        warnings(&state, "HTTPRoute/shop/second"),
        [format!("spec.rules[0]: {told}")]
    );
    let edge = gateway_of("shop/edge", &["{name: web, port: 80, protocol: HTTP}"], "");
    let both = second.replace("parentRefs: [", "parentRefs: [{name: edge}, ");
    let state = mesh(&[&cart, &first, &edge, &both]);
    assert!(
        warnings(&state, "HTTPRoute/shop/second").is_empty(),
        "the Gateway follows it"
    );
    let other = any_route(
        "HTTPRoute",
        "shop/older",
        "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: cart, port: 80}]}]}",
    );
    let state = mesh(&[&cart, &first, &edge, &other, &both]);
    assert_eq!(warnings(&state, "HTTPRoute/shop/second").len(), 1);
}

#[test]
fn requests_to_nowhere_are_told() {
    let table = [
        (
            "{}",
            "spec.rules[0]: has no backendRefs: whatever follows it is answered with status 500",
        ),
        (
            "{backendRefs: [{name: cart, port: 80, weight: 0}, {name: v2, port: 80, weight: 0}]}",
            "spec.rules[0].backendRefs: every weight is 0: whatever follows the rule is answered with status 500",
        ),
        (
            "{backendRefs: [{name: cart, port: 80}, {name: v2, port: 80, weight: 0, filters: [{type: \
             RequestHeaderModifier, requestHeaderModifier: {remove: [x]}}]}]}",
            "spec.rules[0].backendRefs[1]: its filters are never used, because its weight is 0",
        ),
        ("{backendRefs: [{name: cart, port: 80}]}", ""),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}",
            "",
        ),
    ];
    for (rule, expected) in table {
        let spec = format!("{{parentRefs: [{{group: '', kind: Service, name: cart}}], rules: [{rule}]}}");
        let state = mesh(&[
            &service("shop/cart", HTTP),
            &any_route("HTTPRoute", "shop/r", &spec),
        ]);
        let expected: Vec<String> = Some(expected.to_owned())
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect();
        assert_eq!(warnings(&state, "HTTPRoute/shop/r"), expected, "{rule}");
    }
}

#[test]
fn a_gateway_that_nobody_serves_is_told() {
    let listeners = ["{name: web, port: 80, protocol: HTTP}"];
    let text = gateway_of("shop/edge", &listeners, "").replace("Name: weft", "Name: wefft");
    assert_eq!(
        warnings(&mesh(&[&text]), "Gateway/shop/edge"),
        ["spec.gatewayClassName: there is no GatewayClass wefft, so that nobody serves it (weft is ours)"]
    );
    let class = "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: wefft}, \
                 spec: {controllerName: a.org/b}}";
    assert_eq!(
        warnings(&mesh(&[&text, class]), "Gateway/shop/edge"),
        ["spec.gatewayClassName: Gateways of class wefft are served by a.org/b"]
    );
}

#[test]
fn a_rule_that_cannot_be_followed_is_told_at_the_value() {
    let text = route("HTTPRoute", "shop/r", "name: cart", &["{name: cart, port: 80}"])
        + "      retry: {attempts: 21}\n    - backendRefs: [{name: cart, port: 80}]\n";
    let state = mesh(&[&service("shop/cart", HTTP), &text]);
    assert_eq!(
        warnings(&state, "HTTPRoute/shop/r"),
        ["spec.rules[0].retry.attempts: 21 is over 20, so that the rule is left out"]
    );
}
