//! Core v1 `Service`, as far as the mesh uses it: selector and TCP ports. Fields that only concern a cluster's
//! own networking (cluster IPs, node ports, load balancers) are accepted and mean nothing here; those that
//! would change where calls go are refused.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use model::service::{AppProtocol, Port, Service, TargetPort};
use model::{FieldError, Label, Labels, Selector, ServiceName};

use super::check::{At, Distinct, key};
use super::kind::Kind;

/// Most ports of one Service.
const MAX_PORTS: usize = 100;

pub(super) fn service(root: &At<'_>, service: k8s::Service) -> Option<Service> {
    let (at, key) = (root, key(root, Kind::Service, &service.metadata));
    let Some(spec) = service.spec else {
        at.refuse("spec is missing");
        return None;
    };
    let at = at.field("spec");
    refuse_unsupported(&at, &spec);
    let selector = at
        .field("selector")
        .keep(Labels::new(spec.selector.unwrap_or_default()));
    let (ports, udp_ports) = ports(&at, spec.ports);
    let key = key?;
    let label = key.name.as_str().parse::<Label>();
    let name = ServiceName {
        namespace: key.namespace,
        name: root.field("metadata").field("name").keep(label)?,
    };
    Some(Service {
        name,
        selector: Selector(selector?),
        ports,
        udp_ports,
    })
}

fn refuse_unsupported(at: &At<'_>, spec: &k8s::ServiceSpec) {
    let fields = [
        (
            "type",
            spec.type_.as_deref(),
            &["ClusterIP", "NodePort", "LoadBalancer"][..],
        ),
        ("sessionAffinity", spec.session_affinity.as_deref(), &["None"][..]),
        (
            "internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref(),
            &["Cluster"][..],
        ),
    ];
    for (field, value, supported) in fields {
        if let Some(value) = value
            && !supported.contains(&value)
        {
            let supported = supported.join(", ");
            at.field(field)
                .refuse(format!("{value:?} is not supported yet (supported: {supported})"));
        }
    }
    if spec.publish_not_ready_addresses == Some(true) {
        at.field("publishNotReadyAddresses")
            .refuse("true is not supported yet");
    }
}

/// Those of TCP, and those of UDP; a number may be in both.
fn ports(at: &At<'_>, list: Option<Vec<k8s::ServicePort>>) -> (BTreeMap<u16, Port>, BTreeMap<u16, Port>) {
    let list = list.unwrap_or_default();
    if list.is_empty() {
        at.refuse("a Service has at least one port in ports");
    }
    let several = list.len() > 1;
    let (mut numbers, mut names) = (Distinct::new(), Distinct::new());
    let (mut ports, mut udp_ports) = (BTreeMap::new(), BTreeMap::new());
    for (index, (at, port)) in at
        .field("ports")
        .items(Some(list), MAX_PORTS)
        .into_iter()
        .enumerate()
    {
        let is_udp = match port.protocol.as_deref() {
            None | Some("TCP") => false,
            Some("UDP") => true,
            Some(other) => {
                at.field("protocol")
                    .refuse(format!("{other:?} is not supported (supported: TCP, UDP)"));
                continue;
            }
        };
        match &port.name {
            Some(name) => {
                at.field("name").keep(name.parse::<Label>());
                names.check(&at.field("name"), index, name.clone());
            }
            None if several => at.refuse("every port has a name where there are several"),
            None => {}
        }
        let protocol = port
            .app_protocol
            .as_deref()
            .map_or(Ok(AppProtocol::Detect), AppProtocol::from_app_protocol);
        let protocol = at.field("appProtocol").keep(protocol);
        let target = target(&at, port.target_port.as_ref());
        let Some(number) = at.field("port").port(port.port) else {
            continue;
        };
        numbers.check(&at.field("port"), index, (number, is_udp));
        let port = Port {
            name: port.name,
            protocol: protocol.unwrap_or_default(),
            target: target.unwrap_or(TargetPort::Number(number)),
        };
        let known = if is_udp { &mut udp_ports } else { &mut ports };
        known.insert(number, port);
    }
    (ports, udp_ports)
}

/// `None` where it is not written: the same number as the port.
fn target(at: &At<'_>, target: Option<&IntOrString>) -> Option<TargetPort> {
    let at = at.field("targetPort");
    match target? {
        IntOrString::Int(number) => at.port(*number).map(TargetPort::Number),
        IntOrString::String(name) => at.keep(port_name(name)).map(TargetPort::Name),
    }
}

/// A name of an application's port (IANA_SVC_NAME): 1–15 of `a-z`, `0-9` and `-`, one letter at least.
fn port_name(name: &str) -> Result<String, FieldError> {
    let letters = name.bytes().any(|b| b.is_ascii_lowercase());
    if name.parse::<Label>().is_err() || name.len() > 15 || name.contains("--") || !letters {
        return Err(FieldError::new(format!(
            "{name:?} is not a port's name (1-15 of a-z, 0-9 and '-', one letter at least) nor a number"
        )));
    }
    Ok(name.to_owned())
}
