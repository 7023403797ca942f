//! The YAML that most tests need.

use std::fmt::Write;
use std::net::SocketAddr;

/// A Service named `name` whose endpoints have the label `app: name`, with one port.
///
/// `protocol` is its `appProtocol`; empty leaves it out.
pub fn service(name: &str, port: u16, protocol: &str) -> String {
    service_selecting(name, &format!("app: {name}"), port, protocol)
}

/// As [`service`], with a selector of its own: `app: checkout, version: v2`.
pub fn service_selecting(name: &str, selector: &str, port: u16, protocol: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  selector: {{{selector}}}\n  ports:\n    - port: {port}\n"
    );
    if !protocol.is_empty() {
        let _ = writeln!(text, "      appProtocol: {protocol}");
    }
    text + "---\n"
}

/// An HTTPRoute named as its parent Service; `rules` is the YAML of `spec.rules`, flush left.
pub fn http_route(service: &str, rules: &str) -> String {
    route("HTTPRoute", service, rules)
}

/// The same as a GRPCRoute.
pub fn grpc_route(service: &str, rules: &str) -> String {
    route("GRPCRoute", service, rules)
}

fn route(kind: &str, service: &str, rules: &str) -> String {
    let rules = rules.trim().replace('\n', "\n    ");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: {service}, namespace: default}}\nspec:\n  parentRefs:\n    \
         - {{group: \"\", kind: Service, name: {service}}}\n  rules:\n    {rules}\n---\n"
    )
}

/// A BackendTrafficPolicy named as the Service that it is for; `spec` is YAML, flush left.
pub fn traffic_policy(service: &str, spec: &str) -> String {
    let spec = spec.trim().replace('\n', "\n  ");
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: BackendTrafficPolicy\n\
         metadata: {{name: {service}, namespace: default}}\nspec:\n  \
         targetRefs: [{{group: \"\", kind: Service, name: {service}}}]\n  {spec}\n---\n"
    )
}

/// A Service of addresses that the mesh does not run, with port 80.
pub fn outside(name: &str, protocol: &str, addresses: &[SocketAddr]) -> String {
    let slice = |(number, address): (usize, &SocketAddr)| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}-{number}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{{port: {}}}]\nendpoints: [{{addresses: [{}]}}]\n---\n",
            address.port(),
            address.ip()
        )
    };
    let slices: String = addresses.iter().enumerate().map(slice).collect();
    service_selecting(name, "", 80, protocol) + &slices
}
