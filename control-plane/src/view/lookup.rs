//! How objects are found in the mesh's state.

use std::collections::BTreeMap;

use model::service::Service;
use model::{Label, ServiceName};

use super::{MeshState, StoredObject};
use crate::sources::{
    BackendTlsPolicy, CONTROLLER_NAME, ConfigMap, DEFAULT_CLASS, DEFAULT_NAMESPACE, EndpointSlice,
    FaultPolicy, GatewayClass, GatewayObject, Kind, ListenerSet, Object, ObjectKey, ObjectName,
    ReferenceGrant, RouteObject, Secret, StreamRoute, TrafficPolicyObject,
};

/// The label that every namespace has, with its name (Kubernetes).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// No label and no name sorts before this one: `-` would, but cannot stand first.
const LOWEST: &str = "0";

/// An object, and the generation at which it was created; a lower one is older.
pub(super) type Aged<'s, T> = (u64, &'s T);

impl MeshState {
    /// The Service of this name.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        match self.object(Kind::Service, &name.namespace, (&name.name).into())? {
            Object::Service(service) => Some(service),
            _ => None,
        }
    }

    /// The Gateway of this name, of whatever class.
    pub(super) fn gateway(&self, name: &ServiceName) -> Option<&GatewayObject> {
        match self.object(Kind::Gateway, &name.namespace, (&name.name).into())? {
            Object::Gateway(gateway) => Some(gateway),
            _ => None,
        }
    }

    pub(super) fn listener_set(&self, namespace: &Label, name: &ObjectName) -> Option<&ListenerSet> {
        match self.object(Kind::ListenerSet, namespace, name.clone())? {
            Object::ListenerSet(set) => Some(set),
            _ => None,
        }
    }

    pub(super) fn secret(&self, namespace: &Label, name: &ObjectName) -> Option<&Secret> {
        match self.object(Kind::Secret, namespace, name.clone())? {
            Object::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    pub(super) fn config_map(&self, namespace: &Label, name: &ObjectName) -> Option<&ConfigMap> {
        match self.object(Kind::ConfigMap, namespace, name.clone())? {
            Object::ConfigMap(map) => Some(map),
            _ => None,
        }
    }

    pub(super) fn class(&self, name: &ObjectName) -> Option<&GatewayClass> {
        let namespace = DEFAULT_NAMESPACE.parse().ok()?;
        match self.object(Kind::GatewayClass, &namespace, name.clone())? {
            Object::GatewayClass(class) => Some(class),
            _ => None,
        }
    }

    /// Whether Weft serves Gateways of a class: one that names it, or `weft`, which exists without being written.
    pub(super) fn is_ours(&self, class: &ObjectName) -> bool {
        match self.class(class) {
            Some(class) => class.controller == CONTROLLER_NAME,
            None => class.as_str() == DEFAULT_CLASS,
        }
    }

    /// The labels of a namespace, which need not be written.
    pub(super) fn labels_of(&self, namespace: &Label) -> BTreeMap<String, String> {
        let written = DEFAULT_NAMESPACE
            .parse()
            .ok()
            .and_then(|none| self.object(Kind::Namespace, &none, namespace.into()));
        let mut labels = match written {
            Some(Object::Namespace(namespace)) => namespace.labels.clone(),
            _ => BTreeMap::new(),
        };
        labels.insert(NAME_LABEL.to_owned(), namespace.to_string());
        labels
    }

    /// All Services of a namespace, by name.
    pub(super) fn services_in<'a>(&'a self, namespace: &'a Label) -> impl Iterator<Item = &'a Service> {
        self.objects_in(Kind::Service, namespace)
            .filter_map(|stored| match &stored.object {
                Object::Service(service) => Some(service),
                _ => None,
            })
    }

    /// All EndpointSlices of a namespace, by name.
    pub(super) fn slices_in<'a>(&'a self, namespace: &'a Label) -> impl Iterator<Item = &'a EndpointSlice> {
        self.objects_in(Kind::EndpointSlice, namespace)
            .filter_map(|stored| match &stored.object {
                Object::EndpointSlice(slice) => Some(slice),
                _ => None,
            })
    }

    pub(super) fn grants_in<'a>(&'a self, namespace: &'a Label) -> impl Iterator<Item = &'a ReferenceGrant> {
        self.objects_in(Kind::ReferenceGrant, namespace)
            .filter_map(|stored| match &stored.object {
                Object::ReferenceGrant(grant) => Some(grant),
                _ => None,
            })
    }

    /// All BackendTLSPolicies of a namespace, oldest first, then by name.
    pub(super) fn backend_tls_in<'a>(&'a self, namespace: &'a Label) -> Vec<&'a BackendTlsPolicy> {
        let policies = self.objects_in(Kind::BackendTlsPolicy, namespace);
        let aged = policies.filter_map(|stored| match &stored.object {
            Object::BackendTlsPolicy(policy) => Some((stored.created, policy)),
            _ => None,
        });
        oldest_first(aged.collect(), |policy| &policy.key)
    }

    /// All BackendTrafficPolicies of a namespace, oldest first, then by name.
    pub(super) fn traffic_policies_in<'a>(&'a self, namespace: &'a Label) -> Vec<&'a TrafficPolicyObject> {
        let policies = self.objects_in(Kind::BackendTrafficPolicy, namespace);
        let aged = policies.filter_map(|stored| match &stored.object {
            Object::TrafficPolicy(policy) => Some((stored.created, policy)),
            _ => None,
        });
        oldest_first(aged.collect(), |policy| &policy.key)
    }

    /// All FaultInjectionPolicies of a namespace, oldest first, then by name.
    pub(super) fn fault_policies_in<'a>(&'a self, namespace: &'a Label) -> Vec<&'a FaultPolicy> {
        let policies = self.objects_in(Kind::FaultInjectionPolicy, namespace);
        let aged = policies.filter_map(|stored| match &stored.object {
            Object::FaultPolicy(policy) => Some((stored.created, policy)),
            _ => None,
        });
        oldest_first(aged.collect(), |policy| &policy.key)
    }

    /// All routes of one kind in a namespace, oldest first, then by name.
    pub(super) fn routes_in<'a>(&'a self, kind: Kind, namespace: &'a Label) -> Vec<&'a RouteObject> {
        let routes = self.objects_in(kind, namespace);
        let aged = routes.filter_map(|stored| match &stored.object {
            Object::Route(route) => Some((stored.created, route)),
            _ => None,
        });
        oldest_first(aged.collect(), |route| &route.key)
    }

    /// As [`MeshState::routes_in`], for TLSRoutes, TCPRoutes and UDPRoutes.
    pub(super) fn stream_routes_in<'a>(&'a self, kind: Kind, namespace: &'a Label) -> Vec<&'a StreamRoute> {
        let routes = self.objects_in(kind, namespace);
        let aged = routes.filter_map(|stored| match &stored.object {
            Object::StreamRoute(route) => Some((stored.created, route)),
            _ => None,
        });
        oldest_first(aged.collect(), |route| &route.key)
    }

    /// Every object of a kind with its age, by namespace and name.
    pub(super) fn all_of(&self, kind: Kind) -> impl Iterator<Item = &StoredObject> {
        let first = LOWEST.parse().ok().zip(LOWEST.parse().ok());
        let first = first.map(|(namespace, name)| ObjectKey {
            kind,
            namespace,
            name,
        });
        first
            .into_iter()
            .flat_map(|first| self.objects.range(first..))
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(_, stored)| stored)
    }

    /// Every Gateway of a class of ours, by namespace and name.
    pub(super) fn our_gateways(&self) -> impl Iterator<Item = &GatewayObject> {
        self.all_of(Kind::Gateway)
            .filter_map(|stored| match &stored.object {
                Object::Gateway(gateway) => Some(&**gateway),
                _ => None,
            })
            .filter(|gateway| self.is_ours(&gateway.class))
    }

    fn object(&self, kind: Kind, namespace: &Label, name: ObjectName) -> Option<&Object> {
        let key = ObjectKey {
            kind,
            namespace: namespace.clone(),
            name,
        };
        self.objects.get(&key).map(|stored| &stored.object)
    }

    /// Keys sort by kind, then namespace, so that one namespace's objects of a kind stand together.
    pub(super) fn objects_in<'a>(
        &'a self,
        kind: Kind,
        namespace: &'a Label,
    ) -> impl Iterator<Item = &'a StoredObject> {
        let first = LOWEST.parse().ok().map(|name| ObjectKey {
            kind,
            namespace: namespace.clone(),
            name,
        });
        first
            .into_iter()
            .flat_map(|first| self.objects.range(first..))
            .take_while(move |(key, _)| key.kind == kind && key.namespace == *namespace)
            .map(|(_, stored)| stored)
    }
}

/// Gateway API's order between objects that ask for the same: by age, then by namespace and name, then by kind.
pub(super) fn oldest_first<'s, T>(
    mut aged: Vec<Aged<'s, T>>,
    key: impl Fn(&'s T) -> &'s ObjectKey,
) -> Vec<&'s T> {
    aged.sort_by(|(one, a), (other, b)| {
        let place = |object: &&'s T| {
            let key = key(object);
            (&key.namespace, &key.name, key.kind)
        };
        one.cmp(other).then_with(|| place(a).cmp(&place(b)))
    });
    aged.into_iter().map(|(_, object)| object).collect()
}
