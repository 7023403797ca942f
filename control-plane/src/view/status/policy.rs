//! The status of BackendTLSPolicies: for each Gateway through which they matter, whether they hold.

use std::collections::BTreeSet;

use model::ServiceName;
use serde_json::{Value, json};

use super::route::backends;
use super::{Condition, Judge, Observed, condition, joined, shown};
use crate::sources::{BackendTarget, BackendTlsPolicy, CONTROLLER_NAME, GATEWAY_GROUP, PolicyTarget, Trusts};
use crate::view::MeshState;
use crate::view::attach::Objection;
use crate::view::backend_tls::{authorities, backend_tls, is_beaten, is_service};

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
    pub(super) fn policy_status(&self, policy: &BackendTlsPolicy, observed: &Observed) -> Value {
        let conditions = conditions(self.state, policy);
        let ancestors = self
            .ancestors(policy)
            .into_iter()
            .take(MAX_ANCESTORS)
            .map(|ancestor| {
                json!({
                    "ancestorRef": ancestor,
                    "controllerName": CONTROLLER_NAME,
                    "conditions": shown(&conditions, observed),
                })
            });
        json!({"ancestors": ancestors.collect::<Value>()})
    }

    /// The Gateways with a route to one of the policy's targets; where there is none, the targets themselves, as
    /// workloads call them too.
    fn ancestors(&self, policy: &BackendTlsPolicy) -> Vec<Value> {
        let services = policy
            .targets
            .iter()
            .filter_map(|target| service_of(policy, target));
        let services: BTreeSet<ServiceName> = services.collect();
        let calls = |target: &BackendTarget| match target {
            BackendTarget::Service(target) => services.contains(&target.service),
            BackendTarget::Unknown(_) => false,
        };
        let gateways = self.state.our_gateways().filter(|gateway| {
            let attachments = self.attachments(gateway);
            let mut routes = attachments.routes.iter().flatten();
            routes.any(|attached| {
                backends(attached.route)
                    .iter()
                    .any(|backend| calls(&backend.target))
            })
        });
        let reference = |group: &str, kind: &str, name: &ServiceName| {
            json!({
                "group": group,
                "kind": kind,
                "namespace": name.namespace.to_string(),
                "name": name.name.to_string(),
            })
        };
        let gateways: Vec<Value> = gateways
            .map(|gateway| reference(GATEWAY_GROUP, "Gateway", &gateway.name))
            .collect();
        if !gateways.is_empty() {
            return gateways;
        }
        let services = services.iter();
        services.map(|name| reference("", "Service", name)).collect()
    }
}
