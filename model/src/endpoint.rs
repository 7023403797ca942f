//! Endpoints: who serves a Service right now, and how each is reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::fault::Fault;
use crate::gateway::BackendTls;
use crate::shadow::PolicyShadow;
use crate::{AppProtocol, FieldError, Labels, ServiceName, SpiffeId, TrafficPolicy, WorkloadId};

/// One workload of the mesh that serves a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub workload: WorkloadId,
    /// Its inbound mTLS listener.
    pub address: SocketAddr,
    /// Who must answer there; any other identity is refused, whatever its name.
    pub identity: SpiffeId,
    pub labels: Labels,
}

/// All endpoints of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSet {
    pub service: ServiceName,
    pub endpoints: Endpoints,
    /// How its callers use them, by port of the Service; a port without a policy is not listed.
    pub policies: BTreeMap<u16, Arc<TrafficPolicy>>,
    /// By port of the Service: what is done on purpose to requests that are sent there.
    pub faults: BTreeMap<u16, Vec<Fault>>,
    /// By port of the Service, where policies in shadow would say something else of it than those in force.
    pub shadow: BTreeMap<u16, PolicyShadow>,
}

impl EndpointSet {
    /// The policy of a port, if it says anything about its endpoints.
    pub fn governing(&self, port: u16) -> Option<&Arc<TrafficPolicy>> {
        let policy = self.policies.get(&port);
        policy.filter(|policy| policy.governs_endpoints())
    }
}

/// Where the endpoints of a Service are. A Service has either kind, never both: what is a workload cannot become an
/// address without an identity by leaving something out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoints {
    /// Workloads of the mesh, ordered by id. Each serves every port of the Service at its one inbound listener.
    Mesh(Vec<Arc<Endpoint>>),
    /// Addresses that the mesh does not run, by port of the Service. They are called in plain, or by TLS as a
    /// BackendTLSPolicy says.
    Outside(BTreeMap<u16, OutsidePort>),
}

/// What serves one port of a Service outside the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutsidePort {
    /// What is spoken there, which only the caller's sidecar is there to know.
    pub protocol: AppProtocol,
    pub addresses: BTreeSet<SocketAddr>,
    /// `None`: in plain.
    pub tls: Option<Arc<BackendTls>>,
}

impl Endpoints {
    /// The workloads among them.
    pub fn workloads(&self) -> &[Arc<Endpoint>] {
        match self {
            Self::Mesh(workloads) => workloads,
            Self::Outside(_) => &[],
        }
    }

    /// What serves a port of the Service outside the mesh; `None` where workloads do, or nothing.
    pub fn outside(&self, port: u16) -> Option<&OutsidePort> {
        match self {
            Self::Mesh(_) => None,
            Self::Outside(ports) => ports.get(&port),
        }
    }
}

/// An address outside the mesh that can be called: that of one host. As Kubernetes has it for an EndpointSlice, except
/// that loopback is allowed, because without Kubernetes it may be what a sidecar and such an application share.
///
/// # Errors
/// Unspecified, multicast, broadcast, link-local and IPv4-mapped IPv6 addresses.
pub fn outside_ip(ip: IpAddr) -> Result<IpAddr, FieldError> {
    let refused = match ip {
        IpAddr::V4(ip) if ip.is_broadcast() => "a broadcast",
        IpAddr::V4(ip) if ip.is_link_local() => "a link-local",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => "a link-local",
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => "an IPv4-mapped",
        ip if ip.is_unspecified() => "an unspecified",
        ip if ip.is_multicast() => "a multicast",
        ip => return Ok(ip),
    };
    Err(FieldError::new(format!(
        "{ip} is {refused} address, which is no endpoint"
    )))
}
