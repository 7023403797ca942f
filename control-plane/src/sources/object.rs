//! Configuration objects as the store keeps them: validated one by one, not yet checked against each other.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use model::filter::Filter;
use model::resilience::{RetryPolicy, Timeouts};
use model::route::RequestMatch;
use model::service::{AppProtocol, Service};
use model::session::SessionPersistence;
use model::{FieldError, Hostname, Label, ServiceName, ServicePort};

use super::backend_tls::BackendTlsPolicy;
use super::core_v1::{ConfigMap, Namespace, Secret};
use super::fault::FaultPolicy;
use super::gateway::{GatewayClass, GatewayObject};
use super::grant::ReferenceGrant;
use super::listener::ListenerSet;
use super::traffic_policy::TrafficPolicyObject;

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Longest name of an object, in bytes.
const MAX_NAME_BYTES: usize = 253;

/// The kinds that the mesh understands. Their order is the order in which objects are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    GatewayClass,
    Gateway,
    ListenerSet,
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    TcpRoute,
    UdpRoute,
    BackendTlsPolicy,
    ReferenceGrant,
    Service,
    EndpointSlice,
    Secret,
    ConfigMap,
    Namespace,
    BackendTrafficPolicy,
    FaultInjectionPolicy,
}

/// What is known of a kind: one row of [`Kind::ROWS`].
#[derive(Debug, Clone, Copy)]
pub struct KindRow {
    pub kind: Kind,
    /// As YAML writes it.
    pub name: &'static str,
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Versions that are read, the preferred one first.
    pub versions: &'static [&'static str],
    /// Whether objects of the kind are in a namespace.
    pub is_namespaced: bool,
    /// As `weft get` may be asked for it: the plural, then short forms.
    pub spoken: &'static [&'static str],
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";

impl Kind {
    /// Every kind. The one table that a new kind is entered in.
    pub const ROWS: &'static [KindRow] = &[
        row(
            Self::GatewayClass,
            "GatewayClass",
            GATEWAY_API,
            &["v1", "v1beta1"],
            &["gatewayclasses", "gc"],
        )
        .of_cluster(),
        row(
            Self::Gateway,
            "Gateway",
            GATEWAY_API,
            &["v1", "v1beta1"],
            &["gateways", "gtw"],
        ),
        row(
            Self::ListenerSet,
            "ListenerSet",
            GATEWAY_API,
            &["v1"],
            &["listenersets", "lset"],
        ),
        row(
            Self::HttpRoute,
            "HTTPRoute",
            GATEWAY_API,
            &["v1", "v1beta1"],
            &["httproutes"],
        ),
        row(
            Self::GrpcRoute,
            "GRPCRoute",
            GATEWAY_API,
            &["v1"],
            &["grpcroutes"],
        ),
        row(
            Self::TlsRoute,
            "TLSRoute",
            GATEWAY_API,
            &["v1", "v1alpha3", "v1alpha2"],
            &["tlsroutes"],
        ),
        row(
            Self::TcpRoute,
            "TCPRoute",
            GATEWAY_API,
            &["v1", "v1alpha2"],
            &["tcproutes"],
        ),
        row(
            Self::UdpRoute,
            "UDPRoute",
            GATEWAY_API,
            &["v1", "v1alpha2"],
            &["udproutes"],
        ),
        row(
            Self::BackendTlsPolicy,
            "BackendTLSPolicy",
            GATEWAY_API,
            &["v1", "v1alpha3"],
            &["backendtlspolicies", "btlspolicy"],
        ),
        row(
            Self::ReferenceGrant,
            "ReferenceGrant",
            GATEWAY_API,
            &["v1", "v1beta1"],
            &["referencegrants", "refgrant"],
        ),
        row(Self::Service, "Service", "", &["v1"], &["services", "svc"]),
        row(
            Self::EndpointSlice,
            "EndpointSlice",
            "discovery.k8s.io",
            &["v1"],
            &["endpointslices"],
        ),
        row(Self::Secret, "Secret", "", &["v1"], &["secrets"]),
        row(Self::ConfigMap, "ConfigMap", "", &["v1"], &["configmaps", "cm"]),
        row(Self::Namespace, "Namespace", "", &["v1"], &["namespaces", "ns"]).of_cluster(),
        row(
            Self::BackendTrafficPolicy,
            "BackendTrafficPolicy",
            "weft.dev",
            &["v1alpha1"],
            &["backendtrafficpolicies", "btp"],
        ),
        row(
            Self::FaultInjectionPolicy,
            "FaultInjectionPolicy",
            "weft.dev",
            &["v1alpha1"],
            &["faultinjectionpolicies", "fip"],
        ),
    ];

    /// What is known of this kind.
    pub fn row(self) -> &'static KindRow {
        // Every kind has a row, which a test holds.
        Self::ROWS
            .iter()
            .find(|row| row.kind == self)
            .unwrap_or(&Self::ROWS[0])
    }

    /// The kind as YAML writes it.
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// Whether objects of this kind are in a namespace.
    pub fn is_namespaced(self) -> bool {
        self.row().is_namespaced
    }

    /// The kind as people write it: in lower case, in the plural, or short. `None` for a word that is no kind.
    pub fn spoken(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let fits =
            |row: &&KindRow| row.name.eq_ignore_ascii_case(text) || row.spoken.contains(&lower.as_str());
        Self::ROWS.iter().find(fits).map(|row| row.kind)
    }
}

const fn row(
    kind: Kind,
    name: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
    spoken: &'static [&'static str],
) -> KindRow {
    KindRow {
        kind,
        name,
        group,
        versions,
        is_namespaced: true,
        spoken,
    }
}

impl KindRow {
    const fn of_cluster(mut self) -> Self {
        self.is_namespaced = false;
        self
    }

    /// The `apiVersion`s of this kind, the preferred one first.
    pub fn api_versions(&self) -> impl Iterator<Item = String> {
        self.versions.iter().map(|version| match self.group {
            "" => (*version).to_owned(),
            group => format!("{group}/{version}"),
        })
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
        let row = Self::ROWS.iter().find(|row| row.name == text);
        row.map(|row| row.kind).ok_or_else(|| {
            let known: Vec<&str> = Self::ROWS.iter().map(|row| row.name).collect();
            FieldError::new(format!(
                "kind {text:?} is not supported (supported: {})",
                known.join(", ")
            ))
        })
    }
}

/// The name of an object: a DNS subdomain (RFC 1123), 1-253 of `a-z`, `0-9`, `-` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectName {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let is_part = |part: &str| {
            let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            !part.is_empty() && part.bytes().all(letters) && !part.starts_with('-') && !part.ends_with('-')
        };
        if text.len() > MAX_NAME_BYTES || !text.split('.').all(is_part) {
            return Err(FieldError::new(format!(
                "{text:?} is not an object's name (1-{MAX_NAME_BYTES} of a-z, 0-9, '-' and '.', a letter or digit at \
                 either end)"
            )));
        }
        Ok(Self(text.into()))
    }
}

impl From<&Label> for ObjectName {
    fn from(label: &Label) -> Self {
        Self(label.as_str().into())
    }
}

impl From<Label> for ObjectName {
    fn from(label: Label) -> Self {
        Self::from(&label)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one object. Written `HTTPRoute/default/checkout`, or `GatewayClass/weft` where the kind has no namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub kind: Kind,
    /// Always the default one where the kind has no namespaces, and then never shown.
    pub namespace: Label,
    pub name: ObjectName,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.is_namespaced() {
            true => write!(f, "{}/{}/{}", self.kind, self.namespace, self.name),
            false => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

impl FromStr for ObjectKey {
    type Err = FieldError;

    /// Reads `Kind/namespace/name`, or `Kind/name` for a kind without namespaces.
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let mut parts = text.splitn(3, '/');
        let (kind, rest) = (parts.next().unwrap_or_default().parse::<Kind>()?, parts);
        let parts: Vec<&str> = rest.collect();
        match (kind.is_namespaced(), parts.as_slice()) {
            (true, [namespace, name]) => Ok(Self {
                kind,
                namespace: namespace.parse()?,
                name: name.parse()?,
            }),
            (false, [name]) => Ok(Self {
                kind,
                namespace: DEFAULT_NAMESPACE.parse()?,
                name: name.parse()?,
            }),
            (true, _) => Err(FieldError::new(format!("{text:?} is not Kind/namespace/name"))),
            (false, _) => Err(FieldError::new(format!("{text:?} is not Kind/name"))),
        }
    }
}

/// One object of configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    GatewayClass(GatewayClass),
    Gateway(Box<GatewayObject>),
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
    /// The Services that its filters, and those of its backends, name, whether or not they exist.
    pub fn asides(&self) -> impl Iterator<Item = &ServicePort> {
        let of_backends = self.backends.iter().flat_map(|backend| &backend.filters);
        of_backends.chain(&self.filters).filter_map(Filter::target)
    }
}

/// One `backendRefs` entry, not yet checked for existence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    pub target: BackendTarget,
    /// 0–1,000,000; 1 where it is not written.
    pub weight: u32,
    pub filters: Vec<Filter>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_row_in_its_order() {
        for (row, next) in Kind::ROWS.iter().zip(Kind::ROWS.iter().skip(1)) {
            assert!(row.kind < next.kind, "{}", row.name);
        }
        for row in Kind::ROWS {
            assert_eq!(row.name.parse::<Kind>(), Ok(row.kind));
            assert_eq!(row.kind.row().name, row.name);
            assert_eq!(Kind::spoken(row.spoken[0]), Some(row.kind));
        }
        assert_eq!(Kind::FaultInjectionPolicy as usize + 1, Kind::ROWS.len());
    }

    #[test]
    fn keys_round_trip_with_and_without_a_namespace() {
        for text in ["HTTPRoute/shop/a.b", "GatewayClass/weft", "Namespace/shop"] {
            assert_eq!(text.parse::<ObjectKey>().unwrap().to_string(), text);
        }
        for text in [
            "HTTPRoute/a",
            "GatewayClass/a/b",
            "Other/a/b",
            "HTTPRoute/a/.b",
            "",
        ] {
            assert!(text.parse::<ObjectKey>().is_err(), "{text}");
        }
    }
}
