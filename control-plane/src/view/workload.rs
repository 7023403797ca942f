//! Who serves a Service, and which Services a workload serves.

use std::sync::Arc;

use model::service::Service;
use model::snapshot::{Inbound, ServedPort};
use model::workload::Workload;
use model::{Endpoint, EndpointSet, Endpoints, ServiceName, WorkloadId};

use super::outside::outside_ports;
use super::{MeshState, fault, policy_shadow, traffic_policy};

/// The workloads that serve a Service now: ready, in its namespace, selected by it, and with an application
/// behind at least one of its ports. For a Service without a selector what its EndpointSlices list, as Kubernetes has
/// it. Empty for a Service that does not exist.
pub fn endpoints(state: &MeshState, name: &ServiceName) -> EndpointSet {
    let workloads = |service: &Service| {
        let serving = state
            .workloads
            .values()
            .filter(|workload| workload.ready && serves(workload, service));
        serving.filter_map(endpoint).map(Arc::new).collect()
    };
    let endpoints = match state.service(name) {
        Some(service) if service.selector.is_empty() => Endpoints::Outside(outside_ports(state, service)),
        Some(service) => Endpoints::Mesh(workloads(service)),
        None => Endpoints::Mesh(Vec::new()),
    };
    EndpointSet {
        service: name.clone(),
        endpoints,
        policies: state
            .service(name)
            .map(|service| traffic_policy::of_ports(state, service))
            .unwrap_or_default(),
        faults: state
            .service(name)
            .map(|service| fault::of_ports(state, service))
            .unwrap_or_default(),
        shadow: state
            .service(name)
            .map(|service| policy_shadow::of_ports(state, service))
            .unwrap_or_default(),
    }
}

/// What a workload serves: every port of every Service that selects it, whether or not it is ready. Nothing
/// for a workload that is not known.
pub fn inbound(state: &MeshState, id: &WorkloadId) -> Inbound {
    let mut inbound = Inbound {
        outside: state.outside,
        ..Inbound::default()
    };
    let Some(workload) = state.workloads.get(id) else {
        return inbound;
    };
    for service in state
        .services_in(&workload.identity.namespace)
        .filter(|service| selects(service, workload))
    {
        for (number, port) in &service.ports {
            if let Some(app) = workload.app_address(&port.target) {
                let served = ServedPort {
                    app,
                    protocol: port.protocol,
                };
                inbound.served.insert(service.name.port(*number), served);
            }
        }
    }
    inbound
}

/// The Services that select a workload and that it has an application for, by name; ready or not.
pub fn served_by(state: &MeshState, id: &WorkloadId) -> Vec<ServiceName> {
    let Some(workload) = state.workloads.get(id) else {
        return Vec::new();
    };
    let services = state.services_in(&workload.identity.namespace);
    services
        .filter(|service| serves(workload, service))
        .map(|service| service.name.clone())
        .collect()
}

fn serves(workload: &Workload, service: &Service) -> bool {
    selects(service, workload)
        && service
            .ports
            .values()
            .any(|port| workload.app_address(&port.target).is_some())
}

/// A workload's namespace is the one its identity proves, not one that it claims.
fn selects(service: &Service, workload: &Workload) -> bool {
    workload.identity.namespace == service.name.namespace && service.selector.selects(&workload.labels)
}

/// `None` for a gateway, which no sidecar calls.
fn endpoint(workload: &Workload) -> Option<Endpoint> {
    Some(Endpoint {
        workload: workload.id.clone(),
        address: workload.inbound?,
        identity: workload.identity.clone(),
        labels: workload.labels.clone(),
    })
}
