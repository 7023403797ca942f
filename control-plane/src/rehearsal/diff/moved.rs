//! Which requests end elsewhere: one is tried for every match of every rule, before or after.

use std::collections::BTreeSet;

use decision::traffic::route::Sample;
use model::gateway::Transport;
use model::route::{RequestMatch, Rule};
use model::{Hostname, ServiceName};

use super::super::called::{Called, Edge, http_routes};
use super::super::explanation::{Outcome, Share};
use super::super::outcome::refused;
use super::super::{Rehearsed, words};
use super::{Difference, Moved};

/// A label that stands in a sample for whatever a wildcard means.
const ANY_LABEL: &str = "any";
/// A host that stands for every host.
const ANY_HOST: &str = "any.example";

/// One of the meshes, and what is met in it, if it is there.
type In<'a, T> = (&'a Rehearsed<'a>, Option<&'a T>);

/// Tries requests to a service.
pub(super) fn to_service(
    service: &ServiceName,
    by: &str,
    before: In<'_, Called>,
    after: In<'_, Called>,
    difference: &mut Difference,
) {
    let both = || [before.1, after.1].into_iter().flatten();
    let ports: BTreeSet<u16> = both()
        .flat_map(|called| called.destination.ports.keys().copied())
        .collect();
    for port in ports {
        let rules = both().filter_map(|called| called.destination.ports.get(&port));
        let rules = rules.flat_map(|port| &port.rules);
        let ServiceName { namespace, name } = service;
        let base = match port {
            80 => format!("http://{name}.{namespace}"),
            port => format!("http://{name}.{namespace}:{port}"),
        };
        let end = |(mesh, called): In<'_, Called>, sample: &Sample| match called {
            Some(called) => called.end(mesh, port, &sample.view()),
            None => {
                let why = format!("Service {service} does not exist");
                refused(decision::Reason::UnknownService, why)
            }
        };
        for sample in samples(rules, &mut difference.untried) {
            let ends = (end(before, &sample), end(after, &sample));
            note(&base, by, &sample, ends, difference);
        }
    }
}

/// Tries requests through a gateway.
pub(super) fn through(
    gateway: &ServiceName,
    before: In<'_, Edge>,
    after: In<'_, Edge>,
    difference: &mut Difference,
) {
    let both = || [before.1, after.1].into_iter().flatten();
    // Each host name of each port.
    let mut places: BTreeSet<(u16, bool, String)> = BTreeSet::new();
    for listener in both().flat_map(|edge| &edge.gateway.listeners) {
        let by_tls = listener.serves.transport() == Transport::Tls;
        let names = http_routes(listener)
            .into_iter()
            .flat_map(|routes| routes.hosts.keys());
        places.extend(names.map(|name| (listener.port, by_tls, sample_of(name))));
    }
    for (port, by_tls, host) in places {
        let rules = both().flat_map(|edge| &edge.gateway.listeners);
        let rules = rules
            .filter(|listener| listener.port == port)
            .filter_map(http_routes);
        let rules = rules.flat_map(|routes| {
            let names = routes.hosts.iter().filter(|(name, _)| name.fits(&host));
            let places = names.flat_map(|(_, places)| places);
            places.filter_map(|place| routes.rules.get(*place))
        });
        let base = match (by_tls, port) {
            (false, 80) => format!("http://{host}"),
            (true, 443) => format!("https://{host}"),
            (by_tls, port) => format!("http{}://{host}:{port}", if by_tls { "s" } else { "" }),
        };
        let end = |(mesh, edge): In<'_, Edge>, sample: &Sample| match edge {
            Some(edge) => edge.end(mesh, (port, by_tls, &host), &sample.view()),
            None => Outcome::NoConnection {
                why: format!("Gateway {gateway} does not exist"),
            },
        };
        let by = format!(" through {gateway}");
        for sample in samples(rules, &mut difference.untried) {
            let ends = (end(before, &sample), end(after, &sample));
            note(&base, &by, &sample, ends, difference);
        }
    }
}

/// A request for each match, each once, and the plainest of all.
fn samples<'r>(rules: impl Iterator<Item = &'r Rule>, untried: &mut usize) -> Vec<Sample> {
    let plain = RequestMatch::default();
    let mut samples: Vec<Sample> = Sample::of(&plain).into_iter().collect();
    let mut seen: BTreeSet<_> = samples.iter().map(|sample| shown("", sample)).collect();
    for wanted in rules.flat_map(|rule| &rule.matches) {
        match Sample::of(wanted) {
            Some(sample) => {
                if seen.insert(shown("", &sample)) {
                    samples.push(sample);
                }
            }
            None => *untried += 1,
        }
    }
    samples
}

/// A host that a name means.
fn sample_of(name: &Hostname) -> String {
    match name {
        Hostname::Any => ANY_HOST.to_owned(),
        Hostname::Under(suffix) => format!("{ANY_LABEL}.{suffix}"),
        Hostname::Exact(name) => name.to_string(),
    }
}

fn note(base: &str, by: &str, sample: &Sample, ends: (Outcome, Outcome), difference: &mut Difference) {
    let (before, after) = ends;
    if is_same_end(&before, &after) {
        return;
    }
    let (request, headers) = shown(base, sample);
    difference.moved.push(Moved {
        request,
        by: by.to_owned(),
        headers,
        before,
        after,
    });
}

fn shown(base: &str, sample: &Sample) -> (String, Vec<String>) {
    let query = sample
        .query
        .as_ref()
        .map_or(String::new(), |query| format!("?{query}"));
    let request = format!("{} {base}{}{query}", sample.method, sample.path);
    let headers = sample.headers.iter();
    let headers = headers.map(|(name, value)| format!("{name}: {}", words::text(value)));
    (request, headers.collect())
}

/// Whether requests go to the same places in the same shares, or get the same answer.
fn is_same_end(one: &Outcome, other: &Outcome) -> bool {
    match (one, other) {
        (Outcome::Backends(one), Outcome::Backends(other)) => {
            let shares = |shares: &[Share]| -> Vec<(String, bool, u64)> {
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
        (Outcome::NoConnection { .. }, Outcome::NoConnection { .. }) => true,
        _ => false,
    }
}
