//! Which FaultInjectionPolicies are for a Service's port, and for a route: all that name it, the older first.

use std::collections::BTreeMap;

use model::fault::Fault;
use model::service::Service;

use super::MeshState;
use super::attach::Objection;
use super::traffic_policy::exists;
use crate::sources::{FaultPolicy, Kind, RouteObject, RouteRule, TrafficTarget};

/// The faults of each port of a Service, where there are some.
pub(super) fn of_ports(state: &MeshState, service: &Service) -> BTreeMap<u16, Vec<Fault>> {
    let policies = state.fault_policies_in(&service.name.namespace);
    let is_meant = |target: &TrafficTarget, port: &model::service::Port| {
        target.kind == Kind::Service
            && target.name.as_str() == service.name.name.as_str()
            && (target.section.is_none() || target.section == port.name)
    };
    let mut faults = BTreeMap::new();
    for (number, port) in &service.ports {
        let meant = policies.iter().filter(|policy| {
            let mut targets = policy.targets.iter();
            targets.any(|target| is_meant(target, port))
        });
        let of_port: Vec<Fault> = meant.map(|policy| policy.fault.clone()).collect();
        if !of_port.is_empty() {
            faults.insert(*number, of_port);
        }
    }
    faults
}

/// The faults of each of a route's rules.
pub(super) fn of_rules(state: &MeshState, route: &RouteObject) -> Vec<Vec<Fault>> {
    let policies = state.fault_policies_in(&route.key.namespace);
    let is_meant = |target: &TrafficTarget, rule: &RouteRule| {
        target.kind == route.key.kind
            && target.name == route.key.name
            && (target.section.is_none() || target.section == rule.name)
    };
    let of_rule = |rule: &RouteRule| {
        let meant = policies.iter().filter(|policy| {
            let mut targets = policy.targets.iter();
            targets.any(|target| is_meant(target, rule))
        });
        meant.map(|policy| policy.fault.clone()).collect()
    };
    route.rules.iter().map(of_rule).collect()
}

/// What keeps a policy from each of its targets.
pub(super) fn objections(state: &MeshState, policy: &FaultPolicy) -> Vec<Objection> {
    let targets = policy.targets.iter();
    targets
        .filter_map(|target| exists(state, &policy.key.namespace, target).err())
        .collect()
}
