//! The mesh's nouns as plain, validated data. A value that exists is valid; this crate knows no I/O and no clock.
//!
//! Start at [`service::Destination`], which is everything a caller must know about one service, and at
//! [`snapshot::Snapshot`], which is everything one sidecar knows.

pub mod endpoint;
pub mod fault;
pub mod field;
pub mod filter;
pub mod gateway;
pub mod hostname;
pub mod name;
pub mod outside;
pub mod pattern;
pub mod resilience;
pub mod route;
pub mod service;
pub mod session;
pub mod shadow;
pub mod snapshot;
pub mod spiffe;
pub mod traffic_policy;
pub mod workload;

pub use endpoint::{Endpoint, EndpointSet, Endpoints};
pub use field::{FieldError, FieldPath};
pub use gateway::Gateway;
pub use hostname::Hostname;
pub use name::{Label, MeshDomain, ServiceName, ServicePort};
pub use outside::OutsideHosts;
pub use service::{AppProtocol, Destination};
pub use snapshot::{Generation, Question, Resource, ResourceName, Snapshot};
pub use spiffe::{SpiffeId, TrustDomain};
pub use traffic_policy::TrafficPolicy;
pub use workload::{Labels, Selector, WorkloadId};
