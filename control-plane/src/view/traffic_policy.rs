//! Which BackendTrafficPolicy counts for a Service's port and for a route, and why another does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::service::Service;
use model::{Label, TrafficPolicy};

use super::attach::Objection;
use super::{MeshState, StoredObject};
use crate::sources::{Kind, Object, ObjectKey, PolicyTarget, TrafficPolicyObject};

/// The policy of each port of a Service: one that names the port before one of the whole Service; of two that say the
/// same target the older, then the first by name.
pub(super) fn of_ports(state: &MeshState, service: &Service) -> BTreeMap<u16, Arc<TrafficPolicy>> {
    let name = &service.name;
    let policies = policies_in(state, &name.namespace);
    let target = |section| PolicyTarget {
        kind: Kind::Service,
        name: name.name.clone(),
        section,
    };
    let whole = winner(&policies, &target(None));
    let of_port = |(number, port): (&u16, &model::service::Port)| {
        let named = port.name.clone();
        let named = named.and_then(|named| winner(&policies, &target(Some(named))));
        Some((*number, named.or(whole)?.policy.clone()))
    };
    service.ports.iter().filter_map(of_port).collect()
}

/// The policy of a route.
pub(super) fn of_route(state: &MeshState, route: &ObjectKey) -> Option<Arc<TrafficPolicy>> {
    let target = PolicyTarget {
        kind: route.kind,
        name: route.name.clone(),
        section: None,
    };
    let policies = policies_in(state, &route.namespace);
    winner(&policies, &target).map(|policy| policy.policy.clone())
}

/// What keeps a policy from each of its targets.
pub(super) fn objections(state: &MeshState, policy: &TrafficPolicyObject) -> Vec<Objection> {
    let policies = policies_in(state, &policy.key.namespace);
    let of_target = |target: &PolicyTarget| {
        exists(state, &policy.key.namespace, target)?;
        match winner(&policies, target) {
            Some(winner) if winner.key != policy.key => Err(Objection {
                reason: "Conflicted",
                message: format!("{} counts for {}, because it is older", winner.key, said(target)),
            }),
            _ => Ok(()),
        }
    };
    policy
        .targets
        .iter()
        .filter_map(|target| of_target(target).err())
        .collect()
}

fn exists(state: &MeshState, namespace: &Label, target: &PolicyTarget) -> Result<(), Objection> {
    let not_found = |message| Objection {
        reason: "TargetNotFound",
        message,
    };
    let key = ObjectKey {
        kind: target.kind,
        namespace: namespace.clone(),
        name: target.name.clone(),
    };
    let Some(stored) = state.objects.get(&key) else {
        return Err(not_found(format!("{key} does not exist")));
    };
    let Some(section) = &target.section else {
        return Ok(());
    };
    match &stored.object {
        Object::Service(service)
            if service
                .ports
                .values()
                .any(|port| port.name.as_ref() == Some(section)) =>
        {
            Ok(())
        }
        _ => Err(not_found(format!("{key} has no port named {section:?}"))),
    }
}

fn said(target: &PolicyTarget) -> String {
    match &target.section {
        Some(section) => format!("port {section:?} of {} {}", target.kind, target.name),
        None => format!("{} {}", target.kind, target.name),
    }
}

fn winner<'a>(
    policies: &[&'a TrafficPolicyObject],
    target: &PolicyTarget,
) -> Option<&'a TrafficPolicyObject> {
    let mut naming = policies.iter().filter(|policy| policy.targets.contains(target));
    naming.next().copied()
}

/// Oldest first, then by name.
fn policies_in<'a>(state: &'a MeshState, namespace: &'a Label) -> Vec<&'a TrafficPolicyObject> {
    let stored = state.objects_in(Kind::BackendTrafficPolicy, namespace);
    let mut aged: Vec<(u64, &TrafficPolicyObject)> = stored
        .filter_map(|StoredObject { object, created }| match object {
            Object::TrafficPolicy(policy) => Some((*created, policy)),
            _ => None,
        })
        .collect();
    aged.sort_by(|(one, a), (other, b)| one.cmp(other).then_with(|| a.key.cmp(&b.key)));
    aged.into_iter().map(|(_, policy)| policy).collect()
}
