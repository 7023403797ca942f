//! What policies in shadow would say: compared with what becomes of live requests, and applied to none of them.

use std::sync::Arc;

use crate::TrafficPolicy;
use crate::fault::Fault;

/// Everything that policies would say at one place, a port of a Service or the rules of a route, if those in shadow were in
/// force and those that they would replace were gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyShadow {
    /// The BackendTrafficPolicy that would count. `None`: none would.
    pub traffic: Option<NamedPolicy>,
    /// As [`crate::EndpointSet::faults`] of the port, and [`crate::route::Rule::faults`], would be.
    pub faults: Vec<Fault>,
}

/// A policy and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPolicy {
    /// `BackendTrafficPolicy/<namespace>/<name>`.
    pub name: Arc<str>,
    pub policy: Arc<TrafficPolicy>,
}
