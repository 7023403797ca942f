//! What callers of a Service are told: its ports, and on each the rules of the routes that govern it.

use std::collections::BTreeMap;

use model::filter::{ExternalAuth, Filter};
use model::route::{Backend, Rule};
use model::service::{Destination, DestinationPort};
use model::{Label, ServiceName};

use super::MeshState;
use super::attach::{attached_ports, resolve};
use crate::sources::{BackendRef, Kind, Object, ObjectKey, RouteObject};

/// The Service as its callers see it; `None` where it does not exist.
///
/// Rules of GRPCRoutes stand before those of HTTPRoutes, older routes before younger, then by name.
pub fn destination(state: &MeshState, name: &ServiceName) -> Option<Destination> {
    let service = state.service(name)?;
    let mut ports: BTreeMap<u16, DestinationPort> = service
        .ports
        .iter()
        .map(|(number, port)| {
            (
                *number,
                DestinationPort {
                    protocol: port.protocol,
                    rules: Vec::new(),
                    streams: Vec::new(),
                },
            )
        })
        .collect();
    for kind in [Kind::GrpcRoute, Kind::HttpRoute] {
        // A route of another namespace cannot be attached, so only the Service's own is looked through.
        for route in state.routes_in(kind, &name.namespace) {
            attach(state, name, route, &mut ports);
        }
    }
    Some(Destination {
        service: name.clone(),
        ports,
    })
}

/// Why a backend of a route's rule does not resolve, in the words of the route's condition; `None` where it does, or
/// where there is none at these places.
pub fn unresolved(state: &MeshState, route: &ObjectKey, rule: usize, backend: usize) -> Option<String> {
    let Object::Route(object) = &state.objects.get(route)?.object else {
        return None;
    };
    let backend = object.rules.get(rule)?.backends.get(backend)?;
    let objection = resolve(state, &route.namespace, &backend.target).err()?;
    Some(objection.message)
}

/// Adds the route's rules to each port that it governs: once, even where several `parentRefs` name that port.
fn attach(
    state: &MeshState,
    name: &ServiceName,
    route: &RouteObject,
    ports: &mut BTreeMap<u16, DestinationPort>,
) {
    let namespace = &route.key.namespace;
    let parents = route.parents.iter().filter(|parent| parent.service == *name);
    let governed: std::collections::BTreeSet<u16> = parents
        .filter_map(|parent| attached_ports(state, namespace, parent).ok())
        .flatten()
        .collect();
    if governed.is_empty() {
        return;
    }
    let rules = rules(state, route);
    for number in governed {
        if let Some(port) = ports.get_mut(&number) {
            port.rules.extend(rules.iter().cloned());
        }
    }
}

fn rules(state: &MeshState, route: &RouteObject) -> Vec<Rule> {
    let numbered = route.rules.iter().enumerate();
    numbered
        .map(|(index, rule)| Rule {
            name: format!("{}#{index}", route.key).into(),
            matches: rule.matches.clone(),
            filters: filters(state, &route.key.namespace, &rule.filters),
            backends: rule
                .backends
                .iter()
                .map(|b| backend(state, &route.key.namespace, b))
                .collect(),
            timeouts: rule.timeouts,
            retry: rule.retry.clone(),
            session: rule.session.clone(),
        })
        .collect()
}

/// A backend that may not be used keeps its share, so that its requests fail rather than move elsewhere.
fn backend(state: &MeshState, namespace: &Label, reference: &BackendRef) -> Backend {
    let resolved = resolve(state, namespace, &reference.target).is_ok();
    Backend {
        target: resolved.then(|| reference.target.clone()),
        reference: reference.target.to_string().into(),
        weight: reference.weight,
        filters: filters(state, namespace, &reference.filters),
    }
}

/// Filters as they can be followed. A mirror that may not be used is left out; whoever is asked and may not be used never
/// says yes.
fn filters(state: &MeshState, namespace: &Label, written: &[Filter]) -> Vec<Filter> {
    let resolves = |filter: &Filter| {
        let target = filter.target();
        target.is_none_or(|target| resolve(state, namespace, target).is_ok())
    };
    let followed = written.iter().filter_map(|filter| match filter {
        filter if resolves(filter) => Some(filter.clone()),
        Filter::Auth(auth) => Some(Filter::Auth(ExternalAuth {
            target: None,
            ..auth.clone()
        })),
        _ => None,
    });
    followed.collect()
}
