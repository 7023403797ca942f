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
