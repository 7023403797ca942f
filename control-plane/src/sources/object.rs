//! Configuration objects as the store keeps them: validated one by one, not yet checked against each other.

use std::fmt;
use std::net::IpAddr;

use model::filter::Filter;
use model::resilience::{RetryPolicy, Timeouts};
use model::route::RequestMatch;
use model::service::{AppProtocol, Service};
use model::session::SessionPersistence;
use model::{FieldError, Hostname, Label, ServiceName, ServicePort};

use super::backend_tls::BackendTlsPolicy;
use super::core_v1::{ConfigMap, Namespace, Secret};
use super::fault::FaultPolicy;
use super::gateway::{GatewayClass, GatewayObject, UnservableGateway};
use super::grant::ReferenceGrant;
use super::kind::{Kind, ObjectKey, ObjectName};
use super::listener::ListenerSet;
use super::reference::ObjectRef;
use super::shadow::Shadow;
use super::traffic_policy::TrafficPolicyObject;

/// One object of configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    GatewayClass(GatewayClass),
    Gateway(Box<GatewayObject>),
    UnservableGateway(UnservableGateway),
    ListenerSet(Box<ListenerSet>),
    Route(RouteObject),
    StreamRoute(StreamRoute),
    BackendTlsPolicy(BackendTlsPolicy),
    ReferenceGrant(ReferenceGrant),
    Service(Service),
    EndpointSlice(EndpointSlice),
    Secret(Secret),
    ConfigMap(ConfigMap),
    Namespace(Namespace),
    TrafficPolicy(TrafficPolicyObject),
    FaultPolicy(FaultPolicy),
}

impl Object {
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::GatewayClass(class) => class.key.clone(),
            Self::Gateway(gateway) => gateway.key(),
            Self::UnservableGateway(gateway) => gateway.key.clone(),
            Self::ListenerSet(set) => set.key.clone(),
            Self::Route(route) => route.key.clone(),
            Self::StreamRoute(route) => route.key.clone(),
            Self::BackendTlsPolicy(policy) => policy.key.clone(),
            Self::ReferenceGrant(grant) => grant.key.clone(),
            Self::Service(service) => ObjectKey {
                kind: Kind::Service,
                namespace: service.name.namespace.clone(),
                name: (&service.name.name).into(),
            },
            Self::EndpointSlice(slice) => slice.key.clone(),
            Self::Secret(secret) => secret.key.clone(),
            Self::ConfigMap(map) => map.key.clone(),
            Self::Namespace(namespace) => namespace.key.clone(),
            Self::TrafficPolicy(policy) => policy.key.clone(),
            Self::FaultPolicy(policy) => policy.key.clone(),
        }
    }
}

/// Addresses that serve a Service of the same namespace and that the mesh does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    pub key: ObjectKey,
    /// It may not exist, and uses slices only if it has no selector.
    pub service: ServiceName,
    /// Never empty; each name once.
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
}

/// A port that every endpoint of a slice has. It serves the Service's port of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    pub name: Option<String>,
    pub number: u16,
    /// What the slice says; what counts is what the Service says.
    pub protocol: Option<AppProtocol>,
}

/// One address of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    pub address: IpAddr,
    pub ready: bool,
}

/// An HTTPRoute or a GRPCRoute: what it is attached to, and what becomes of requests there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteObject {
    pub key: ObjectKey,
    /// In the order written.
    pub parents: Vec<ParentRef>,
    /// `useDefaultGateways: All`: attached to every Gateway with `defaultScope: All` as well.
    pub uses_default_gateways: bool,
    /// Empty is every host. Gateway API says that they are ignored where the parent is a Service.
    pub hostnames: Vec<Hostname>,
    pub rules: Vec<RouteRule>,
    /// `None` for a route that is in force.
    pub shadow: Option<Shadow>,
}

/// A TLSRoute, TCPRoute or UDPRoute: where connections, or datagrams, go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRoute {
    pub key: ObjectKey,
    /// In the order written.
    pub parents: Vec<ParentRef>,
    /// `useDefaultGateways: All`: attached to every Gateway with `defaultScope: All` as well.
    pub uses_default_gateways: bool,
    /// By SNI; empty for kinds that have none.
    pub hostnames: Vec<Hostname>,
    /// The backends of each rule; neither list is ever empty.
    pub rules: Vec<Vec<BackendRef>>,
}

/// One `parentRefs` entry. What is given of `port` and `section` must both fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentRef {
    pub to: Parent,
    /// `None` is every port.
    pub port: Option<u16>,
    /// `sectionName`: a listener or a port by its name.
    pub section: Option<String>,
    /// Its position in `parentRefs`, from 0.
    pub index: usize,
}

/// What a route is attached to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parent {
    /// Its calls within the mesh.
    Service(ServiceName),
    /// The Gateway's own listeners.
    Gateway(ServiceName),
    /// The listeners of a ListenerSet: namespace and name.
    ListenerSet(Label, ObjectName),
    /// Something of a kind that is another controller's to know.
    Other(ObjectRef),
}

/// One rule of a route, whose backends are names that may not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRule {
    /// By which policies may name it; unique in its route.
    pub name: Option<String>,
    /// Never empty.
    pub matches: Vec<RequestMatch>,
    /// Of which those that send somewhere themselves name what may not exist.
    pub filters: Vec<Filter>,
    /// Mirrors to something of a kind that nothing can be sent to, by its name. They are left out.
    pub lost_mirrors: Vec<String>,
    pub backends: Vec<BackendRef>,
    pub timeouts: Timeouts,
    pub retry: Option<RetryPolicy>,
    pub session: Option<SessionPersistence>,
    /// Why it cannot be followed, each with its field from the root of the object: then it is left out, and what stands above is
    /// incomplete.
    pub unusable: Vec<FieldError>,
}

impl RouteRule {
    /// The Services that its filters, and those of its backends, name, whether or not they exist.
    pub fn asides(&self) -> impl Iterator<Item = &ServicePort> {
        let of_backends = self.backends.iter().flat_map(|backend| &backend.filters);
        of_backends.chain(&self.filters).filter_map(Filter::target)
    }

    /// What its filters, and those of its backends, name of kinds that nothing can be asked of or sent to.
    pub fn unknown_kinds(&self) -> impl Iterator<Item = &str> {
        let of_backends = self.backends.iter().flat_map(|backend| &backend.filters);
        let named = of_backends
            .chain(&self.filters)
            .filter_map(|filter| match filter {
                Filter::Unresolved(named) => Some(&**named),
                Filter::Auth(auth) if auth.target.is_none() => Some(&*auth.reference),
                _ => None,
            });
        let lost = self.backends.iter().flat_map(|backend| &backend.lost_mirrors);
        named.chain(lost.chain(&self.lost_mirrors).map(String::as_str))
    }
}

/// One `backendRefs` entry, not yet checked for existence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    pub target: BackendTarget,
    /// 0–1,000,000; 1 where it is not written.
    pub weight: u32,
    pub filters: Vec<Filter>,
    /// As [`RouteRule::lost_mirrors`].
    pub lost_mirrors: Vec<String>,
}

/// What a `backendRefs` entry names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendTarget {
    Service(ServicePort),
    /// Something of another kind, which nothing can be sent to: `Kind.group namespace/name`.
    Unknown(String),
}

impl fmt::Display for BackendTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(target) => target.fmt(f),
            Self::Unknown(text) => f.write_str(text),
        }
    }
}
