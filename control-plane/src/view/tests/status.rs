//! The whole `status` of objects, as Kubernetes shows it.

use model::gateway::Serves;
use serde_json::Value;

use super::gateway::{any_route, gateway_of, secret};
use super::*;

pub(super) fn status(state: &MeshState, key: &str) -> Option<Value> {
    let observed = Observed {
        generation: 7,
        since: "2026-01-01T00:00:00Z".to_owned(),
    };
    Judge::of_configuration(state).status(&key.parse().expect("a key"), &observed)
}

/// `type=status/reason` of every condition.
pub(super) fn told(conditions: &Value) -> String {
    let word = |condition: &Value, field: &str| condition[field].as_str().expect("a word").to_owned();
    let conditions = conditions.as_array().expect("a list").iter();
    let told = conditions.map(|condition| {
        assert_eq!(condition["observedGeneration"], 7);
        format!(
            "{}={}/{}",
            word(condition, "type"),
            word(condition, "status"),
            word(condition, "reason")
        )
    });
    told.collect::<Vec<_>>().join(" ")
}

/// What is told of each listener, after its name and the number of its routes.
pub(super) fn listeners(status: &Value) -> Vec<String> {
    let listeners = status["listeners"].as_array().expect("a list").iter();
    listeners
        .map(|listener| {
            let (name, routes) = (
                listener["name"].as_str().expect("a name"),
                &listener["attachedRoutes"],
            );
            format!("{name} {routes} {}", told(&listener["conditions"]))
        })
        .collect()
}

#[test]
fn each_listener_has_its_own_verdict() {
    let tls = "tls: {certificateRefs: [{name: cert}]}";
    let listeners_given = [
        "{name: http, port: 80, protocol: HTTP}".to_owned(),
        "{name: tcp, port: 80, protocol: TCP}".to_owned(),
        format!("{{name: all, port: 443, protocol: HTTPS, {tls}}}"),
        format!("{{name: one, port: 443, protocol: HTTPS, hostname: a.org, {tls}}}"),
        "{name: gone, port: 444, protocol: HTTPS, tls: {certificateRefs: [{name: gone}]}}".to_owned(),
        "{name: kinds, port: 81, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: HTTPRoute}]}}".to_owned(),
        "{name: odd, port: 82, protocol: a.org/odd}".to_owned(),
    ];
    let given: Vec<&str> = listeners_given.iter().map(String::as_str).collect();
    let state = mesh(&[
        &secret("shop/cert"),
        &gateway_of("shop/edge", &given, ""),
        &any_route("HTTPRoute", "shop/r", "{parentRefs: [{name: edge}], rules: [{}]}"),
    ]);
    let edge = status(&state, "Gateway/shop/edge").expect("is ours");
    assert_eq!(
        told(&edge["conditions"]),
        "Accepted=True/ListenersNotValid ResolvedRefs=False/ListenersNotResolved"
    );
    assert_eq!(
        edge["conditions"][0]["message"],
        "not accepted: http, tcp, odd; accepted: all, one, gone, kinds"
    );
    let ok = "Accepted=True/Accepted Conflicted=False/NoConflicts";
    let clash =
        "Accepted=False/ProtocolConflict Conflicted=True/ProtocolConflict ResolvedRefs=True/ResolvedRefs";
    let overlap = "ResolvedRefs=True/ResolvedRefs OverlappingTLSConfig=True/OverlappingHostnames";
    assert_eq!(
        listeners(&edge),
        [
            format!("http 1 {clash}"),
            format!("tcp 0 {clash}"),
            format!("all 1 {ok} {overlap}"),
            format!("one 1 {ok} {overlap}"),
            format!("gone 1 {ok} ResolvedRefs=False/InvalidCertificateRef"),
            format!("kinds 1 {ok} ResolvedRefs=False/InvalidRouteKinds"),
            "odd 0 Accepted=False/UnsupportedProtocol Conflicted=False/NoConflicts ResolvedRefs=True/ResolvedRefs"
                .to_owned(),
        ]
    );
    let kinds = edge["listeners"][5]["supportedKinds"].as_array().expect("a list");
    assert!(kinds.len() == 1 && kinds[0]["kind"] == "HTTPRoute", "{kinds:?}");
}

#[test]
fn a_listener_set_has_a_status_beside_its_gateways() {
    let state = mesh(&[
        &gateway_of(
            "shop/edge",
            &["{name: web, port: 80, protocol: HTTP}"],
            "  allowedListeners: {namespaces: {from: Same}}\n",
        ),
        "{apiVersion: gateway.networking.k8s.io/v1, kind: ListenerSet, metadata: {name: more, namespace: shop}, \
         spec: {parentRef: {name: edge}, listeners: [{name: web, port: 80, protocol: HTTP, hostname: a.org}, \
         {name: late, port: 80, protocol: HTTP}]}}",
    ]);
    let more = status(&state, "ListenerSet/shop/more").expect("has a Gateway of ours");
    assert_eq!(told(&more["conditions"]), "Accepted=True/ListenersNotValid");
    assert_eq!(
        listeners(&more),
        [
            "web 0 Accepted=True/Accepted Conflicted=False/NoConflicts ResolvedRefs=True/ResolvedRefs",
            "late 0 Accepted=False/HostnameConflict Conflicted=True/HostnameConflict ResolvedRefs=True/ResolvedRefs",
        ]
    );
    let edge = status(&state, "Gateway/shop/edge").expect("is ours");
    assert_eq!(edge["attachedListenerSets"], 1);
    assert_eq!(listeners(&edge).len(), 1, "those of a ListenerSet are its own");
}

#[test]
fn a_policy_has_a_status_for_each_gateway_that_leads_to_it() {
    let policy = "{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {name: p, namespace: shop}, \
                  spec: {targetRefs: [{group: '', kind: Service, name: api}], \
                  validation: {hostname: api.org, wellKnownCACertificates: System}}}";
    let traffic = "{apiVersion: weft.dev/v1alpha1, kind: BackendTrafficPolicy, metadata: {name: p, namespace: shop}, \
                   spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], \
                   loadBalancer: {type: RoundRobin}}}";
    let route = any_route(
        "HTTPRoute",
        "shop/r",
        "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: api, port: 80}]}]}",
    );
    let api = "{apiVersion: v1, kind: Service, metadata: {name: api, namespace: shop}, spec: {ports: [{port: 80}]}}";
    let edge = gateway_of("shop/edge", &["{name: web, port: 80, protocol: HTTP}"], "");
    let ancestors = |state: &MeshState, key: &str| {
        let status = status(state, key).expect("a status");
        let ancestors = status["ancestors"].as_array().expect("a list").iter();
        let told = ancestors.map(|ancestor| {
            let reference = &ancestor["ancestorRef"];
            let word = |field: &str| reference[field].as_str().expect("a word").to_owned();
            format!(
                "{} {} {}",
                word("kind"),
                word("name"),
                told(&ancestor["conditions"])
            )
        });
        told.collect::<Vec<_>>()
    };
    let resolved = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs";
    let alone = mesh(&[api, policy, traffic, &route]);
    assert_eq!(
        ancestors(&alone, "BackendTLSPolicy/shop/p"),
        [format!("Service api {resolved}")]
    );
    assert_eq!(
        ancestors(&alone, "BackendTrafficPolicy/shop/p"),
        ["HTTPRoute r Accepted=True/Accepted"]
    );
    let with_gateway = mesh(&[api, policy, traffic, &route, &edge]);
    assert_eq!(
        ancestors(&with_gateway, "BackendTLSPolicy/shop/p"),
        [format!("Gateway edge {resolved}")]
    );
    assert_eq!(
        ancestors(&with_gateway, "BackendTrafficPolicy/shop/p"),
        ["Gateway edge Accepted=True/Accepted"]
    );
}

#[test]
fn nothing_is_said_of_what_other_controllers_serve() {
    let edge = gateway_of("shop/edge", &["{name: web, port: 80, protocol: HTTP}"], "")
        .replace("Name: weft", "Name: x");
    let route = any_route("HTTPRoute", "shop/r", "{parentRefs: [{name: edge}], rules: [{}]}");
    let state = mesh(&[&edge, &route, &service("shop/cart", HTTP)]);
    for key in [
        "Gateway/shop/edge",
        "HTTPRoute/shop/r",
        "Service/shop/cart",
        "Service/shop/gone",
    ] {
        assert_eq!(status(&state, key), None, "{key}");
    }
}

const BAD: &str =
    "{matches: [{path: {type: RegularExpression, value: '('}}], backendRefs: [{name: cart, port: 80}]}";
const WHY: &str = "spec.rules[1].matches[0].path.value: is not a regular expression: unclosed group";

#[test]
fn a_route_with_a_rule_that_cannot_be_followed_goes_on_without_it() {
    let good = "{backendRefs: [{name: cart, port: 80}]}";
    let parents = "parentRefs: [{name: edge}, {group: '', kind: Service, name: cart}, {name: gone}]";
    let state = mesh(&[
        &service("shop/cart", HTTP),
        &gateway_of("shop/edge", &["{name: web, port: 80, protocol: HTTP}"], ""),
        &any_route(
            "HTTPRoute",
            "shop/r",
            &format!("{{{parents}, rules: [{good}, {BAD}, {good}]}}"),
        ),
    ]);
    let shown = status(&state, "HTTPRoute/shop/r").expect("has parents");
    let parents: Vec<String> = shown["parents"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|parent| told(&parent["conditions"]))
        .collect();
    let in_part =
        "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs PartiallyInvalid=True/UnsupportedValue";
    assert_eq!(
        parents,
        [
            in_part,
            in_part,
            "Accepted=False/NoMatchingParent ResolvedRefs=True/ResolvedRefs"
        ]
    );
    let message = &shown["parents"][0]["conditions"][2]["message"];
    assert_eq!(*message, format!("Dropped Rule 1: {WHY}"));
    assert_eq!(
        conditions_of(&state, "HTTPRoute/shop/r")[2],
        format!("PartiallyInvalid true UnsupportedValue: Dropped Rule 1: {WHY}")
    );
    // What is left keeps its names.
    let cart = destination(&state, &name("shop/cart")).expect("exists");
    let left = ["HTTPRoute/shop/r#0", "HTTPRoute/shop/r#2"];
    assert_eq!(rules_of(&cart, 80), left);
    let edge = gateway(&state, &name("shop/edge")).expect("exists");
    let Serves::Http(routes) = &edge.listeners[0].serves else {
        panic!("HTTP")
    };
    let rules: Vec<&str> = routes.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(rules, left);
}

#[test]
fn a_route_of_which_nothing_can_be_followed_is_not_accepted_and_in_nobodys_way() {
    let state = mesh(&[
        &service("shop/cart", HTTP),
        &gateway_of("shop/edge", &["{name: web, port: 80, protocol: HTTP}"], ""),
        &any_route(
            "HTTPRoute",
            "shop/bad",
            &format!(
                "{{parentRefs: [{{name: edge}}, {{group: '', kind: Service, name: cart}}], rules: [{BAD}, {BAD}]}}"
            ),
        ),
        // It could not be attached beside an HTTPRoute.
        &any_route(
            "GRPCRoute",
            "shop/grpc",
            "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: cart, port: 80}]}]}",
        ),
    ]);
    let bad = status(&state, "HTTPRoute/shop/bad").expect("has parents");
    for parent in bad["parents"].as_array().expect("a list") {
        assert_eq!(
            told(&parent["conditions"]),
            "Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs"
        );
    }
    let grpc = status(&state, "GRPCRoute/shop/grpc").expect("has a parent");
    assert_eq!(
        told(&grpc["parents"][0]["conditions"]),
        "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs"
    );
    let edge = status(&state, "Gateway/shop/edge").expect("is ours");
    assert_eq!(edge["listeners"][0]["attachedRoutes"], 1);
    let cart = destination(&state, &name("shop/cart")).expect("exists");
    assert!(cart.ports[&80].rules.is_empty(), "its callers pass through");
}

#[test]
fn a_parent_of_an_unknown_kind_is_another_controllers() {
    let other = "{group: acme.io, kind: Edge, name: far}";
    let route = |parents: &str| {
        any_route(
            "HTTPRoute",
            "shop/r",
            &format!("{{parentRefs: [{parents}], rules: [{{backendRefs: [{{name: cart, port: 80}}]}}]}}"),
        )
    };
    let cart = service("shop/cart", HTTP);
    let beside = mesh(&[
        &cart,
        &route(&format!("{other}, {{group: '', kind: Service, name: cart}}")),
    ]);
    let shown = status(&beside, "HTTPRoute/shop/r").expect("has a parent of ours");
    let parents = shown["parents"].as_array().expect("a list");
    assert!(
        parents.len() == 1 && parents[0]["parentRef"]["kind"] == "Service",
        "{parents:?}"
    );
    assert_eq!(
        conditions_of(&beside, "HTTPRoute/shop/r")[0],
        "Accepted true Accepted: "
    );
    let alone = mesh(&[&cart, &route(other)]);
    assert_eq!(status(&alone, "HTTPRoute/shop/r"), None);
    assert!(conditions_of(&alone, "HTTPRoute/shop/r").is_empty());
    let warnings = Judge::of_configuration(&alone).warnings(&"HTTPRoute/shop/r".parse().expect("a key"));
    assert_eq!(warnings.len(), 1);
    assert_eq!(
        format!("{}: {}", warnings[0].path, warnings[0].message),
        "spec.parentRefs[0]: is left alone: Edge.acme.io shop/far is of a kind that is not known"
    );
}
