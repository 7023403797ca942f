//! BackendTLSPolicies: which holds, and what it does to a Service's addresses.

use super::gateway::authority;
use super::*;

fn policy(name: &str, target: &str, validation: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{targetRefs: [{{group: '', kind: Service, {target}}}], validation: {{{validation}}}}}\n"
    )
}

const OUTSIDE: &str = "
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {ports: [{name: a, port: 443, appProtocol: https}, {name: b, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: api-1, namespace: shop, labels: {kubernetes.io/service-name: api}}
addressType: IPv4
ports: [{name: a, port: 8443}, {name: b, port: 8080}]
endpoints: [{addresses: [10.0.0.1]}]
";
const SYSTEM: &str = "hostname: api.example.com, wellKnownCACertificates: System";
const CA: &str = "hostname: api.example.com, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";

/// `port: addresses, host name` of what is called.
fn called(state: &MeshState) -> Vec<String> {
    let Endpoints::Outside(ports) = endpoints(state, &name("shop/api")).endpoints else {
        panic!("is outside");
    };
    let told = |(number, port): (&u16, &OutsidePort)| {
        let tls = port.tls.as_ref().map(|tls| tls.hostname.to_string());
        format!("{number}: {} {tls:?}", port.addresses.len())
    };
    ports.iter().map(told).collect()
}

#[test]
fn the_policy_for_the_port_holds_and_then_the_oldest() {
    let state = mesh(&[
        OUTSIDE,
        &policy(
            "shop/whole",
            "name: api",
            &SYSTEM.replace("api.example.com", "whole.org"),
        ),
        &policy("shop/port", "name: api, sectionName: a", SYSTEM),
        &policy("shop/late", "name: api", SYSTEM),
    ]);
    assert_eq!(
        called(&state),
        ["80: 1 Some(\"whole.org\")", "443: 1 Some(\"api.example.com\")",]
    );
    let told = |policy: &str| conditions_of(&state, &format!("BackendTLSPolicy/{policy}")).remove(0);
    assert_eq!(told("shop/whole"), "Accepted true Accepted: ");
    assert_eq!(told("shop/port"), "Accepted true Accepted: ");
    assert_eq!(
        told("shop/late"),
        "Accepted false Conflicted: an older BackendTLSPolicy is for Service shop/api already"
    );
}

#[test]
fn nothing_goes_out_in_plain_while_a_policy_trusts_nobody() {
    let of = |texts: &[&str]| {
        let state = mesh(texts);
        (called(&state), conditions_of(&state, "BackendTLSPolicy/shop/p"))
    };
    let text = policy("shop/p", "name: api, sectionName: a", CA);
    let (without, told) = of(&[OUTSIDE, &text]);
    assert_eq!(without, ["80: 1 None", "443: 0 None"]);
    assert_eq!(
        told,
        [
            "Accepted false NoValidCACertificate: none of caCertificateRefs can be used",
            "ResolvedRefs false InvalidCACertificateRef: ConfigMap shop/ca does not exist",
        ]
    );
    let (with, told) = of(&[OUTSIDE, &text, &authority("shop/ca")]);
    assert_eq!(with, ["80: 1 None", "443: 1 Some(\"api.example.com\")"]);
    assert_eq!(
        told,
        ["Accepted true Accepted: ", "ResolvedRefs true ResolvedRefs: "]
    );
}

#[test]
fn a_policy_without_a_use_says_so() {
    let table = [
        (
            "name: cart",
            "Accepted true Accepted: has no effect on Service shop/cart, which has a selector: workloads are always \
             called by mTLS",
        ),
        (
            "name: gone",
            "Accepted false TargetNotFound: Service shop/gone does not exist",
        ),
        (
            "name: cart, sectionName: x",
            "Accepted false TargetNotFound: Service shop/cart has no port named \"x\"; has no effect on Service \
             shop/cart, which has a selector: workloads are always called by mTLS",
        ),
    ];
    for (target, expected) in table {
        let state = mesh(&[&service("shop/cart", HTTP), &policy("shop/p", target, SYSTEM)]);
        assert_eq!(conditions_of(&state, "BackendTLSPolicy/shop/p")[0], expected);
    }
}
