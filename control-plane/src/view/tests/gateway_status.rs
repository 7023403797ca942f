//! The whole `status` of Gateways, their classes and ListenerSets, where not all is well.

use serde_json::Value;

use super::gateway::{gateway_of, secret};
use super::status::{listeners, status, told};
use super::*;

#[test]
fn a_class_says_what_its_gateways_support() {
    let class = "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: edge}, \
                 spec: {controllerName: weft.dev/gateway-controller}}";
    let state = mesh(&[
        class,
        &class.replace("weft.dev", "other.org").replace("edge", "other"),
    ]);
    let edge = status(&state, "GatewayClass/edge").expect("is ours");
    assert_eq!(
        told(&edge["conditions"]),
        "Accepted=True/Accepted SupportedVersion=True/SupportedVersion"
    );
    let features = edge["supportedFeatures"].as_array().expect("a list");
    let has = |name: &str| features.iter().any(|feature| feature["name"] == name);
    assert!(has("GatewayBackendClientCertificate") && has("ListenerSet") && has("UDPRoute"));
    assert!(!has("GatewayInfrastructurePropagation"));
    assert_eq!(status(&state, "GatewayClass/other"), None);
}

#[test]
fn whom_a_gateway_is_to_backends_is_a_reference_as_well() {
    let of = |namespaced: &str, reference: &str| {
        let spec = format!("  tls: {{backend: {{clientCertificateRef: {reference}}}}}\n");
        gateway_of(namespaced, &["{name: web, port: 80, protocol: HTTP}"], &spec)
    };
    let broken = "{apiVersion: v1, kind: Secret, type: kubernetes.io/tls, metadata: {name: broken, namespace: shop}, \
                  stringData: {tls.crt: a, tls.key: b}}";
    let opaque = "{apiVersion: v1, kind: Secret, metadata: {name: opaque, namespace: shop}}";
    let grant = "{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, metadata: {name: g, namespace: keys}, \
                 spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}], \
                 to: [{group: '', kind: Secret, name: cert}]}}";
    let table = [
        ("{name: cert}", "True/ResolvedRefs", ""),
        ("{name: cert, namespace: keys}", "True/ResolvedRefs", ""),
        (
            "{name: other, namespace: keys}",
            "False/RefNotPermitted",
            "Secret keys/other is in another namespace, and no ReferenceGrant there is for Gateways of namespace shop",
        ),
        (
            "{name: gone}",
            "False/InvalidClientCertificateRef",
            "Secret shop/gone does not exist",
        ),
        (
            "{name: broken}",
            "False/InvalidClientCertificateRef",
            "Secret shop/broken is no use: tls.crt holds no certificate as PEM",
        ),
        (
            "{name: opaque}",
            "False/InvalidClientCertificateRef",
            "Secret shop/opaque is not of type kubernetes.io/tls",
        ),
        (
            "{name: cert, kind: ConfigMap}",
            "False/InvalidClientCertificateRef",
            "ConfigMap shop/cert is of a kind that holds no certificate (supported: Secret)",
        ),
        (
            "{name: cert, group: a.org}",
            "False/InvalidClientCertificateRef",
            "Secret.a.org shop/cert is of a kind that holds no certificate (supported: Secret)",
        ),
    ];
    for (reference, resolved, message) in table {
        let state = mesh(&[
            &secret("shop/cert"),
            &secret("keys/cert"),
            &secret("keys/other"),
            broken,
            opaque,
            grant,
            &of("shop/edge", reference),
        ]);
        let edge = status(&state, "Gateway/shop/edge").expect("is ours");
        assert_eq!(
            told(&edge["conditions"]),
            format!("Accepted=True/Accepted ResolvedRefs={resolved}"),
            "{reference}"
        );
        assert_eq!(edge["conditions"][1]["message"], message);
        let served = gateway(&state, &name("shop/edge")).expect("is ours");
        assert_eq!(served.client_certificate.is_some(), message.is_empty());
    }
}

#[test]
fn what_one_set_loses_to_an_older_does_not_count_within_it() {
    let set = |name: &str, listeners: &str| {
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: ListenerSet, metadata: {{name: {name}, namespace: shop}}, \
             spec: {{parentRef: {{name: edge}}, listeners: [{listeners}]}}}}"
        )
    };
    let reports = Reports::new();
    let state = mesh(&[
        &gateway_of(
            "shop/edge",
            &["{name: web, port: 80, protocol: HTTP, hostname: a.org}"],
            "  allowedListeners: {namespaces: {from: Same}}\n",
        ),
        &set(
            "both",
            "{name: web, port: 80, protocol: HTTP, hostname: b.org}, {name: raw, port: 80, protocol: TCP}",
        ),
        &set("lost", "{name: raw, port: 80, protocol: TCP}"),
        &set(
            "sealed",
            "{name: web, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert, namespace: keys}]}}",
        ),
        &secret("keys/cert"),
    ]);
    let observed = Observed {
        generation: 7,
        since: String::new(),
    };
    let of = |name: &str| {
        let key = format!("ListenerSet/shop/{name}").parse().expect("a key");
        Judge::new(&state, &reports)
            .status(&key, &observed)
            .expect("of ours")
    };
    let (both, lost, sealed) = (of("both"), of("lost"), of("sealed"));
    assert_eq!(
        told(&both["conditions"]),
        "Accepted=True/ListenersNotValid Programmed=False/Pending"
    );
    let clash = "Accepted=False/ProtocolConflict Conflicted=True/ProtocolConflict ResolvedRefs=True/ResolvedRefs \
                 Programmed=False/ProtocolConflict";
    assert_eq!(
        listeners(&both),
        [
            "web 0 Accepted=True/Accepted Conflicted=False/NoConflicts ResolvedRefs=True/ResolvedRefs \
             Programmed=False/Pending"
                .to_owned(),
            format!("raw 0 {clash}"),
        ]
    );
    let invalid = "Accepted=False/ListenersNotValid Programmed=False/ListenersNotValid";
    assert_eq!(told(&lost["conditions"]), invalid);
    assert_eq!(told(&sealed["conditions"]), invalid, "nothing may be shown there");
    let edge = status(&state, "Gateway/shop/edge").expect("is ours");
    assert_eq!(edge["attachedListenerSets"], 1);
}

#[test]
fn a_set_that_is_not_let_in_is_told_so_twice() {
    let state = mesh(&[
        &gateway_of("shop/edge", &["{name: web, port: 80, protocol: HTTP}"], ""),
        "{apiVersion: gateway.networking.k8s.io/v1, kind: ListenerSet, metadata: {name: more, namespace: shop}, \
         spec: {parentRef: {name: edge}, listeners: [{name: web, port: 81, protocol: HTTP}]}}",
    ]);
    let reports = Reports::new();
    let observed = Observed {
        generation: 7,
        since: String::new(),
    };
    let key = "ListenerSet/shop/more".parse().expect("a key");
    let more = Judge::new(&state, &reports)
        .status(&key, &observed)
        .expect("of ours");
    assert_eq!(
        told(&more["conditions"]),
        "Accepted=False/NotAllowed Programmed=False/NotAllowed"
    );
}

#[test]
fn an_unknown_protocol_is_its_listeners_own_trouble() {
    let state = mesh(&[&gateway_of(
        "shop/edge",
        &["{name: odd, port: 80, protocol: SCTP}"],
        "",
    )]);
    let edge = status(&state, "Gateway/shop/edge").expect("is ours");
    assert_eq!(
        told(&edge["conditions"]),
        "Accepted=False/ListenersNotValid ResolvedRefs=True/ResolvedRefs"
    );
    assert_eq!(
        listeners(&edge),
        [
            "odd 0 Accepted=False/UnsupportedProtocol Conflicted=False/NoConflicts ResolvedRefs=True/ResolvedRefs"
        ]
    );
    assert_eq!(edge["listeners"][0]["supportedKinds"], Value::Array(Vec::new()));
}

#[test]
fn an_address_without_a_value_is_whichever_there_is() {
    let of = |addresses: &str| {
        let spec = format!("  addresses: [{addresses}]\n");
        let state = mesh(&[&gateway_of(
            "shop/edge",
            &["{name: web, port: 80, protocol: HTTP}"],
            &spec,
        )]);
        let edge = status(&state, "Gateway/shop/edge").expect("is ours");
        let served = gateway(&state, &name("shop/edge")).expect("is ours");
        (
            told(&edge["conditions"]),
            served.addresses.len(),
            served.listeners.len(),
        )
    };
    let ok = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs".to_owned();
    assert_eq!(of("{type: IPAddress}"), (ok.clone(), 0, 1));
    assert_eq!(of("{value: 127.0.0.1}, {type: IPAddress}"), (ok.clone(), 0, 1));
    assert_eq!(of("{value: 127.0.0.1}"), (ok, 1, 1));
    let refused = "Accepted=False/UnsupportedAddress ResolvedRefs=True/ResolvedRefs".to_owned();
    assert_eq!(
        of("{type: a.org/odd, value: x}, {value: 127.0.0.1}"),
        (refused, 1, 0)
    );
}

#[test]
fn a_gateway_whose_name_no_proxy_can_have_is_applied_and_told_so() {
    let long = "e".repeat(200);
    for edge in [&*long, "edge.example"] {
        let edge = format!("shop/{edge}");
        let state = mesh(&[&gateway_of(&edge, &["{name: web, port: 80, protocol: HTTP}"], "")]);
        let told_of = status(&state, &format!("Gateway/{edge}")).expect("is ours");
        assert_eq!(told(&told_of["conditions"]), "Accepted=False/Invalid");
    }
}
