//! Routes in shadow: nothing that is in force has anything of them, and what would be stands beside it.

use model::gateway::Serves;

use super::gateway::gateway_of;
use super::*;

/// An HTTPRoute in shadow for these parents.
fn shadow(name: &str, replaces: Option<&str>, parents: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let replaces = replaces.map_or(String::new(), |name| {
        format!(", weft.dev/shadow-replaces: {name}")
    });
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {name}, namespace: {namespace}, annotations: {{weft.dev/shadow: 'true'{replaces}}}}}\n\
         spec: {{parentRefs: [{parents}], {spec}rules: [{{backendRefs: [{{name: pay, namespace: shop, port: 80}}]}}]}}\n"
    )
}

const CART: &str = "{group: '', kind: Service, name: cart, namespace: shop}";
const CART_80: &str = "{group: '', kind: Service, name: cart, namespace: shop, port: 80}";

fn in_force(name: &str) -> String {
    route("HTTPRoute", name, "name: cart", &["{name: cart, port: 80}"])
}

fn cart() -> String {
    service("shop/cart", "[{name: a, port: 80}, {name: b, port: 81}]")
}

fn names(rules: &[model::route::Rule]) -> Vec<String> {
    rules.iter().map(|rule| rule.name.to_string()).collect()
}

/// What is in force on a port, and what would be.
fn both(destination: &Destination, port: u16) -> (Vec<String>, Option<Vec<String>>) {
    let port = &destination.ports[&port];
    (names(&port.rules), port.shadow.as_deref().map(names))
}

fn own(state: &MeshState) -> Destination {
    destination(state, &name("shop/cart")).expect("exists")
}

#[test]
fn what_would_be_has_the_routes_in_shadow_and_not_those_that_they_replace() {
    let [first, next, second] = ["first", "next", "second"].map(|name| format!("HTTPRoute/shop/{name}#0"));
    let texts = [cart(), service("shop/pay", HTTP), in_force("shop/first")];
    let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(both(&own(&mesh(&texts)), 80), (vec![first.clone()], None));

    let (beside, younger) = (shadow("shop/next", None, CART_80, ""), in_force("shop/second"));
    texts.extend([&*beside, &*younger]);
    let state = mesh(&texts);
    let real = vec![first.clone(), second.clone()];
    // Of its own age.
    let would_be = vec![first.clone(), next.clone(), second.clone()];
    assert_eq!(both(&own(&state), 80), (real.clone(), Some(would_be)));
    assert_eq!(both(&own(&state), 81), (real.clone(), None), "it is for one port");
    let reached = reached_from(&own(&state));
    assert_eq!(
        reached,
        BTreeSet::from([name("shop/cart")]),
        "nothing goes to its backends"
    );
    assert_eq!(
        conditions_of(&state, "HTTPRoute/shop/next")[0],
        "Accepted true Accepted: the route is in shadow: requests are compared with it, and none follows it"
    );

    let instead = shadow("shop/next", Some("first"), CART_80, "");
    texts.push(&instead);
    let state = mesh(&texts);
    // What is replaced is gone from all of its parents.
    assert_eq!(
        both(&own(&state), 80),
        (real.clone(), Some(vec![second.clone(), next]))
    );
    assert_eq!(both(&own(&state), 81), (real, Some(vec![second])));

    let nothing = shadow("shop/next", Some("gone"), CART_80, "");
    texts.push(&nothing);
    assert_eq!(
        conditions_of(&mesh(&texts), "HTTPRoute/shop/next")[0],
        "Accepted true Accepted: the route is in shadow: requests are compared with it, and none follows it; \
         HTTPRoute/shop/gone, which it would replace, does not exist"
    );
}

#[test]
fn consumers_are_told_what_would_be_of_either_namespace() {
    let producer = [cart(), service("shop/pay", HTTP), in_force("shop/real")];
    let texts = |others: &[&str]| {
        let mut texts: Vec<&str> = producer.iter().map(String::as_str).collect();
        texts.extend(others);
        mesh(&texts)
    };
    let told = |state: &MeshState, caller: &str| {
        let destination = destination_for(state, &name("shop/cart"), &caller.parse().expect("a label"));
        both(&destination.expect("exists"), 80)
    };
    let named = |name: &str| vec![format!("HTTPRoute/{name}#0")];
    let real = named("shop/real");

    // One of the caller's namespace would take the place of the Service's own.
    let state = texts(&[&shadow("web/next", None, CART, "")]);
    assert_eq!(told(&state, "web"), (real.clone(), Some(named("web/next"))));
    assert_eq!(told(&state, "shop"), (real.clone(), None));
    let consumer = (name("shop/cart"), "web".parse().expect("a label"));
    assert_eq!(consumers(&state), BTreeSet::from([consumer]));

    // One of the Service's own namespace changes nothing for whoever has routes of his own.
    let of_web = shadow("web/own", None, CART, "").replace("weft.dev/shadow: 'true'", "");
    let state = texts(&[&of_web, &shadow("shop/next", Some("real"), CART, "")]);
    assert_eq!(told(&state, "web"), (named("web/own"), None));
    assert_eq!(told(&state, "shop"), (real.clone(), Some(named("shop/next"))));
    assert_eq!(told(&state, "other"), (real.clone(), Some(named("shop/next"))));
}

#[test]
fn a_gateway_serves_nothing_of_what_is_in_shadow() {
    let listeners = [
        "{name: one, port: 80, protocol: HTTP, hostname: one.org}",
        "{name: two, port: 80, protocol: HTTP, hostname: two.org}",
    ];
    let at_edge = |text: String| text.replace("{group: '', kind: Service, name: cart}", "{name: edge}");
    let grpc = at_edge(route(
        "GRPCRoute",
        "shop/calls",
        "name: cart",
        &["{name: pay, port: 80}"],
    ));
    let state = mesh(&[
        &service("shop/pay", HTTP),
        &gateway_of("shop/edge", &listeners, ""),
        &shadow("shop/next", None, "{name: edge}", "hostnames: [one.org], "),
        &grpc,
    ]);
    let edge = super::gateway(&state, &name("shop/edge")).expect("is ours");
    let routes = |at: usize| {
        let Serves::Http(routes) = &edge.listeners[at].serves else {
            panic!("HTTP")
        };
        (routes, edge.listeners[at].shadow.as_ref())
    };
    // An HTTPRoute and a GRPCRoute cannot share a host; the younger one loses, but not to one in shadow.
    let calls = ["GRPCRoute/shop/calls#0"];
    let (real, would_be) = routes(0);
    assert_eq!(names(&real.rules), calls);
    let would_be = would_be.expect("in shadow");
    assert_eq!(names(&would_be.rules), ["HTTPRoute/shop/next#0"]);
    assert_eq!(would_be.hosts.len(), 1);
    let (real, would_be) = routes(1);
    assert_eq!(
        (names(&real.rules), would_be),
        (calls.map(str::to_owned).to_vec(), None)
    );
    let accepted = |route: &str| conditions_of(&state, route)[0].clone();
    assert_eq!(accepted("GRPCRoute/shop/calls"), "Accepted true Accepted: ");
    let note = "the route is in shadow: requests are compared with it, and none follows it";
    assert_eq!(
        accepted("HTTPRoute/shop/next"),
        format!("Accepted true Accepted: {note}")
    );
}

/// A policy for this target, in shadow where it says what it replaces.
fn policy(kind: &str, name: &str, replaces: Option<&str>, target: &str, spec: &str) -> String {
    let annotations = replaces.map_or(String::new(), |name| match name {
        "" => "weft.dev/shadow: 'true'".to_owned(),
        name => format!("weft.dev/shadow: 'true', weft.dev/shadow-replaces: {name}"),
    });
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}\n\
         spec: {{targetRefs: [{target}], {spec}}}\n"
    )
}

#[test]
fn policies_in_shadow_stand_beside_those_in_force_where_they_would_say_something_else() {
    const TRAFFIC: &str = "BackendTrafficPolicy";
    const FAULT: &str = "FaultInjectionPolicy";
    let (cart_a, route) = (
        "{kind: Service, name: cart, sectionName: a}",
        "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: first}",
    );
    let (limit, abort) = ("circuitBreaker: {}", "abort: {httpStatus: 503}");
    let mut texts = vec![
        cart(),
        in_force("shop/first"),
        policy(TRAFFIC, "now", None, cart_a, limit),
        policy(FAULT, "chaos", None, cart_a, abort),
    ];
    let state = |texts: &[String]| mesh(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let told = |state: &MeshState| {
        let set = endpoints(state, &name("shop/cart"));
        let shadow = set.shadow.iter().map(|(port, shadow)| {
            let traffic = shadow.traffic.as_ref().map(|named| named.name.to_string());
            let faults: Vec<_> = shadow
                .faults
                .iter()
                .map(|fault| fault.policy.to_string())
                .collect();
            (*port, traffic, faults)
        });
        (set.policies.len(), set.faults.len(), shadow.collect::<Vec<_>>())
    };
    assert_eq!(told(&state(&texts)), (1, 1, Vec::new()));

    // Younger than one for the same target, it would not count.
    texts.push(policy(TRAFFIC, "beside", Some(""), cart_a, limit));
    assert_eq!(told(&state(&texts)), (1, 1, Vec::new()));
    let condition = |state: &MeshState, policy: &str| {
        let key = format!("{TRAFFIC}/shop/{policy}").parse().expect("a key");
        conditions(state, &key).remove(0)
    };
    assert_eq!(condition(&state(&texts), "beside").reason, "Conflicted");
    assert_eq!(condition(&state(&texts), "now").reason, "Accepted");

    // All that would be said is beside it, also where only one kind is in shadow.
    texts.push(policy(TRAFFIC, "next", Some("now"), cart_a, limit));
    texts.push(policy(
        FAULT,
        "slow",
        Some(""),
        "{kind: Service, name: cart}",
        abort,
    ));
    let [chaos, slow] = ["chaos", "slow"].map(|name| format!("{FAULT}/shop/{name}"));
    let beside = Some(format!("{TRAFFIC}/shop/beside"));
    let expected = vec![(80, beside, vec![chaos, slow.clone()]), (81, None, vec![slow])];
    assert_eq!(told(&state(&texts)), (1, 1, expected));
    assert!(
        own(&state(&texts)).ports[&80]
            .rules
            .iter()
            .all(|rule| rule.shadow.is_none())
    );

    texts.push(policy(TRAFFIC, "routes", Some(""), route, limit));
    let cart = own(&state(&texts));
    let rule = &cart.ports[&80].rules[0];
    let shadow = rule.shadow.as_ref().and_then(|shadow| shadow.traffic.as_ref());
    assert_eq!(
        shadow.map(|named| &*named.name),
        Some("BackendTrafficPolicy/shop/routes")
    );
    assert_eq!((&rule.policy, &cart.ports[&80].shadow), (&None, &None));
}
