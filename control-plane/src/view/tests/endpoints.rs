//! Who serves a Service: workloads that its selector means, or the addresses of its slices; and whom that is told.

use super::*;

#[test]
fn endpoints_are_ready_selected_workloads_of_the_namespace_that_serve_a_port() {
    let mut state = mesh(&[&service("shop/cart", "[{port: 80, targetPort: web}]")]);
    add(
        &mut state,
        "cart-2",
        "shop",
        &[("app", "cart"), ("version", "v2")],
        &[("web", 9000)],
    );
    add(&mut state, "cart-1", "shop", &[("app", "cart")], &[("", 8080)]);
    add(
        &mut state,
        "other-label",
        "shop",
        &[("app", "pay")],
        &[("", 8080)],
    );
    add(
        &mut state,
        "other-namespace",
        "default",
        &[("app", "cart")],
        &[("", 8080)],
    );
    add(
        &mut state,
        "other-port",
        "shop",
        &[("app", "cart")],
        &[("admin", 8080)],
    );
    add(&mut state, "only-calls", "shop", &[("app", "cart")], &[]);
    add(&mut state, "not-ready", "shop", &[("app", "cart")], &[("", 8080)]);
    state.workloads.get_mut(&id("not-ready")).expect("added").ready = false;
    let set = endpoints(&state, &name("shop/cart"));
    let ids: Vec<&str> = set
        .endpoints
        .workloads()
        .iter()
        .map(|endpoint| endpoint.workload.as_str())
        .collect();
    assert_eq!(ids, ["cart-1", "cart-2"]);
    assert_eq!(set.endpoints.workloads()[1].labels.get("version"), Some("v2"));
    assert_eq!(
        endpoints(&state, &name("shop/gone")).endpoints,
        Endpoints::Mesh(Vec::new())
    );
}

#[test]
fn a_workload_serves_the_ports_it_has_an_application_for() {
    let mut state = mesh(&[
        &service(
            "shop/cart",
            "[{name: web, port: 80, targetPort: web, appProtocol: http}, {name: db, port: 81, targetPort: db}]",
        ),
        &service("other/cart", HTTP),
        "apiVersion: v1\nkind: Service\nmetadata: {name: all, namespace: shop}\n\
         spec: {selector: {tier: back}, ports: [{port: 7, targetPort: 9000}]}\n",
    ]);
    add(
        &mut state,
        "cart-1",
        "shop",
        &[("app", "cart"), ("tier", "back")],
        &[("web", 9000)],
    );
    let served: BTreeMap<String, (String, AppProtocol)> = inbound(&state, &id("cart-1"))
        .served
        .into_iter()
        .map(|(port, served)| (port.to_string(), (served.app.to_string(), served.protocol)))
        .collect();
    assert_eq!(
        served,
        BTreeMap::from([
            (
                "shop/all:7".to_owned(),
                ("127.0.0.1:9000".to_owned(), AppProtocol::Detect)
            ),
            (
                "shop/cart:80".to_owned(),
                ("127.0.0.1:9000".to_owned(), AppProtocol::Http)
            ),
        ])
    );
    assert_eq!(
        served_by(&state, &id("cart-1")),
        [name("shop/all"), name("shop/cart")]
    );
    assert!(inbound(&state, &id("unknown")).served.is_empty());
}

#[test]
fn a_workload_is_told_of_what_it_asked_for_and_what_that_leads_to() {
    let mut state = mesh(&[
        &service("shop/cart", HTTP),
        &service("shop/cart-v2", HTTP),
        &service("shop/unrelated", HTTP),
        &route(
            "HTTPRoute",
            "shop/r",
            "name: cart",
            &["{name: cart-v2, port: 80}, {name: gone, port: 80}"],
        ),
    ]);
    add(
        &mut state,
        "cart-v2",
        "shop",
        &[("app", "cart-v2")],
        &[("", 8080)],
    );
    let asked = BTreeSet::from([name("shop/cart").into(), name("shop/gone").into()]);
    let told = resources_for(&state, &id("caller"), &asked);
    let names: Vec<String> = told.keys().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "inbound",
            "destination/shop/cart",
            "destination/shop/gone",
            "endpoints/shop/cart",
            "endpoints/shop/cart-v2",
        ]
    );
    assert_eq!(told[&ResourceName::Destination(name("shop/gone"))], None);
    let v2 = &told[&ResourceName::Endpoints(name("shop/cart-v2"))];
    assert!(matches!(v2, Some(Resource::Endpoints(set)) if set.endpoints.workloads().len() == 1));
}

/// A Service without a selector.
fn outside_service(name: &str, ports: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{ports: {ports}}}\n"
    )
}

fn slice(name: &str, service: &str, ports: &str, addresses: &[&str]) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let endpoints: String = addresses
        .iter()
        .map(|address| format!("  - {{addresses: [{address}]}}\n"))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: {namespace}, \
         labels: {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: {ports}\nendpoints:\n{endpoints}"
    )
}

#[test]
fn a_service_without_a_selector_has_the_endpoints_of_all_its_slices_by_the_name_of_their_port() {
    let ports = "[{name: web, port: 80, targetPort: 1, appProtocol: http}, {name: sql, port: 5432, appProtocol: tcp}]";
    let mut state = mesh(&[
        &outside_service("shop/db", ports),
        &slice(
            "shop/db-1",
            "db",
            "[{name: web, port: 8080}]",
            &["10.0.0.2", "10.0.0.1"],
        ),
        &slice(
            "shop/db-2",
            "db",
            "[{name: sql, port: 15432}, {name: web, port: 8081}]",
            &["10.0.0.1"],
        ),
        // The same once more, and what is not the Service's.
        &slice("shop/db-3", "db", "[{name: web, port: 8080}]", &["10.0.0.1"]),
        &slice(
            "shop/db-4",
            "db",
            "[{port: 1}, {name: other, port: 2}]",
            &["10.0.0.9"],
        ),
        &slice("shop/pay-1", "pay", "[{name: web, port: 8080}]", &["10.0.0.9"]),
        &slice("other/db-1", "db", "[{name: web, port: 8080}]", &["10.0.0.9"]),
    ]);
    // An empty selector selects nobody, whatever a workload's labels are.
    add(&mut state, "db-1", "shop", &[("app", "db")], &[("", 8080)]);
    let outside = |protocol, addresses: &[&str]| OutsidePort {
        protocol,
        addresses: addresses.iter().map(|a| a.parse().expect("an address")).collect(),
        tls: None,
    };
    let web = &["10.0.0.1:8080", "10.0.0.1:8081", "10.0.0.2:8080"];
    let expected = BTreeMap::from([
        (80, outside(AppProtocol::Http, web)),
        (5432, outside(AppProtocol::Tcp, &["10.0.0.1:15432"])),
    ]);
    assert_eq!(
        endpoints(&state, &name("shop/db")).endpoints,
        Endpoints::Outside(expected)
    );
}

#[test]
fn an_unnamed_port_is_served_by_an_unnamed_port_and_what_is_not_ready_is_left_out() {
    let state = mesh(&[
        &outside_service("shop/db", "[{port: 80}]"),
        &slice("shop/db-1", "db", "[{port: 8080}]", &["10.0.0.1"]),
        &slice("shop/db-2", "db", "[{port: 8080}]", &["10.0.0.2"])
            .replace("]}", "], conditions: {ready: false}}"),
    ]);
    let told = endpoints(&state, &name("shop/db")).endpoints;
    let port = told.outside(80).expect("a port of the Service");
    let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        (addresses, port.protocol),
        (vec!["10.0.0.1:8080".to_owned()], AppProtocol::Detect)
    );
}

#[test]
fn a_service_with_a_selector_is_its_workloads_whatever_slices_say() {
    let mut state = mesh(&[
        &service("shop/cart", HTTP),
        &slice("shop/cart-1", "cart", "[{port: 8080}]", &["10.0.0.9"]),
    ]);
    let set = endpoints(&state, &name("shop/cart")).endpoints;
    assert_eq!(
        set,
        Endpoints::Mesh(Vec::new()),
        "no workload, and nothing instead"
    );
    add(&mut state, "cart-1", "shop", &[("app", "cart")], &[("", 8080)]);
    let set = endpoints(&state, &name("shop/cart")).endpoints;
    assert!(set.workloads().len() == 1 && set.outside(80).is_none());
    assert_eq!(
        conditions_of(&state, "EndpointSlice/shop/cart-1"),
        [
            "Accepted false ServiceHasSelector: Service shop/cart has a selector: its endpoints are the workloads \
             that it selects, and nothing of the slice is used",
            "ResolvedRefs true ResolvedRefs: ",
        ]
    );
}

#[test]
fn a_slice_says_what_of_it_is_of_use() {
    let service = outside_service(
        "shop/db",
        "[{name: web, port: 80}, {name: sql, port: 5432, appProtocol: tcp}]",
    );
    let table = [
        (
            "db",
            "[{name: web, port: 1, appProtocol: http}, {name: sql, port: 2}]",
            ["Accepted true Accepted: ", "ResolvedRefs true ResolvedRefs: "],
        ),
        (
            "gone",
            "[{port: 1}]",
            [
                "Accepted false ServiceNotFound: Service shop/gone does not exist",
                "ResolvedRefs true ResolvedRefs: ",
            ],
        ),
        (
            "db",
            "[{port: 1}, {name: www, port: 1}, {name: sql, port: 2, appProtocol: http}]",
            [
                "Accepted true Accepted: ",
                "ResolvedRefs false PortNotFound: Service shop/db has no port without a name; Service shop/db has no \
                 port \"www\"; the port \"sql\" has another appProtocol in Service shop/db, which is the one that counts",
            ],
        ),
    ];
    for (of, ports, expected) in table {
        let state = mesh(&[&service, &slice("shop/one", of, ports, &["10.0.0.1"])]);
        assert_eq!(
            conditions_of(&state, "EndpointSlice/shop/one"),
            expected,
            "{ports}"
        );
    }
}
