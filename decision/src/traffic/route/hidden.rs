//! Which rules can never be followed, because others take everything that they match: a mistake more often than not.

use model::pattern::ValuePattern;
use model::route::{PathMatch, RequestMatch, Rule};

use super::super::first_of_each_name;
use super::{Summary, path_fits};

/// A rule that no request follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hidden {
    /// Its place.
    pub rule: usize,
    /// The place of a rule that takes precedence.
    pub by: usize,
}

/// Those of the rules that `of_interest` names which no request can follow. What expressions mean together is not
/// worked out: a rule may be hidden all the same, but one that is told is.
pub fn hidden(rules: &[&Rule], of_interest: impl Fn(&Rule) -> bool) -> Vec<Hidden> {
    let rules_of_interest = rules.iter().enumerate().filter(|(_, rule)| of_interest(rule));
    rules_of_interest
        .filter_map(|(place, rule)| {
            let mut hiding = rule.matches.iter().map(|wanted| hiding(rules, place, wanted));
            // A rule without matches is none; one match that is met makes it reached.
            let by = hiding.next()??;
            hiding
                .all(|other| other.is_some())
                .then_some(Hidden { rule: place, by })
        })
        .collect()
}

/// The rule that takes every request that a match of the rule at `place` fits.
fn hiding(rules: &[&Rule], place: usize, wanted: &RequestMatch) -> Option<usize> {
    let summary = Summary::of(wanted);
    let others = rules.iter().enumerate().filter(|(other, _)| *other != place);
    others
        .flat_map(|(other, rule)| rule.matches.iter().map(move |ahead| (other, ahead)))
        .find(|(other, ahead)| {
            let ahead_summary = Summary::of(ahead);
            let is_ahead = ahead_summary > summary || (ahead_summary == summary && *other < place);
            is_ahead && takes_all(ahead, wanted)
        })
        .map(|(other, _)| other)
}

/// Whether every request that fits the second match fits the first.
fn takes_all(first: &RequestMatch, second: &RequestMatch) -> bool {
    let is_pattern_met = |wanted: &ValuePattern, given: &ValuePattern| match (wanted, given) {
        (ValuePattern::Exact(wanted), ValuePattern::Exact(given)) => wanted == given,
        (ValuePattern::Regex(wanted), ValuePattern::Exact(given)) => wanted.is_match(given),
        (ValuePattern::Regex(wanted), ValuePattern::Regex(given)) => wanted == given,
        (ValuePattern::Exact(_), ValuePattern::Regex(_)) => false,
    };
    (second.grpc_only || !first.grpc_only)
        && (first.method.is_none() || first.method == second.method)
        && takes_all_paths(&first.path, &second.path)
        && first_of_each_name(&first.headers).all(|(name, wanted)| {
            let mut given = first_of_each_name(&second.headers);
            given.any(|(other, given)| name == other && is_pattern_met(wanted, given))
        })
        && first_of_each_name(&first.query).all(|(name, wanted)| {
            let mut given = first_of_each_name(&second.query);
            given.any(|(other, given)| name == other && is_pattern_met(wanted, given))
        })
}

fn takes_all_paths(first: &PathMatch, second: &PathMatch) -> bool {
    match (first, second) {
        (PathMatch::Prefix(prefix), _) if prefix == "/" => true,
        // What is under the second prefix is under the first where the second itself is.
        (PathMatch::Prefix(_), PathMatch::Exact(path) | PathMatch::Prefix(path)) => path_fits(first, path),
        (_, PathMatch::Exact(path)) => path_fits(first, path),
        (PathMatch::Regex(first), PathMatch::Regex(second)) => first == second,
        (PathMatch::Exact(_) | PathMatch::Regex(_), PathMatch::Prefix(_))
        | (PathMatch::Exact(_) | PathMatch::Prefix(_), PathMatch::Regex(_)) => false,
    }
}
