//! What policies in shadow would say.

use std::sync::Arc;

use model::FieldError;
use model::shadow::{NamedPolicy, PolicyShadow};

use super::fault::{fault_from_wire, fault_to_wire};
use super::read::items;
use super::traffic_policy::{traffic_policy_from_wire, traffic_policy_to_wire};
use crate::v1;

pub(super) fn policy_shadow_to_wire(shadow: &PolicyShadow) -> v1::PolicyShadow {
    let traffic = shadow.traffic.as_ref();
    v1::PolicyShadow {
        traffic_name: traffic.map(|named| named.name.to_string()).unwrap_or_default(),
        traffic: traffic.map(|named| traffic_policy_to_wire(&named.policy)),
        faults: shadow.faults.iter().map(fault_to_wire).collect(),
    }
}

pub(super) fn policy_shadow_from_wire(wire: &v1::PolicyShadow) -> Result<PolicyShadow, FieldError> {
    let traffic = match &wire.traffic {
        None if wire.traffic_name.is_empty() => None,
        Some(policy) if !wire.traffic_name.is_empty() => Some(NamedPolicy {
            name: wire.traffic_name.as_str().into(),
            policy: Arc::new(traffic_policy_from_wire(policy).map_err(|error| error.within("traffic"))?),
        }),
        _ => {
            return Err(FieldError::at(
                "traffic",
                "has a name, and what has a name is given",
            ));
        }
    };
    Ok(PolicyShadow {
        traffic,
        faults: items("faults", &wire.faults, fault_from_wire)?,
    })
}
