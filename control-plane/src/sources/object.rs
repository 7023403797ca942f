//! Configuration objects as the store keeps them: validated one by one, not yet checked against each other.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use model::filter::Filter;
use model::resilience::{RetryPolicy, Timeouts};
use model::route::RequestMatch;
use model::service::{AppProtocol, Service};
use model::session::SessionPersistence;
use model::{FieldError, Label, ServiceName, ServicePort};

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The kinds that the mesh understands. Their order is the order in which objects are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    HttpRoute,
    GrpcRoute,
    Service,
    EndpointSlice,
}

impl Kind {
    pub const ALL: [Self; 4] = [
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::Service,
        Self::EndpointSlice,
    ];

    /// The kind as YAML writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
        }
    }

    /// The `apiVersion` of this kind.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::HttpRoute | Self::GrpcRoute => "gateway.networking.k8s.io/v1",
            Self::Service => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::as_str).join(", ");
                FieldError::new(format!("kind {text:?} is not supported (supported: {known})"))
            })
    }
}

/// Names one object. Written `HTTPRoute/default/checkout`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub kind: Kind,
    pub namespace: Label,
    pub name: Label,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

impl FromStr for ObjectKey {
    type Err = FieldError;

    /// Reads `Kind/namespace/name`.
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let mut parts = text.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(kind), Some(namespace), Some(name)) => Ok(Self {
                kind: kind.parse()?,
                namespace: namespace.parse()?,
                name: name.parse()?,
            }),
            _ => Err(FieldError::new(format!("{text:?} is not Kind/namespace/name"))),
        }
    }
}

/// One object of configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    Service(Service),
    EndpointSlice(EndpointSlice),
    Route(RouteObject),
}

impl Object {
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(service) => ObjectKey {
                kind: Kind::Service,
                namespace: service.name.namespace.clone(),
                name: service.name.name.clone(),
            },
            Self::EndpointSlice(slice) => slice.key.clone(),
            Self::Route(route) => route.key.clone(),
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

/// An HTTPRoute or a GRPCRoute: which services it is for, and what becomes of their requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteObject {
    pub key: ObjectKey,
    /// The services whose callers it governs, in the order written.
    pub parents: Vec<ParentRef>,
    /// As written. Gateway API says that a route with a Service parent ignores them.
    pub hostnames: Vec<String>,
    pub rules: Vec<RouteRule>,
}

/// One `parentRefs` entry. What is given of `port` and `section` must both fit a port of the Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentRef {
    pub service: ServiceName,
    /// `None` is every port.
    pub port: Option<u16>,
    /// `sectionName`: a port by its name.
    pub section: Option<String>,
    /// Its position in `parentRefs`, from 0.
    pub index: usize,
}

/// One rule of a route, whose backends are names that may not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRule {
    /// Never empty.
    pub matches: Vec<RequestMatch>,
    /// Of which those that send somewhere themselves name what may not exist.
    pub filters: Vec<Filter>,
    pub backends: Vec<BackendRef>,
    pub timeouts: Timeouts,
    pub retry: Option<RetryPolicy>,
    pub session: Option<SessionPersistence>,
}

impl RouteRule {
    /// Every Service that its backends and filters name, whether or not it exists.
    pub fn references(&self) -> impl Iterator<Item = &ServicePort> {
        let of_backends = self.backends.iter().flat_map(|backend| {
            let of_filters = backend.filters.iter().filter_map(Filter::target);
            [&backend.target].into_iter().chain(of_filters)
        });
        of_backends.chain(self.filters.iter().filter_map(Filter::target))
    }
}

/// One `backendRefs` entry, not yet checked for existence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    pub target: ServicePort,
    /// 0–1,000,000; 1 where it is not written.
    pub weight: u32,
    pub filters: Vec<Filter>,
}
