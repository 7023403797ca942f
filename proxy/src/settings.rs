//! Everything a proxy can be told, and every limit it keeps: name, unit and default in one place.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use decision::message::MessageLimits;
use decision::message::flood::FrameLimits;
use model::workload::AppPort;
use model::{Label, Labels, OutsideHosts, ServiceName, WorkloadId};

use crate::identity::JoinToken;

/// What one proxy is and does.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Unique among the mesh's workloads.
    pub workload_id: WorkloadId,
    pub namespace: Label,
    /// The Gateway whose proxy this is; `None` for a sidecar. A gateway has no application, and neither `outbound` nor
    /// `inbound`.
    pub gateway: Option<Label>,
    /// The service account that the identity must name; `None` takes whatever the token is for.
    pub service_account: Option<Label>,
    /// `service.name` of its traces.
    pub service: String,
    pub labels: Labels,
    /// Where the application listens; empty for a workload that only calls others.
    pub app: Vec<AppPort>,
    /// The control plane, `host:port`.
    pub control_plane: String,
    /// For the first certificate; not needed where `data` holds a valid one.
    pub token: Option<JoinToken>,
    /// Keeps the identity across restarts. Nothing is kept where it is `None`.
    pub data: Option<PathBuf>,
    /// Listener for the application's calls. Default 127.0.0.1:15001.
    pub outbound: SocketAddr,
    /// Listener for mTLS from other sidecars. Default 0.0.0.0:15008.
    pub inbound: SocketAddr,
    /// How others reach `inbound`; where `None`, its own address, which then must not be a wildcard.
    pub advertise: Option<SocketAddr>,
    /// Local ports that each stand for one service.
    pub locals: Vec<LocalPort>,
    /// Admin pages, loopback only. Default 127.0.0.1:15000.
    pub admin: SocketAddr,
    /// OpenMetrics. Default 127.0.0.1:15020.
    pub metrics: SocketAddr,
    /// What becomes of calls to hosts that are no service of the mesh; the stricter of this and what the mesh says holds.
    /// `None` follows the mesh.
    pub outside: Option<OutsideHosts>,
    /// Data-plane threads. Default 1; a gateway has one per core.
    pub workers: usize,
    /// Where spans go.
    pub traces: telemetry::Endpoint,
    /// Prints one JSON line per request on standard output. Default false.
    pub access_log: bool,
    pub limits: Limits,
}

/// A local port that stands for one service: whatever connects to it, calls that service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPort {
    pub service: ServiceName,
    pub port: u16,
    pub listen: SocketAddr,
}

/// Every bound of the data plane.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Heads of requests and responses: bytes, fields, target, interim responses.
    pub message: MessageLimits,
    /// From a head's first byte to its last; then 408. Default 10 s.
    pub header_timeout: Duration,
    /// A TLS handshake must be over by then. Default 5 s.
    pub handshake_timeout: Duration,
    /// Where a local port's protocol is not declared, its first bytes must tell it by then; a silent connection is
    /// opaque TCP. Default 1 s.
    pub detect_timeout: Duration,
    /// A connection without a request, or a tunnel without a byte, is closed after it. Default 1 h.
    pub idle_timeout: Duration,
    /// Establishing a connection to an endpoint, TLS included. Default 5 s.
    pub connect_timeout: Duration,
    /// Names of destinations, as callers write them, that a worker keeps at hand. Default 4,096.
    pub known_destinations: usize,
    /// How long a first request waits for the control plane to tell about its destination. Default 2 s.
    pub discovery_timeout: Duration,
    /// Answers of DNS about hosts outside the mesh that a worker remembers, as long as they live. Default 1,024.
    pub resolved_hosts: usize,
    /// Addresses outside the mesh to which a worker keeps connections. Default 1,024.
    pub outside_addresses: usize,
    /// A pooled upstream connection is not used again after this long unused. Default 60 s.
    pub pool_idle_timeout: Duration,
    /// Unused HTTP/1.1 connections that are kept per endpoint and worker. Default 256.
    pub pool_idle_connections: usize,
    /// A request's body up to this size can be sent again. Default 64 KiB.
    pub replay_bytes: usize,
    /// Copies of requests (`RequestMirror`) that one worker has on their way at once, each with a body of up to
    /// `replay_bytes`; further ones are not sent. Default 256.
    pub mirrored_requests: usize,
    /// The answer to a copy must be there by then. Default 10 s.
    pub mirror_timeout: Duration,
    /// The answer whether a request may go on (`ExternalAuth`) must be there by then. Default 5 s.
    pub auth_timeout: Duration,
    /// Where a retry depends on a gRPC call's status, an answer's head waits for trailers or a message for so long, and is
    /// then delivered. Default 100 ms.
    pub grpc_status_patience: Duration,
    /// Open connections per listener. Default 50,000.
    pub connections: usize,
    /// Open connections per listener and source address. Default 10,000.
    pub connections_per_source: usize,
    /// HTTP/2 connections per endpoint and worker; another one is opened when those that are open take no more
    /// streams. Default 8.
    pub http2_connections: usize,
    /// Concurrent HTTP/2 streams per connection. Default 256.
    pub streams_per_connection: u32,
    /// Streams that a peer reset before they were accepted (CVE-2023-44487), then GOAWAY. Default 20.
    pub pending_resets: usize,
    /// Streams that had to be reset because of the peer's errors (MadeYouReset, CVE-2025-8671). Default 64.
    pub error_resets: usize,
    /// HTTP/2 receive window of a stream, bytes. Default 1 MiB.
    pub stream_window: u32,
    /// HTTP/2 receive window of a connection, bytes. Default 4 MiB.
    pub connection_window: u32,
    /// Largest HTTP/2 frame accepted, bytes. Default 64 KiB.
    pub frame_bytes: u32,
    /// HTTP/2 frames of each kind that a peer may send, then GOAWAY. A header block may have 128 KiB here, so that
    /// one that is over `message.head_bytes` is answered with 431.
    pub frames: FrameLimits,
    /// An HTTP/2 connection to an endpoint is pinged this often while it is in use. Default 20 s.
    pub keepalive_interval: Duration,
    /// A ping that is not answered by then ends its connection. Default 10 s.
    pub keepalive_timeout: Duration,
    /// Latest mTLS sessions with other sidecars that they can resume, each 1.5 KiB and at most 8; 0 turns resumption
    /// off. Default 2,048.
    pub tls_sessions: usize,
    /// How long a stopping proxy lets requests finish. Default 20 s.
    pub drain_timeout: Duration,
    /// Clients of one UDP port of a gateway, each with a socket of its own; datagrams of others are dropped. Default 4,096.
    pub udp_sessions: usize,
    /// A client of a UDP port is forgotten when nothing passed either way for so long. Default 60 s.
    pub udp_idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: MessageLimits::default(),
            header_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            detect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(3600),
            connect_timeout: Duration::from_secs(5),
            known_destinations: 4096,
            discovery_timeout: Duration::from_secs(2),
            resolved_hosts: 1024,
            outside_addresses: 1024,
            pool_idle_timeout: Duration::from_secs(60),
            pool_idle_connections: 256,
            replay_bytes: 64 * 1024,
            mirrored_requests: 256,
            mirror_timeout: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(5),
            grpc_status_patience: Duration::from_millis(100),
            connections: 50_000,
            connections_per_source: 10_000,
            http2_connections: 8,
            streams_per_connection: 256,
            pending_resets: 20,
            error_resets: 64,
            stream_window: 1024 * 1024,
            connection_window: 4 * 1024 * 1024,
            frame_bytes: 64 * 1024,
            frames: FrameLimits {
                header_block_bytes: 128 * 1024,
                ..FrameLimits::default()
            },
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            tls_sessions: 2048,
            drain_timeout: Duration::from_secs(20),
            udp_sessions: 4096,
            udp_idle_timeout: Duration::from_secs(60),
        }
    }
}
