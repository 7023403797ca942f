//! Endpoints: the workloads that serve a Service right now.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::{Labels, ServiceName, SpiffeId, WorkloadId};

/// One workload that serves a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub workload: WorkloadId,
    /// Its inbound mTLS listener.
    pub address: SocketAddr,
    /// Who must answer there; any other identity is refused, whatever its name.
    pub identity: SpiffeId,
    pub labels: Labels,
}

/// All endpoints of a Service, ordered by workload id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSet {
    pub service: ServiceName,
    pub endpoints: Vec<Arc<Endpoint>>,
}
