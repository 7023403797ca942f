//! The status of routes: for each parent, whether it accepts the route, and whether the backends resolve.

use std::collections::BTreeSet;

use model::{Label, ServiceName};
use serde_json::{Map, Value, json};

use super::{Condition, Judge, Observed, condition, joined, shown};
use crate::sources::{
    BackendRef, CONTROLLER_NAME, GATEWAY_GROUP, Kind, Object, ObjectKey, Parent, ParentRef, RouteRule,
};
use crate::view::attach::{Objection, attached_ports};
use crate::view::attachments::{AnyRoute, parents_of};
use crate::view::backend::{Traffic, resolve, resolve_service};
use crate::view::destination::{more_specific, rival};

impl<'s> Judge<'s> {
    pub(super) fn route_conditions(&self, object: &'s Object) -> Vec<Condition> {
        let Some(route) = AnyRoute::of(object) else {
            return Vec::new();
        };
        let parents = parents_of(self.state, route);
        let (mut refusals, mut unresolved, mut is_judged) = (Vec::new(), Vec::new(), parents.is_empty());
        let mut dropped = None;
        for (index, parent) in parents.iter().enumerate() {
            if let Some(accepted) = self.accepted(route, index, parent) {
                is_judged = true;
                dropped = dropped.or_else(|| accepted.is_ok().then(|| dropped_rules(route))?);
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
        let resolved = condition("ResolvedRefs", "ResolvedRefs", unresolved);
        [accepted, resolved].into_iter().chain(dropped).collect()
    }

    pub(super) fn route_status(&self, object: &'s Object, observed: &Observed) -> Option<Value> {
        let route = AnyRoute::of(object)?;
        let parents = parents_of(self.state, route);
        let judged = parents.iter().enumerate().filter_map(|(index, parent)| {
            let accepted = self.accepted(route, index, parent)?;
            let unresolved = self.unresolved(route, traffic(&parent.to));
            let dropped = accepted.is_ok().then(|| dropped_rules(route)).flatten();
            let mut accepted = condition("Accepted", "Accepted", accepted.err().into_iter().collect());
            if let Some(note) = route.http().and_then(|route| self.of_shadow("route", route)) {
                accepted.message = joined([accepted.message.as_str(), &note].into_iter());
            }
            let resolved = condition("ResolvedRefs", "ResolvedRefs", unresolved);
            let conditions: Vec<_> = [accepted, resolved].into_iter().chain(dropped).collect();
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
                let ObjectKey { kind, namespace, .. } = route.key();
                let ports = attached_ports(self.state, *kind, name, parent);
                let ports = ports.and_then(|ports| route.unusable().map_or(Ok(ports), Err));
                return Some(ports.and_then(|ports| self.is_left_one(name, &ports, *kind, namespace)));
            }
            Parent::Gateway(name) => name,
            Parent::Other(_) => return None,
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

    /// Whether routes of more specific kinds leave one of these ports of a Service to a route of this kind and namespace.
    fn is_left_one(
        &self,
        service: &ServiceName,
        ports: &BTreeSet<u16>,
        kind: Kind,
        namespace: &Label,
    ) -> Result<(), Objection> {
        let asks = |other: Kind| {
            let routes = self.state.objects_in(other, namespace);
            let routes = routes.filter_map(|stored| AnyRoute::of(&stored.object));
            let mut parents = routes.flat_map(|route| route.written_parents());
            parents.any(|parent| matches!(&parent.to, Parent::Service(name) if *name == *service))
        };
        if !more_specific(kind).any(asks) {
            return Ok(());
        }
        let destination = self.destination(service, namespace);
        let rival = |port: &u16| rival(destination.as_ref().as_ref()?.ports.get(port)?, kind, namespace);
        let rivals: Vec<ObjectKey> = ports.iter().map_while(rival).collect();
        match rivals.first() {
            Some(first) if rivals.len() == ports.len() => Err(Objection {
                reason: "Conflicted",
                message: format!(
                    "{first}, of a more specific kind, governs the same port of Service {service}"
                ),
            }),
            _ => Ok(()),
        }
    }

    fn unresolved(&self, route: AnyRoute<'_>, traffic: Traffic) -> Vec<Objection> {
        let judged = match route {
            AnyRoute::Http(route) => route.judged(),
            AnyRoute::Stream(route) => route.judged(),
        };
        let checked = backends(route)
            .into_iter()
            .map(|backend| resolve(self.state, judged, traffic, &backend.target).map(drop));
        let asides = rules(route).iter().flat_map(RouteRule::asides);
        let asides = asides.map(|target| resolve_service(self.state, judged, traffic, target));
        let checked = checked.chain(asides).filter_map(Result::err);
        checked
            .chain(rules(route).iter().flat_map(unknown_kinds))
            .collect()
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
        Parent::Gateway(_) | Parent::ListenerSet(..) | Parent::Other(_) => Traffic::Gateway,
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
        Parent::Other(named) => (
            named.group.as_str(),
            named.kind.as_str(),
            named.namespace.to_string(),
            named.name.to_string(),
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

/// What an accepted route is told of its rules that cannot be followed; `None` where all can. Gateway API asks for the first
/// words.
fn dropped_rules(route: AnyRoute<'_>) -> Option<Condition> {
    let numbered = rules(route).iter().enumerate();
    let dropped = numbered.filter(|(_, rule)| !rule.unusable.is_empty());
    let told = dropped.map(|(index, rule)| {
        let why: Vec<String> = rule.unusable.iter().map(ToString::to_string).collect();
        format!("Dropped Rule {index}: {}", why.join(", "))
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| Condition {
        type_: "PartiallyInvalid",
        status: true,
        reason: "UnsupportedValue",
        message: told.join("; "),
    })
}

/// None for kinds that have nothing but backends.
fn rules(route: AnyRoute<'_>) -> &[RouteRule] {
    match route {
        AnyRoute::Http(route) => &route.rules,
        AnyRoute::Stream(_) => &[],
    }
}

/// What a rule's filters name of kinds that there is nothing of.
fn unknown_kinds(rule: &RouteRule) -> impl Iterator<Item = Objection> {
    rule.unknown_kinds().map(|named| Objection {
        reason: "InvalidKind",
        message: format!("{named}, which a filter names, is of a kind that is not known"),
    })
}
