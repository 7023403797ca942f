//! Which FaultInjectionPolicies are for a Service's port, and for a route: all that name it, the older first.

use std::collections::BTreeMap;

use model::fault::Fault;
use model::service::{Port, Service};

use super::MeshState;
use super::attach::Objection;
use super::shadow::in_force;
use super::traffic_policy::exists;
use crate::sources::{FaultPolicy, Kind, ObjectKey, TrafficTarget};

/// The faults of each port of a Service that are in force, where there are some.
pub(super) fn of_ports(state: &MeshState, service: &Service) -> BTreeMap<u16, Vec<Fault>> {
    let policies = in_force(state.fault_policies_in(&service.name.namespace));
    let of_port = |(number, port): (&u16, &Port)| {
        let faults = of_port(&policies, service, port).into_iter();
        let faults: Vec<Fault> = faults.map(|policy| policy.fault.clone()).collect();
        (!faults.is_empty()).then_some((*number, faults))
    };
    service.ports.iter().filter_map(of_port).collect()
}

/// Those of these that are for a port of a Service.
pub(super) fn of_port<'s>(
    policies: &[&'s FaultPolicy],
    service: &Service,
    port: &Port,
) -> Vec<&'s FaultPolicy> {
    let is_meant = |target: &TrafficTarget| {
        target.kind == Kind::Service
            && target.name.as_str() == service.name.name.as_str()
            && (target.section.is_none() || target.section == port.name)
    };
    let meant = policies
        .iter()
        .filter(|policy| policy.targets.iter().any(is_meant));
    meant.copied().collect()
}

/// Those of these that are for a rule of a route, of this name.
pub(super) fn of_rule<'s>(
    policies: &[&'s FaultPolicy],
    route: &ObjectKey,
    rule: Option<&String>,
) -> Vec<&'s FaultPolicy> {
    let is_meant = |target: &TrafficTarget| {
        target.kind == route.kind
            && target.name == route.name
            && (target.section.is_none() || target.section.as_ref() == rule)
    };
    let meant = policies
        .iter()
        .filter(|policy| policy.targets.iter().any(is_meant));
    meant.copied().collect()
}

/// What keeps a policy from each of its targets.
pub(super) fn objections(state: &MeshState, policy: &FaultPolicy) -> Vec<Objection> {
    let targets = policy.targets.iter();
    targets
        .filter_map(|target| exists(state, &policy.key.namespace, target).err())
        .collect()
}
