//! Gateways: the listeners at the edge of the mesh, and what is served on each.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::hostname::Hostname;
use crate::route::{Backend, Rule};
use crate::{FieldError, ServiceName};

/// Everything that a gateway's proxy must know of its Gateway; the endpoints of the backends come beside it, as
/// [`crate::EndpointSet`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Namespace and name of the Gateway.
    pub name: ServiceName,
    /// Where its ports are bound (`spec.addresses`); empty is every address of the machine.
    pub addresses: Vec<IpAddr>,
    /// Shown to backends outside the mesh that ask for one in TLS (`spec.tls.backend.clientCertificateRef`).
    pub client_certificate: Option<Arc<Certificate>>,
    /// Those that are accepted, of the Gateway and of its ListenerSets; each name once. Listeners of one port have one
    /// [`Transport`], beside which there may be UDP, and differ in their host names.
    pub listeners: Vec<Listener>,
}

/// One listener. Several share a port, and are told apart by the host name: in SNI where there is TLS, else in `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name in the Gateway, or `ListenerSet/<namespace>/<name>/<listener>`.
    pub name: Arc<str>,
    pub port: u16,
    pub hostname: Hostname,
    pub serves: Serves,
    /// What HTTP would be served by if routes in shadow were in force, to be compared with; only beside
    /// [`Serves::Http`] and [`Serves::Https`]. `None` where no route in shadow is for this listener.
    pub shadow: Option<HttpRoutes>,
}

/// What a listener does with what arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serves {
    /// `HTTP`: HTTP/1.1, and HTTP/2 with prior knowledge.
    Http(HttpRoutes),
    /// `HTTPS`: TLS that ends here, with `h2` and `http/1.1` offered.
    Https(TlsTermination, HttpRoutes),
    /// `TLS` with mode `Terminate`: the bytes within go to a backend.
    TlsTerminate(TlsTermination, Vec<StreamRule>),
    /// `TLS` with mode `Passthrough`: the bytes go on as they are, by their SNI.
    TlsPassthrough(Vec<StreamRule>),
    Tcp(Vec<StreamRule>),
    Udp(Vec<StreamRule>),
}

/// What listeners of one port must have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Told apart by `Host`.
    Http,
    /// Told apart by SNI.
    Tls,
    Tcp,
    Udp,
}

impl Serves {
    /// `None` where it is not HTTP that is served.
    pub fn http_routes(&self) -> Option<&HttpRoutes> {
        match self {
            Self::Http(routes) | Self::Https(_, routes) => Some(routes),
            Self::TlsTerminate(..) | Self::TlsPassthrough(_) | Self::Tcp(_) | Self::Udp(_) => None,
        }
    }

    pub fn transport(&self) -> Transport {
        match self {
            Self::Http(_) => Transport::Http,
            Self::Https(..) | Self::TlsTerminate(..) | Self::TlsPassthrough(_) => Transport::Tls,
            Self::Tcp(_) => Transport::Tcp,
            Self::Udp(_) => Transport::Udp,
        }
    }
}

/// The rules of HTTPRoutes and GRPCRoutes by host name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpRoutes {
    /// Oldest route first, which decides between equally specific matches.
    pub rules: Vec<Rule>,
    /// For each host name (that of the route taken together with the listener's) the places of its rules, ascending.
    /// A request meets the rules of every host name that fits its host: those of a more specific one take precedence
    /// over all of a less specific one.
    pub hosts: BTreeMap<Hostname, Vec<usize>>,
}

/// Where connections, or datagrams, that fit go (TLSRoute, TCPRoute, UDPRoute).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRule {
    /// `TCPRoute/<namespace>/<name>#<rule index>`.
    pub name: Arc<str>,
    /// By SNI, where there is TLS; [`Hostname::Any`] otherwise. Never empty.
    pub hostnames: Vec<Hostname>,
    pub backends: Vec<Backend>,
}

/// How TLS ends at a listener (Gateway API `ListenerTLSConfig`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsTermination {
    /// The first is shown where no other is for the name in SNI. Never empty.
    pub certificates: Vec<Arc<Certificate>>,
    /// `None`: clients are not asked for a certificate.
    pub clients: Option<ClientValidation>,
}

/// A `kubernetes.io/tls` Secret: certificate chain, leaf first, and private key, both as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    pub chain: String,
    pub key: String,
}

impl Certificate {
    /// Largest chain or key, in bytes of PEM.
    pub const MAX_PEM_BYTES: usize = 64 * 1024;

    /// Checks sizes and that both are PEM; whether they belong together is for [`Certificate`]'s reader to find out,
    /// who has a TLS library.
    pub fn new(chain: String, key: String) -> Result<Self, FieldError> {
        for (field, text, wanted) in [("chain", &chain, "CERTIFICATE"), ("key", &key, "PRIVATE KEY")] {
            if text.len() > Self::MAX_PEM_BYTES {
                return Err(FieldError::at(
                    field,
                    format!("is over {} bytes", Self::MAX_PEM_BYTES),
                ));
            }
            if !text.contains(&format!("{wanted}-----")) {
                return Err(FieldError::at(field, format!("has no PEM block {wanted:?}")));
            }
        }
        Ok(Self { chain, key })
    }
}

/// Keys are not printed.
impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

/// Which client certificates a listener takes (Gateway API `FrontendTLSValidation`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientValidation {
    /// PEM, all authorities that are trusted; at most [`ClientValidation::MAX_PEM_BYTES`].
    pub authorities: String,
    /// `AllowInsecureFallback`: a client without a valid certificate is served as well.
    pub optional: bool,
}

impl ClientValidation {
    /// Largest bundle of authorities, in bytes of PEM.
    pub const MAX_PEM_BYTES: usize = 1024 * 1024;
}

/// How the TLS of a connection to a backend outside the mesh is checked (BackendTLSPolicy).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTls {
    /// Always the SNI; the certificate's name too, unless `names` are given.
    pub hostname: Hostname,
    /// PEM; `None` trusts the machine's own authorities (`wellKnownCACertificates: System`).
    pub authorities: Option<String>,
    /// `subjectAltNames`: where there are some, the certificate must have one of them.
    pub names: Vec<SubjectAltName>,
}

/// One name that a certificate may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectAltName {
    Hostname(Hostname),
    Uri(String),
}
