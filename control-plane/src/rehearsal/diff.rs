//! What is different between two meshes: objects, the rules that follow from them, and where requests go.

use std::collections::{BTreeMap, BTreeSet};

use decision::traffic::route::Sample;
use http::HeaderMap;
use model::resilience::GRPC_STATUS_NAMES;
use model::route::{Backend, Rule};
use model::{ServiceName, ServicePort};
use serde::Serialize;

use super::explain::{Called, outcome, refused};
use super::explanation::Outcome;
use super::{Rehearsed, words};
use crate::sources::Object;
use crate::view::MeshState;

/// Everything that is different.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    pub objects: Vec<ObjectChange>,
    pub rules: Vec<RuleChange>,
    /// Requests that end elsewhere: for every match of every rule, before or after, the plainest one that fits it.
    pub moved: Vec<Moved>,
    /// Matches for which no request was found to try.
    pub untried: usize,
}

/// What became of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    Added,
    Changed,
    Removed,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectChange {
    /// `Kind/namespace/name`.
    pub object: String,
    pub change: Change,
}

/// One rule of one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleChange {
    /// `namespace/name:port`.
    pub destination: String,
    pub rule: String,
    pub change: Change,
    /// Of a rule that is changed: `backends: default/a:80 → default/b:80`.
    pub what: Vec<String>,
}

/// A request that ends elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Method and URL.
    pub request: String,
    /// `name: value`.
    pub headers: Vec<String>,
    pub before: Outcome,
    pub after: Outcome,
}

impl Difference {
    pub fn is_nothing(&self) -> bool {
        self.objects.is_empty() && self.rules.is_empty() && self.moved.is_empty()
    }
}

/// Compares two meshes as their sidecars would have them.
pub fn diff(before: &Rehearsed<'_>, after: &Rehearsed<'_>) -> Difference {
    let mut difference = Difference {
        objects: objects(before.state, after.state),
        ..Difference::default()
    };
    if difference.objects.is_empty() {
        return difference;
    }
    for service in services(before.state, after.state) {
        let called = |mesh: &Rehearsed<'_>| Called::new(mesh.state, &service.namespace, &service);
        let pair = (called(before), called(after));
        let destinations = (
            pair.0.as_ref().map(|called| &called.destination),
            pair.1.as_ref().map(|called| &called.destination),
        );
        if destinations.0 != destinations.1 {
            let of_service = OfService {
                service: &service,
                before: (before, pair.0.as_ref()),
                after: (after, pair.1.as_ref()),
            };
            of_service.compare(&mut difference);
        }
    }
    difference
}

fn objects(before: &MeshState, after: &MeshState) -> Vec<ObjectChange> {
    let keys: BTreeSet<_> = before.objects.keys().chain(after.objects.keys()).collect();
    let changes = keys.into_iter().filter_map(|key| {
        let object = |state: &MeshState| state.objects.get(key).map(|stored| stored.object.clone());
        let change = match (object(before), object(after)) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            (old, new) if old != new => Change::Changed,
            _ => return None,
        };
        Some(ObjectChange {
            object: key.to_string(),
            change,
        })
    });
    changes.collect()
}

fn services(before: &MeshState, after: &MeshState) -> BTreeSet<ServiceName> {
    let stored = before.objects.values().chain(after.objects.values());
    let names = stored.filter_map(|stored| match &stored.object {
        Object::Service(service) => Some(service.name.clone()),
        Object::EndpointSlice(_) | Object::Route(_) => None,
    });
    names.collect()
}

/// One service in both meshes.
struct OfService<'a> {
    service: &'a ServiceName,
    before: (&'a Rehearsed<'a>, Option<&'a Called>),
    after: (&'a Rehearsed<'a>, Option<&'a Called>),
}

impl OfService<'_> {
    fn compare(&self, difference: &mut Difference) {
        let ports_of = |called: Option<&Called>| -> BTreeSet<u16> {
            called.map_or_else(BTreeSet::new, |called| {
                called.destination.ports.keys().copied().collect()
            })
        };
        let ports = &ports_of(self.before.1) | &ports_of(self.after.1);
        for port in ports {
            let (old, new) = (rules(self.before.1, port), rules(self.after.1, port));
            let target = self.service.port(port);
            difference.rules.extend(rule_changes(&target, old, new));
            self.try_requests(&target, old, new, difference);
        }
    }

    /// Sends a request for every match through both meshes.
    fn try_requests(&self, target: &ServicePort, old: &[Rule], new: &[Rule], difference: &mut Difference) {
        let plain = model::route::RequestMatch::default();
        let matches = old.iter().chain(new).flat_map(|rule| &rule.matches);
        let mut tried: Vec<Sample> = Vec::new();
        let mut seen = BTreeSet::new();
        for wanted in std::iter::once(&plain).chain(matches) {
            match Sample::of(wanted) {
                Some(sample) => {
                    if seen.insert(shown(target, &sample)) {
                        tried.push(sample);
                    }
                }
                None => difference.untried += 1,
            }
        }
        for sample in tried {
            let (before, after) = (
                ends(self.before, target, &sample),
                ends(self.after, target, &sample),
            );
            if !is_same_end(&before, &after) {
                let (request, headers) = shown(target, &sample);
                difference.moved.push(Moved {
                    request,
                    headers,
                    before,
                    after,
                });
            }
        }
    }
}

fn rules(called: Option<&Called>, port: u16) -> &[Rule] {
    let port = called.and_then(|called| called.destination.ports.get(&port));
    port.map_or(&[], |port| &port.rules)
}

/// Where a request ends in one of the meshes.
fn ends((mesh, called): (&Rehearsed<'_>, Option<&Called>), target: &ServicePort, sample: &Sample) -> Outcome {
    let Some(called) = called else {
        let why = format!("Service {} does not exist", target.service);
        return refused(decision::Reason::UnknownService, why);
    };
    match called.rule(target.port, &sample.view()) {
        Ok(rule) => outcome(mesh, rule.map(|(_, rule)| rule), target, &HeaderMap::new()),
        Err(answer) => answer,
    }
}

/// Whether requests go to the same places in the same shares, or get the same answer.
fn is_same_end(one: &Outcome, other: &Outcome) -> bool {
    match (one, other) {
        (Outcome::Backends(one), Outcome::Backends(other)) => {
            let shares = |shares: &[super::Share]| -> Vec<(String, bool, u64)> {
                let some = shares.iter().filter(|share| share.weight > 0);
                // A millionth of a percent is no difference.
                some.map(|share| {
                    let millionths = (share.percent * 1e6).round() as u64;
                    (share.backend.clone(), share.unresolved.is_some(), millionths)
                })
                .collect()
            };
            shares(one) == shares(other)
        }
        (
            Outcome::Answer {
                status,
                reason,
                location,
                why: _,
            },
            Outcome::Answer {
                status: other_status,
                reason: other_reason,
                location: other_location,
                why: _,
            },
        ) => (status, reason, location) == (other_status, other_reason, other_location),
        (Outcome::Backends(_), Outcome::Answer { .. }) | (Outcome::Answer { .. }, Outcome::Backends(_)) => {
            false
        }
    }
}

fn shown(target: &ServicePort, sample: &Sample) -> (String, Vec<String>) {
    let ServicePort { service, port } = target;
    let ServiceName { namespace, name } = service;
    let port = match port {
        80 => String::new(),
        port => format!(":{port}"),
    };
    let query = sample
        .query
        .as_ref()
        .map_or(String::new(), |query| format!("?{query}"));
    let request = format!(
        "{} http://{name}.{namespace}{port}{}{query}",
        sample.method, sample.path
    );
    let headers = sample.headers.iter();
    let headers = headers.map(|(name, value)| format!("{name}: {}", words::text(value)));
    (request, headers.collect())
}

fn rule_changes(target: &ServicePort, old: &[Rule], new: &[Rule]) -> Vec<RuleChange> {
    let by_name = |rules: &'_ [Rule]| -> BTreeMap<String, Rule> {
        rules
            .iter()
            .map(|rule| (rule.name.to_string(), rule.clone()))
            .collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changes = names.into_iter().filter_map(|name| {
        let (change, what) = match (old.get(name), new.get(name)) {
            (None, Some(rule)) => (Change::Added, described(rule)),
            (Some(rule), None) => (Change::Removed, described(rule)),
            (Some(old), Some(new)) if old != new => (Change::Changed, altered(old, new)),
            _ => return None,
        };
        Some(RuleChange {
            destination: target.to_string(),
            rule: name.clone(),
            change,
            what,
        })
    });
    changes.collect()
}

/// The parts of a rule, in words: what each is called, and what it says.
fn parts(rule: &Rule) -> [(&'static str, String); 6] {
    let Rule {
        name: _,
        matches,
        filters,
        backends,
        timeouts,
        retry,
        session,
    } = rule;
    let joined = |words: Vec<String>, between: &str| words.join(between);
    let timeout = |name, time: Option<_>| time.map(|time| format!("{name} {}", words::of_duration(time)));
    [
        (
            "matches",
            joined(matches.iter().map(words::of_match).collect(), " or "),
        ),
        (
            "filters",
            joined(filters.iter().map(words::of_filter).collect(), "; "),
        ),
        (
            "backends",
            joined(backends.iter().map(of_backend).collect(), ", "),
        ),
        (
            "timeouts",
            joined(
                [
                    timeout("request", timeouts.request),
                    timeout("backendRequest", timeouts.backend_request),
                ]
                .into_iter()
                .flatten()
                .collect(),
                ", ",
            ),
        ),
        (
            "retry",
            retry.as_ref().map_or_else(String::new, |retry| {
                let of_grpc = retry.grpc_codes.iter();
                let of_grpc = of_grpc.filter_map(|code| GRPC_STATUS_NAMES.get(usize::from(*code)));
                let codes = retry.codes.iter().map(u16::to_string);
                let codes: Vec<String> = codes.chain(of_grpc.map(ToString::to_string)).collect();
                let backoff = words::of_duration(retry.backoff);
                format!(
                    "{} more attempts on {}, backoff {backoff}",
                    retry.attempts,
                    codes.join(" ")
                )
            }),
        ),
        (
            "session",
            session.as_ref().map_or_else(String::new, words::of_session),
        ),
    ]
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

fn described(rule: &Rule) -> Vec<String> {
    let parts = parts(rule).into_iter().filter(|(_, words)| !words.is_empty());
    parts.map(|(name, words)| format!("{name}: {words}")).collect()
}

fn altered(old: &Rule, new: &Rule) -> Vec<String> {
    let or_none = |words: String| {
        if words.is_empty() {
            "none".to_owned()
        } else {
            words
        }
    };
    let pairs = parts(old).into_iter().zip(parts(new));
    pairs
        .filter(|((_, old), (_, new))| old != new)
        .map(|((name, old), (_, new))| format!("{name}: {} → {}", or_none(old), or_none(new)))
        .collect()
}
