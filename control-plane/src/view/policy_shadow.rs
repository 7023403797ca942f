//! What policies would say if those in shadow were in force, where that is something else.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Label;
use model::service::{Port, Service};
use model::shadow::{NamedPolicy, PolicyShadow};

use super::shadow::{in_force, would_be};
use super::{MeshState, fault, traffic_policy};
use crate::sources::{FaultPolicy, RouteObject, RouteRule, TrafficPolicyObject};

/// By port of a Service.
pub(super) fn of_ports(state: &MeshState, service: &Service) -> BTreeMap<u16, PolicyShadow> {
    let Some(worlds) = Worlds::of(state, &service.name.namespace) else {
        return BTreeMap::new();
    };
    let ports = service.ports.iter();
    let of_port = |(number, port): (&u16, &Port)| {
        let differs = worlds.difference(
            |policies| traffic_policy::of_port(policies, service, port),
            |policies| fault::of_port(policies, service, port),
        );
        Some((*number, differs?))
    };
    ports.filter_map(of_port).collect()
}

/// Of each of a route's rules.
pub(super) fn of_rules(state: &MeshState, route: &RouteObject) -> Vec<Option<Arc<PolicyShadow>>> {
    let worlds = Worlds::of(state, &route.key.namespace);
    let of_rule = |rule: &RouteRule| {
        let name = rule.name.as_ref();
        let difference = worlds.as_ref()?.difference(
            |policies| traffic_policy::of_rule(policies, &route.key, name),
            |policies| fault::of_rule(policies, &route.key, name),
        );
        difference.map(Arc::new)
    };
    route.rules.iter().map(of_rule).collect()
}

/// The policies of a namespace, oldest first: in force, and as they would be.
struct Worlds<'s> {
    traffic: [Vec<&'s TrafficPolicyObject>; 2],
    faults: [Vec<&'s FaultPolicy>; 2],
}

impl<'s> Worlds<'s> {
    /// `None` where no policy is in shadow.
    fn of(state: &'s MeshState, namespace: &'s Label) -> Option<Self> {
        let traffic = state.traffic_policies_in(namespace);
        let faults = state.fault_policies_in(namespace);
        let (traffic_then, faults_then) = (would_be(traffic.clone()), would_be(faults.clone()));
        if traffic_then.is_none() && faults_then.is_none() {
            return None;
        }
        let (traffic, faults) = (in_force(traffic), in_force(faults));
        Some(Self {
            traffic: [traffic.clone(), traffic_then.unwrap_or(traffic)],
            faults: [faults.clone(), faults_then.unwrap_or(faults)],
        })
    }

    /// What would be at one place, where that is something else.
    fn difference(
        &self,
        traffic: impl Fn(&[&'s TrafficPolicyObject]) -> Option<&'s TrafficPolicyObject>,
        faults: impl Fn(&[&'s FaultPolicy]) -> Vec<&'s FaultPolicy>,
    ) -> Option<PolicyShadow> {
        let [now, then] = self.traffic.each_ref().map(|policies| traffic(policies));
        let [faults_now, faults_then] = self.faults.each_ref().map(|policies| faults(policies));
        let is_same = now.map(|policy| &policy.key) == then.map(|policy| &policy.key)
            && faults_now
                .iter()
                .map(|policy| &policy.key)
                .eq(faults_then.iter().map(|policy| &policy.key));
        (!is_same).then(|| PolicyShadow {
            traffic: then.map(|policy| NamedPolicy {
                name: policy.key.to_string().into(),
                policy: policy.policy.clone(),
            }),
            faults: faults_then.iter().map(|policy| policy.fault.clone()).collect(),
        })
    }
}
