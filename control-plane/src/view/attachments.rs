//! Which routes are attached to which listeners of a Gateway, and why others are not.

use std::collections::{BTreeMap, BTreeSet};

use model::{Hostname, Label};

use super::MeshState;
use super::attach::{Objection, asked_for};
use super::listeners::{Merged, comes_from, merged};
use super::lookup::Aged;
use super::shadow::{Shadows, Standing};
use crate::sources::{GatewayObject, Kind, Object, ObjectKey, Parent, ParentRef, RouteObject, StreamRoute};

/// A Gateway with everything that is attached to it.
#[derive(Debug)]
pub(super) struct Attachments<'s> {
    pub(super) merged: Merged<'s>,
    /// For each listener, in the order of [`Merged::listeners`], its routes, oldest first.
    pub(super) routes: Vec<Vec<Attached<'s>>>,
    /// The same as it would be if routes in shadow were in force; `None` for a listener that none of them has to do with.
    pub(super) would_be: Vec<Option<Vec<Attached<'s>>>>,
    /// What became of each reference to the Gateway or its ListenerSets: by the route and the position among
    /// [`parents_of`] it.
    verdicts: BTreeMap<(ObjectKey, usize), Result<(), Objection>>,
}

/// A route on a listener.
#[derive(Debug, Clone)]
pub(super) struct Attached<'s> {
    pub(super) route: AnyRoute<'s>,
    /// Those that the listener and the route have in common; never empty.
    pub(super) hostnames: Vec<Hostname>,
}

/// A route of any kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum AnyRoute<'s> {
    Http(&'s RouteObject),
    Stream(&'s StreamRoute),
}

impl<'s> AnyRoute<'s> {
    pub(super) fn of(object: &'s Object) -> Option<Self> {
        match object {
            Object::Route(route) => Some(Self::Http(route)),
            Object::StreamRoute(route) => Some(Self::Stream(route)),
            _ => None,
        }
    }

    /// The route, where it is one for HTTP.
    pub(super) fn http(&self) -> Option<&'s RouteObject> {
        match self {
            Self::Http(route) => Some(route),
            Self::Stream(_) => None,
        }
    }

    pub(super) fn key(&self) -> &'s ObjectKey {
        match self {
            Self::Http(route) => &route.key,
            Self::Stream(route) => &route.key,
        }
    }

    pub(super) fn written_parents(&self) -> &'s [ParentRef] {
        match self {
            Self::Http(route) => &route.parents,
            Self::Stream(route) => &route.parents,
        }
    }

    pub(super) fn hostnames(&self) -> &'s [Hostname] {
        match self {
            Self::Http(route) => &route.hostnames,
            Self::Stream(route) => &route.hostnames,
        }
    }

    /// Why nothing of it can be followed, wherever it is attached; `None` where one rule can.
    pub(super) fn unusable(&self) -> Option<Objection> {
        let rules = &self.http()?.rules;
        let is_unusable = !rules.is_empty() && rules.iter().all(|rule| !rule.unusable.is_empty());
        is_unusable.then(|| {
            let errors = rules.iter().flat_map(|rule| &rule.unusable);
            let errors: Vec<String> = errors.map(ToString::to_string).collect();
            Objection {
                reason: "UnsupportedValue",
                message: format!("none of its rules can be followed: {}", errors.join("; ")),
            }
        })
    }

    fn uses_default_gateways(&self) -> bool {
        match self {
            Self::Http(route) => route.uses_default_gateways,
            Self::Stream(route) => route.uses_default_gateways,
        }
    }
}

/// The parents that a route names, and after them the default Gateways that it is attached to without naming them.
pub(super) fn parents_of(state: &MeshState, route: AnyRoute<'_>) -> Vec<ParentRef> {
    let mut parents = route.written_parents().to_vec();
    if route.uses_default_gateways() {
        for gateway in state.our_gateways().filter(|gateway| gateway.is_default) {
            let to = Parent::Gateway(gateway.name.clone());
            if !parents.iter().any(|parent| parent.to == to) {
                let index = parents.len();
                parents.push(ParentRef {
                    to,
                    port: None,
                    section: None,
                    index,
                });
            }
        }
    }
    parents
}

impl<'s> Attachments<'s> {
    /// Attaches what asks for it.
    pub(super) fn of(state: &'s MeshState, gateway: &'s GatewayObject) -> Self {
        let routes = routes_by_age(state);
        let shadows = Shadows::among(routes.iter().filter_map(|route| route.http()));
        let standing = |route: &AnyRoute<'_>| match route.http() {
            Some(route) => shadows.standing(route),
            None => Standing::Kept,
        };
        let mut this = Self {
            merged: merged(state, gateway),
            routes: Vec::new(),
            would_be: Vec::new(),
            verdicts: BTreeMap::new(),
        };
        let in_shadow = if shadows.are_some() {
            let would_be = routes.iter().filter(|route| standing(route).would_be());
            this.attach_all(state, would_be);
            let shadow = routes.iter().filter(|route| standing(route) == Standing::Shadow);
            let shadow: BTreeSet<&ObjectKey> = shadow.map(AnyRoute::key).collect();
            this.verdicts.retain(|(key, _), _| shadow.contains(key));
            std::mem::take(&mut this.routes)
        } else {
            Vec::new()
        };
        let in_force = routes.iter().filter(|route| standing(route).is_in_force());
        this.attach_all(state, in_force);
        let differs = |routes: &[Attached<'_>]| {
            routes
                .iter()
                .any(|attached| standing(&attached.route) != Standing::Kept)
        };
        let mut in_shadow = in_shadow.into_iter();
        let would_be = this.routes.iter().map(|routes| {
            let would_be = in_shadow.next()?;
            (differs(&would_be) || differs(routes)).then_some(would_be)
        });
        this.would_be = would_be.collect();
        this
    }

    fn attach_all<'r>(&mut self, state: &MeshState, routes: impl Iterator<Item = &'r AnyRoute<'s>>)
    where
        's: 'r,
    {
        self.routes = self.merged.listeners.iter().map(|_| Vec::new()).collect();
        for route in routes {
            let asking = parents_of(state, *route);
            for (index, parent) in asking.iter().enumerate() {
                if self.is_meant(state, &parent.to) {
                    let verdict = self.attach(state, *route, parent);
                    self.verdicts.insert((route.key().clone(), index), verdict);
                }
            }
        }
    }

    /// What became of a reference; `None` where it is to something else.
    pub(super) fn verdict(&self, route: &ObjectKey, index: usize) -> Option<&Result<(), Objection>> {
        self.verdicts.get(&(route.clone(), index))
    }

    fn is_meant(&self, state: &MeshState, parent: &Parent) -> bool {
        match parent {
            Parent::Service(_) | Parent::Other(_) => false,
            Parent::Gateway(name) => *name == self.merged.gateway.name,
            Parent::ListenerSet(namespace, name) => {
                let set = state.listener_set(namespace, name);
                set.is_some_and(|set| set.parent == self.merged.gateway.name)
            }
        }
    }

    fn attach(
        &mut self,
        state: &MeshState,
        route: AnyRoute<'s>,
        parent: &ParentRef,
    ) -> Result<(), Objection> {
        let named = self.named(parent)?;
        let namespace = &route.key().namespace;
        let allowed: Vec<usize> = named
            .into_iter()
            .filter(|place| self.allows(state, *place, route.key().kind, namespace))
            .collect();
        if allowed.is_empty() {
            return Err(Objection {
                reason: "NotAllowedByListeners",
                message: format!(
                    "no listener that the route names takes {}s of namespace {namespace}",
                    route.key().kind
                ),
            });
        }
        let fitting = allowed.into_iter().filter_map(|place| {
            let hostname = &self.merged.listeners.get(place)?.listener.hostname;
            let hostnames = in_common(hostname, route.hostnames());
            (!hostnames.is_empty()).then_some((place, hostnames))
        });
        let fitting: Vec<(usize, Vec<Hostname>)> = fitting.collect();
        if fitting.is_empty() {
            return Err(Objection {
                reason: "NoMatchingListenerHostname",
                message: "no listener that the route names has a hostname in common with it".to_owned(),
            });
        }
        if let Some(objection) = route.unusable() {
            return Err(objection);
        }
        let mut rival = None;
        let mut is_attached = false;
        for (place, hostnames) in fitting {
            let Some(routes) = self.routes.get_mut(place) else {
                continue;
            };
            // One route after the other: where it is attached already, it was the last.
            if routes.last().is_some_and(|last| last.route.key() == route.key()) {
                is_attached = true;
                continue;
            }
            match routes.iter().find(|other| excludes(other, route, &hostnames)) {
                Some(other) => rival = Some(other.route.key().clone()),
                None => {
                    routes.push(Attached { route, hostnames });
                    is_attached = true;
                }
            }
        }
        match rival {
            Some(rival) if !is_attached => Err(Objection {
                reason: "HostnameConflict",
                message: format!(
                    "{rival}, which is older, has a hostname in common with it on the same listener"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// The listeners that a parent reference names: those of the Gateway itself, or of one ListenerSet.
    fn named(&self, parent: &ParentRef) -> Result<Vec<usize>, Objection> {
        let set = match &parent.to {
            Parent::ListenerSet(namespace, name) => Some((namespace, name)),
            _ => None,
        };
        let listeners = self.merged.listeners.iter().enumerate();
        let named = listeners.filter(|(_, judged)| {
            judged.set.map(|set| (&set.key.namespace, &set.key.name)) == set
                && parent.port.is_none_or(|port| port == judged.listener.port)
                && parent
                    .section
                    .as_ref()
                    .is_none_or(|section| *section == judged.listener.name)
        });
        let named: Vec<usize> = named.map(|(place, _)| place).collect();
        if !named.is_empty() {
            return Ok(named);
        }
        let gateway = &self.merged.gateway.name;
        let message = match set {
            Some((namespace, name)) => {
                let is_attached = self
                    .merged
                    .sets
                    .iter()
                    .any(|set| (&set.key.namespace, &set.key.name) == (namespace, name));
                match is_attached {
                    true => format!(
                        "ListenerSet {namespace}/{name} has no listener {}",
                        asked_for(parent)
                    ),
                    false => format!("ListenerSet {namespace}/{name} is not attached to Gateway {gateway}"),
                }
            }
            None => format!("Gateway {gateway} has no listener {}", asked_for(parent)),
        };
        Err(Objection {
            reason: "NoMatchingParent",
            message,
        })
    }

    fn allows(&self, state: &MeshState, place: usize, kind: Kind, namespace: &Label) -> bool {
        self.merged.listeners.get(place).is_some_and(|judged| {
            let own = judged.namespace(&self.merged);
            judged.kinds.contains(&kind) && comes_from(state, &judged.listener.namespaces, own, namespace)
        })
    }
}

/// Gateway API lets an HTTPRoute and a GRPCRoute not share a host name of a listener (`GRPCRouteSpec.hostnames`).
fn excludes(other: &Attached<'_>, route: AnyRoute<'_>, hostnames: &[Hostname]) -> bool {
    let is_http = |kind: Kind| matches!(kind, Kind::HttpRoute | Kind::GrpcRoute);
    let (one, two) = (other.route.key().kind, route.key().kind);
    let shares = |name: &Hostname| hostnames.iter().any(|own| own.intersection(name).is_some());
    is_http(one) && is_http(two) && one != two && other.hostnames.iter().any(shares)
}

/// The names that a listener and a route have in common, each once.
fn in_common(listener: &Hostname, route: &[Hostname]) -> Vec<Hostname> {
    if route.is_empty() {
        return vec![listener.clone()];
    }
    let mut names: Vec<Hostname> = Vec::new();
    for name in route {
        if let Some(name) = listener.intersection(name)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// Every route, oldest first, then by namespace and name.
fn routes_by_age(state: &MeshState) -> Vec<AnyRoute<'_>> {
    let kinds = [
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::TlsRoute,
        Kind::TcpRoute,
        Kind::UdpRoute,
    ];
    let stored = kinds.into_iter().flat_map(|kind| state.all_of(kind));
    let aged: Vec<Aged<'_, Object>> = stored.map(|stored| (stored.created, &stored.object)).collect();
    let keyed = aged
        .into_iter()
        .filter_map(|(created, object)| Some((created, AnyRoute::of(object)?)));
    let mut keyed: Vec<(u64, AnyRoute<'_>)> = keyed.collect();
    keyed.sort_by_key(|(created, route)| {
        let key = route.key();
        (*created, &key.namespace, &key.name, key.kind)
    });
    keyed.into_iter().map(|(_, route)| route).collect()
}
