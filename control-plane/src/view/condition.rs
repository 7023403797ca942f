//! What an object's owner is told about it: Gateway API's status conditions.

use super::MeshState;
use super::attach::{Objection, attached_ports, resolve};
use super::outside::{matched, used};
use crate::sources::{EndpointSlice, Object, ObjectKey, RouteObject, RouteRule};

/// One status condition (Kubernetes `metav1.Condition`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted` or `ResolvedRefs`.
    pub type_: &'static str,
    pub status: bool,
    /// One word, as Gateway API spells it where it has one.
    pub reason: &'static str,
    /// Sentences for people; may be empty.
    pub message: String,
}

/// The conditions of an object. A route has one of each type for all its parents together: true only if it is
/// true for each of them. An EndpointSlice is accepted where its Service uses slices, and resolved where each of its
/// ports is one of the Service's. Services, and objects that do not exist, have none.
pub fn conditions(state: &MeshState, key: &ObjectKey) -> Vec<Condition> {
    match state.objects.get(key).map(|stored| &stored.object) {
        Some(Object::Route(route)) => vec![accepted(state, route), resolved(state, route)],
        Some(Object::EndpointSlice(slice)) => of_slice(state, slice),
        Some(Object::Service(_)) | None => Vec::new(),
    }
}

fn accepted(state: &MeshState, route: &RouteObject) -> Condition {
    let attached = route
        .parents
        .iter()
        .map(|parent| attached_ports(state, &route.key.namespace, parent));
    let objections = attached.filter_map(Result::err).collect();
    let mut condition = condition("Accepted", "Accepted", objections);
    if route.parents.is_empty() {
        condition = Condition {
            status: false,
            reason: "NoMatchingParent",
            message: "the route has no parentRefs, so nothing uses it".to_owned(),
            ..condition
        };
    }
    if !route.hostnames.is_empty() {
        let note = "hostnames are ignored, because the parent is a Service";
        condition.message = joined([condition.message.as_str(), note].into_iter());
    }
    condition
}

fn resolved(state: &MeshState, route: &RouteObject) -> Condition {
    let references = route.rules.iter().flat_map(RouteRule::references);
    let checked = references.map(|target| resolve(state, &route.key.namespace, target));
    condition(
        "ResolvedRefs",
        "ResolvedRefs",
        checked.filter_map(Result::err).collect(),
    )
}

fn of_slice(state: &MeshState, slice: &EndpointSlice) -> Vec<Condition> {
    let unmatched = slice
        .ports
        .iter()
        .filter_map(|port| matched(state, slice, port).err());
    vec![
        condition(
            "Accepted",
            "Accepted",
            used(state, slice).err().into_iter().collect(),
        ),
        condition("ResolvedRefs", "ResolvedRefs", unmatched.collect()),
    ]
}

/// False with the first objection's reason and all their sentences, each once; else true.
fn condition(type_: &'static str, reason: &'static str, mut objections: Vec<Objection>) -> Condition {
    let mut seen = std::collections::BTreeSet::new();
    objections.retain(|objection| seen.insert(objection.message.clone()));
    Condition {
        type_,
        status: objections.is_empty(),
        reason: objections.first().map_or(reason, |objection| objection.reason),
        message: joined(objections.iter().map(|objection| objection.message.as_str())),
    }
}

fn joined<'a>(sentences: impl Iterator<Item = &'a str>) -> String {
    sentences
        .filter(|sentence| !sentence.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}
