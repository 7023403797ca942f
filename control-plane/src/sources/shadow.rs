//! What is in shadow: written to be compared with live traffic, and applied to none of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::FieldPath;
use model::field::Step;

use super::check::At;
use super::diagnostic::Fault;
use super::kind::{Kind, ObjectName};
use super::tree::Node;

/// The annotation that puts an object in shadow: `"true"`.
const SHADOW: &str = "weft.dev/shadow";
/// The annotation that names what an object in shadow would replace.
const REPLACES: &str = "weft.dev/shadow-replaces";

const SUPPORTED: &str = "HTTPRoute, GRPCRoute, BackendTrafficPolicy, FaultInjectionPolicy";

/// That an object is in shadow: what it says is compared with what is, and nothing follows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shadow {
    /// The object of the same kind and namespace that it would replace. It may not exist.
    pub replaces: Option<ObjectName>,
}

/// Whether an object is in shadow, by its annotations. For kinds that [`refuse`] lets pass.
pub(super) fn marker(at: &At<'_>, metadata: &ObjectMeta) -> Option<Shadow> {
    let at = at.field("metadata").field("annotations");
    let given = |name: &str| metadata.annotations.as_ref()?.get(name).map(String::as_str);
    let is_shadow = match given(SHADOW) {
        Some("true") => true,
        None | Some("false") => false,
        Some(other) => {
            at.field(SHADOW)
                .refuse(format!("{other:?} is not \"true\" or \"false\""));
            false
        }
    };
    let at = at.field(REPLACES);
    let replaces = given(REPLACES).and_then(|name| at.keep(name.parse::<ObjectName>()));
    if replaces.is_some() && !is_shadow {
        at.refuse(format!("has a meaning only beside {SHADOW}: \"true\""));
    }
    if replaces.as_ref().map(ObjectName::as_str) == metadata.name.as_deref() && replaces.is_some() {
        at.refuse("is the object's own name, and it cannot replace itself");
    }
    is_shadow.then_some(Shadow { replaces })
}

/// Notes that an object of a kind that cannot be in shadow asks for it.
pub(super) fn refuse(root: &Node, kind: Kind, faults: &mut Vec<Fault>) {
    if may_be_in_shadow(kind) {
        return;
    }
    let annotations = root
        .entry("metadata")
        .and_then(|entry| entry.value.entry("annotations"));
    let Some(annotations) = annotations else { return };
    for name in [SHADOW, REPLACES] {
        let Some(entry) = annotations.value.entry(name) else {
            continue;
        };
        let steps = ["metadata", "annotations", name];
        faults.push(Fault {
            place: entry.key_place,
            path: FieldPath(steps.map(|step| Step::Field(step.to_owned())).to_vec()),
            why: format!("has no meaning on a {kind} (supported: {SUPPORTED})"),
        });
    }
}

fn may_be_in_shadow(kind: Kind) -> bool {
    use Kind::{BackendTrafficPolicy, FaultInjectionPolicy, GrpcRoute, HttpRoute};
    matches!(
        kind,
        HttpRoute | GrpcRoute | BackendTrafficPolicy | FaultInjectionPolicy
    )
}
