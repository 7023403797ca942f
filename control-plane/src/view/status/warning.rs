//! What is applied as it is written, and yet is hardly meant: rules that are never followed, and requests that go nowhere.

use std::collections::BTreeMap;

use decision::traffic::route::hidden;
use model::field::Step;
use model::filter::Filter;
use model::gateway::Serves;
use model::route::Rule;
use model::traffic_policy::CircuitBreaker;
use model::{FieldError, FieldPath, ServiceName, TrafficPolicy};

use super::Judge;
use crate::sources::{BackendRef, DEFAULT_CLASS, Object, ObjectKey, Parent, ParentRef, RouteObject};
use crate::view::attachments::{AnyRoute, parents_of};

/// Something that the owner of an object should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where, from the root of the object.
    pub path: FieldPath,
    /// Why, as a clause without a capital or a full stop.
    pub message: String,
}

impl<'s> Judge<'s> {
    /// What of an object may not be meant, in the order of its fields. What does not resolve is a condition's to say.
    pub fn warnings(&self, key: &ObjectKey) -> Vec<Warning> {
        match self.object(key) {
            Some(object @ Object::Route(route)) => {
                let mut hiding = self.hiding(object, route);
                let parents = route.parents.iter().filter_map(of_parent);
                let rules = route.rules.iter().enumerate();
                let of_rules = rules.flat_map(|(index, rule)| {
                    if !rule.unusable.is_empty() {
                        return rule.unusable.iter().map(unusable).collect::<Vec<_>>();
                    }
                    let hidden = hiding.remove(&index).map(|by| Warning {
                        path: rule_at(index),
                        message: format!("is never followed: {by} takes every request that it matches"),
                    });
                    let is_redirect = |filter: &Filter| matches!(filter, Filter::Redirect(_));
                    let backends = if rule.filters.iter().any(is_redirect) {
                        Vec::new()
                    } else {
                        of_backends(index, &rule.backends, "is answered with status 500")
                    };
                    hidden.into_iter().chain(backends).collect()
                });
                parents.chain(of_rules).collect()
            }
            Some(Object::StreamRoute(route)) => {
                let rules = route.rules.iter().enumerate();
                let dropped = "is dropped";
                rules
                    .flat_map(|(index, backends)| of_backends(index, backends, dropped))
                    .collect()
            }
            Some(Object::Secret(secret)) => {
                let unusable = secret.certificate.as_ref().and_then(|read| read.as_ref().err());
                let warning = unusable.map(|why| Warning {
                    path: FieldPath::default(),
                    message: format!("holds no certificate that can be used: {why}"),
                });
                warning.into_iter().collect()
            }
            Some(Object::Gateway(gateway)) if !self.state.is_ours(&gateway.class) => {
                let class = &gateway.class;
                let message = match self.state.class(class) {
                    Some(known) => format!("Gateways of class {class} are served by {}", known.controller),
                    None => format!(
                        "there is no GatewayClass {class}, so that nobody serves it ({DEFAULT_CLASS} is ours)"
                    ),
                };
                let fields = ["spec", "gatewayClassName"].map(|field| Step::Field(field.to_owned()));
                vec![Warning {
                    path: FieldPath(fields.into()),
                    message,
                }]
            }
            Some(Object::TrafficPolicy(policy)) if policy.shadow.is_some() => {
                unjudged(&policy.policy).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// The rules of a route that are hidden wherever the route is attached, each with the name of a rule that hides it.
    fn hiding(&self, object: &'s Object, route: &RouteObject) -> BTreeMap<usize, String> {
        let mut hiding: BTreeMap<usize, Option<String>> = BTreeMap::new();
        let name = format!("{}#", route.key);
        let mut look = |rules: &[&Rule]| {
            let own = |rule: &Rule| rule.name.starts_with(&name);
            let hidden = hidden(rules, own);
            for (place, rule) in rules.iter().enumerate().filter(|(_, rule)| own(rule)) {
                let Some(index) = rule
                    .name
                    .rsplit_once('#')
                    .and_then(|(_, index)| index.parse().ok())
                else {
                    continue;
                };
                let by = hidden.iter().find(|hidden| hidden.rule == place);
                let by = by.and_then(|hidden| rules.get(hidden.by));
                let by = by.map(|rule| rule.name.to_string());
                // One place where it is met is enough.
                hiding
                    .entry(index)
                    .and_modify(|known| *known = known.take().filter(|_| by.is_some()))
                    .or_insert(by);
            }
        };
        let Some(any) = AnyRoute::of(object) else {
            return BTreeMap::new();
        };
        let mut gateways: Vec<ServiceName> = Vec::new();
        for parent in parents_of(self.state, any) {
            match &parent.to {
                Parent::Service(service) => {
                    let destination = self.destination(service, &route.key.namespace);
                    let ports = destination.as_ref().iter();
                    let ports = ports.flat_map(|destination| destination.ports.values());
                    for port in ports {
                        let rules = match (&route.shadow, &port.shadow) {
                            (None, _) => &port.rules[..],
                            (Some(_), would_be) => would_be.as_deref().unwrap_or_default(),
                        };
                        look(&rules.iter().collect::<Vec<_>>());
                    }
                }
                Parent::Gateway(name) => gateways.push(name.clone()),
                Parent::Other(_) => {}
                Parent::ListenerSet(namespace, name) => {
                    let set = self.state.listener_set(namespace, name);
                    gateways.extend(set.map(|set| set.parent.clone()));
                }
            }
        }
        gateways.sort();
        gateways.dedup();
        for gateway in gateways.iter().map(|name| self.gateway(name)) {
            for listener in gateway.as_ref().iter().flat_map(|gateway| &gateway.listeners) {
                let routes = match (&listener.serves, &route.shadow) {
                    (Serves::Http(routes) | Serves::Https(_, routes), None) => Some(routes),
                    (_, None) => None,
                    (_, Some(_)) => listener.shadow.as_ref(),
                };
                if let Some(routes) = routes {
                    for places in routes.hosts.values() {
                        let rules = places.iter().filter_map(|place| routes.rules.get(*place));
                        look(&rules.collect::<Vec<_>>());
                    }
                }
            }
        }
        let hidden = hiding.into_iter();
        hidden.filter_map(|(index, by)| Some((index, by?))).collect()
    }
}

/// What of a policy in shadow requests are not held against: what endpoints, connections and further attempts would have
/// been like cannot be said without trying.
fn unjudged(policy: &TrafficPolicy) -> Option<Warning> {
    let sections = policy.sections().into_iter().map(|(name, _)| name);
    let mut without: Vec<&str> = sections
        .filter(|name| !matches!(*name, "circuitBreaker" | "timeout"))
        .collect();
    let only_requests = CircuitBreaker {
        max_requests: policy
            .breaker
            .map_or(CircuitBreaker::DEFAULT, |breaker| breaker.max_requests),
        ..CircuitBreaker::default()
    };
    if policy.breaker.is_some_and(|breaker| breaker != only_requests) {
        without.push("other limits of circuitBreaker");
    }
    if policy
        .timeouts
        .is_some_and(|timeouts| timeouts.backend_request.is_some())
    {
        without.push("retry.perRetry.timeout");
    }
    let message = format!(
        "in shadow, requests are held against circuitBreaker.maxParallelRequests and timeout.http.requestTimeout, and not \
         against {}",
        without.join(", ")
    );
    (!without.is_empty()).then(|| Warning {
        path: FieldPath(vec![Step::Field("spec".to_owned())]),
        message,
    })
}

/// A reference to something that somebody else may know.
fn of_parent(parent: &ParentRef) -> Option<Warning> {
    let Parent::Other(named) = &parent.to else {
        return None;
    };
    let fields = ["spec", "parentRefs"].map(|field| Step::Field(field.to_owned()));
    let path = fields.into_iter().chain([Step::Item(parent.index)]);
    Some(Warning {
        path: FieldPath(path.collect()),
        message: format!("is left alone: {named} is of a kind that is not known"),
    })
}

fn unusable(error: &FieldError) -> Warning {
    Warning {
        path: error.path.clone(),
        message: format!("{}, so that the rule is left out", error.why),
    }
}

fn of_backends(rule: usize, backends: &[BackendRef], fate: &str) -> Vec<Warning> {
    let at = |step: Option<usize>| {
        let mut path = rule_at(rule);
        path.0.push(Step::Field("backendRefs".to_owned()));
        path.0.extend(step.map(Step::Item));
        path
    };
    if backends.is_empty() {
        return vec![Warning {
            path: rule_at(rule),
            message: format!("has no backendRefs: whatever follows it {fate}"),
        }];
    }
    if backends.iter().all(|backend| backend.weight == 0) {
        return vec![Warning {
            path: at(None),
            message: format!("every weight is 0: whatever follows the rule {fate}"),
        }];
    }
    let unused = backends
        .iter()
        .enumerate()
        .filter(|(_, backend)| backend.weight == 0 && !backend.filters.is_empty());
    unused
        .map(|(index, _)| Warning {
            path: at(Some(index)),
            message: "its filters are never used, because its weight is 0".to_owned(),
        })
        .collect()
}

fn rule_at(rule: usize) -> FieldPath {
    let fields = ["spec", "rules"].map(|field| Step::Field(field.to_owned()));
    FieldPath(fields.into_iter().chain([Step::Item(rule)]).collect())
}
