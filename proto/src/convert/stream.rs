//! Rules for connections and datagrams: where they go by SNI.

use model::gateway::StreamRule;
use model::{FieldError, Hostname};

use super::read::items;
use super::route::{backend_from_wire, backend_to_wire};
use crate::v1;

pub(super) fn stream_rule_to_wire(rule: &StreamRule) -> v1::StreamRule {
    v1::StreamRule {
        name: rule.name.to_string(),
        hostnames: rule.hostnames.iter().map(ToString::to_string).collect(),
        backends: rule.backends.iter().map(backend_to_wire).collect(),
    }
}

pub(super) fn stream_rule_from_wire(wire: &v1::StreamRule) -> Result<StreamRule, FieldError> {
    if wire.hostnames.is_empty() {
        return Err(FieldError::at(
            "hostnames",
            "is empty: any is one host name, \"*\"",
        ));
    }
    Ok(StreamRule {
        name: wire.name.as_str().into(),
        hostnames: items("hostnames", &wire.hostnames, |text| hostname(text))?,
        backends: items("backends", &wire.backends, backend_from_wire)?,
    })
}

/// As [`Hostname`] is displayed.
pub(super) fn hostname(text: &str) -> Result<Hostname, FieldError> {
    match text {
        "*" => Ok(Hostname::Any),
        text => text.parse(),
    }
}
