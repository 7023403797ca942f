//! The status of routes: for each parent, whether it accepts the route, and whether the backends resolve.

use model::ServicePort;
use serde_json::{Map, Value, json};

use super::{Condition, Judge, Observed, condition, joined, shown};
use crate::sources::{BackendRef, CONTROLLER_NAME, GATEWAY_GROUP, Object, Parent, ParentRef, RouteRule};
use crate::view::attach::{Objection, attached_ports};
use crate::view::attachments::{AnyRoute, parents_of};
use crate::view::backend::{Traffic, resolve, resolve_service};

impl<'s> Judge<'s> {
    pub(super) fn route_conditions(&self, object: &'s Object) -> Vec<Condition> {
        let Some(route) = AnyRoute::of(object) else {
            return Vec::new();
        };
        let parents = parents_of(self.state, route);
        let (mut refusals, mut unresolved, mut is_judged) = (Vec::new(), Vec::new(), parents.is_empty());
        for (index, parent) in parents.iter().enumerate() {
            if let Some(accepted) = self.accepted(route, index, parent) {
                is_judged = true;
                refusals.extend(accepted.err());
                unresolved.extend(self.unresolved(route, traffic(&parent.to)));
            }
        }
        if !is_judged {
            return Vec::new();
        }
        if parents.is_empty() {
            unresolved = self.unresolved(route, Traffic::Mesh);
        }
        let mut accepted = condition("Accepted", "Accepted", refusals);
        if parents.is_empty() {
            accepted = Condition {
                status: false,
                reason: "NoMatchingParent",
                message: "the route has no parentRefs, so nothing uses it".to_owned(),
                ..accepted
            };
        }
        let of_service = |parent: &ParentRef| matches!(parent.to, Parent::Service(_));
        let is_http = matches!(route, AnyRoute::Http(_));
        if is_http && !route.hostnames().is_empty() && parents.iter().any(of_service) {
            let note = "hostnames are ignored, because the parent is a Service";
            accepted.message = joined([accepted.message.as_str(), note].into_iter());
        }
        if let Some(note) = route.http().and_then(|route| self.of_shadow("route", route)) {
            accepted.message = joined([accepted.message.as_str(), &note].into_iter());
        }
        vec![accepted, condition("ResolvedRefs", "ResolvedRefs", unresolved)]
    }

    pub(super) fn route_status(&self, object: &'s Object, observed: &Observed) -> Option<Value> {
        let route = AnyRoute::of(object)?;
        let parents = parents_of(self.state, route);
        let judged = parents.iter().enumerate().filter_map(|(index, parent)| {
            let accepted = self.accepted(route, index, parent)?;
            let unresolved = self.unresolved(route, traffic(&parent.to));
            let mut accepted = condition("Accepted", "Accepted", accepted.err().into_iter().collect());
            if let Some(note) = route.http().and_then(|route| self.of_shadow("route", route)) {
                accepted.message = joined([accepted.message.as_str(), &note].into_iter());
            }
            let conditions = [accepted, condition("ResolvedRefs", "ResolvedRefs", unresolved)];
            Some(json!({
                "parentRef": parent_ref(parent),
                "controllerName": CONTROLLER_NAME,
                "conditions": shown(&conditions, observed),
            }))
        });
        let judged: Vec<Value> = judged.collect();
        (!judged.is_empty() || parents.is_empty()).then(|| json!({"parents": judged}))
    }

    /// Whether a parent accepts a route; `None` where that is for another controller to say.
    fn accepted(
        &self,
        route: AnyRoute<'s>,
        index: usize,
        parent: &ParentRef,
    ) -> Option<Result<(), Objection>> {
        let missing = |what: String| {
            Some(Err(Objection {
                reason: "NoMatchingParent",
                message: format!("{what} does not exist"),
            }))
        };
        let gateway = match &parent.to {
            Parent::Service(name) => {
                let ports = attached_ports(self.state, route.key().kind, name, parent);
                return Some(ports.map(drop));
            }
            Parent::Gateway(name) => name,
            Parent::ListenerSet(namespace, name) => match self.state.listener_set(namespace, name) {
                Some(set) => &set.parent,
                None => return missing(format!("ListenerSet {namespace}/{name}")),
            },
        };
        let Some(written) = self.state.gateway(gateway) else {
            return missing(format!("Gateway {gateway}"));
        };
        if !self.state.is_ours(&written.class) {
            return None;
        }
        self.attachments(written).verdict(route.key(), index).cloned()
    }

    fn unresolved(&self, route: AnyRoute<'_>, traffic: Traffic) -> Vec<Objection> {
        let judged = match route {
            AnyRoute::Http(route) => route.judged(),
            AnyRoute::Stream(route) => route.judged(),
        };
        let checked = backends(route)
            .into_iter()
            .map(|backend| resolve(self.state, judged, traffic, &backend.target).map(drop));
        let asides = asides(route).map(|target| resolve_service(self.state, judged, traffic, target));
        checked.chain(asides).filter_map(Result::err).collect()
    }
}

/// All backends of all rules.
pub(super) fn backends(route: AnyRoute<'_>) -> Vec<&BackendRef> {
    match route {
        AnyRoute::Http(route) => route.rules.iter().flat_map(|rule| &rule.backends).collect(),
        AnyRoute::Stream(route) => route.rules.iter().flatten().collect(),
    }
}

fn traffic(parent: &Parent) -> Traffic {
    match parent {
        Parent::Service(_) => Traffic::Mesh,
        Parent::Gateway(_) | Parent::ListenerSet(..) => Traffic::Gateway,
    }
}

/// A parent reference with all that Gateway API leaves out filled in.
fn parent_ref(parent: &ParentRef) -> Value {
    let (group, kind, namespace, name) = match &parent.to {
        Parent::Service(name) => ("", "Service", name.namespace.to_string(), name.name.to_string()),
        Parent::Gateway(name) => (
            GATEWAY_GROUP,
            "Gateway",
            name.namespace.to_string(),
            name.name.to_string(),
        ),
        Parent::ListenerSet(namespace, name) => (
            GATEWAY_GROUP,
            "ListenerSet",
            namespace.to_string(),
            name.to_string(),
        ),
    };
    let mut shown = Map::new();
    let mut put = |field: &str, value: Value| drop(shown.insert(field.to_owned(), value));
    put("group", group.into());
    put("kind", kind.into());
    put("namespace", namespace.into());
    put("name", name.into());
    if let Some(section) = &parent.section {
        put("sectionName", section.as_str().into());
    }
    if let Some(port) = parent.port {
        put("port", port.into());
    }
    Value::Object(shown)
}

/// All Services that filters of its rules name.
fn asides<'r>(route: AnyRoute<'r>) -> impl Iterator<Item = &'r ServicePort> {
    let rules = match route {
        AnyRoute::Http(route) => route.rules.as_slice(),
        AnyRoute::Stream(_) => &[],
    };
    rules.iter().flat_map(RouteRule::asides)
}
