//! `ReferenceGrant`: which objects of other namespaces may refer to those of its own.

use gateway_api::experimental::referencegrants as api;
use model::Label;

use super::check::{At, key};
use super::kind::{Kind, ObjectKey, ObjectName};
use super::reference::core_is_empty;

/// Gateway API's own limit, of either list.
const MAX_ENTRIES: usize = 16;

/// Everybody in `from` may refer to everything in `to`, in the namespace of the grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGrant {
    pub key: ObjectKey,
    pub from: Vec<GrantFrom>,
    pub to: Vec<GrantTo>,
}

/// Who may refer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantFrom {
    pub group: String,
    pub kind: String,
    pub namespace: Label,
}

/// What may be referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantTo {
    pub group: String,
    pub kind: String,
    /// `None` is every object of the kind.
    pub name: Option<ObjectName>,
}

pub(super) fn grant(at: &At<'_>, grant: api::ReferenceGrant) -> Option<ReferenceGrant> {
    let key = key(at, Kind::ReferenceGrant, &grant.metadata)?;
    let (at, spec) = (at.field("spec"), grant.spec);
    for (field, is_empty) in [("from", spec.from.is_empty()), ("to", spec.to.is_empty())] {
        if is_empty {
            at.field(field).refuse("has at least one entry");
        }
    }
    let from = at.field("from").items(Some(spec.from), MAX_ENTRIES);
    let from = from.into_iter().filter_map(|(at, from)| {
        Some(GrantFrom {
            group: core_is_empty(&from.group).to_owned(),
            kind: from.kind,
            namespace: at.field("namespace").keep(from.namespace.parse())?,
        })
    });
    let from = from.collect();
    let to = at.field("to").items(Some(spec.to), MAX_ENTRIES);
    let to = to.into_iter().filter_map(|(at, to)| {
        let name = match to.name.filter(|name| !name.is_empty()) {
            Some(name) => Some(at.field("name").keep(name.parse())?),
            None => None,
        };
        Some(GrantTo {
            group: core_is_empty(&to.group).to_owned(),
            kind: to.kind,
            name,
        })
    });
    Some(ReferenceGrant {
        key,
        from,
        to: to.collect(),
    })
}
