//! What callers of a Service are told: its ports, and on each the rules of the routes that govern it.

use std::collections::{BTreeMap, BTreeSet};

use model::gateway::StreamRule;
use model::route::Rule;
use model::service::{Destination, DestinationPort};
use model::{Hostname, Label, ServiceName};

use super::MeshState;
use super::attach::{Judged, attached_ports};
use super::backend::{Traffic, rules, stream_rules};
use super::shadow::{Shadows, Standing};
use crate::sources::{Kind, Object, ObjectKey, Parent};

/// The kinds of routes that a Service can have, the most specific first.
const BY_SPECIFICITY: [Kind; 4] = [Kind::GrpcRoute, Kind::HttpRoute, Kind::TlsRoute, Kind::TcpRoute];

/// The Service as callers of its own namespace see it, and all callers that have no consumer routes for it; `None` where
/// it does not exist.
///
/// Of routes of several kinds on a port the most specific kind counts alone: GRPCRoute, HTTPRoute, TLSRoute, TCPRoute (GEP-1294,
/// "Route types"). Rules of older routes stand before those of younger ones, then by name.
pub fn destination(state: &MeshState, name: &ServiceName) -> Option<Destination> {
    let service = state.service(name)?;
    let mut ports: BTreeMap<u16, DestinationPort> = BTreeMap::new();
    for (number, port) in &service.ports {
        let known = DestinationPort {
            protocol: port.protocol,
            ..DestinationPort::default()
        };
        ports.insert(*number, known);
    }
    let governed = governed(state, name, &name.namespace);
    for (number, governed) in governed {
        if let Some(port) = ports.get_mut(&number) {
            (port.rules, port.streams, port.shadow) = (governed.rules, governed.streams, governed.shadow);
        }
    }
    Some(Destination {
        service: name.clone(),
        ports,
    })
}

/// The Service as callers of a namespace see it: on a port for which there are consumer routes in their own namespace,
/// these take the place of the Service's own (GEP-1294).
pub fn destination_for(state: &MeshState, name: &ServiceName, caller: &Label) -> Option<Destination> {
    let mut destination = destination(state, name)?;
    if *caller == name.namespace {
        return Some(destination);
    }
    for (number, governed) in governed(state, name, caller) {
        let Some(port) = destination.ports.get_mut(&number) else {
            continue;
        };
        let Governed {
            rules,
            shadow,
            streams,
        } = governed;
        // Of the Service's own routes and the caller's, the latter count in either world, where there are some.
        let would_be = (shadow.is_some() || port.shadow.is_some()).then(|| {
            let of_caller = shadow.unwrap_or_else(|| rules.clone());
            match of_caller.is_empty() && streams.is_empty() {
                true => port.shadow.take().unwrap_or_else(|| port.rules.clone()),
                false => of_caller,
            }
        });
        // Of whatever kind the caller's are, they take the place of the Service's of every kind.
        if !rules.is_empty() || !streams.is_empty() {
            (port.rules, port.streams) = (rules, streams);
        }
        port.shadow = would_be.filter(|would_be| *would_be != port.rules);
    }
    Some(destination)
}

/// The Services for which callers of a namespace other than the Service's own have routes: (Service, namespace).
pub fn consumers(state: &MeshState) -> BTreeSet<(ServiceName, Label)> {
    let routes = BY_SPECIFICITY.into_iter().flat_map(|kind| state.all_of(kind));
    let parents = routes.filter_map(|stored| match &stored.object {
        Object::Route(route) => Some((&route.key.namespace, &route.parents)),
        Object::StreamRoute(route) => Some((&route.key.namespace, &route.parents)),
        _ => None,
    });
    let mut consumers = BTreeSet::new();
    for (namespace, parents) in parents {
        for parent in parents {
            if let Parent::Service(service) = &parent.to
                && service.namespace != *namespace
            {
                consumers.insert((service.clone(), namespace.clone()));
            }
        }
    }
    consumers
}

#[derive(Default)]
struct Governed {
    rules: Vec<Rule>,
    /// The rules as they would be; `None` where no route in shadow has to do with the port.
    shadow: Option<Vec<Rule>>,
    streams: Vec<StreamRule>,
}

/// What the routes of one namespace say of each port of a Service that they govern.
fn governed(state: &MeshState, name: &ServiceName, namespace: &Label) -> BTreeMap<u16, Governed> {
    let mut governed: BTreeMap<u16, Governed> = BTreeMap::new();
    let routes = [Kind::GrpcRoute, Kind::HttpRoute].map(|kind| state.routes_in(kind, namespace));
    let routes = routes.concat();
    let shadows = Shadows::among(routes.iter().copied());
    let mut would_be: BTreeMap<u16, Vec<Rule>> = BTreeMap::new();
    for route in routes {
        let ports = ports(state, name, route.judged());
        if ports.is_empty() {
            continue;
        }
        let rules = rules(state, route, Traffic::Mesh);
        let standing = shadows.standing(route);
        for port in ports {
            let governed = governed.entry(port).or_default();
            if standing.is_in_force() {
                let untaken = untaken(&governed.rules, &rules);
                governed.rules.extend(untaken);
            }
            if shadows.are_some() && standing.would_be() {
                let would_be = would_be.entry(port).or_default();
                let untaken = untaken(would_be, &rules);
                would_be.extend(untaken);
            }
            if standing != Standing::Kept {
                governed.shadow = Some(Vec::new());
            }
        }
    }
    for (port, governed) in &mut governed {
        if let Some(shadow) = &mut governed.shadow {
            *shadow = would_be.remove(port).unwrap_or_default();
        }
    }
    for kind in [Kind::TlsRoute, Kind::TcpRoute] {
        for route in state.stream_routes_in(kind, namespace) {
            let ports = ports(state, name, route.judged());
            if ports.is_empty() {
                continue;
            }
            let any = [Hostname::Any];
            let hostnames = match route.hostnames.as_slice() {
                [] => &any,
                given => given,
            };
            let rules = stream_rules(state, route, Traffic::Mesh, hostnames);
            for port in ports {
                let governed = governed.entry(port).or_default();
                let there = governed.streams.first();
                let is_taken = there.is_some_and(|rule| kind_of(&rule.name) != kind.as_str());
                if governed.rules.is_empty() && !is_taken {
                    governed.streams.extend(rules.iter().cloned());
                }
            }
        }
    }
    governed
}

/// The rules, where those that are there are of the same kind and not of a more specific one.
fn untaken(there: &[Rule], rules: &[Rule]) -> Vec<Rule> {
    match (there.first(), rules.first()) {
        (Some(one), Some(other)) if kind_of(&one.name) != kind_of(&other.name) => Vec::new(),
        _ => rules.to_vec(),
    }
}

/// The kind of the route that a rule is of, by the rule's name.
fn kind_of(rule: &str) -> &str {
    rule.split('/').next().unwrap_or_default()
}

/// A route of a more specific kind, and of the same namespace, that governs a port in place of a route of this kind.
pub(super) fn rival(port: &DestinationPort, kind: Kind, namespace: &Label) -> Option<ObjectKey> {
    let rules = port.rules.iter().map(|rule| &rule.name);
    let names = rules.chain(port.streams.iter().map(|rule| &rule.name));
    let mut routes = names.filter_map(|name| name.rsplit_once('#')?.0.parse::<ObjectKey>().ok());
    routes.find(|key| key.namespace == *namespace && more_specific(kind).any(|other| other == key.kind))
}

/// The kinds of routes that count before this one on a port of a Service.
pub(super) fn more_specific(kind: Kind) -> impl Iterator<Item = Kind> {
    BY_SPECIFICITY.into_iter().take_while(move |other| *other != kind)
}

/// The ports that a route governs: each once, even where several `parentRefs` name it.
fn ports(state: &MeshState, name: &ServiceName, route: Judged<'_>) -> BTreeSet<u16> {
    let parents = route
        .parents
        .iter()
        .filter(|parent| matches!(&parent.to, Parent::Service(service) if service == name));
    parents
        .filter_map(|parent| attached_ports(state, route.kind, name, parent).ok())
        .flatten()
        .collect()
}
