//! Whether an object may refer to one of another namespace (ReferenceGrant).

use model::Label;

use super::MeshState;
use crate::sources::{GATEWAY_GROUP, Kind, ObjectName};

/// What is referred to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Referent<'a> {
    /// Empty for the core group.
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a Label,
    pub(super) name: &'a ObjectName,
}

/// Whether an object of one of Gateway API's kinds in namespace `from` may refer to it: in its own namespace always,
/// else where a grant beside the referent says so.
pub(super) fn may_refer(state: &MeshState, kind: Kind, from: &Label, to: Referent<'_>) -> bool {
    if from == to.namespace {
        return true;
    }
    state.grants_in(to.namespace).any(|grant| {
        let allows_from = grant.from.iter().any(|allowed| {
            allowed.group == GATEWAY_GROUP && allowed.kind == kind.as_str() && allowed.namespace == *from
        });
        allows_from
            && grant.to.iter().any(|allowed| {
                allowed.group == to.group
                    && allowed.kind == to.kind
                    && allowed.name.as_ref().is_none_or(|name| name == to.name)
            })
    })
}
