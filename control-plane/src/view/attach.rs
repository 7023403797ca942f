//! Whether a route may govern a Service, and whether a backend it names may be used: the one judgement that
//! both destinations and conditions are made from.

use std::collections::BTreeSet;

use model::service::{AppProtocol, Service};
use model::{Label, ServicePort};

use super::MeshState;
use crate::sources::ParentRef;

/// Why something does not hold: a reason as Gateway API spells it, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Objection {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// The ports of a parent that a route from `namespace` governs; never empty.
pub(super) fn attached_ports(
    state: &MeshState,
    namespace: &Label,
    parent: &ParentRef,
) -> Result<BTreeSet<u16>, Objection> {
    let name = &parent.service;
    if name.namespace != *namespace {
        return Err(Objection {
            reason: "NotAllowedByParent",
            message: format!(
                "Service {name} is in another namespace: a route governs services of its own namespace only \
                 (consumer routes are not supported yet)"
            ),
        });
    }
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
    let http: BTreeSet<u16> = named
        .into_iter()
        .filter(|(_, protocol)| *protocol != AppProtocol::Tcp)
        .map(|(port, _)| port)
        .collect();
    if http.is_empty() {
        let message = format!("every port of Service {name} that the route names is opaque TCP");
        return Err(Objection {
            reason: "UnsupportedProtocol",
            message,
        });
    }
    Ok(http)
}

/// Whether a route from `namespace` may send to this backend.
pub(super) fn resolve(state: &MeshState, namespace: &Label, target: &ServicePort) -> Result<(), Objection> {
    let name = &target.service;
    if name.namespace != *namespace {
        return Err(Objection {
            reason: "RefNotPermitted",
            message: format!("{target} is in another namespace, and ReferenceGrant is not supported yet"),
        });
    }
    let not_found = |message| Objection {
        reason: "BackendNotFound",
        message,
    };
    let service = state
        .service(name)
        .ok_or_else(|| not_found(format!("Service {name} does not exist")))?;
    if !service.ports.contains_key(&target.port) {
        return Err(not_found(format!("Service {name} has no port {}", target.port)));
    }
    Ok(())
}

fn named_ports(service: &Service, parent: &ParentRef) -> Vec<(u16, AppProtocol)> {
    let ports = service.ports.iter().filter(|(number, port)| {
        parent.port.is_none_or(|wanted| wanted == **number)
            && (parent.section.is_none() || parent.section == port.name)
    });
    ports.map(|(number, port)| (*number, port.protocol)).collect()
}

fn asked_for(parent: &ParentRef) -> String {
    match (&parent.section, parent.port) {
        (Some(section), Some(port)) => format!("{port} named {section:?}"),
        (Some(section), None) => format!("named {section:?}"),
        (None, Some(port)) => port.to_string(),
        (None, None) => "at all".to_owned(),
    }
}
