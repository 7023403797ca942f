//! What becomes of one request, and why: by the functions that a proxy decides with.

use std::collections::BTreeMap;

use decision::Reason;
use decision::message::host;
use decision::traffic::cors::{self, Judged};
use decision::traffic::redirect::{self, Requested};
use decision::traffic::route::{RequestView, RouteTable, Verdict as Weight, Weighed};
use decision::traffic::{filter, split};
use http::HeaderMap;
use model::filter::{Filter, Redirect, Scheme};
use model::route::{Backend, Rule};
use model::service::DestinationPort;
use model::{Label, ServiceName, ServicePort};

use super::explanation::{
    Asked, Candidate, Chosen, Destination, Explanation, HeaderChange, Outcome, Retry, Share, Timeouts,
    Verdict,
};
use super::{Call, Rehearsed, words};
use crate::sources::ObjectKey;
use crate::view::{self, MeshState};

/// Tells the whole way of a request from a workload to another service.
pub fn explain(mesh: &Rehearsed<'_>, call: &Call) -> Explanation {
    let mut told = Explanation {
        request: Asked {
            method: call.method.to_string(),
            url: call.url.to_string(),
            from: call.from.to_string(),
        },
        destination: None,
        matches: Vec::new(),
        rule: None,
        outcome: refused(Reason::Internal, String::new()),
    };
    told.outcome = match steps(mesh, call, &mut told) {
        Ok(outcome) | Err(outcome) => outcome,
    };
    told
}

fn steps(mesh: &Rehearsed<'_>, call: &Call, told: &mut Explanation) -> Result<Outcome, Outcome> {
    // 1. One unambiguous message, and whom it is for.
    let authority = call
        .authority()
        .map_err(|reason| refused(reason, "the request is refused before it is looked at".to_owned()))?;
    let (service, explicit) = host::resolve(authority, &call.from.namespace, mesh.domain)
        .map_err(|reason| refused(reason, format!("{authority:?} is not a host")))?
        .ok_or_else(|| {
            let why = format!("{authority:?} cannot be the name of a service of this mesh");
            refused(Reason::UnknownService, why)
        })?;
    let called = Called::new(mesh.state, &call.from.namespace, &service).ok_or_else(|| {
        refused(
            Reason::UnknownService,
            format!("Service {service} does not exist"),
        )
    })?;
    let port = host::choose_port(&called.destination, explicit).ok_or_else(|| {
        let ports: Vec<String> = called.destination.ports.keys().map(u16::to_string).collect();
        let ports = ports.join(", ");
        let why = match explicit {
            Some(port) => format!("Service {service} has no port {port} (it has {ports})"),
            None => {
                format!("the URL names no port, and Service {service} has several, none of them 80: {ports}")
            }
        };
        refused(Reason::UnknownPort, why)
    })?;
    let no_port = || refused(Reason::UnknownPort, String::new());
    let (at_port, table) = called.port(port).ok_or_else(no_port)?;
    told.destination = Some(Destination {
        service: service.to_string(),
        port,
        port_because: match explicit {
            Some(_) => "the URL names it",
            None if port == 80 => "the URL names none",
            None => "it is the only one",
        },
        protocol: words::of_protocol(at_port.protocol),
    });

    // 2. The rule, and its backends.
    let request = call.view();
    told.matches = candidates(mesh.state, &at_port.rules, table, &request);
    let rule = called.rule(port, &request)?;
    told.rule = rule.map(|(_, rule)| chosen(rule));
    if let Some(answer) = rule.and_then(|(_, rule)| own_answer(rule, call)) {
        return Ok(answer);
    }
    let target = service.port(port);
    Ok(outcome(mesh, rule.map(|(_, rule)| rule), &target, &call.headers))
}

/// A service as its callers have it, ready to be asked about many requests.
pub(super) struct Called {
    pub(super) destination: model::Destination,
    tables: BTreeMap<u16, RouteTable>,
}

impl Called {
    /// As workloads of the namespace `from` have it; `None` where there is no such service.
    pub(super) fn new(state: &MeshState, _from: &Label, service: &ServiceName) -> Option<Self> {
        let destination = view::destination(state, service)?;
        let ports = destination.ports.iter();
        let tables = ports
            .map(|(number, port)| (*number, RouteTable::compile(&port.rules)))
            .collect();
        Some(Self { destination, tables })
    }

    fn port(&self, number: u16) -> Option<(&DestinationPort, &RouteTable)> {
        Some((self.destination.ports.get(&number)?, self.tables.get(&number)?))
    }

    /// The rule that governs a request, with its place; `None` where no route is attached.
    pub(super) fn rule(
        &self,
        port: u16,
        request: &RequestView<'_>,
    ) -> Result<Option<(usize, &Rule)>, Outcome> {
        let (at_port, table) = self
            .port(port)
            .ok_or_else(|| refused(Reason::UnknownPort, format!("there is no port {port}")))?;
        if at_port.rules.is_empty() {
            return Ok(None);
        }
        let no_route = || {
            let why = "routes govern this service, and no rule of them matches".to_owned();
            refused(Reason::NoRoute, why)
        };
        let index = table.choose(&at_port.rules, request).ok_or_else(no_route)?;
        Ok(at_port.rules.get(index).map(|rule| (index, rule)))
    }
}

/// What a rule answers by itself to this very request.
fn own_answer(rule: &Rule, call: &Call) -> Option<Outcome> {
    for filter in &rule.filters {
        if let Filter::Cors(cors) = filter
            && matches!(
                cors::judge(cors, &call.method, &call.headers),
                Judged::Preflight(_)
            )
        {
            return Some(Outcome::Answer {
                status: 204,
                reason: "",
                why: "a browser asks before its request (a CORS preflight)".to_owned(),
                location: None,
            });
        }
    }
    let location = redirect_of(rule).map(|redirect| {
        let scheme = Scheme::Http;
        let requested = Requested {
            scheme,
            host: call.url.host().unwrap_or_default(),
            port: call.url.port_u16().unwrap_or(scheme.well_known_port()),
            path: call.url.path(),
            query: call.url.query(),
        };
        redirect::location(redirect, &requested)
    });
    redirected(rule, location)
}

fn redirect_of(rule: &Rule) -> Option<&Redirect> {
    rule.filters.iter().find_map(|filter| match filter {
        Filter::Redirect(redirect) => Some(redirect),
        _ => None,
    })
}

fn redirected(rule: &Rule, location: Option<String>) -> Option<Outcome> {
    let redirect = redirect_of(rule)?;
    Some(Outcome::Answer {
        status: redirect.status.as_u16(),
        reason: "",
        why: words::of_redirect(redirect),
        location,
    })
}

/// Where requests end that follow a rule; those that follow none go to `target` itself.
pub(super) fn outcome(
    mesh: &Rehearsed<'_>,
    rule: Option<&Rule>,
    target: &ServicePort,
    headers: &HeaderMap,
) -> Outcome {
    let Some(rule) = rule else {
        return Outcome::Backends(vec![Share {
            backend: target.to_string(),
            weight: 1,
            percent: 100.0,
            unresolved: None,
            endpoints: endpoints(mesh, target),
            filters: Vec::new(),
            request_headers: HeaderChange::default(),
            response_headers: HeaderChange::default(),
        }]);
    };
    if let Some(answer) = redirected(rule, None) {
        return answer;
    }
    // Dice of nothing fall on the first backend that has a chance at all.
    if split::pick_backend(&rule.backends, 0).is_none() {
        let why = match rule.backends.is_empty() {
            true => format!("{} has no backend", rule.name),
            false => format!("no backend of {} has a weight above 0", rule.name),
        };
        return refused(Reason::BackendNotFound, why);
    }
    let total: u64 = rule
        .backends
        .iter()
        .map(|backend| u64::from(backend.weight))
        .sum();
    let shares = rule.backends.iter().enumerate().map(|(at, backend)| {
        let filters = [&rule.filters[..], &backend.filters].concat();
        Share {
            backend: backend.reference.to_string(),
            weight: backend.weight,
            percent: percent(backend, total),
            unresolved: backend.target.is_none().then(|| unresolved(mesh.state, rule, at)),
            endpoints: backend.target.as_ref().and_then(|target| endpoints(mesh, target)),
            filters: backend.filters.iter().map(words::of_filter).collect(),
            request_headers: on_request(&filters, headers),
            response_headers: on_response(&filters),
        }
    });
    Outcome::Backends(shares.collect())
}

fn percent(backend: &Backend, total: u64) -> f64 {
    // Both are far below 2^53.
    f64::from(backend.weight) * 100.0 / total as f64
}

/// Who serves a backend now: workloads where they are known, and addresses outside the mesh.
fn endpoints(mesh: &Rehearsed<'_>, target: &ServicePort) -> Option<Vec<String>> {
    let set = view::endpoints(mesh.state, &target.service).endpoints;
    match set.outside(target.port) {
        Some(outside) => Some(outside.addresses.iter().map(ToString::to_string).collect()),
        None => mesh.serving.map(|serving| serving.of(&target.service)),
    }
}

/// Why a backend does not resolve, in the words of the route's condition.
fn unresolved(state: &MeshState, rule: &Rule, backend: usize) -> String {
    let objection = || {
        let (route, index) = rule.name.rsplit_once('#')?;
        view::unresolved(state, &route.parse().ok()?, index.parse().ok()?, backend)
    };
    objection().unwrap_or_else(|| "the reference does not resolve".to_owned())
}

fn candidates(
    state: &MeshState,
    rules: &[Rule],
    table: &RouteTable,
    request: &RequestView<'_>,
) -> Vec<Candidate> {
    let weighed = table.explain(rules, request);
    let chosen = weighed.iter().find(|weighed| weighed.verdict == Weight::Chosen);
    let chosen = chosen
        .and_then(|chosen| rules.get(chosen.rule))
        .map(|rule| &*rule.name);
    let candidate = |Weighed { rule, at, verdict }: &Weighed<'_>| {
        let rule = rules.get(*rule)?;
        let (verdict, why) = match verdict {
            Weight::Chosen => (Verdict::Chosen, Vec::new()),
            Weight::Misses(misses) => {
                let why = misses
                    .iter()
                    .map(|miss| words::of_miss(miss, request.method, request.path));
                (Verdict::Misses, why.collect())
            }
            Weight::Hidden(precedence) => {
                let chosen = chosen.unwrap_or_default();
                let why = match words::of_precedence(*precedence) {
                    Some(ahead) if chosen == &*rule.name => {
                        format!("another match of this rule takes precedence: {ahead}")
                    }
                    Some(ahead) => format!("{chosen} takes precedence: {ahead}"),
                    None => by_order(state, chosen, &rule.name),
                };
                (Verdict::Hidden, vec![why])
            }
        };
        Some(Candidate {
            rule: rule.name.to_string(),
            wants: rule.matches.get(*at).map(words::of_match).unwrap_or_default(),
            verdict,
            why,
        })
    };
    weighed.iter().filter_map(candidate).collect()
}

/// Why of two equally specific rules the first one stands first.
fn by_order(state: &MeshState, first: &str, second: &str) -> String {
    let route = |rule: &str| rule.rsplit_once('#').map_or("", |(route, _)| route).to_owned();
    let (first_route, second_route) = (route(first), route(second));
    if first == second {
        return "another match of this rule is as specific and stands first".to_owned();
    }
    if first_route == second_route {
        return format!("{first} is as specific and stands first in the same route");
    }
    let created = |route: &str| {
        let key: ObjectKey = route.parse().ok()?;
        state.objects.get(&key).map(|stored| stored.created)
    };
    if created(&first_route) < created(&second_route) {
        format!("{first} is as specific and its route is older")
    } else {
        format!("{first} is as specific and its route, of the same age, is first by name")
    }
}

fn chosen(rule: &Rule) -> Chosen {
    let timeouts = Timeouts {
        request: rule.timeouts.request.map(words::of_duration),
        backend_request: rule.timeouts.backend_request.map(words::of_duration),
    };
    let has_timeouts = timeouts.request.is_some() || timeouts.backend_request.is_some();
    Chosen {
        name: rule.name.to_string(),
        filters: rule.filters.iter().map(words::of_filter).collect(),
        timeouts: has_timeouts.then_some(timeouts),
        retry: rule.retry.as_ref().map(|retry| Retry {
            codes: retry.codes.iter().copied().collect(),
            attempts: retry.attempts,
            backoff: words::of_duration(retry.backoff),
        }),
    }
}

fn on_request(filters: &[Filter], before: &HeaderMap) -> HeaderChange {
    let mut after = before.clone();
    for filter in filters {
        if let Filter::RequestHeaders(modifier) = filter {
            filter::apply(modifier, &mut after);
        }
    }
    change(before, &after)
}

/// The response is not known: what it would be given, and what it would lose if it had it.
fn on_response(filters: &[Filter]) -> HeaderChange {
    let mut after = HeaderMap::new();
    for filter in filters {
        if let Filter::ResponseHeaders(modifier) = filter {
            filter::apply(modifier, &mut after);
        }
    }
    let mut change = change(&HeaderMap::new(), &after);
    for filter in filters {
        if let Filter::ResponseHeaders(modifier) = filter {
            let gone = modifier.remove.iter().filter(|name| !after.contains_key(*name));
            change.removed.extend(gone.map(ToString::to_string));
        }
    }
    change
}

fn change(before: &HeaderMap, after: &HeaderMap) -> HeaderChange {
    let values = |headers: &HeaderMap, name| {
        let values: Vec<String> = headers.get_all(name).iter().map(words::text).collect();
        values.join(", ")
    };
    let changed = after.keys().filter(|name| {
        let (old, new) = (before.get_all(*name), after.get_all(*name));
        !old.iter().eq(new.iter())
    });
    HeaderChange {
        set: changed
            .map(|name| (name.to_string(), values(after, name)))
            .collect(),
        removed: before
            .keys()
            .filter(|name| !after.contains_key(*name))
            .map(ToString::to_string)
            .collect(),
    }
}

/// An answer of the proxy's own.
pub(super) fn refused(reason: Reason, why: String) -> Outcome {
    Outcome::Answer {
        status: reason.status().as_u16(),
        reason: reason.detail(),
        why,
        location: None,
    }
}
