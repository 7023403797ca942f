//! The kinds that the mesh understands, in one table, and the names of objects.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use model::{FieldError, Label};

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
