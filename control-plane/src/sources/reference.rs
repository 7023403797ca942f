//! References from one object to another that may not exist.

use std::fmt;

use model::Label;

use super::check::At;
use super::kind::ObjectName;

/// The group of Gateway API's own kinds.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Names an object of any kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Empty for the core group.
    pub group: String,
    pub kind: String,
    pub namespace: Label,
    pub name: ObjectName,
}

/// `Secret shop/cert`.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        write!(f, " {}/{}", self.namespace, self.name)
    }
}

/// A reference from an object in the namespace `own`. Where no group is given it is the core group's.
pub(super) fn reference(
    at: &At<'_>,
    own: &Label,
    group: Option<&str>,
    kind: Option<&str>,
    namespace: Option<&str>,
    name: &str,
) -> Option<ObjectRef> {
    let group = core_is_empty(group.unwrap_or_default());
    let kind = kind.unwrap_or_default();
    if kind.is_empty() {
        at.refuse("kind is missing");
        return None;
    }
    let name = at.field("name").keep(name.parse());
    let namespace = match namespace {
        Some(namespace) => at.field("namespace").keep(namespace.parse()),
        None => Some(own.clone()),
    };
    Some(ObjectRef {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace?,
        name: name?,
    })
}

/// People write `core` for the core group, whose name is empty.
pub(super) fn core_is_empty(group: &str) -> &str {
    match group {
        "core" => "",
        group => group,
    }
}
