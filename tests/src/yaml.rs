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

/// A Gateway at 127.0.0.1 with a flow mapping for each of its listeners.
pub fn gateway(name: &str, listeners: &[String]) -> String {
    let listeners: String = listeners
        .iter()
        .map(|listener| format!("    - {listener}\n"))
        .collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: {name}, namespace: default}}\nspec:\n  gatewayClassName: weft\n  \
         addresses: [{{value: 127.0.0.1}}]\n  listeners:\n{listeners}---\n"
    )
}

/// An object of `gateway.networking.k8s.io/v1`, or of the version that follows its kind after a space, with this as spec.
pub fn object(kind: &str, name: &str, spec: &str) -> String {
    let (kind, version) = kind.split_once(' ').unwrap_or((kind, "v1"));
    format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: default}}\nspec: {spec}\n---\n"
    )
}

/// A `kubernetes.io/tls` Secret.
pub fn secret(name: &str, chain: &str, key: &str) -> String {
    let (chain, key) = (indented(chain), indented(key));
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: default}}\n\
         stringData:\n  tls.crt: |\n    {chain}\n  tls.key: |\n    {key}\n---\n"
    )
}

/// A ConfigMap with authorities.
pub fn authorities(name: &str, pem: &str) -> String {
    let pem = indented(pem);
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\n\
         data:\n  ca.crt: |\n    {pem}\n---\n"
    )
}

/// A Service without a selector, and slices with these addresses for its one port.
pub fn outside(name: &str, port: u16, protocol: &str, addresses: &[SocketAddr]) -> String {
    outside_over("TCP", name, port, protocol, addresses)
}

/// The same over `TCP` or `UDP`.
pub fn outside_over(
    transport: &str,
    name: &str,
    port: u16,
    protocol: &str,
    addresses: &[SocketAddr],
) -> String {
    let app_protocol = match protocol {
        "" => String::new(),
        protocol => format!(", appProtocol: {protocol}"),
    };
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{ports: [{{port: {port}, protocol: {transport}{app_protocol}}}]}}\n---\n"
    );
    for (number, address) in addresses.iter().enumerate() {
        let _ = write!(
            text,
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}-{number}, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{{port: {}, protocol: {transport}}}]\n\
             endpoints: [{{addresses: [{}]}}]\n---\n",
            address.port(),
            address.ip()
        );
    }
    text
}

fn indented(pem: &str) -> String {
    pem.trim().replace('\n', "\n    ")
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
