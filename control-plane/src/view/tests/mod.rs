//! Cause and effect of compiling: this configuration and these workloads, hence those resources.

use std::collections::{BTreeMap, BTreeSet};

use model::endpoint::OutsidePort;
use model::workload::{AppPort, Workload};
use model::{AppProtocol, Destination, Endpoints, Labels, Resource, ResourceName, ServiceName, WorkloadId};

use super::*;
use crate::sources::parse_documents;

mod attachments;
mod backend_tls;
mod consumers;
mod endpoints;
mod filters;
mod gateway;
mod gateway_status;
mod owner;
mod shadow;
mod status;
mod warnings;

/// The state after applying each text in turn, each at a generation of its own from 1.
fn mesh(texts: &[&str]) -> MeshState {
    let mut state = MeshState::default();
    for text in texts {
        state.generation.0 += 1;
        for document in parse_documents("mesh.yaml", text).expect("valid") {
            let stored = StoredObject {
                created: state.generation.0,
                object: document.object,
            };
            state.objects.insert(stored.object.key(), stored);
        }
    }
    state
}

fn service(name: &str, ports: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{selector: {{app: {name}}}, ports: {ports}}}\n"
    )
}

/// A route of this kind for a parent, each rule sending to one backend.
fn route(kind: &str, name: &str, parent: &str, backends: &[&str]) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let rules: String = backends
        .iter()
        .map(|b| format!("    - backendRefs: [{b}]\n"))
        .collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  parentRefs: [{{group: '', kind: Service, {parent}}}]\n\
         \x20 rules:\n{rules}"
    )
}

fn add(state: &mut MeshState, id: &str, namespace: &str, labels: &[(&str, &str)], app_ports: &[(&str, u16)]) {
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let app_port = |(name, port): &(&str, u16)| AppPort {
        name: (!name.is_empty()).then(|| (*name).to_owned()),
        address: ([127, 0, 0, 1], *port).into(),
    };
    let workload = Workload {
        id: id.parse().expect("valid"),
        identity: format!("spiffe://cluster.local/ns/{namespace}/sa/x")
            .parse()
            .expect("valid"),
        labels: Labels::new(labels).expect("valid"),
        inbound: Some(([10, 0, 0, 1], 15008).into()),
        gateway: None,
        app_ports: app_ports.iter().map(app_port).collect(),
        ready: true,
    };
    state.workloads.insert(workload.id.clone(), workload);
}

fn name(text: &str) -> ServiceName {
    text.parse().expect("namespace/name")
}

fn id(text: &str) -> WorkloadId {
    text.parse().expect("an id")
}

fn rules_of(destination: &Destination, port: u16) -> Vec<&str> {
    destination.ports[&port]
        .rules
        .iter()
        .map(|rule| &*rule.name)
        .collect()
}

/// Each condition as `type status reason: message`.
fn conditions_of(state: &MeshState, key: &str) -> Vec<String> {
    let told = conditions(state, &key.parse().expect("a key"));
    told.iter()
        .map(|c| format!("{} {} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect()
}

const HTTP: &str = "[{port: 80, appProtocol: http}]";

#[test]
fn rules_stand_oldest_first_then_by_name() {
    let to = ["{name: cart, port: 80}"];
    let state = mesh(&[
        &service("shop/cart", HTTP),
        &route("HTTPRoute", "shop/z-old", "name: cart", &to),
        &format!(
            "{}---\n{}",
            route("HTTPRoute", "shop/b-same-age", "name: cart", &to),
            route(
                "HTTPRoute",
                "shop/a-same-age",
                "name: cart",
                &["{name: cart, port: 80}", "{name: v2, port: 80}"]
            ),
        ),
    ]);
    let cart = destination(&state, &name("shop/cart")).expect("exists");
    assert_eq!(
        rules_of(&cart, 80),
        [
            "HTTPRoute/shop/z-old#0",
            "HTTPRoute/shop/a-same-age#0",
            "HTTPRoute/shop/a-same-age#1",
            "HTTPRoute/shop/b-same-age#0",
        ]
    );
}

#[test]
fn of_several_kinds_on_a_port_the_most_specific_counts_alone() {
    let two = "[{name: a, port: 80}, {name: b, port: 81}]";
    let to = ["{name: cart, port: 80}"];
    let http = route("HTTPRoute", "shop/http", "name: cart", &to);
    let tcp = route("TCPRoute", "shop/tcp", "name: cart", &to);
    let tls = route("TLSRoute", "shop/tls", "name: cart", &to) + "  hostnames: [cart.org]\n";
    let on_80 = route("GRPCRoute", "shop/grpc", "name: cart, port: 80", &to);
    let accepted = |state: &MeshState, kind: &str| {
        let key = format!("{kind}/shop/{}", kind.trim_end_matches("Route").to_lowercase());
        conditions_of(state, &key)[0].clone()
    };
    // The oldest is the least specific: age does not count.
    let state = mesh(&[&service("shop/cart", two), &tcp, &tls, &http, &on_80]);
    let cart = destination(&state, &name("shop/cart")).expect("exists");
    assert_eq!(rules_of(&cart, 80), ["GRPCRoute/shop/grpc#0"]);
    assert_eq!(rules_of(&cart, 81), ["HTTPRoute/shop/http#0"]);
    assert!(cart.ports[&80].streams.is_empty() && cart.ports[&81].streams.is_empty());
    assert_eq!(accepted(&state, "GRPCRoute"), "Accepted true Accepted: ");
    assert_eq!(
        accepted(&state, "HTTPRoute"),
        "Accepted true Accepted: ",
        "it has port 81"
    );
    for kind in ["TLSRoute", "TCPRoute"] {
        assert_eq!(
            accepted(&state, kind),
            "Accepted false Conflicted: GRPCRoute/shop/grpc, of a more specific kind, governs the same port of Service \
             shop/cart"
        );
    }
    let one = route("GRPCRoute", "shop/grpc", "name: cart", &to);
    let state = mesh(&[&service("shop/cart", two), &http, &one]);
    assert!(accepted(&state, "HTTPRoute").starts_with("Accepted false Conflicted: GRPCRoute/shop/grpc"));
    // What is not in force is in nobody's way, and neither is what another namespace says to its own callers.
    let shadow = one.replace(
        "namespace: shop}",
        "namespace: shop, annotations: {weft.dev/shadow: 'true'}}",
    );
    let consumer = one
        .replace("namespace: shop}", "namespace: web}")
        .replace("name: cart}", "name: cart, namespace: shop}");
    for other in [shadow, consumer] {
        let state = mesh(&[&service("shop/cart", two), &http, &other]);
        assert_eq!(
            accepted(&state, "HTTPRoute"),
            "Accepted true Accepted: ",
            "{other}"
        );
        let cart = destination(&state, &name("shop/cart")).expect("exists");
        assert_eq!(rules_of(&cart, 80), ["HTTPRoute/shop/http#0"], "{other}");
    }
}

#[test]
fn a_route_governs_the_ports_it_names() {
    let ports = "[{name: web, port: 80}, {name: admin, port: 81}, {name: db, port: 82, appProtocol: tcp}]";
    let table = [
        ("name: cart", vec![80, 81]),
        ("name: cart, port: 81", vec![81]),
        ("name: cart, sectionName: web", vec![80]),
        ("name: cart, sectionName: web, port: 81", vec![]),
        ("name: cart, port: 82", vec![]),
        ("name: cart, port: 9", vec![]),
    ];
    for (parent, expected) in table {
        let state = mesh(&[
            &service("shop/cart", ports),
            &service("other/cart", ports),
            &route("HTTPRoute", "shop/r", parent, &["{name: cart, port: 80}"]),
        ]);
        let governed = |service: &str| -> Vec<u16> {
            let destination = destination(&state, &name(service)).expect("exists");
            let ports = destination
                .ports
                .into_iter()
                .filter(|(_, port)| !port.rules.is_empty());
            ports.map(|(number, _)| number).collect()
        };
        assert_eq!(governed("shop/cart"), expected, "{parent}");
        assert_eq!(governed("other/cart"), Vec::<u16>::new(), "{parent}");
        let accepted = conditions(&state, &"HTTPRoute/shop/r".parse().expect("a key"))[0].status;
        assert_eq!(accepted, !expected.is_empty(), "{parent}");
    }
}

#[test]
fn a_backend_that_does_not_resolve_keeps_its_share_without_a_target() {
    let backends = "{name: cart, port: 80, weight: 90}, {name: gone, port: 80}, {name: cart, port: 81}, \
                    {name: cart, port: 80, namespace: other}";
    let state = mesh(&[
        &service("shop/cart", HTTP),
        &service("other/cart", HTTP),
        &route("HTTPRoute", "shop/r", "name: cart", &[backends]),
    ]);
    let cart = destination(&state, &name("shop/cart")).expect("exists");
    let told: Vec<_> = cart.ports[&80].rules[0]
        .backends
        .iter()
        .map(|backend| (&*backend.reference, backend.target.is_some(), backend.weight))
        .collect();
    assert_eq!(
        told,
        [
            ("shop/cart:80", true, 90),
            ("shop/gone:80", false, 1),
            ("shop/cart:81", false, 1),
            ("other/cart:80", false, 1),
        ]
    );
    assert_eq!(
        conditions_of(&state, "HTTPRoute/shop/r"),
        [
            "Accepted true Accepted: ",
            "ResolvedRefs false BackendNotFound: Service shop/gone does not exist; Service shop/cart has no port 81; \
         other/cart:80 is in another namespace, and no ReferenceGrant there is for HTTPRoutes of namespace shop",
        ]
    );
}

#[test]
fn a_route_that_cannot_be_attached_says_why() {
    let to = ["{name: cart, port: 80}"];
    let table = [
        ("name: gone", "NoMatchingParent: Service shop/gone does not exist"),
        (
            "name: cart, port: 9",
            "NoMatchingParent: Service shop/cart has no port 9",
        ),
        (
            "name: db",
            "UnsupportedProtocol: every port of Service shop/db that the route names is opaque TCP",
        ),
        (
            "name: cart, namespace: other",
            "NoMatchingParent: Service other/cart does not exist",
        ),
    ];
    for (parent, expected) in table {
        let state = mesh(&[
            &service("shop/cart", HTTP),
            &service("shop/db", "[{port: 1, appProtocol: tcp}]"),
            &route("GRPCRoute", "shop/r", parent, &to),
        ]);
        assert_eq!(
            conditions_of(&state, "GRPCRoute/shop/r")[0],
            format!("Accepted false {expected}")
        );
    }
}

#[test]
fn hostnames_are_noted_as_ignored() {
    let text = route("HTTPRoute", "shop/r", "name: cart", &["{name: cart, port: 80}"])
        + "  hostnames: [a.example]\n";
    let state = mesh(&[&service("shop/cart", HTTP), &text]);
    assert_eq!(
        conditions_of(&state, "HTTPRoute/shop/r")[0],
        "Accepted true Accepted: hostnames are ignored, because the parent is a Service"
    );
    assert!(conditions_of(&state, "Service/shop/cart").is_empty());
    assert!(conditions_of(&state, "Service/shop/gone").is_empty());
}
