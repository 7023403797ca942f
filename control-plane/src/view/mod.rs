//! Compiles the mesh's state into what one sidecar must know. Pure: the same state gives the same resources.

mod attach;
mod condition;
mod destination;
mod outside;
mod workload;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use model::route::Rule;
use model::service::Service;
use model::workload::Workload;
use model::{Generation, Label, Resource, ResourceName, ServiceName, WorkloadId};

use crate::sources::{EndpointSlice, Kind, Object, ObjectKey, RouteObject};

pub use condition::{Condition, conditions};
pub use destination::{destination, unresolved};
pub use workload::{endpoints, inbound, served_by};

/// Everything that a view is compiled from.
#[derive(Debug, Clone, Default)]
pub struct MeshState {
    pub generation: Generation,
    pub objects: BTreeMap<ObjectKey, StoredObject>,
    /// Workloads whose stream lives, or ended so recently that they are expected back.
    pub workloads: BTreeMap<WorkloadId, Workload>,
}

/// An object with its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    pub object: Object,
    /// The generation at which it was created; a lower one is an older object.
    pub created: u64,
}

impl MeshState {
    /// The Service of this name.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        let key = ObjectKey {
            kind: Kind::Service,
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        };
        match self.objects.get(&key).map(|stored| &stored.object) {
            Some(Object::Service(service)) => Some(service),
            _ => None,
        }
    }

    /// All Services of a namespace, by name.
    fn services_in<'a>(&'a self, namespace: &'a Label) -> impl Iterator<Item = &'a Service> {
        self.objects_in(Kind::Service, namespace)
            .filter_map(|stored| match &stored.object {
                Object::Service(service) => Some(service),
                Object::EndpointSlice(_) | Object::Route(_) => None,
            })
    }

    /// All EndpointSlices of a namespace, by name.
    fn slices_in<'a>(&'a self, namespace: &'a Label) -> impl Iterator<Item = &'a EndpointSlice> {
        self.objects_in(Kind::EndpointSlice, namespace)
            .filter_map(|stored| match &stored.object {
                Object::EndpointSlice(slice) => Some(slice),
                Object::Service(_) | Object::Route(_) => None,
            })
    }

    /// All routes of one kind in a namespace, oldest first, then by name.
    fn routes_in<'a>(&'a self, kind: Kind, namespace: &'a Label) -> Vec<&'a RouteObject> {
        let mut aged: Vec<(u64, &RouteObject)> = self
            .objects_in(kind, namespace)
            .filter_map(|stored| match &stored.object {
                Object::Route(route) => Some((stored.created, route)),
                Object::Service(_) | Object::EndpointSlice(_) => None,
            })
            .collect();
        aged.sort_by(|(one, a), (other, b)| one.cmp(other).then_with(|| a.key.cmp(&b.key)));
        aged.into_iter().map(|(_, route)| route).collect()
    }

    /// Keys sort by kind, then namespace, so that one namespace's objects of a kind stand together.
    fn objects_in<'a>(&'a self, kind: Kind, namespace: &'a Label) -> impl Iterator<Item = &'a StoredObject> {
        let mut first = None;
        if let Ok(lowest) = LOWEST_LABEL.parse() {
            first = Some(ObjectKey {
                kind,
                namespace: namespace.clone(),
                name: lowest,
            });
        }
        first
            .into_iter()
            .flat_map(|first| self.objects.range(first..))
            .take_while(move |(key, _)| key.kind == kind && key.namespace == *namespace)
            .map(|(_, stored)| stored)
    }
}

/// No label sorts before this one: `-` would, but cannot stand first.
const LOWEST_LABEL: &str = "0";

/// What a workload must be told: what it serves itself, each destination it asked for, and the endpoints of
/// those and of everything that their rules may send to. `None` is the answer that there is no such service.
pub fn resources_for(
    state: &MeshState,
    workload: &WorkloadId,
    subscriptions: &BTreeSet<ServiceName>,
) -> BTreeMap<ResourceName, Option<Resource>> {
    let mut resources = BTreeMap::new();
    resources.insert(
        ResourceName::Inbound,
        Some(Resource::Inbound(inbound(state, workload))),
    );
    let mut reachable = BTreeSet::new();
    for service in subscriptions {
        let destination = destination(state, service);
        if let Some(destination) = &destination {
            reachable.insert(service.clone());
            let rules = destination.ports.values().flat_map(|port| &port.rules);
            reachable.extend(rules.flat_map(Rule::targets).map(|target| target.service.clone()));
        }
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
