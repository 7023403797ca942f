//! EndpointSlices: what is accepted, and where complaints about the rest point.

use super::*;

/// As Kubernetes' documentation writes one, around its endpoints, which begin on line 13.
fn slice(endpoints: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: db-1
  namespace: shop
  labels: {{kubernetes.io/service-name: db}}
addressType: IPv4
ports:
  - name: sql
    appProtocol: tcp
    protocol: TCP
    port: 5432
endpoints: {endpoints}"
    )
}

#[test]
fn a_slice_is_read_whole() {
    let text = slice(
        "
  - addresses: [10.4.5.6]
    hostname: one
    nodeName: node-1
    zone: zone-1
    targetRef: {kind: Pod, name: db-0}
  - {addresses: [10.1.2.3], conditions: {ready: true, serving: true, terminating: false}}
  - {addresses: [10.1.2.4], conditions: {}}
  - {addresses: [10.1.2.5], conditions: {ready: false}}
  - {addresses: [10.1.2.6], conditions: {serving: false}}
  - {addresses: [10.1.2.7], conditions: {terminating: true}}
  - {addresses: [10.1.2.8], conditions: {ready: true, terminating: true}}
",
    );
    let Object::EndpointSlice(slice) = only(&text) else {
        panic!("an EndpointSlice")
    };
    assert_eq!(slice.key.to_string(), "EndpointSlice/shop/db-1");
    assert_eq!(slice.service.to_string(), "shop/db");
    assert_eq!(
        slice.ports,
        [SlicePort {
            name: Some("sql".to_owned()),
            number: 5432,
            protocol: Some(model::AppProtocol::Tcp),
        }]
    );
    let endpoints: Vec<_> = slice
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.address.to_string(), endpoint.ready))
        .collect();
    let expected = [
        ("10.4.5.6", true),
        ("10.1.2.3", true),
        ("10.1.2.4", true),
        ("10.1.2.5", false),
        ("10.1.2.6", false),
        ("10.1.2.7", false),
        ("10.1.2.8", true),
    ];
    assert_eq!(
        endpoints,
        expected.map(|(address, ready)| (address.to_owned(), ready))
    );
}

#[test]
fn a_slice_may_be_of_ipv6_unnamed_and_empty() {
    let text = slice("[{addresses: ['fd00::1']}]\n")
        .replace("IPv4", "IPv6")
        .replace("name: sql", "name: ''");
    let Object::EndpointSlice(slice) = only(&text) else {
        panic!("an EndpointSlice")
    };
    assert_eq!(slice.ports[0].name, None);
    assert_eq!(slice.endpoints[0].address.to_string(), "fd00::1");
    let Object::EndpointSlice(empty) = only(&self::slice("[]\n")) else {
        panic!("an EndpointSlice")
    };
    assert!(empty.endpoints.is_empty());
}

#[test]
fn what_is_wrong_in_a_slice_is_found_at_its_place() {
    let one = || slice("[{addresses: [10.0.0.1]}]\n");
    let table = [
        (
            one().replace("IPv4", "FQDN"),
            "7:14: addressType: \"FQDN\" is not supported (supported: IPv4, IPv6)",
        ),
        (
            one().replace("addressType: IPv4\n", ""),
            "1:1: addressType is missing (IPv4, IPv6)",
        ),
        (
            one().replace("{kubernetes.io/service-name: db}", "{app: db}"),
            "6:3: metadata.labels: kubernetes.io/service-name is missing, which names the Service of the slice",
        ),
        (
            one().replace("service-name: db", "service-name: D_B"),
            "6:40: metadata.labels.kubernetes.io/service-name: \"D_B\" is not a DNS label \
             (1-63 of a-z, 0-9 and '-', not at either end)",
        ),
        (
            one().replace("protocol: TCP", "protocol: SCTP"),
            "11:15: ports[0].protocol: \"SCTP\" is not supported (supported: TCP, UDP)",
        ),
        (
            one().replace("port: 5432", "port: 70000"),
            "12:11: ports[0].port: 70000 is not a port (1-65535)",
        ),
        (
            one().replace("    port: 5432\n", ""),
            "9:5: ports[0]: port is missing",
        ),
        (
            one().replace("appProtocol: tcp", "appProtocol: gopher"),
            "10:18: ports[0].appProtocol: \"gopher\" is not a known appProtocol \
             (http, kubernetes.io/h2c, http2, grpc, kubernetes.io/ws, tcp, tls, or of protocols such as mysql and redis)",
        ),
        (
            one().replace("endpoints:", "  - {name: sql, port: 1}\nendpoints:"),
            "13:12: ports[1].name: is the same as item 0",
        ),
        (
            slice("[{addresses: [db.example.org]}]\n"),
            "13:26: endpoints[0].addresses[0]: \"db.example.org\" is not an IPv4 address",
        ),
        (
            slice("[{addresses: ['fd00::1']}]\n"),
            "13:26: endpoints[0].addresses[0]: \"fd00::1\" is not an IPv4 address",
        ),
        (
            slice("[{addresses: [0.0.0.0]}]\n"),
            "13:26: endpoints[0].addresses[0]: 0.0.0.0 is an unspecified address, which is no endpoint",
        ),
        (
            slice("[{addresses: [169.254.169.254]}]\n"),
            "13:26: endpoints[0].addresses[0]: 169.254.169.254 is a link-local address, which is no endpoint",
        ),
        (
            slice("[{addresses: [10.0.0.1, 10.0.0.2]}]\n"),
            "13:14: endpoints[0].addresses: has 2 addresses; an endpoint has exactly one",
        ),
        (
            slice("[{hostname: db}]\n"),
            "13:13: endpoints[0].addresses: has 0 addresses; an endpoint has exactly one",
        ),
        (
            slice("[{addresses: [10.0.0.1]}, {addresses: [10.0.0.1]}]\n"),
            "13:39: endpoints[1].addresses: is the same as item 0",
        ),
        (
            slice("[{addresses: [10.0.0.1], hints: {forZones: [{name: a}]}}]\n"),
            "13:37: endpoints[0].hints: is not supported yet",
        ),
        (
            slice("[{addresses: [10.0.0.1], weight: 2}]\n"),
            "13:37: endpoints[0].weight: no such field",
        ),
        (
            slice(&format!(
                "[{}]\n",
                (0..1001)
                    .map(|n| format!("{{addresses: [10.0.{}.{}]}}", n / 256, n % 256))
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
            "13:1: endpoints: has 1001 items, which is over 1000",
        ),
        (
            one().replace("discovery.k8s.io/v1", "v1"),
            "1:13: apiVersion: \"v1\" is not the apiVersion of EndpointSlice (discovery.k8s.io/v1)",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaints(&text), [expected], "{text}");
    }
    let without_ports = one().replace(
        "ports:\n  - name: sql\n    appProtocol: tcp\n    protocol: TCP\n    port: 5432\n",
        "",
    );
    assert_eq!(
        complaints(&without_ports),
        ["1:1: an EndpointSlice has at least one port in ports"]
    );
}
