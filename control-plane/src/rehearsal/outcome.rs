//! Where a request ends that follows a rule.

use decision::Reason;
use decision::traffic::cors::{self, Judged};
use decision::traffic::fault::fitting;
use decision::traffic::redirect::{self, Requested};
use decision::traffic::route::RequestView;
use decision::traffic::{filter, split};
use http::HeaderMap;
use model::ServicePort;
use model::fault::Fault;
use model::filter::{Filter, Scheme};
use model::route::{Backend, Rule};

use super::explanation::{Governing, HeaderChange, Outcome, Share};
use super::policies::{fields, of_fault};
use super::{Call, Rehearsed, words};
use crate::sources::{Object, ObjectKey};
use crate::view::{self, MeshState, Traffic};

/// What a rule answers by itself to this very request, which is for `port`.
pub(super) fn own_answer(rule: &Rule, call: &Call, port: u16) -> Option<Outcome> {
    if let Some(answer) = unknown(&rule.filters) {
        return Some(answer);
    }
    let asks = rule.filters.iter().any(|filter| match filter {
        Filter::Cors(cors) => matches!(
            cors::judge(cors, &call.method, &call.headers),
            Judged::Preflight(_)
        ),
        _ => false,
    });
    if asks {
        return Some(Outcome::Answer {
            status: 204,
            reason: "",
            why: "a browser asks before its request (a CORS preflight)".to_owned(),
            location: None,
        });
    }
    let scheme = match call.url.scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let requested = Requested {
        scheme,
        host: call.url.host().unwrap_or_default(),
        port,
        path: call.url.path(),
        query: call.url.query(),
    };
    redirected(rule, Some(&requested))
}

/// The answer where nobody knows what a filter would do.
fn unknown(filters: &[Filter]) -> Option<Outcome> {
    let named = filters.iter().find_map(named_in_vain)?;
    Some(refused(Reason::FilterNotFound, format!("{named} does not exist")))
}

fn named_in_vain(filter: &Filter) -> Option<&str> {
    match filter {
        Filter::Unresolved(named) => Some(named),
        _ => None,
    }
}

/// The answer of a rule that redirects; without its location where no request is given.
fn redirected(rule: &Rule, requested: Option<&Requested<'_>>) -> Option<Outcome> {
    let redirect = rule.filters.iter().find_map(|filter| match filter {
        Filter::Redirect(redirect) => Some(redirect),
        _ => None,
    })?;
    Some(Outcome::Answer {
        status: redirect.status.as_u16(),
        reason: "",
        why: words::of_redirect(redirect),
        location: requested.map(|requested| redirect::location(redirect, requested)),
    })
}

/// Where requests end that follow a rule.
pub(super) fn of_rule(
    mesh: &Rehearsed<'_>,
    traffic: Traffic,
    rule: &Rule,
    request: &RequestView<'_>,
) -> Outcome {
    if let Some(answer) = unknown(&rule.filters).or_else(|| redirected(rule, None)) {
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
    let shares = shares(mesh, traffic, &rule.name, &rule.backends);
    let shares = shares.into_iter().zip(&rule.backends).map(|(share, backend)| {
        let filters = [&rule.filters[..], &backend.filters].concat();
        Share {
            request_headers: on_request(&filters, request.headers),
            response_headers: on_response(&filters),
            fault: (backend.target.as_ref())
                .and_then(|target| fault(mesh.state, &rule.faults, target, request)),
            ..share
        }
    });
    Outcome::Backends(shares.collect())
}

/// Where requests end that follow no rule: at the service itself.
pub(super) fn of_service(mesh: &Rehearsed<'_>, target: &ServicePort, request: &RequestView<'_>) -> Outcome {
    Outcome::Backends(vec![Share {
        backend: target.to_string(),
        weight: 1,
        percent: 100.0,
        unresolved: None,
        endpoints: endpoints(mesh, target),
        policies: policies(mesh.state, None, target),
        fault: fault(mesh.state, &[], target, request),
        filters: Vec::new(),
        request_headers: HeaderChange::default(),
        response_headers: HeaderChange::default(),
    }])
}

/// The backends of a rule, with nothing said of header fields.
pub(super) fn shares(mesh: &Rehearsed<'_>, traffic: Traffic, rule: &str, backends: &[Backend]) -> Vec<Share> {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let share = |(at, backend): (usize, &Backend)| Share {
        backend: backend.reference.to_string(),
        weight: backend.weight,
        // Both are far below 2^53.
        percent: f64::from(backend.weight) * 100.0 / (total.max(1)) as f64,
        unresolved: match backend.target {
            None => Some(unresolved(mesh.state, traffic, rule, at)),
            Some(_) => {
                let named = backend.filters.iter().find_map(named_in_vain);
                named.map(|named| format!("{named} does not exist"))
            }
        },
        endpoints: backend.target.as_ref().and_then(|target| endpoints(mesh, target)),
        policies: backend
            .target
            .as_ref()
            .map_or_else(Vec::new, |target| policies(mesh.state, Some(rule), target)),
        fault: None,
        filters: backend.filters.iter().map(words::of_filter).collect(),
        request_headers: HeaderChange::default(),
        response_headers: HeaderChange::default(),
    };
    backends.iter().enumerate().map(share).collect()
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

/// What governs requests to a backend beside the rule, which is known by its name.
fn policies(state: &MeshState, rule: Option<&str>, target: &ServicePort) -> Vec<Governing> {
    let rule: Option<(ObjectKey, usize)> = rule.and_then(|rule| {
        let (route, place) = rule.rsplit_once('#')?;
        Some((route.parse().ok()?, place.parse().ok()?))
    });
    let rule = rule.as_ref().map(|(route, place)| (route, *place));
    let governing = view::governing(state, rule, target).into_iter();
    governing
        .map(|(policy, sections)| Governing {
            says: said(state, &policy, &sections),
            policy: policy.to_string(),
            sections,
        })
        .collect()
}

/// What a policy says in these sections.
fn said(state: &MeshState, policy: &ObjectKey, sections: &[&'static str]) -> Vec<String> {
    let Some(Object::TrafficPolicy(object)) = state.objects.get(policy).map(|stored| &stored.object) else {
        return Vec::new();
    };
    let fields = fields(&object.policy.only(sections)).into_iter();
    fields.map(|(field, value)| format!("{field}: {value}")).collect()
}

/// What is done to a request on purpose that goes to a backend: those of its rule come before those of the backend.
fn fault(
    state: &MeshState,
    of_rule: &[Fault],
    target: &ServicePort,
    request: &RequestView<'_>,
) -> Option<String> {
    let set = view::endpoints(state, &target.service);
    let of_port = set.faults.get(&target.port).into_iter().flatten();
    let faults: Vec<Fault> = of_rule.iter().chain(of_port).cloned().collect();
    let fault = fitting(&faults, request)?;
    Some(format!("{}: {}", fault.policy, of_fault(fault)))
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
fn unresolved(state: &MeshState, traffic: Traffic, rule: &str, backend: usize) -> String {
    let objection = || {
        let (route, index) = rule.rsplit_once('#')?;
        view::unresolved(state, traffic, &route.parse().ok()?, index.parse().ok()?, backend)
    };
    objection().unwrap_or_else(|| "the reference does not resolve".to_owned())
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
    let modifiers = || {
        filters.iter().filter_map(|filter| match filter {
            Filter::ResponseHeaders(modifier) => Some(modifier),
            _ => None,
        })
    };
    modifiers().for_each(|modifier| filter::apply(modifier, &mut after));
    let mut change = change(&HeaderMap::new(), &after);
    for modifier in modifiers() {
        let gone = modifier.remove.iter().filter(|name| !after.contains_key(*name));
        change.removed.extend(gone.map(ToString::to_string));
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
