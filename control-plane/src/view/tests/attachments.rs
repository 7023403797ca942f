//! Which routes are attached to which listeners, and what is said where they are not.

use super::gateway::{any_route, gateway_of, secret};
use super::*;

/// The names of the routes on each listener that is served.
fn attached(state: &MeshState, gateway: &str) -> Vec<String> {
    use model::gateway::Serves;
    let gateway = super::gateway(state, &name(gateway)).expect("is ours");
    let told = |listener: &model::gateway::Listener| {
        let names: Vec<&str> = match &listener.serves {
            Serves::Http(routes) | Serves::Https(_, routes) => {
                routes.rules.iter().map(|rule| &*rule.name).collect()
            }
            Serves::TlsTerminate(_, rules)
            | Serves::TlsPassthrough(rules)
            | Serves::Tcp(rules)
            | Serves::Udp(rules) => rules.iter().map(|rule| &*rule.name).collect(),
        };
        format!("{}: {}", listener.name, names.join(" "))
    };
    gateway.listeners.iter().map(told).collect()
}

fn to_edge(parent: &str, rest: &str) -> String {
    format!("{{parentRefs: [{{name: edge, namespace: shop{parent}}}], {rest}rules: [{{}}]}}")
}

#[test]
fn a_route_is_attached_where_everything_fits() {
    let listeners = [
        "{name: a, port: 80, protocol: HTTP, hostname: '*.example.com'}",
        "{name: b, port: 81, protocol: HTTP, hostname: www.example.com, allowedRoutes: {namespaces: {from: All}}}",
        "{name: c, port: 82, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}], namespaces: {from: Selector, \
         selector: {matchLabels: {team: web}}}}}",
    ];
    let ok = "Accepted true Accepted: ";
    let refused = |why: &str| format!("Accepted false {why}");
    let table = [
        ("HTTPRoute", "shop/r", "", "", ok.to_owned(), "a b"),
        ("HTTPRoute", "shop/r", ", sectionName: a", "", ok.to_owned(), "a"),
        ("HTTPRoute", "shop/r", ", port: 81", "", ok.to_owned(), "b"),
        (
            "HTTPRoute",
            "shop/r",
            ", sectionName: a, port: 81",
            "",
            refused("NoMatchingParent: Gateway shop/edge has no listener 81 named \"a\""),
            "",
        ),
        (
            "HTTPRoute",
            "shop/r",
            ", port: 82",
            "",
            refused(
                "NotAllowedByListeners: no listener that the route names takes HTTPRoutes of namespace shop",
            ),
            "",
        ),
        ("HTTPRoute", "team/r", "", "", ok.to_owned(), "b"),
        ("GRPCRoute", "team/r", ", port: 82", "", ok.to_owned(), "c"),
        (
            "GRPCRoute",
            "other/r",
            ", port: 82",
            "",
            refused(
                "NotAllowedByListeners: no listener that the route names takes GRPCRoutes of namespace other",
            ),
            "",
        ),
        (
            "HTTPRoute",
            "shop/r",
            "",
            "hostnames: [a.b.example.com], ",
            ok.to_owned(),
            "a",
        ),
        (
            "HTTPRoute",
            "shop/r",
            "",
            "hostnames: [example.com, example.org], ",
            refused(
                "NoMatchingListenerHostname: no listener that the route names has a hostname in common with it",
            ),
            "",
        ),
        (
            "TCPRoute",
            "shop/r",
            "",
            "",
            refused(
                "NotAllowedByListeners: no listener that the route names takes TCPRoutes of namespace shop",
            ),
            "",
        ),
    ];
    for (kind, route, parent, rest, expected, places) in table {
        let mut spec = to_edge(parent, rest);
        if kind == "TCPRoute" {
            spec = spec.replace("rules: [{}]", "rules: [{backendRefs: [{name: x, port: 1}]}]");
        }
        let state = mesh(&[
            "{apiVersion: v1, kind: Namespace, metadata: {name: team, labels: {team: web}}}",
            &gateway_of("shop/edge", &listeners, ""),
            &any_route(kind, route, &spec),
        ]);
        let told = conditions_of(&state, &format!("{kind}/{route}"));
        assert_eq!(told[0], expected, "{kind} {route} {parent} {rest}");
        let on: Vec<String> = attached(&state, "shop/edge")
            .iter()
            .filter(|listener| listener.contains(kind))
            .map(|listener| listener[..1].to_owned())
            .collect();
        assert_eq!(on.join(" "), places, "{kind} {route} {parent} {rest}");
    }
}

#[test]
fn of_an_http_and_a_grpc_route_with_a_host_in_common_the_older_is_attached() {
    let listeners = ["{name: web, port: 80, protocol: HTTP}"];
    let route = |kind: &str, name: &str, hosts: &str| {
        any_route(kind, name, &to_edge("", &format!("hostnames: [{hosts}], ")))
    };
    let state = mesh(&[
        &gateway_of("shop/edge", &listeners, ""),
        &format!(
            "{}---\n{}",
            route("HTTPRoute", "shop/b", "'*.example.com'"),
            route("GRPCRoute", "shop/a", "a.example.com")
        ),
        &route("HTTPRoute", "shop/later", "a.example.com, b.org"),
        &route("GRPCRoute", "shop/other", "c.org"),
    ]);
    assert_eq!(
        attached(&state, "shop/edge"),
        ["web: GRPCRoute/shop/a#0 GRPCRoute/shop/other#0"]
    );
    let told = &conditions_of(&state, "HTTPRoute/shop/later")[0];
    assert!(
        told.starts_with("Accepted false HostnameConflict: GRPCRoute/shop/a, which is older"),
        "{told}"
    );
}

#[test]
fn listener_sets_add_what_does_not_clash() {
    let set = |name: &str, port: u16, hostname: &str| {
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\n\
             metadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{parentRef: {{name: edge, namespace: shop}}, listeners: \
             [{{name: web, port: {port}, protocol: HTTP, hostname: {hostname}}}]}}\n"
        )
    };
    let gateway = |from: &str| {
        gateway_of(
            "shop/edge",
            &["{name: web, port: 80, protocol: HTTP, hostname: a.org}"],
            &format!("  allowedListeners: {{namespaces: {{from: {from}}}}}\n"),
        )
    };
    let texts = [
        set("team/z-old", 80, "b.org"),
        format!(
            "{}---\n{}",
            set("team/b", 80, "c.org"),
            set("team/a", 80, "c.org")
        ),
        set("shop/same", 80, "a.org"),
        any_route(
            "HTTPRoute",
            "team/r",
            "{parentRefs: [{kind: ListenerSet, name: z-old}], rules: [{}]}",
        ),
        any_route("HTTPRoute", "shop/r", "{parentRefs: [{name: edge}], rules: [{}]}"),
    ];
    let state = |from: &str| {
        let mut all = vec![gateway(from)];
        all.extend(texts.iter().cloned());
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        mesh(&all)
    };
    assert_eq!(
        attached(&state("All"), "shop/edge"),
        [
            "web: HTTPRoute/shop/r#0",
            "ListenerSet/team/z-old/web: HTTPRoute/team/r#0",
            "ListenerSet/team/a/web: ",
        ]
    );
    let all = state("All");
    let told = |state: &MeshState, set: &str| conditions_of(state, &format!("ListenerSet/{set}")).remove(0);
    assert_eq!(told(&all, "team/a"), "Accepted true Accepted: ");
    for lost in ["team/b", "shop/same"] {
        assert_eq!(
            told(&all, lost),
            "Accepted false ListenersNotValid: not accepted: web"
        );
    }
    let none = state("None");
    assert_eq!(attached(&none, "shop/edge"), ["web: HTTPRoute/shop/r#0"]);
    assert!(told(&none, "team/a").starts_with("Accepted false NotAllowed: "));
    let route = &conditions_of(&none, "HTTPRoute/team/r")[0];
    assert_eq!(
        route,
        "Accepted false NoMatchingParent: ListenerSet team/z-old is not attached to Gateway shop/edge"
    );
    assert_eq!(
        attached(&state("Same"), "shop/edge").len(),
        1,
        "the own one clashes"
    );
}

#[test]
fn other_namespaces_are_referred_to_where_a_grant_says_so() {
    let grant = |from: &str, to: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
             metadata: {{name: g, namespace: vault}}\nspec: {{from: [{from}], to: [{to}]}}\n"
        )
    };
    let gateway = "{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}";
    let secrets = "{group: '', kind: Secret}";
    let table = [
        (String::new(), false),
        (grant(gateway, secrets), true),
        (grant(gateway, "{group: '', kind: Secret, name: cert}"), true),
        (grant(gateway, "{group: '', kind: Secret, name: other}"), false),
        (grant(gateway, "{group: '', kind: Service}"), false),
        (grant(&gateway.replace("shop", "other"), secrets), false),
        (grant(&gateway.replace("Gateway", "HTTPRoute"), secrets), false),
    ];
    let listener =
        "{name: s, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert, namespace: vault}]}}";
    for (grant, is_allowed) in table {
        let state = mesh(&[
            &secret("vault/cert"),
            &gateway_of("shop/edge", &[listener], ""),
            &grant,
        ]);
        assert_eq!(
            attached(&state, "shop/edge").len(),
            usize::from(is_allowed),
            "{grant}"
        );
    }
}

#[test]
fn a_default_gateway_takes_routes_that_do_not_name_it() {
    let listeners = ["{name: web, port: 80, protocol: HTTP}"];
    let state = mesh(&[
        &gateway_of("shop/edge", &listeners, "  defaultScope: All\n"),
        &gateway_of("shop/other", &listeners, ""),
        &any_route("HTTPRoute", "shop/r", "{useDefaultGateways: All, rules: [{}]}"),
        &any_route("HTTPRoute", "shop/alone", "{rules: [{}]}"),
    ]);
    assert_eq!(attached(&state, "shop/edge"), ["web: HTTPRoute/shop/r#0"]);
    assert_eq!(attached(&state, "shop/other"), ["web: "]);
    assert_eq!(
        conditions_of(&state, "HTTPRoute/shop/r")[0],
        "Accepted true Accepted: "
    );
}
