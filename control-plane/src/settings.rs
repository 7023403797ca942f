//! Everything a control plane can be told, and every limit it keeps: name, unit and default in one place.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use model::{MeshDomain, OutsideHosts, TrustDomain};

/// What one control plane is and does.
#[derive(Debug, Clone)]
pub struct Settings {
    /// gRPC over TLS. Default 127.0.0.1:15012.
    pub listen: SocketAddr,
    /// Health and metrics, in plain HTTP. Default 127.0.0.1:15014.
    pub admin: SocketAddr,
    /// Keeps the store and the operator's credential. Default `weft-data`.
    pub data: PathBuf,
    /// A watched folder of Gateway API YAML; none where it is `None`.
    pub config: Option<PathBuf>,
    /// Chosen at the first start, and never changed. `None`: what the store has, else `cluster.local`.
    pub trust_domain: Option<TrustDomain>,
    /// The suffix of services' names. Default `cluster.local`.
    pub mesh_domain: MeshDomain,
    /// What becomes of calls to hosts outside the mesh, at every sidecar. Default allow.
    pub outside: OutsideHosts,
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 15012)),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 15014)),
            data: PathBuf::from("weft-data"),
            config: None,
            trust_domain: None,
            mesh_domain: MeshDomain::default(),
            outside: OutsideHosts::default(),
            limits: Limits::default(),
        }
    }
}

/// Every bound of the control plane.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a certificate is valid; it is renewed at half of it. Default 24 h, at least 10 s.
    pub certificate_lifetime: Duration,
    /// How long a workload stays an endpoint without having come back: after a restart of the control plane, and
    /// after the certificate of its stream has ended. Default 60 s.
    pub restart_grace: Duration,
    /// Open connections to the gRPC port; more are closed at once. Default 20,000.
    pub connections: usize,
    /// How long a connection without a client certificate may last: joining is one call. Default 30 s.
    pub anonymous_timeout: Duration,
    /// Calls at once on one connection: a sidecar has a stream and now and then a renewal. Default 64.
    pub calls_per_connection: u32,
    /// Header block of a call, bytes. Default 16 KiB.
    pub header_bytes: u32,
    /// A TLS handshake must be over by then. Default 5 s.
    pub handshake_timeout: Duration,
    /// The first message of a config stream must have come by then. Default 10 s.
    pub hello_timeout: Duration,
    /// An update must be acknowledged or refused by then, or its stream is ended. Default 30 s.
    pub acknowledge_timeout: Duration,
    /// Destinations that one proxy may subscribe to. Default 10,000.
    pub subscriptions: usize,
    /// How long changes are gathered before a proxy is told. Default 20 ms; answers to questions do not wait.
    pub coalesce: Duration,
    /// Largest message that is read of a proxy, bytes. Default 4 MiB.
    pub message_bytes: usize,
    /// Largest message to the Identity service, bytes: the only one of strangers. Default 64 KiB.
    pub identity_message_bytes: usize,
    /// Largest message of an operator, and answer to one, bytes. Default 64 MiB.
    pub operator_message_bytes: usize,
    /// Largest update, bytes. Default 15 MiB, which a proxy reads with its 16. A larger difference is sent in parts;
    /// one resource that is larger is not sent, and shows as refused.
    pub update_bytes: usize,
    /// Configuration objects. Default 50,000.
    pub objects: usize,
    /// Workloads. Default 20,000.
    pub workloads: usize,
    /// Changes that wait for the store; who changes something waits when there are more. Default 1,024.
    pub queued_changes: usize,
    /// A peer that says nothing is pinged this often. Default 10 s.
    pub keepalive_interval: Duration,
    /// And must answer by then. Default 5 s.
    pub keepalive_timeout: Duration,
    /// Join tokens that have not expired. Default 10,000.
    pub join_tokens: usize,
    /// A join token's lifetime where none is asked for. Default 10 min.
    pub token_lifetime: Duration,
    /// The longest that may be asked for. Default 24 h.
    pub token_lifetime_max: Duration,
    /// The longest an operator may wait for a generation. Default 10 min.
    pub await_max: Duration,
    /// How long a shutdown waits for what has begun, before it is cut off. Default 5 s.
    pub stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            certificate_lifetime: Duration::from_secs(24 * 60 * 60),
            restart_grace: Duration::from_secs(60),
            connections: 20_000,
            anonymous_timeout: Duration::from_secs(30),
            calls_per_connection: 64,
            header_bytes: 16 * 1024,
            handshake_timeout: Duration::from_secs(5),
            hello_timeout: Duration::from_secs(10),
            acknowledge_timeout: Duration::from_secs(30),
            subscriptions: 10_000,
            coalesce: Duration::from_millis(20),
            message_bytes: 4 * 1024 * 1024,
            identity_message_bytes: 64 * 1024,
            operator_message_bytes: 64 * 1024 * 1024,
            update_bytes: 15 * 1024 * 1024,
            objects: 50_000,
            workloads: 20_000,
            queued_changes: 1_024,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            join_tokens: 10_000,
            token_lifetime: Duration::from_secs(10 * 60),
            token_lifetime_max: Duration::from_secs(24 * 60 * 60),
            await_max: Duration::from_secs(10 * 60),
            stop_timeout: Duration::from_secs(5),
        }
    }
}
