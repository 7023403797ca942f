//! Services, as their owner declares them and as their callers see them.

use std::collections::BTreeMap;

use crate::gateway::StreamRule;
use crate::route::Rule;
use crate::{FieldError, Selector, ServiceName};

/// A Service as declared: which workloads it selects, and its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    pub selector: Selector,
    /// Those of TCP, which the mesh serves.
    pub ports: BTreeMap<u16, Port>,
    /// Those of UDP, to which only a Gateway sends, and only outside the mesh.
    pub udp_ports: BTreeMap<u16, Port>,
}

/// One declared port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: Option<String>,
    pub protocol: AppProtocol,
    pub target: TargetPort,
}

/// Which port of the workload serves a Service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    Name(String),
}

/// What is spoken on a port (`appProtocol`, KEP-3726); where it is not declared it is detected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum AppProtocol {
    /// Not declared: HTTP/1.1, HTTP/2 with prior knowledge, or opaque TCP, told by the first bytes.
    #[default]
    Detect,
    /// `http`: HTTP/1.1 to the application, and HTTP/2 for gRPC requests.
    Http,
    /// `kubernetes.io/h2c`, `http2`, `h2c`, `grpc`: HTTP/2 with prior knowledge to the application.
    Http2,
    /// `tcp`: opaque bytes.
    Tcp,
}

/// Names of IANA's registry, and those that are used beside them.
const OPAQUE_PROTOCOLS: [&str; 18] = [
    "tcp",
    "tls",
    "https",
    "amqp",
    "amqps",
    "kafka",
    "ldap",
    "ldaps",
    "memcache",
    "mongo",
    "mongodb",
    "mqtt",
    "mysql",
    "nats",
    "postgres",
    "postgresql",
    "redis",
    "smtp",
];

fn is_of_somebody_else(text: &str) -> bool {
    text.split_once('/')
        .is_some_and(|(domain, _)| domain.contains('.') && domain != "kubernetes.io")
}

impl AppProtocol {
    /// Reads `appProtocol`, in capitals or not. What is well known not to be HTTP is opaque, and so is what somebody else has
    /// a name of their own for (`example.com/name`). Other values are refused rather than guessed.
    pub fn from_app_protocol(text: &str) -> Result<Self, FieldError> {
        match text.to_ascii_lowercase().as_str() {
            opaque if OPAQUE_PROTOCOLS.contains(&opaque) => Ok(Self::Tcp),
            of_somebody if is_of_somebody_else(of_somebody) => Ok(Self::Tcp),
            "http" | "kubernetes.io/ws" => Ok(Self::Http),
            "kubernetes.io/h2c" | "h2c" | "http2" | "grpc" => Ok(Self::Http2),
            "kubernetes.io/wss" => Ok(Self::Tcp),
            _ => Err(FieldError::new(format!(
                "{text:?} is not a known appProtocol (http, kubernetes.io/h2c, http2, grpc, kubernetes.io/ws, tcp, tls, or of \
                 protocols such as mysql and redis)"
            ))),
        }
    }
}

/// Everything that a caller must know about one service. Subscribed to by name, at first use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub service: ServiceName,
    pub ports: BTreeMap<u16, DestinationPort>,
}

/// What calls to one port of a service are: which protocol, and which rules choose where they go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DestinationPort {
    pub protocol: AppProtocol,
    /// Route rules, oldest route first, which decides between equally specific matches. Empty where no route is
    /// attached: calls then go to the service's own endpoints. Where rules exist and none matches: 404.
    pub rules: Vec<Rule>,
    /// The rules as they would be if routes in shadow were in force, to be compared with; as for `rules`, empty is none
    /// attached. `None` where no route in shadow is for this port.
    pub shadow: Option<Vec<Rule>>,
    /// Rules of TCPRoutes and TLSRoutes for what is opaque, oldest route first. Empty where none is attached:
    /// connections then go to the service's own endpoints. Where rules exist and none fits: closed.
    pub streams: Vec<StreamRule>,
}
