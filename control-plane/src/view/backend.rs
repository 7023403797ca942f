//! Whether a backend that a route names may be used, and the rules of a route with the backends as they resolve.

use model::fault::Fault;
use model::filter::{ExternalAuth, Filter};
use model::gateway::StreamRule;
use model::route::{Backend, Rule};
use model::service::AppProtocol;
use model::{Hostname, ServicePort};

use super::attach::{Judged, Objection};
use super::backend_tls::policy_for;
use super::grant::{Referent, may_refer};
use super::shadow::in_force;
use super::{MeshState, fault, policy_shadow, traffic_policy};
use crate::sources::{BackendRef, BackendTarget, Kind, Object, ObjectKey, RouteObject, StreamRoute};

/// Whose traffic it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// From workloads, by a Service that is the route's parent.
    Mesh,
    /// From the edge.
    Gateway,
}

impl RouteObject {
    pub(super) fn judged(&self) -> Judged<'_> {
        Judged {
            kind: self.key.kind,
            namespace: &self.key.namespace,
            parents: &self.parents,
        }
    }
}

impl StreamRoute {
    pub(super) fn judged(&self) -> Judged<'_> {
        Judged {
            kind: self.key.kind,
            namespace: &self.key.namespace,
            parents: &self.parents,
        }
    }
}

/// Whether a route may send to this backend.
pub(super) fn resolve<'t>(
    state: &MeshState,
    route: Judged<'_>,
    traffic: Traffic,
    target: &'t BackendTarget,
) -> Result<&'t ServicePort, Objection> {
    match target {
        BackendTarget::Service(target) => resolve_service(state, route, traffic, target).map(|()| target),
        BackendTarget::Unknown(named) => Err(Objection {
            reason: "InvalidKind",
            message: format!("{named} is of a kind that nothing can be sent to (supported: Service)"),
        }),
    }
}

/// The same for a Service, which a filter may name as well.
pub(super) fn resolve_service(
    state: &MeshState,
    route: Judged<'_>,
    traffic: Traffic,
    target: &ServicePort,
) -> Result<(), Objection> {
    let name = &target.service;
    // A caller that a consumer route governs may call its parent in any case.
    let is_parent = traffic == Traffic::Mesh && route.has_parent(name);
    let referent = (&name.name).into();
    let referent = Referent {
        group: "",
        kind: "Service",
        namespace: &name.namespace,
        name: &referent,
    };
    if !is_parent && !may_refer(state, route.kind, route.namespace, referent) {
        return Err(Objection {
            reason: "RefNotPermitted",
            message: format!(
                "{target} is in another namespace, and no ReferenceGrant there is for {}s of namespace {}",
                route.kind, route.namespace
            ),
        });
    }
    let not_found = |message| Objection {
        reason: "BackendNotFound",
        message,
    };
    let service = state
        .service(name)
        .ok_or_else(|| not_found(format!("Service {name} does not exist")))?;
    let unsupported = |message| Objection {
        reason: "UnsupportedProtocol",
        message,
    };
    if route.kind == Kind::UdpRoute {
        if !service.udp_ports.contains_key(&target.port) {
            return Err(not_found(format!(
                "Service {name} has no UDP port {}",
                target.port
            )));
        }
        if !service.selector.is_empty() {
            return Err(unsupported(format!(
                "Service {name} has a selector, and workloads are reached by mTLS only; datagrams go to \
                 addresses of EndpointSlices"
            )));
        }
        return Ok(());
    }
    let port = service
        .ports
        .get(&target.port)
        .ok_or_else(|| not_found(format!("Service {name} has no port {}", target.port)))?;
    let is_http = matches!(route.kind, Kind::HttpRoute | Kind::GrpcRoute);
    let is_opaque = port.protocol == AppProtocol::Tcp && policy_for(state, service, port).is_none();
    if is_http && is_opaque {
        return Err(unsupported(format!("{target} is opaque TCP by its appProtocol")));
    }
    Ok(())
}

/// Why a backend of a route's rule does not resolve for this traffic, in the words of the route's condition; `None` where
/// it does, or where there is none at these places.
pub fn unresolved(
    state: &MeshState,
    traffic: Traffic,
    route: &ObjectKey,
    rule: usize,
    backend: usize,
) -> Option<String> {
    let (judged, backends) = match &state.objects.get(route)?.object {
        Object::Route(route) => (route.judged(), &route.rules.get(rule)?.backends),
        Object::StreamRoute(route) => (route.judged(), route.rules.get(rule)?),
        _ => return None,
    };
    let target = &backends.get(backend)?.target;
    let objection = resolve(state, judged, traffic, target).err()?;
    Some(objection.message)
}

/// The route's rules with their names; those that cannot be followed are left out.
pub(super) fn rules(state: &MeshState, route: &RouteObject, traffic: Traffic) -> Vec<Rule> {
    let namespace = &route.key.namespace;
    let policies = in_force(state.traffic_policies_in(namespace));
    let faults = in_force(state.fault_policies_in(namespace));
    let shadows = policy_shadow::of_rules(state, route);
    let numbered = route.rules.iter().enumerate().zip(shadows);
    numbered
        .filter(|((_, rule), _)| rule.unusable.is_empty())
        .map(|((index, rule), shadow)| {
            let name = rule.name.as_ref();
            let policy = traffic_policy::of_rule(&policies, &route.key, name);
            let policy = policy.map(|policy| policy.policy.clone());
            let faults = fault::of_rule(&faults, &route.key, name).into_iter();
            let faults: Vec<Fault> = faults.map(|policy| policy.fault.clone()).collect();
            Rule {
                name: format!("{}#{index}", route.key).into(),
                matches: rule.matches.clone(),
                filters: filters(state, route.judged(), traffic, &rule.filters),
                backends: backends(state, route.judged(), traffic, &rule.backends),
                timeouts: rule.timeouts,
                retry: rule.retry.clone(),
                // That of a route's policy keeps a client across backends, as that of the rule does.
                session: rule.session.clone().or_else(|| policy.as_ref()?.session.clone()),
                policy,
                faults,
                shadow,
            }
        })
        .collect()
}

/// As [`rules`], for what goes on by these host names.
pub(super) fn stream_rules(
    state: &MeshState,
    route: &StreamRoute,
    traffic: Traffic,
    hostnames: &[Hostname],
) -> Vec<StreamRule> {
    let numbered = route.rules.iter().enumerate();
    numbered
        .map(|(index, given)| StreamRule {
            name: format!("{}#{index}", route.key).into(),
            hostnames: hostnames.to_vec(),
            backends: backends(state, route.judged(), traffic, given),
        })
        .collect()
}

/// A backend that may not be used keeps its share, so that its requests fail rather than move elsewhere.
fn backends(state: &MeshState, route: Judged<'_>, traffic: Traffic, given: &[BackendRef]) -> Vec<Backend> {
    let backend = |reference: &BackendRef| Backend {
        target: resolve(state, route, traffic, &reference.target).ok().cloned(),
        reference: reference.target.to_string().into(),
        weight: reference.weight,
        filters: filters(state, route, traffic, &reference.filters),
    };
    given.iter().map(backend).collect()
}

/// Filters as they can be followed. A mirror that may not be used is left out; whoever is asked and may not be used never
/// says yes.
fn filters(state: &MeshState, route: Judged<'_>, traffic: Traffic, given: &[Filter]) -> Vec<Filter> {
    let resolves = |filter: &Filter| {
        let target = filter.target();
        target.is_none_or(|target| resolve_service(state, route, traffic, target).is_ok())
    };
    let followed = given.iter().filter_map(|filter| match filter {
        filter if resolves(filter) => Some(filter.clone()),
        Filter::Auth(auth) => Some(Filter::Auth(ExternalAuth {
            target: None,
            ..auth.clone()
        })),
        _ => None,
    });
    followed.collect()
}
