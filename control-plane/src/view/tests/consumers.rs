//! Consumer routes: what callers of one namespace make of a Service of another.

use super::gateway::any_route;
use super::*;

#[test]
fn a_consumer_route_is_for_callers_of_its_own_namespace_alone() {
    let mut state = mesh(&[
        &service("shop/cart", "[{name: a, port: 80}, {name: b, port: 81}]"),
        &route(
            "HTTPRoute",
            "shop/producer",
            "name: cart",
            &["{name: cart, port: 80}"],
        ),
        &any_route(
            "HTTPRoute",
            "web/consumer",
            "{parentRefs: [{group: '', kind: Service, name: cart, namespace: shop, port: 80}], \
             rules: [{backendRefs: [{name: cart, namespace: shop, port: 80}]}]}",
        ),
    ]);
    let rules = |caller: &str, port| {
        let destination = destination_for(&state, &name("shop/cart"), &caller.parse().expect("a label"));
        let destination = destination.expect("exists");
        let rules = rules_of(&destination, port);
        let resolved = destination.ports[&port]
            .rules
            .iter()
            .flat_map(|rule| &rule.backends)
            .all(|backend| backend.target.is_some());
        assert!(resolved, "a consumer may call the Service itself");
        rules.join(" ")
    };
    let producer = "HTTPRoute/shop/producer#0";
    assert_eq!(rules("web", 80), "HTTPRoute/web/consumer#0");
    assert_eq!(rules("web", 81), producer);
    assert_eq!(rules("shop", 80), producer);
    assert_eq!(rules("other", 80), producer);
    let expected = (name("shop/cart"), "web".parse().expect("a label"));
    assert_eq!(consumers(&state), BTreeSet::from([expected]));

    add(&mut state, "web-1", "web", &[], &[]);
    add(&mut state, "other-1", "other", &[], &[]);
    let told = |workload: &str| {
        let subscriptions = BTreeSet::from([name("shop/cart").into()]);
        let mut resources = resources_for(&state, &id(workload), &subscriptions);
        match resources.remove(&ResourceName::Destination(name("shop/cart"))) {
            Some(Some(Resource::Destination(destination))) => rules_of(&destination, 80).join(" "),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told("web-1"), "HTTPRoute/web/consumer#0");
    assert_eq!(told("other-1"), producer);
}

#[test]
fn a_consumer_route_of_another_kind_takes_the_place_of_the_services_own() {
    let of = |kind: &str, name: &str| {
        any_route(
            kind,
            name,
            "{parentRefs: [{group: '', kind: Service, name: db, namespace: shop}], \
             rules: [{backendRefs: [{name: db, namespace: shop, port: 1}]}]}",
        )
    };
    for (own, callers) in [("HTTPRoute", "TCPRoute"), ("TCPRoute", "HTTPRoute")] {
        let state = mesh(&[
            &service("shop/db", "[{port: 1}]"),
            &of(own, "shop/own"),
            &of(callers, "web/callers"),
        ]);
        let governing = |caller: &str| {
            let db = destination_for(&state, &name("shop/db"), &caller.parse().expect("a label"));
            let port = &db.expect("exists").ports[&1];
            let streams = port.streams.iter().map(|rule| rule.name.to_string());
            let rules = port.rules.iter().map(|rule| rule.name.to_string());
            rules.chain(streams).collect::<Vec<_>>()
        };
        assert_eq!(governing("shop"), [format!("{own}/shop/own#0")]);
        assert_eq!(governing("web"), [format!("{callers}/web/callers#0")]);
    }
}

#[test]
fn a_consumer_route_needs_a_grant_for_any_other_service() {
    let state = mesh(&[
        &service("shop/cart", HTTP),
        &service("shop/pay", HTTP),
        &any_route(
            "HTTPRoute",
            "web/consumer",
            "{parentRefs: [{group: '', kind: Service, name: cart, namespace: shop}], \
             rules: [{backendRefs: [{name: pay, namespace: shop, port: 80}]}]}",
        ),
    ]);
    assert_eq!(
        conditions_of(&state, "HTTPRoute/web/consumer"),
        [
            "Accepted true Accepted: ",
            "ResolvedRefs false RefNotPermitted: shop/pay:80 is in another namespace, and no ReferenceGrant there is \
             for HTTPRoutes of namespace web",
        ]
    );
}

#[test]
fn streams_are_governed_by_tls_and_tcp_routes() {
    let parent = "parentRefs: [{group: '', kind: Service, name: db}]";
    let to = "rules: [{backendRefs: [{name: db, port: 1}]}]";
    let state = mesh(&[
        &service(
            "shop/db",
            "[{name: tcp, port: 1, appProtocol: tcp}, {name: any, port: 2}, {name: http, port: 3, appProtocol: http}]",
        ),
        &any_route("TCPRoute", "shop/a", &format!("{{{parent}, {to}}}")),
        &any_route(
            "TLSRoute",
            "shop/b",
            &format!("{{{parent}, hostnames: [db.org], {to}}}"),
        ),
    ]);
    let db = destination(&state, &name("shop/db")).expect("exists");
    for port in [1, 2] {
        let names: Vec<&str> = db.ports[&port].streams.iter().map(|rule| &*rule.name).collect();
        assert_eq!(names, ["TLSRoute/shop/b#0"], "of both kinds the more specific");
    }
    assert!(db.ports[&3].streams.is_empty());
    let http = any_route(
        "TCPRoute",
        "shop/c",
        &format!("{{{}, {to}}}", parent.replace("name: db", "name: db, port: 3")),
    );
    let state = mesh(&[&service("shop/db", "[{port: 3, appProtocol: http}]"), &http]);
    assert_eq!(
        conditions_of(&state, "TCPRoute/shop/c")[0],
        "Accepted false UnsupportedProtocol: every port of Service shop/db that the route names is HTTP"
    );
}
