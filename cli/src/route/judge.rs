//! Holds what a test expects against what became of its request.

use std::collections::BTreeMap;

use control_plane::rehearsal::{Explanation, HeaderChange, Outcome as End, Share};

use super::file::{BackendName, Expect, Headers};
use crate::diff::of_end;
use crate::explain::{of_change, percent};

/// One expectation that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) expected: String,
    pub(super) got: String,
}

/// Everything that does not hold, in the order in which a test says it.
pub(super) fn faults(expect: &Expect, explanation: &Explanation) -> Vec<Fault> {
    let end = &explanation.outcome;
    let rule = explanation.rule.as_ref().map(|rule| rule.name.as_str());
    let mut faults = Vec::new();
    let mut must = |what, holds: bool, expected: String, got: String| {
        if !holds {
            faults.push(Fault { what, expected, got });
        }
    };
    let none = || "none".to_owned();
    if let Some(expected) = &expect.route {
        let route = rule
            .and_then(|rule| rule.rsplit_once('#'))
            .map(|(route, _)| route);
        must(
            "route",
            route == Some(expected),
            expected.clone(),
            route.map_or_else(none, str::to_owned),
        );
    }
    if let Some(expected) = &expect.rule {
        must(
            "rule",
            rule == Some(expected),
            expected.clone(),
            rule.map_or_else(none, str::to_owned),
        );
    }
    if let Some(expected) = &expect.backend {
        let all = [(expected.clone(), 100.0)];
        must(
            "backend",
            has_shares(end, &all, expect.tolerance),
            expected.to_string(),
            of_end(end),
        );
    }
    if !expect.backends.is_empty() {
        let expected = &expect.backends;
        let words: Vec<String> = expected
            .iter()
            .map(|(name, share)| format!("{name} {}", percent(*share)))
            .collect();
        must(
            "backends",
            has_shares(end, expected, expect.tolerance),
            words.join(", "),
            of_end(end),
        );
    }
    if let Some(expected) = expect.status {
        must(
            "status",
            status(end) == Some(expected),
            expected.to_string(),
            of_end(end),
        );
    }
    if let Some(expected) = &expect.location {
        let got = match end {
            End::Answer { location, .. } => location.clone(),
            End::Backends(_) | End::NoConnection { .. } => None,
        };
        must(
            "location",
            got.as_ref() == Some(expected),
            expected.clone(),
            got.unwrap_or_else(none),
        );
    }
    type OfShare = fn(&Share) -> &HeaderChange;
    let changes: [(_, _, OfShare); 2] = [
        ("headers", &expect.headers, |share| &share.request_headers),
        ("responseHeaders", &expect.response_headers, |share| {
            &share.response_headers
        }),
    ];
    for (what, expected, of_share) in changes {
        let Some(expected) = expected else { continue };
        let shares = match end {
            End::Backends(shares) => shares.as_slice(),
            End::Answer { .. } | End::NoConnection { .. } => &[],
        };
        let mut met = shares
            .iter()
            .filter(|share| share.weight > 0)
            .map(of_share)
            .peekable();
        let nowhere = met.peek().is_none();
        match met.find(|change| !holds(expected, change)) {
            Some(change) => must(what, false, of_headers(expected), of_change(change)),
            None => must(what, !nowhere, of_headers(expected), of_end(end)),
        }
    }
    faults
}

/// Whether these backends have these shares, and nobody else has any.
fn has_shares(end: &End, expected: &[(BackendName, f64)], tolerance: f64) -> bool {
    let End::Backends(shares) = end else { return false };
    let mut left: BTreeMap<usize, f64> = expected.iter().map(|(_, share)| *share).enumerate().collect();
    for share in shares.iter().filter(|share| share.weight > 0) {
        let named = expected
            .iter()
            .position(|(name, _)| is_named(name, &share.backend));
        // A share of a reference that does not resolve is answered with 500, and goes nowhere.
        let at = named.filter(|_| share.unresolved.is_none());
        match at.and_then(|at| left.get_mut(&at)) {
            Some(rest) => *rest -= share.percent,
            None => return false,
        }
    }
    left.values().all(|rest| rest.abs() <= tolerance)
}

/// `backend` is `namespace/name:port`.
fn is_named(name: &BackendName, backend: &str) -> bool {
    let Ok(is) = backend.parse::<BackendName>() else {
        return false;
    };
    is.name == name.name
        && (name.namespace.is_none() || name.namespace == is.namespace)
        && (name.port.is_none() || name.port == is.port)
}

/// The status that the proxy answers with itself; 500 where no backend resolves.
fn status(end: &End) -> Option<u16> {
    match end {
        End::NoConnection { .. } => None,
        End::Answer { status, .. } => Some(*status),
        End::Backends(shares) => {
            let mut used = shares.iter().filter(|share| share.weight > 0);
            used.all(|share| share.unresolved.is_some()).then_some(500)
        }
    }
}

fn holds(expected: &Headers, change: &HeaderChange) -> bool {
    let is_set =
        |(name, value): (&String, &String)| change.set.get(&name.to_ascii_lowercase()) == Some(value);
    expected.set.iter().all(is_set)
        && expected
            .removed
            .iter()
            .all(|name| change.removed.contains(&name.to_ascii_lowercase()))
}

fn of_headers(headers: &Headers) -> String {
    of_change(&HeaderChange {
        set: headers.set.clone(),
        removed: headers.removed.iter().cloned().collect(),
    })
}
