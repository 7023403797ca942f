//! What is different in the rules of services and of listeners, in words.

use std::collections::{BTreeMap, BTreeSet};

use model::ServiceName;
use model::gateway::{HttpRoutes, Listener, Serves, StreamRule};
use model::route::{Backend, Rule};
use model::shadow::PolicyShadow;

use super::super::called::{Called, Edge};
use super::super::{policies, words};
use super::{Change, Difference, RuleChange};

/// What a rule says, part by part: what each is called, and what it says; empty where it says nothing.
pub(super) type Parts = Vec<(String, String)>;
/// By their names.
type Rules = BTreeMap<String, Parts>;

/// Notes what is different in the rules of a service.
pub(super) fn of_service(
    service: &ServiceName,
    by: &str,
    old: Option<&Called>,
    new: Option<&Called>,
    difference: &mut Difference,
) {
    let ports = [old, new].into_iter().flatten();
    let ports: BTreeSet<u16> = ports
        .flat_map(|called| called.destination.ports.keys().copied())
        .collect();
    for port in ports {
        let rules = |called: Option<&Called>| {
            let port = called.and_then(|called| called.destination.ports.get(&port));
            port.map_or_else(Rules::new, |port| {
                let http = port.rules.iter().map(|rule| (rule.name.to_string(), parts(rule)));
                let streams = port.streams.iter();
                let streams = streams.map(|rule| (rule.name.to_string(), stream_parts(rule)));
                http.chain(streams).collect()
            })
        };
        let place = format!("{}{by}", service.port(port));
        difference.rules.extend(changes(&place, &rules(old), &rules(new)));
    }
}

/// Notes what is different in the rules of a gateway's listeners.
pub(super) fn of_gateway(
    gateway: &ServiceName,
    old: Option<&Edge>,
    new: Option<&Edge>,
    difference: &mut Difference,
) {
    let listeners = |edge: Option<&Edge>| -> BTreeMap<String, Rules> {
        let listeners = edge.into_iter().flat_map(|edge| &edge.gateway.listeners);
        listeners
            .map(|listener| (listener.name.to_string(), of_listener(listener)))
            .collect()
    };
    let (old, new) = (listeners(old), listeners(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let none = Rules::new();
    for name in names {
        let place = format!("Gateway/{gateway} {name}");
        let of = |listeners: &BTreeMap<String, Rules>| listeners.get(name).cloned();
        let (old, new) = (of(&old), of(&new));
        let changes = changes(
            &place,
            old.as_ref().unwrap_or(&none),
            new.as_ref().unwrap_or(&none),
        );
        difference.rules.extend(changes);
    }
}

fn of_listener(listener: &Listener) -> Rules {
    match &listener.serves {
        Serves::Http(routes) | Serves::Https(_, routes) => {
            let rules = routes.rules.iter().enumerate();
            rules
                .map(|(place, rule)| {
                    let mut parts = parts(rule);
                    parts.insert(0, ("hosts".to_owned(), hosts(routes, place)));
                    (rule.name.to_string(), parts)
                })
                .collect()
        }
        Serves::TlsTerminate(_, rules)
        | Serves::TlsPassthrough(rules)
        | Serves::Tcp(rules)
        | Serves::Udp(rules) => rules
            .iter()
            .map(|rule| (rule.name.to_string(), stream_parts(rule)))
            .collect(),
    }
}

/// The host names that a rule is for.
fn hosts(routes: &HttpRoutes, place: usize) -> String {
    let names = routes.hosts.iter().filter(|(_, places)| places.contains(&place));
    let names: Vec<String> = names.map(|(name, _)| name.to_string()).collect();
    names.join(", ")
}

fn changes(place: &str, old: &Rules, new: &Rules) -> Vec<RuleChange> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changes = names.into_iter().filter_map(|name| {
        let (change, what) = match (old.get(name), new.get(name)) {
            (None, Some(parts)) => (Change::Added, described(parts)),
            (Some(parts), None) => (Change::Removed, described(parts)),
            (Some(old), Some(new)) if old != new => (Change::Changed, altered(old, new)),
            _ => return None,
        };
        Some(RuleChange {
            destination: place.to_owned(),
            rule: name.clone(),
            change,
            what,
        })
    });
    changes.collect()
}

pub(super) fn described(parts: &Parts) -> Vec<String> {
    let said = parts.iter().filter(|(_, words)| !words.is_empty());
    said.map(|(name, words)| format!("{name}: {words}")).collect()
}

/// What is different, by name: each part is there once.
pub(super) fn altered(old: &Parts, new: &Parts) -> Vec<String> {
    let words = |parts: &Parts, name: &str| {
        let part = parts.iter().find(|(known, _)| known == name);
        let words = part.map(|(_, words)| words.clone());
        words
            .filter(|words| !words.is_empty())
            .unwrap_or_else(|| "none".to_owned())
    };
    let is_new = |(name, _): &&(String, String)| old.iter().all(|(known, _)| known != name);
    let names = old.iter().chain(new.iter().filter(is_new)).map(|(name, _)| name);
    let pairs = names.map(|name| (name, words(old, name), words(new, name)));
    pairs
        .filter(|(_, old, new)| old != new)
        .map(|(name, old, new)| format!("{name}: {old} → {new}"))
        .collect()
}

fn parts(rule: &Rule) -> Parts {
    let Rule {
        name: _,
        matches,
        filters,
        backends,
        timeouts,
        retry,
        session,
        policy,
        faults,
        shadow,
    } = rule;
    let timeout = |name, time: Option<_>| time.map(|time| format!("{name} {}", words::of_duration(time)));
    let timeouts = [
        timeout("request", timeouts.request),
        timeout("backendRequest", timeouts.backend_request),
    ];
    let retry = retry.as_ref().map(|retry| {
        let (codes, backoff) = (words::of_retry_on(retry), words::of_duration(retry.backoff));
        format!("{} more attempts on {codes}, backoff {backoff}", retry.attempts)
    });
    let session = session.as_ref().map(words::of_session);
    let own = [
        ("matches", joined(matches.iter().map(words::of_match), " or ")),
        ("filters", joined(filters.iter().map(words::of_filter), "; ")),
        ("backends", joined(backends.iter().map(of_backend), ", ")),
        ("timeouts", joined(timeouts.into_iter().flatten(), ", ")),
        ("retry", retry.unwrap_or_default()),
        ("session", session.unwrap_or_default()),
    ];
    let own = own.map(|(name, words)| (name.to_owned(), words)).into_iter();
    let policy = policy.iter().flat_map(|policy| policies::fields(policy));
    let policy = policy.map(|(field, value)| (format!("policy {field}"), value));
    let faults = faults
        .iter()
        .map(|fault| (fault.policy.to_string(), policies::of_fault(fault)));
    let shadow = shadow.iter().map(|shadow| in_shadow(shadow));
    own.chain(policy).chain(faults).chain(shadow).collect()
}

/// Which policies stand beside those in force.
pub(super) fn in_shadow(shadow: &PolicyShadow) -> (String, String) {
    let traffic = shadow.traffic.iter().map(|named| named.name.to_string());
    let faults = shadow.faults.iter().map(|fault| fault.policy.to_string());
    ("in shadow".to_owned(), joined(traffic.chain(faults), ", "))
}

fn stream_parts(rule: &StreamRule) -> Parts {
    let StreamRule {
        name: _,
        hostnames,
        backends,
    } = rule;
    let hosts = joined(hostnames.iter().map(ToString::to_string), ", ");
    let backends = joined(backends.iter().map(of_backend), ", ");
    vec![("hosts".to_owned(), hosts), ("backends".to_owned(), backends)]
}

fn joined(words: impl Iterator<Item = String>, between: &str) -> String {
    words.collect::<Vec<_>>().join(between)
}

fn of_backend(backend: &Backend) -> String {
    let mut words = format!("{} weight {}", backend.reference, backend.weight);
    if backend.target.is_none() {
        words += " (does not resolve)";
    }
    let filters: Vec<String> = backend.filters.iter().map(words::of_filter).collect();
    if !filters.is_empty() {
        words += &format!(" ({})", filters.join("; "));
    }
    words
}
