//! Compiles the mesh's state into what one sidecar must know. Pure: the same state gives the same resources.

mod attach;
mod attachments;
mod backend;
mod backend_tls;
mod destination;
mod fault;
mod gateway;
mod grant;
mod listeners;
mod lookup;
mod outside;
mod owner;
mod policy_shadow;
mod shadow;
mod status;
mod traffic_policy;
mod workload;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use model::route::Rule;
use model::workload::Workload;
use model::{
    Destination, Generation, OutsideHosts, Question, Resource, ResourceName, ServiceName, WorkloadId,
};

use crate::sources::{Object, ObjectKey};

pub use backend::{Traffic, unresolved};
pub use destination::{consumers, destination, destination_for};
pub use gateway::{backends_of, gateway};
pub use owner::owner;
pub use status::{BoundPort, Condition, Judge, Observed, ProxyReport, Reports, Warning, conditions};
pub use traffic_policy::governing;
pub use workload::{endpoints, inbound, served_by};

/// Everything that a view is compiled from.
#[derive(Debug, Clone, Default)]
pub struct MeshState {
    pub generation: Generation,
    pub objects: BTreeMap<ObjectKey, StoredObject>,
    /// Workloads whose stream lives, or ended so recently that they are expected back.
    pub workloads: BTreeMap<WorkloadId, Workload>,
    /// What becomes of calls to hosts outside the mesh.
    pub outside: OutsideHosts,
}

/// An object with its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    pub object: Object,
    /// The generation at which it was created; a lower one is an older object.
    pub created: u64,
}

/// What a workload must be told: what it serves itself, the Gateway whose proxy it is, each destination it asked for,
/// whose each address is that it asked about, and the endpoints of every Service that its traffic may end at. `None` is the answer that there is no such thing.
pub fn resources_for(
    state: &MeshState,
    workload: &WorkloadId,
    subscriptions: &BTreeSet<Question>,
) -> BTreeMap<ResourceName, Option<Resource>> {
    let mut resources = BTreeMap::new();
    resources.insert(
        ResourceName::Inbound,
        Some(Resource::Inbound(inbound(state, workload))),
    );
    let mut reachable = BTreeSet::new();
    let known = state.workloads.get(workload);
    if let Some(name) = known.and_then(served_gateway) {
        let gateway = gateway(state, &name);
        reachable.extend(gateway.iter().flat_map(backends_of));
        resources.insert(ResourceName::Gateway(name), gateway.map(Resource::Gateway));
    }
    for question in subscriptions {
        let service = match question {
            Question::Service(service) => service,
            Question::Address(address) => {
                let owner = owner(state, *address);
                reachable.extend(owner.iter().map(|owner| owner.target.service.clone()));
                resources.insert(ResourceName::Address(*address), owner.map(Resource::Address));
                continue;
            }
        };
        let destination = match known {
            Some(known) => destination_for(state, service, &known.identity.namespace),
            None => destination(state, service),
        };
        reachable.extend(destination.iter().flat_map(reached_from));
        resources.insert(
            ResourceName::Destination(service.clone()),
            destination.map(Resource::Destination),
        );
    }
    for service in reachable {
        let set = endpoints(state, &service);
        resources.insert(ResourceName::Endpoints(service), Some(Resource::Endpoints(set)));
    }
    resources
}

/// The Gateway whose proxy a workload is.
pub fn served_gateway(workload: &Workload) -> Option<ServiceName> {
    Some(ServiceName {
        namespace: workload.identity.namespace.clone(),
        name: workload.gateway.clone()?,
    })
}

/// The Services that calls to a destination may end at, itself included.
pub fn reached_from(destination: &Destination) -> BTreeSet<ServiceName> {
    let mut reached = BTreeSet::from([destination.service.clone()]);
    for port in destination.ports.values() {
        let of_streams = port.streams.iter().flat_map(|rule| &rule.backends);
        let of_streams = of_streams.filter_map(|backend| backend.target.as_ref());
        let targets = port.rules.iter().flat_map(Rule::targets).chain(of_streams);
        reached.extend(targets.map(|target| target.service.clone()));
    }
    reached
}
