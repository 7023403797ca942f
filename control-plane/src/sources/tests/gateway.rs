//! What Gateway API's own validation refuses, found at its place; and what it fills in.

use super::*;

/// A Gateway with these lines for its spec, which begin on line 5.
fn gateway(spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n{spec}"
    )
}

/// A Gateway with one listener, on line 7.
fn with_listener(listener: &str) -> String {
    gateway(&format!(
        "  gatewayClassName: weft\n  listeners:\n    - {listener}\n"
    ))
}

fn object(kind: &str, spec: &str) -> String {
    format!("apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n")
}

/// The one complaint, without its place, that begins with the field.
fn complaint(text: &str) -> String {
    let told = complaints(text);
    assert_eq!(told.len(), 1, "{told:?}");
    told[0].split_once(": ").expect("a place").1.to_owned()
}

#[test]
fn what_is_wrong_with_a_listener_is_found_at_its_field() {
    let table = [
        (
            "{name: a, port: 80, protocol: HTTP, tls: {mode: Terminate}}",
            "spec.listeners[0].tls: is not for HTTP",
        ),
        (
            "{name: a, port: 443, protocol: HTTPS}",
            "spec.listeners[0]: tls is missing, which HTTPS needs",
        ),
        (
            "{name: a, port: 443, protocol: TLS}",
            "spec.listeners[0]: tls is missing, which TLS needs",
        ),
        (
            "{name: a, port: 443, protocol: HTTPS, tls: {mode: Passthrough}}",
            "spec.listeners[0].tls.mode: is Terminate for HTTPS; what is passed through is TLS",
        ),
        (
            "{name: a, port: 443, protocol: HTTPS, tls: {}}",
            "spec.listeners[0].tls: certificateRefs is missing, which mode Terminate needs",
        ),
        (
            "{name: a, port: 53, protocol: UDP, hostname: a.org}",
            "spec.listeners[0].hostname: has no meaning for TCP and UDP, which name no host",
        ),
        (
            "{name: a, port: 0, protocol: HTTP}",
            "spec.listeners[0].port: 0 is not a port (1-65535)",
        ),
        (
            "{name: a, port: 80, protocol: a_b}",
            "spec.listeners[0].protocol: \"a_b\" is not a protocol (HTTP, HTTPS, TLS, TCP, UDP)",
        ),
        (
            "{name: a, port: 80, protocol: HTTP, hostname: 1.2.3.4}",
            "spec.listeners[0].hostname: \"1.2.3.4\" is not a host name \
             (lower case, such as www.example.com or *.example.com)",
        ),
        (
            "{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector}}}",
            "spec.listeners[0].allowedRoutes.namespaces: selector is missing, which from: Selector needs",
        ),
        (
            "{name: a, port: 80, protocol: HTTP}\n    - {name: a, port: 81, protocol: HTTP}",
            "spec.listeners[1].name: is the same as item 0",
        ),
        (
            "{name: a, port: 80, protocol: HTTP}\n    - {name: b, port: 80, protocol: HTTP}",
            "spec.listeners[1]: is the same as item 0",
        ),
    ];
    for (listener, expected) in table {
        assert_eq!(complaint(&with_listener(listener)), expected, "{listener}");
    }
    let told = complaints(&with_listener(
        "{name: a, port: 80, protocol: HTTP, tls: {mode: Terminate}}",
    ));
    assert!(told[0].starts_with("7:43: "), "{told:?}");
}

#[test]
fn what_is_wrong_with_a_gateway_is_found_at_its_field() {
    let listeners = "  listeners: [{name: a, port: 80, protocol: HTTP}]\n";
    let table = [
        (
            "  gatewayClassName: weft\n  listeners: []\n".to_owned(),
            "spec.listeners: has at least one entry",
        ),
        (
            format!("  gatewayClassName: weft\n  addresses: [{{value: x}}]\n{listeners}"),
            "spec.addresses[0].value: \"x\" is not an IP address",
        ),
        (
            format!(
                "  gatewayClassName: weft\n  addresses: [{{value: 1.2.3.4}}, {{value: 1.2.3.4}}]\n{listeners}"
            ),
            "spec.addresses[1]: is the same as item 0",
        ),
        (
            format!(
                "  gatewayClassName: weft\n  tls: {{backend: {{clientCertificateRef: {{name: C}}}}}}\n{listeners}"
            ),
            "spec.tls.backend.clientCertificateRef.name: \"C\" is not an object's name (1-253 of a-z, 0-9, '-' and '.', \
             a letter or digit at either end)",
        ),
        (
            format!(
                "  gatewayClassName: weft\n  tls: {{frontend: {{default: {{validation: {{caCertificateRefs: []}}}}}}}}\n\
                 {listeners}"
            ),
            "spec.tls.frontend.default.validation.caCertificateRefs: has at least one entry",
        ),
    ];
    for (spec, expected) in table {
        assert_eq!(complaint(&gateway(&spec)), expected, "{spec}");
    }
}

#[test]
fn what_is_wrong_with_other_kinds_is_found_at_its_field() {
    let table = [
        (
            object("HTTPRoute", "{rules: [{name: a}, {}, {}, {name: a}]}"),
            "spec.rules[3].name: is the same as item 0",
        ),
        (
            object("GRPCRoute", "{rules: [{name: A}]}"),
            "spec.rules[0].name: \"A\" is not an object's name (1-253 of a-z, 0-9, '-' and '.', a letter or digit at \
             either end)",
        ),
        (
            object("GatewayClass", "{controllerName: weft}"),
            "spec.controllerName: \"weft\" is not a controller (domain/path, such as weft.dev/gateway-controller)",
        ),
        (
            object("GatewayClass", "{controllerName: a.org/b}")
                .replace("{name: x}", "{name: x, namespace: y}"),
            "metadata.namespace: a GatewayClass is in no namespace",
        ),
        (
            object(
                "ListenerSet",
                "{parentRef: {name: e, kind: Service}, listeners: [{name: a, port: 80, protocol: HTTP}]}",
            ),
            "spec.parentRef: a ListenerSet belongs to a Gateway, not to Service.gateway.networking.k8s.io",
        ),
        (
            object("ReferenceGrant", "{from: [], to: [{group: '', kind: Secret}]}"),
            "spec.from: has at least one entry",
        ),
        (
            object(
                "TLSRoute",
                "{hostnames: [], rules: [{backendRefs: [{name: a, port: 1}]}]}",
            ),
            "spec.hostnames: has at least one entry",
        ),
        (
            object(
                "TCPRoute",
                "{rules: [{backendRefs: [{name: a, port: 1}]}, {backendRefs: [{name: b, port: 1}]}]}",
            ),
            "spec.rules: has 2 items, which is over 1",
        ),
        (
            object("UDPRoute", "{rules: [{backendRefs: []}]}"),
            "spec.rules[0].backendRefs: has at least one entry",
        ),
        (
            object("HTTPRoute", "{hostnames: ['*'], rules: []}"),
            "spec.hostnames[0]: \"*\" is not a host name (lower case, such as www.example.com or *.example.com)",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(&text), expected, "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_backend_tls_policy_is_found_at_its_field() {
    let target = "{group: '', kind: Service, name: a}";
    let ca = "caCertificateRefs: [{group: '', kind: ConfigMap, name: c}]";
    let system = "wellKnownCACertificates: System";
    let of = |targets: &str, validation: &str| {
        object(
            "BackendTLSPolicy",
            &format!("{{targetRefs: [{targets}], validation: {{{validation}}}}}"),
        )
    };
    let table = [
        (
            of("", &format!("hostname: a.org, {system}")),
            "spec.targetRefs: has at least one entry",
        ),
        (
            of(
                &format!("{target}, {target}"),
                &format!("hostname: a.org, {system}"),
            ),
            "spec.targetRefs[1]: is the same as item 0",
        ),
        (
            of(
                &format!("{target}, {{group: '', kind: Service, name: a, sectionName: b}}"),
                &format!("hostname: a.org, {system}"),
            ),
            "spec.targetRefs[1]: sectionName is given in all references to one target, or in none",
        ),
        (
            of(target, &format!("hostname: a.org, {system}, {ca}")),
            "spec.validation: caCertificateRefs and wellKnownCACertificates are both given",
        ),
        (
            of(target, "hostname: a.org"),
            "spec.validation: caCertificateRefs or wellKnownCACertificates is given",
        ),
        (
            of(target, &format!("hostname: '*.a.org', {system}")),
            "spec.validation.hostname: \"*.a.org\" is one host's name, without a wildcard",
        ),
        (
            of(target, "hostname: a.org, wellKnownCACertificates: Other"),
            "spec.validation.wellKnownCACertificates: \"Other\" is not known (System)",
        ),
        (
            of(
                target,
                &format!("hostname: a.org, {system}, subjectAltNames: [{{type: URI, hostname: b}}]"),
            ),
            "spec.validation.subjectAltNames[0]: uri is missing, which the type asks for",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(&text), expected, "{text}");
    }
}

fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["a.org".to_owned()]).expect("made");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn secret(chain: &str, key: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: s}}\n\
         stringData: {{tls.crt: {chain:?}, tls.key: {key:?}}}\n"
    )
}

#[test]
fn a_certificate_and_its_key_belong_together() {
    let ((chain, key), (_, other)) = (pair(), pair());
    let why_not = |chain: &str, key: &str| match only(&secret(chain, key)) {
        Object::Secret(read) => read.certificate.expect("of this type").err(),
        _ => panic!("a Secret"),
    };
    assert_eq!(why_not(&chain, &key), None);
    for (chain, key, why) in [
        (
            &*chain,
            &*other,
            "tls.key is not the key of the certificate in tls.crt",
        ),
        ("nothing", &key, "tls.crt holds no certificate as PEM"),
        (&chain, "nothing", "tls.key holds no private key as PEM"),
    ] {
        assert_eq!(why_not(chain, key).as_deref(), Some(why));
    }
    let base64 = {
        use base64::Engine as _;
        |text: &str| base64::engine::general_purpose::STANDARD.encode(text)
    };
    let (front, back) = (base64(&chain), base64(&key));
    let (first, second) = front.split_at(40);
    let wrapped = format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: s}}\n\
         data:\n  tls.key: {back}\n  tls.crt: |\n    {first}\n    {second}\n"
    );
    assert!(matches!(only(&wrapped), Object::Secret(read) if matches!(read.certificate, Some(Ok(_)))));
    let bare = "{apiVersion: v1, kind: Secret, type: kubernetes.io/tls, metadata: {name: s}}";
    assert_eq!(
        complaints(bare),
        [
            "1:1: data: tls.crt is missing, which type kubernetes.io/tls needs",
            "1:1: data: tls.key is missing, which type kubernetes.io/tls needs"
        ]
    );
    let Object::Secret(read) = only(&secret(&chain, &key)) else {
        panic!("a Secret");
    };
    assert!(
        !format!("{read:?}").contains("PRIVATE KEY"),
        "keys are not printed"
    );
}

#[test]
fn what_is_left_out_is_filled_in() {
    let Object::Gateway(read) = only(&with_listener("{name: a, port: 80, protocol: HTTP}")) else {
        panic!("a Gateway");
    };
    let listener = &read.listeners[0];
    assert_eq!(listener.hostname, model::Hostname::Any);
    assert_eq!(listener.namespaces, NamespacesFrom::Same);
    assert_eq!(
        (read.allowed_sets.clone(), listener.kinds.len()),
        (NamespacesFrom::None, 0)
    );
    let route = only_route(&object("HTTPRoute", "{parentRefs: [{name: edge}]}"));
    assert_eq!(
        route.parents[0].to,
        Parent::Gateway("default/edge".parse().expect("a name"))
    );
    assert_eq!(route.rules.len(), 1, "one that matches everything");
}

#[test]
fn every_version_that_is_served_is_read() {
    let rest =
        "metadata: {name: x}\nspec: {hostnames: [a.org], rules: [{backendRefs: [{name: a, port: 1}]}]}\n";
    for version in ["v1", "v1alpha3", "v1alpha2"] {
        let text = format!("apiVersion: gateway.networking.k8s.io/{version}\nkind: TLSRoute\n{rest}");
        assert!(parse_documents("f.yaml", &text).is_ok(), "{version}");
    }
    let text = format!("apiVersion: gateway.networking.k8s.io/v2\nkind: TLSRoute\n{rest}");
    assert_eq!(
        complaints(&text),
        [
            "1:13: apiVersion: \"gateway.networking.k8s.io/v2\" is not the apiVersion of TLSRoute \
             (gateway.networking.k8s.io/v1, gateway.networking.k8s.io/v1alpha3, gateway.networking.k8s.io/v1alpha2)"
        ]
    );
}

#[test]
fn a_status_that_was_shown_is_no_part_of_what_is_applied() {
    let text = with_listener("{name: a, port: 80, protocol: HTTP}");
    let with_status = format!("{text}status: {{conditions: [{{odd: true}}]}}\n");
    assert_eq!(only(&text), only(&with_status));
}
