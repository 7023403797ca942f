//! Whether a route may govern a Service: the one judgement that both destinations and conditions are made from.

use std::collections::BTreeSet;

use model::service::{AppProtocol, Service};
use model::{Label, ServiceName};

use super::MeshState;
use crate::sources::{Kind, Parent, ParentRef};

/// Why something does not hold: a reason as Gateway API spells it, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Objection {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What a route and its own namespace are, where it is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged<'a> {
    pub(super) kind: Kind,
    pub(super) namespace: &'a Label,
    pub(super) parents: &'a [ParentRef],
}

impl Judged<'_> {
    /// Whether one of its parents is this Service.
    pub(super) fn has_parent(&self, name: &ServiceName) -> bool {
        self.parents
            .iter()
            .any(|parent| matches!(&parent.to, Parent::Service(service) if service == name))
    }
}

/// The ports of a Service that a route of this kind governs by this parent reference; never empty. The route may be in
/// another namespace, and governs only callers of its own then (GEP-1294).
pub(super) fn attached_ports(
    state: &MeshState,
    kind: Kind,
    name: &ServiceName,
    parent: &ParentRef,
) -> Result<BTreeSet<u16>, Objection> {
    let service = state.service(name).ok_or_else(|| Objection {
        reason: "NoMatchingParent",
        message: format!("Service {name} does not exist"),
    })?;
    let named = named_ports(service, parent);
    if named.is_empty() {
        let message = format!("Service {name} has no port {}", asked_for(parent));
        return Err(Objection {
            reason: "NoMatchingParent",
            message,
        });
    }
    if kind == Kind::UdpRoute {
        return Err(Objection {
            reason: "UnsupportedProtocol",
            message: "datagrams between workloads do not pass the mesh; a UDPRoute belongs to a Gateway"
                .to_owned(),
        });
    }
    let is_stream = matches!(kind, Kind::TlsRoute | Kind::TcpRoute);
    let governed: BTreeSet<u16> = named
        .into_iter()
        .filter(|(_, protocol)| match protocol {
            AppProtocol::Detect => true,
            AppProtocol::Tcp => is_stream,
            AppProtocol::Http | AppProtocol::Http2 => !is_stream,
        })
        .map(|(port, _)| port)
        .collect();
    if governed.is_empty() {
        let what = if is_stream { "HTTP" } else { "opaque TCP" };
        let message = format!("every port of Service {name} that the route names is {what}");
        return Err(Objection {
            reason: "UnsupportedProtocol",
            message,
        });
    }
    Ok(governed)
}

fn named_ports(service: &Service, parent: &ParentRef) -> Vec<(u16, AppProtocol)> {
    let ports = service.ports.iter().filter(|(number, port)| {
        parent.port.is_none_or(|wanted| wanted == **number)
            && (parent.section.is_none() || parent.section == port.name)
    });
    ports.map(|(number, port)| (*number, port.protocol)).collect()
}

pub(super) fn asked_for(parent: &ParentRef) -> String {
    match (&parent.section, parent.port) {
        (Some(section), Some(port)) => format!("{port} named {section:?}"),
        (Some(section), None) => format!("named {section:?}"),
        (None, Some(port)) => port.to_string(),
        (None, None) => "at all".to_owned(),
    }
}
