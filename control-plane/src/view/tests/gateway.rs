//! What a Gateway and everything around it compile into.

use model::gateway::{Gateway, Listener, Serves};

use super::*;

/// A Secret with a certificate that it was really made for.
pub(super) fn secret(name: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let made = rcgen::generate_simple_self_signed(["www.example.com".to_owned()]).expect("made");
    let indented = |pem: &str| pem.trim().replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         stringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
        indented(&made.cert.pem()),
        indented(&made.signing_key.serialize_pem())
    )
}

/// A ConfigMap with an authority.
pub(super) fn authority(name: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let made = rcgen::generate_simple_self_signed(["authority".to_owned()]).expect("made");
    let pem = made.cert.pem().trim().replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         data:\n  ca.crt: |\n    {pem}\n"
    )
}

/// A Gateway of class `weft`, with one line for each of its listeners and what else is in its spec.
pub(super) fn gateway_of(name: &str, listeners: &[&str], spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let listeners: String = listeners
        .iter()
        .map(|listener| format!("    - {listener}\n"))
        .collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  gatewayClassName: weft\n{spec}  listeners:\n{listeners}"
    )
}

/// A route of any kind with these lines in its spec.
pub(super) fn any_route(kind: &str, name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn compiled(state: &MeshState, text: &str) -> Gateway {
    super::gateway(state, &name(text)).expect("is ours")
}

fn listener<'g>(gateway: &'g Gateway, name: &str) -> &'g Listener {
    let found = gateway.listeners.iter().find(|listener| &*listener.name == name);
    found.unwrap_or_else(|| panic!("listener {name} of {gateway:?}"))
}

const HTTP_80: &str = "{name: web, port: 80, protocol: HTTP}";
const HTTPS_443: &str = "{name: secure, port: 443, protocol: HTTPS, hostname: '*.example.com', tls: {certificateRefs: [{name: cert}]}}";

#[test]
fn a_gateway_serves_its_routes_by_their_hosts() {
    let state = mesh(&[
        &service("shop/cart", HTTP),
        &service("shop/pay", HTTP),
        &secret("shop/cert"),
        &gateway_of(
            "shop/edge",
            &[HTTP_80, HTTPS_443],
            "  addresses: [{value: 127.0.0.1}]\n",
        ),
        &any_route(
            "HTTPRoute",
            "shop/first",
            "{parentRefs: [{name: edge}], hostnames: [www.example.com, other.org], \
             rules: [{backendRefs: [{name: cart, port: 80}]}, {backendRefs: [{name: gone, port: 80}]}]}",
        ),
        &any_route(
            "HTTPRoute",
            "shop/second",
            "{parentRefs: [{name: edge, sectionName: secure}], rules: [{backendRefs: [{name: pay, port: 80}]}]}",
        ),
    ]);
    let edge = compiled(&state, "shop/edge");
    assert_eq!(
        edge.addresses,
        ["127.0.0.1".parse::<std::net::IpAddr>().expect("valid")]
    );
    let Serves::Http(routes) = &listener(&edge, "web").serves else {
        panic!("{edge:?}");
    };
    let hosts = |routes: &model::gateway::HttpRoutes| -> Vec<String> {
        let shown = |place: &usize| routes.rules[*place].name.to_string();
        routes
            .hosts
            .iter()
            .map(|(host, places)| {
                format!(
                    "{host}: {}",
                    places.iter().map(shown).collect::<Vec<_>>().join(" ")
                )
            })
            .collect()
    };
    let first = "HTTPRoute/shop/first#0 HTTPRoute/shop/first#1";
    assert_eq!(
        hosts(routes),
        [format!("other.org: {first}"), format!("www.example.com: {first}")]
    );
    let secure = listener(&edge, "secure");
    assert_eq!(secure.hostname.to_string(), "*.example.com");
    let Serves::Https(tls, routes) = &secure.serves else {
        panic!("{edge:?}");
    };
    assert!(tls.certificates.len() == 1 && tls.clients.is_none());
    assert_eq!(
        hosts(routes),
        [
            "*.example.com: HTTPRoute/shop/second#0".to_owned(),
            format!("www.example.com: {first}"),
        ]
    );
    let reached: Vec<String> = backends_of(&edge).iter().map(ToString::to_string).collect();
    assert_eq!(
        reached,
        ["shop/cart", "shop/pay"],
        "what does not exist is not waited for"
    );
}

#[test]
fn what_came_over_the_wire_is_what_was_compiled() {
    let state = mesh(&[
        &service("shop/db", "[{port: 5432, appProtocol: tcp}]"),
        "{apiVersion: v1, kind: Service, metadata: {name: dns, namespace: shop}, \
         spec: {ports: [{port: 53, protocol: UDP}]}}",
        &secret("shop/cert"),
        &gateway_of(
            "shop/edge",
            &[
                HTTP_80,
                HTTPS_443,
                "{name: pass, port: 443, protocol: TLS, hostname: pass.org, tls: {mode: Passthrough}}",
                "{name: ends, port: 444, protocol: TLS, tls: {certificateRefs: [{name: cert}]}}",
                "{name: tcp, port: 5432, protocol: TCP}",
                "{name: udp, port: 53, protocol: UDP}",
            ],
            "",
        ),
        &any_route(
            "TLSRoute",
            "shop/pass",
            "{parentRefs: [{name: edge}], hostnames: [pass.org], rules: [{backendRefs: [{name: db, port: 5432}]}]}",
        ),
        &any_route(
            "TCPRoute",
            "shop/tcp",
            "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: db, port: 5432}]}]}",
        ),
        &any_route(
            "UDPRoute",
            "shop/udp",
            "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: dns, port: 53}]}]}",
        ),
    ]);
    let edge = compiled(&state, "shop/edge");
    let resource = Resource::Gateway(edge.clone());
    let wire = proto::convert::resource_to_wire(&resource);
    assert_eq!(proto::convert::resource_from_wire(wire), Ok(resource));
    let streams = |name: &str| -> Vec<String> {
        let rules = match &listener(&edge, name).serves {
            Serves::TlsTerminate(_, rules)
            | Serves::TlsPassthrough(rules)
            | Serves::Tcp(rules)
            | Serves::Udp(rules) => rules,
            other => panic!("{other:?}"),
        };
        let shown = |rule: &model::gateway::StreamRule| {
            let hostnames: Vec<String> = rule.hostnames.iter().map(ToString::to_string).collect();
            assert!(
                rule.backends.iter().all(|backend| backend.target.is_some()),
                "{rule:?}"
            );
            format!("{} {}", hostnames.join(" "), rule.name)
        };
        rules.iter().map(shown).collect()
    };
    assert_eq!(streams("pass"), ["pass.org TLSRoute/shop/pass#0"]);
    assert_eq!(
        streams("ends"),
        ["pass.org TLSRoute/shop/pass#0", "* TCPRoute/shop/tcp#0"]
    );
    assert_eq!(streams("tcp"), ["* TCPRoute/shop/tcp#0"]);
    assert_eq!(streams("udp"), ["* UDPRoute/shop/udp#0"]);
    let reached: Vec<String> = backends_of(&edge).iter().map(ToString::to_string).collect();
    assert_eq!(reached, ["shop/db", "shop/dns"]);
}

#[test]
fn only_a_gateway_of_a_class_of_ours_is_served() {
    let text = gateway_of("shop/edge", &[HTTP_80], "");
    let other = text.replace("gatewayClassName: weft", "gatewayClassName: other");
    let class = |name: &str, controller: &str| {
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {{name: {name}}}, \
             spec: {{controllerName: {controller}}}}}"
        )
    };
    let ours = "weft.dev/gateway-controller";
    let table = [
        (&text, None, true),
        (&text, Some(class("weft", ours)), true),
        (&text, Some(class("weft", "example.com/other")), false),
        (&other, None, false),
        (&other, Some(class("other", ours)), true),
    ];
    for (gateway, class, expected) in table {
        let state = mesh(&[gateway, &class.clone().unwrap_or_default()]);
        assert_eq!(
            super::gateway(&state, &name("shop/edge")).is_some(),
            expected,
            "{class:?}"
        );
    }
}

#[test]
fn what_is_not_accepted_serves_nothing() {
    let state = |listener: &str, spec: &str| mesh(&[&gateway_of("shop/edge", &[HTTP_80, listener], spec)]);
    let names = |state: MeshState| -> Vec<String> {
        let edge = compiled(&state, "shop/edge");
        edge.listeners
            .iter()
            .map(|listener| listener.name.to_string())
            .collect()
    };
    let table = [
        ("{name: tcp, port: 81, protocol: TCP}", vec!["web", "tcp"]),
        ("{name: tcp, port: 80, protocol: TCP}", vec![]),
        ("{name: udp, port: 80, protocol: UDP}", vec!["web", "udp"]),
        (HTTPS_443, vec!["web"]),
        ("{name: odd, port: 81, protocol: example.com/odd}", vec!["web"]),
    ];
    for (listener, expected) in table {
        assert_eq!(names(state(listener, "")), expected, "{listener}");
    }
    let tcp = "{name: tcp, port: 81, protocol: TCP}";
    for spec in [
        "  addresses: [{type: Hostname, value: example.com}]\n",
        "  infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: x}}\n",
    ] {
        assert!(names(state(tcp, spec)).is_empty(), "{spec}");
    }
}

#[test]
fn clients_are_asked_for_certificates_by_port() {
    let frontend = "  tls: {frontend: {default: {validation: {caCertificateRefs: \
                    [{group: '', kind: ConfigMap, name: ca}]}}, perPort: [{port: 444, tls: {}}, {port: 445, tls: \
                    {validation: {mode: AllowInsecureFallback, caCertificateRefs: [{group: '', kind: ConfigMap, \
                    name: gone}, {group: '', kind: ConfigMap, name: ca}]}}}, {port: 446, tls: {validation: \
                    {caCertificateRefs: [{group: '', kind: ConfigMap, name: gone}]}}}]}}\n";
    let https = |port: u16| {
        format!(
            "{{name: p{port}, port: {port}, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}"
        )
    };
    let listeners = [443, 444, 445, 446].map(https);
    let listeners: Vec<&str> = listeners.iter().map(String::as_str).collect();
    let state = mesh(&[
        &secret("shop/cert"),
        &authority("shop/ca"),
        &gateway_of("shop/edge", &listeners, frontend),
    ]);
    let edge = compiled(&state, "shop/edge");
    let told = |listener: &Listener| match &listener.serves {
        Serves::Https(tls, _) => format!(
            "{} {:?}",
            listener.port,
            tls.clients.as_ref().map(|clients| clients.optional)
        ),
        other => panic!("{other:?}"),
    };
    let told: Vec<String> = edge.listeners.iter().map(told).collect();
    assert_eq!(told, ["443 Some(false)", "444 None", "445 Some(true)"]);
}

#[test]
fn only_the_proxies_of_a_gateway_are_told_of_it() {
    let mut state = mesh(&[
        &service("shop/cart", HTTP),
        &gateway_of("shop/edge", &[HTTP_80], ""),
        &any_route(
            "HTTPRoute",
            "shop/r",
            "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: cart, port: 80}]}]}",
        ),
    ]);
    add(&mut state, "edge-1", "shop", &[], &[]);
    add(&mut state, "cart-1", "shop", &[("app", "cart")], &[("", 8080)]);
    let told = |state: &MeshState, workload: &str| -> Vec<String> {
        let resources = resources_for(state, &id(workload), &BTreeSet::new());
        resources
            .iter()
            .map(|(name, resource)| format!("{name} {}", resource.is_some()))
            .collect()
    };
    assert_eq!(told(&state, "edge-1"), ["inbound true"]);
    let workload = state.workloads.get_mut(&id("edge-1")).expect("there");
    workload.gateway = Some("edge".parse().expect("a label"));
    assert_eq!(
        told(&state, "edge-1"),
        [
            "inbound true",
            "endpoints/shop/cart true",
            "gateway/shop/edge true"
        ]
    );
    state.objects.remove(&"Gateway/shop/edge".parse().expect("a key"));
    assert_eq!(
        told(&state, "edge-1"),
        ["inbound true", "gateway/shop/edge false"]
    );
}
