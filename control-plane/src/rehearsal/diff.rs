//! What is different between two meshes: objects, the rules that follow from them, how endpoints are used, and where requests
//! go.

mod moved;
mod rules;
mod uses;

use std::collections::BTreeSet;

use model::{Label, ServiceName};
use serde::Serialize;

use super::Rehearsed;
use super::called::{Called, Edge};
use super::explanation::Outcome;
use crate::sources::Object;
use crate::view::{self, MeshState};

/// Everything that is different.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    pub objects: Vec<ObjectChange>,
    pub rules: Vec<RuleChange>,
    /// What policies say of Services.
    pub uses: Vec<UseChange>,
    /// Requests that end elsewhere: for every match of every rule, before or after, the plainest one that fits it.
    pub moved: Vec<Moved>,
    /// Matches for which no request was found to try.
    pub untried: usize,
}

/// What became of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    Added,
    Changed,
    Removed,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectChange {
    /// `Kind/namespace/name`.
    pub object: String,
    pub change: Change,
}

/// One rule of one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleChange {
    /// `namespace/name:port`, also with ` from namespace` where callers of one have rules of their own; or
    /// `Gateway/namespace/name listener`.
    pub destination: String,
    pub rule: String,
    pub change: Change,
    /// Of a rule that is changed: `backends: default/a:80 → default/b:80`.
    pub what: Vec<String>,
}

/// How the endpoints of a Service's port are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UseChange {
    /// `namespace/name:port`.
    pub service: String,
    /// Whether policies begin to say something of it, or cease to.
    pub change: Change,
    /// `circuitBreaker.maxParallelRequests: 2 → 3`; of what is not changed, what is said.
    pub what: Vec<String>,
}

/// A request that ends elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Method and URL.
    pub request: String,
    /// ` from namespace` or ` through gateway`, where it is not any caller.
    pub by: String,
    /// `name: value`.
    pub headers: Vec<String>,
    pub before: Outcome,
    pub after: Outcome,
}

impl Difference {
    pub fn is_nothing(&self) -> bool {
        self.objects.is_empty() && self.rules.is_empty() && self.uses.is_empty() && self.moved.is_empty()
    }
}

/// Compares two meshes as their sidecars and gateways would have them.
pub fn diff(before: &Rehearsed<'_>, after: &Rehearsed<'_>) -> Difference {
    let mut difference = Difference {
        objects: objects(before.state, after.state),
        ..Difference::default()
    };
    if difference.objects.is_empty() {
        return difference;
    }
    for (service, from) in callers(before.state, after.state) {
        if from.is_none() {
            uses::of_service(&service, before.state, after.state, &mut difference);
        }
        let called = |mesh: &Rehearsed<'_>| {
            let caller = from.as_ref().unwrap_or(&service.namespace);
            Called::new(mesh.state, caller, &service)
        };
        let (old, new) = (called(before), called(after));
        let destination = |called: &Option<Called>| called.as_ref().map(|called| called.destination.clone());
        if destination(&old) != destination(&new) {
            let by = from.map_or_else(String::new, |from| format!(" from {from}"));
            rules::of_service(&service, &by, old.as_ref(), new.as_ref(), &mut difference);
            moved::to_service(
                &service,
                &by,
                (before, old.as_ref()),
                (after, new.as_ref()),
                &mut difference,
            );
        }
    }
    for gateway in gateways(before.state, after.state) {
        let edge = |mesh: &Rehearsed<'_>| Edge::new(mesh.state, &gateway);
        let (old, new) = (edge(before), edge(after));
        let told = |edge: &Option<Edge>| edge.as_ref().map(|edge| edge.gateway.clone());
        if told(&old) != told(&new) {
            rules::of_gateway(&gateway, old.as_ref(), new.as_ref(), &mut difference);
            moved::through(
                &gateway,
                (before, old.as_ref()),
                (after, new.as_ref()),
                &mut difference,
            );
        }
    }
    difference
}

fn objects(before: &MeshState, after: &MeshState) -> Vec<ObjectChange> {
    let keys: BTreeSet<_> = before.objects.keys().chain(after.objects.keys()).collect();
    let changes = keys.into_iter().filter_map(|key| {
        let object = |state: &MeshState| state.objects.get(key).map(|stored| stored.object.clone());
        let change = match (object(before), object(after)) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            (old, new) if old != new => Change::Changed,
            _ => return None,
        };
        Some(ObjectChange {
            object: key.to_string(),
            change,
        })
    });
    changes.collect()
}

/// Every Service, as most callers have it, and as those of each namespace that has routes of its own for it.
fn callers(before: &MeshState, after: &MeshState) -> BTreeSet<(ServiceName, Option<Label>)> {
    let stored = before.objects.values().chain(after.objects.values());
    let services = stored.filter_map(|stored| match &stored.object {
        Object::Service(service) => Some((service.name.clone(), None)),
        _ => None,
    });
    let consumers = [before, after].into_iter().flat_map(view::consumers);
    services
        .chain(consumers.map(|(service, from)| (service, Some(from))))
        .collect()
}

fn gateways(before: &MeshState, after: &MeshState) -> BTreeSet<ServiceName> {
    let stored = before.objects.values().chain(after.objects.values());
    let names = stored.filter_map(|stored| match &stored.object {
        Object::Gateway(gateway) => Some(gateway.name.clone()),
        _ => None,
    });
    names.collect()
}
