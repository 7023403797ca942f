//! Why a request follows the rule that it does: every match in the order of precedence, and what became of it.

use std::borrow::Cow;
use std::cmp::Ordering;

use http::HeaderName;
use model::route::{RequestMatch, Rule};

use super::{HostRoutes, PathSummary, RequestView, RouteTable, Summary, field_value, path_fits, query_value};
use crate::traffic::{first_of_each_name, grpc};

/// One match of one rule, and whether a request fits it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighed<'a> {
    /// The place of its rule.
    pub rule: usize,
    /// Its place among the rule's matches.
    pub at: usize,
    pub verdict: Verdict<'a>,
}

/// What became of a match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It fits, and no other that fits takes precedence.
    Chosen,
    /// It fits, but the chosen one takes precedence.
    Hidden(Precedence),
    /// Everything about it that the request does not fit; never empty.
    Misses(Vec<Miss<'a>>),
}

/// In what the chosen match is ahead of another that fits: the first criterion in which they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// Its host name is more specific; rules of another name are met only where none of that one fits.
    Hostname,
    /// GRPCRoutes come before HTTPRoutes.
    Kind,
    /// The path of an HTTPRoute is of a more specific kind: exact, then expression, then prefix.
    PathKind,
    /// The path, or the expression, is longer.
    PathLength,
    Method,
    /// More header fields.
    Headers,
    /// More query parameters.
    Query,
    /// A longer name of the gRPC service.
    GrpcService,
    /// A longer name of the gRPC method.
    GrpcMethod,
    /// Both are equally specific, and the chosen one stands first: in an older route, or earlier in the same one.
    Order,
}

/// One thing that a match wants and a request has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss<'a> {
    Path,
    Method,
    /// It is for gRPC alone.
    NotGrpc,
    /// With what the request has, if it has the field.
    Header(&'a HeaderName, Option<Cow<'a, str>>),
    /// With what the request has, if it has the parameter.
    Query(&'a str, Option<Cow<'a, str>>),
}

impl RouteTable {
    /// Weighs a request against every match of `rules`, those of which the table was compiled, in the order of their
    /// precedence. The rule of the one that is [`Verdict::Chosen`] is what [`RouteTable::choose`] chooses.
    pub fn explain<'a>(&self, rules: &'a [Rule], request: &RequestView<'a>) -> Vec<Weighed<'a>> {
        let is_grpc = grpc::is_grpc(request.headers);
        let mut chosen: Option<Summary> = None;
        let by_precedence = self.by_precedence().filter_map(|(rule, at)| {
            let wanted = rules.get(rule)?.matches.get(at)?;
            Some((rule, at, wanted))
        });
        let weighed = by_precedence.map(|(rule, at, wanted)| {
            let misses = misses(wanted, request, is_grpc);
            let summary = Summary::of(wanted);
            let verdict = match chosen {
                _ if !misses.is_empty() => Verdict::Misses(misses),
                Some(chosen) => Verdict::Hidden(Precedence::of(&chosen, &summary)),
                None => {
                    chosen = Some(summary);
                    Verdict::Chosen
                }
            };
            Weighed { rule, at, verdict }
        });
        weighed.collect()
    }
}

impl HostRoutes {
    /// As [`RouteTable::explain`], for each host name that means `host`, the most specific first.
    pub fn explain<'a>(
        &self,
        rules: &'a [Rule],
        host: &str,
        request: &RequestView<'a>,
    ) -> Vec<Vec<Weighed<'a>>> {
        let mut is_chosen = false;
        let explained = self.fitting(host).map(|table| {
            let mut weighed = table.explain(rules, request);
            for weighed in &mut weighed {
                if is_chosen && !matches!(weighed.verdict, Verdict::Misses(_)) {
                    weighed.verdict = Verdict::Hidden(Precedence::Hostname);
                }
            }
            is_chosen |= weighed.iter().any(|weighed| weighed.verdict == Verdict::Chosen);
            weighed
        });
        explained.collect()
    }
}

impl Precedence {
    /// Why `first` comes before `second`.
    fn of(first: &Summary, second: &Summary) -> Self {
        let differing = |criteria: &[(Ordering, Self)]| {
            let decides = criteria.iter().find(|(order, _)| *order != Ordering::Equal);
            decides.map_or(Self::Order, |(_, criterion)| *criterion)
        };
        match (first, second) {
            (
                Summary::Http {
                    path,
                    method,
                    headers,
                    query,
                },
                Summary::Http {
                    path: other_path,
                    method: other_method,
                    headers: other_headers,
                    query: other_query,
                },
            ) => differing(&[
                (path.cmp(other_path), Self::of_paths(path, other_path)),
                (method.cmp(other_method), Self::Method),
                (headers.cmp(other_headers), Self::Headers),
                (query.cmp(other_query), Self::Query),
            ]),
            (
                Summary::Grpc {
                    service,
                    method,
                    headers,
                },
                Summary::Grpc {
                    service: other_service,
                    method: other_method,
                    headers: other_headers,
                },
            ) => differing(&[
                (service.cmp(other_service), Self::GrpcService),
                (method.cmp(other_method), Self::GrpcMethod),
                (headers.cmp(other_headers), Self::Headers),
            ]),
            (Summary::Http { .. }, Summary::Grpc { .. }) | (Summary::Grpc { .. }, Summary::Http { .. }) => {
                Self::Kind
            }
        }
    }

    fn of_paths(first: &PathSummary, second: &PathSummary) -> Self {
        if std::mem::discriminant(first) == std::mem::discriminant(second) {
            Self::PathLength
        } else {
            Self::PathKind
        }
    }
}

fn misses<'a>(wanted: &'a RequestMatch, request: &RequestView<'a>, is_grpc: bool) -> Vec<Miss<'a>> {
    let RequestMatch {
        path,
        method,
        headers,
        query,
        grpc_only,
    } = wanted;
    let mut misses = Vec::new();
    if *grpc_only && !is_grpc {
        misses.push(Miss::NotGrpc);
    }
    if !path_fits(path, request.path) {
        misses.push(Miss::Path);
    }
    if method.as_ref().is_some_and(|method| method != request.method) {
        misses.push(Miss::Method);
    }
    for (name, pattern) in first_of_each_name(headers) {
        let value = field_value(request.headers, name);
        if !value.as_ref().is_some_and(|value| pattern.is_match(value)) {
            misses.push(Miss::Header(name, value));
        }
    }
    for (name, pattern) in first_of_each_name(query) {
        let value = query_value(request.query, name);
        if !value.as_ref().is_some_and(|value| pattern.is_match(value)) {
            misses.push(Miss::Query(name, value));
        }
    }
    misses
}
