//! The status of policies: for each Gateway through which they matter, whether they hold.

use std::collections::BTreeSet;

use model::ServiceName;
use serde_json::{Value, json};

use super::route::backends;
use super::{Condition, Judge, Observed, condition, joined, shown};
use crate::sources::{
    BackendTarget, BackendTlsPolicy, CONTROLLER_NAME, GatewayObject, Kind, ObjectKey, PolicyTarget,
    TrafficTarget, Trusts,
};
use crate::view::MeshState;
use crate::view::attach::Objection;
use crate::view::attachments::AnyRoute;
use crate::view::backend_tls::{authorities, backend_tls, is_beaten, is_service};
use crate::view::shadow::Shadowed;

/// Most ancestors that Gateway API lets a status have.
const MAX_ANCESTORS: usize = 16;

pub(super) fn conditions(state: &MeshState, policy: &BackendTlsPolicy) -> Vec<Condition> {
    let mut objections: Vec<Objection> = policy
        .targets
        .iter()
        .filter_map(|target| objection(state, policy, target))
        .collect();
    objections.extend(backend_tls(state, policy).err());
    let mut accepted = condition("Accepted", "Accepted", objections);
    let idle = policy.targets.iter().filter_map(|target| {
        let service = state.service(&service_of(policy, target)?)?;
        (!service.selector.is_empty()).then(|| {
            format!(
                "has no effect on Service {}, which has a selector: workloads are always called by mTLS",
                service.name
            )
        })
    });
    let idle: Vec<String> = idle.collect();
    let sentences = [accepted.message.as_str()].into_iter();
    accepted.message = joined(sentences.chain(idle.iter().map(String::as_str)));
    let unresolved = match &policy.trusts {
        Trusts::Authorities(references) => references
            .iter()
            .filter_map(|reference| authorities(state, reference).err())
            .collect(),
        Trusts::System | Trusts::Unknown(_) => Vec::new(),
    };
    vec![accepted, condition("ResolvedRefs", "ResolvedRefs", unresolved)]
}

fn objection(state: &MeshState, policy: &BackendTlsPolicy, target: &PolicyTarget) -> Option<Objection> {
    let of = |reason, message| Some(Objection { reason, message });
    if !is_service(target) {
        let message = format!("{} is no kind of backend (supported: Service)", target.kind);
        return of("Invalid", message);
    }
    let found = service_of(policy, target).and_then(|name| state.service(&name));
    let Some(service) = found else {
        let (namespace, name) = (&policy.key.namespace, &target.name);
        return of(
            "TargetNotFound",
            format!("Service {namespace}/{name} does not exist"),
        );
    };
    let mut ports = service.ports.values();
    if let Some(section) = &target.section
        && !ports.any(|port| port.name.as_ref() == Some(section))
    {
        let message = format!("Service {} has no port named {section:?}", service.name);
        return of("TargetNotFound", message);
    }
    if is_beaten(state, policy, target) {
        let message = format!(
            "an older BackendTLSPolicy is for Service {} already",
            service.name
        );
        return of("Conflicted", message);
    }
    None
}

fn service_of(policy: &BackendTlsPolicy, target: &PolicyTarget) -> Option<ServiceName> {
    Some(ServiceName {
        namespace: policy.key.namespace.clone(),
        name: target.name.as_str().parse().ok()?,
    })
    .filter(|_| is_service(target))
}

impl Judge<'_> {
    pub(super) fn backend_tls_status(&self, policy: &BackendTlsPolicy, observed: &Observed) -> Value {
        let targets = policy.targets.iter().filter(|target| is_service(target));
        let targets = targets.map(|target| ObjectKey {
            kind: Kind::Service,
            namespace: policy.key.namespace.clone(),
            name: target.name.clone(),
        });
        self.status_by_ancestor(&conditions(self.state, policy), &targets.collect(), observed)
    }

    /// Whether a policy of our own group is accepted.
    pub(super) fn policy_condition(&self, policy: &impl Shadowed, objections: Vec<Objection>) -> Condition {
        let mut accepted = condition("Accepted", "Accepted", objections);
        if let Some(note) = self.of_shadow("policy", policy) {
            accepted.message = joined([accepted.message.as_str(), &note].into_iter());
        }
        accepted
    }

    /// What the owner of an object in shadow should know beside all else.
    pub(super) fn of_shadow(&self, what: &str, one: &impl Shadowed) -> Option<String> {
        let shadow = one.shadow()?;
        let mut note = format!("the {what} is in shadow: requests are compared with it, and none follows it");
        let replaced = shadow.replaces.as_ref().map(|name| ObjectKey {
            name: name.clone(),
            ..one.key().clone()
        });
        if let Some(replaced) = replaced.filter(|key| !self.state.objects.contains_key(key)) {
            note += &format!("; {replaced}, which it would replace, does not exist");
        }
        Some(note)
    }

    /// The status of a policy of our own group.
    pub(super) fn policy_status(
        &self,
        key: &ObjectKey,
        targets: &[TrafficTarget],
        observed: &Observed,
    ) -> Value {
        let targets = targets.iter().map(|target| ObjectKey {
            kind: target.kind,
            namespace: key.namespace.clone(),
            name: target.name.clone(),
        });
        self.status_by_ancestor(&self.conditions(key), &targets.collect(), observed)
    }

    /// The same conditions for each ancestor: they follow from the targets alone.
    fn status_by_ancestor(
        &self,
        conditions: &[Condition],
        targets: &BTreeSet<ObjectKey>,
        observed: &Observed,
    ) -> Value {
        let ancestors = self.ancestors(targets).into_iter().take(MAX_ANCESTORS);
        let ancestors = ancestors.map(|ancestor| {
            json!({
                "ancestorRef": {
                    "group": ancestor.kind.row().group,
                    "kind": ancestor.kind.as_str(),
                    "namespace": ancestor.namespace.as_str(),
                    "name": ancestor.name.as_str(),
                },
                "controllerName": CONTROLLER_NAME,
                "conditions": shown(conditions, observed),
            })
        });
        json!({"ancestors": ancestors.collect::<Value>()})
    }

    /// The Gateways with a route that is a target or leads to one; where there is none, the targets themselves, which
    /// workloads call as well.
    fn ancestors(&self, targets: &BTreeSet<ObjectKey>) -> Vec<ObjectKey> {
        let is_called = |target: &BackendTarget| match target {
            BackendTarget::Service(target) => targets.contains(&ObjectKey {
                kind: Kind::Service,
                namespace: target.service.namespace.clone(),
                name: (&target.service.name).into(),
            }),
            BackendTarget::Unknown(_) => false,
        };
        let concerns = |route: AnyRoute<'_>| {
            let mut backends = backends(route).into_iter();
            targets.contains(route.key()) || backends.any(|backend| is_called(&backend.target))
        };
        let gateways = self.state.our_gateways().filter(|gateway| {
            let attachments = self.attachments(gateway);
            let mut routes = attachments.routes.iter().flatten();
            routes.any(|attached| concerns(attached.route))
        });
        let gateways: Vec<ObjectKey> = gateways.map(GatewayObject::key).collect();
        match gateways.is_empty() {
            true => targets.iter().cloned().collect(),
            false => gateways,
        }
    }
}
