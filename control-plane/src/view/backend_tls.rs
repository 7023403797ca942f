//! Which BackendTLSPolicy holds for a port of a Service, and what it comes to.

use std::sync::Arc;

use model::gateway::{BackendTls, ClientValidation};
use model::service::{Port, Service};

use super::MeshState;
use super::attach::Objection;
use crate::sources::{BackendTlsPolicy, ObjectName, ObjectRef, PolicyTarget, Trusts};

/// The policy that holds for a port: one for the port by its name before one for the whole Service, and of several for
/// the same the oldest, then the first by name.
pub(super) fn policy_for<'s>(
    state: &'s MeshState,
    service: &'s Service,
    port: &Port,
) -> Option<&'s BackendTlsPolicy> {
    let name: ObjectName = (&service.name.name).into();
    let policies = state.backend_tls_in(&service.name.namespace);
    let of = |section: Option<&str>| {
        let targets = move |target: &PolicyTarget, name: &ObjectName| {
            is_service(target) && target.name == *name && target.section.as_deref() == section
        };
        let mut fitting = policies
            .iter()
            .filter(|policy| policy.targets.iter().any(|target| targets(target, &name)));
        fitting.next().copied()
    };
    let of_port = port.name.as_deref().and_then(|section| of(Some(section)));
    of_port.or_else(|| of(None))
}

/// Whether another policy has this target before this one.
pub(super) fn is_beaten(state: &MeshState, policy: &BackendTlsPolicy, target: &PolicyTarget) -> bool {
    let policies = state.backend_tls_in(&policy.key.namespace);
    let first = policies.into_iter().find(|other| other.targets.contains(target));
    first.is_some_and(|first| first.key != policy.key)
}

pub(super) fn is_service(target: &PolicyTarget) -> bool {
    (target.group.as_str(), target.kind.as_str()) == ("", "Service")
}

/// The policy as it is carried out. Where it trusts nobody that is known, nothing may be called.
pub(super) fn backend_tls(
    state: &MeshState,
    policy: &BackendTlsPolicy,
) -> Result<Arc<BackendTls>, Objection> {
    let authorities = match &policy.trusts {
        Trusts::System => None,
        Trusts::Unknown(name) => {
            return Err(Objection {
                reason: "Invalid",
                message: format!("{name} is no well-known set of authorities here (supported: System)"),
            });
        }
        Trusts::Authorities(references) => {
            let bundles = references
                .iter()
                .filter_map(|reference| authorities(state, reference).ok());
            let bundle = bundles.collect::<Vec<_>>().join("\n");
            if bundle.is_empty() || bundle.len() > ClientValidation::MAX_PEM_BYTES {
                return Err(Objection {
                    reason: "NoValidCACertificate",
                    message: "none of caCertificateRefs can be used".to_owned(),
                });
            }
            Some(bundle)
        }
    };
    Ok(Arc::new(BackendTls {
        hostname: policy.hostname.clone(),
        authorities,
        names: policy.names.clone(),
    }))
}

/// The authorities that a ConfigMap holds.
pub(super) fn authorities<'s>(state: &'s MeshState, reference: &ObjectRef) -> Result<&'s str, Objection> {
    if (reference.group.as_str(), reference.kind.as_str()) != ("", "ConfigMap") {
        return Err(Objection {
            reason: "InvalidKind",
            message: format!("{reference} is of a kind that holds no authorities (supported: ConfigMap)"),
        });
    }
    let invalid = |why: &str| Objection {
        reason: "InvalidCACertificateRef",
        message: format!("{reference} {why}"),
    };
    let map = state.config_map(&reference.namespace, &reference.name);
    let map = map.ok_or_else(|| invalid("does not exist"))?;
    map.authorities.as_deref().map_err(|why| invalid(why))
}
