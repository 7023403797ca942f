//! `HTTPRoute` of `gateway.networking.k8s.io/v1`, experimental channel, which alone has `retry`.

use std::collections::BTreeSet;
use std::time::Duration;

use gateway_api::experimental::httproutes::{
    HttpRoute, HttpRouteRules, HttpRouteRulesMatches, HttpRouteRulesMatchesPath,
    HttpRouteRulesMatchesPathType, HttpRouteRulesMatchesQueryParams, HttpRouteRulesMatchesQueryParamsType,
    HttpRouteRulesRetry, HttpRouteRulesTimeouts, HttpRouteUseDefaultGateways,
};
use http::Method;
use model::FieldError;
use model::filter::Filter;
use model::pattern::ValuePattern;
use model::resilience::{RetryPolicy, Timeouts};
use model::route::{PathMatch, RequestMatch};

use super::check::{At, key};
use super::filter::{Filters, filters};
use super::kind::{Kind, ObjectKey};
use super::object::{RouteObject, RouteRule};
use super::route::{
    MAX_HOSTNAMES, MAX_MATCHES, MAX_MATCHES_OF_ROUTE, MAX_RULES, MAX_VALUE_MATCHES, backends, duration,
    header_matches, hostnames, parents, rule_names, same_shape, value_pattern,
};
use super::session::session;
use super::shadow;

/// Most response codes of one `retry`.
const MAX_CODES: usize = 200;
/// Longest name of a query parameter, in bytes.
const MAX_QUERY_NAME_BYTES: usize = 256;

pub(super) fn route(at: &At<'_>, route: HttpRoute) -> Option<RouteObject> {
    let key = key(at, Kind::HttpRoute, &route.metadata)?;
    let shadow = shadow::marker(at, &route.metadata);
    let (at, spec) = (at.field("spec"), route.spec);
    let uses_default_gateways = matches!(spec.use_default_gateways, Some(HttpRouteUseDefaultGateways::All));
    let parents = parents(&at, &key.namespace, spec.parent_refs);
    let hostnames = hostnames(&at, spec.hostnames, MAX_HOSTNAMES);
    // Gateway API's default: one rule that matches everything.
    let rules = spec.rules.unwrap_or_else(|| vec![HttpRouteRules::default()]);
    let rules = at.field("rules").items(Some(rules), MAX_RULES);
    let rules: Vec<RouteRule> = rules
        .into_iter()
        .map(|(at, rule)| route_rule(&at, &key, rule))
        .collect();
    rule_names(&at, &rules);
    if rules.iter().map(|rule| rule.matches.len()).sum::<usize>() > MAX_MATCHES_OF_ROUTE {
        at.field("rules")
            .refuse(format!("has over {MAX_MATCHES_OF_ROUTE} matches"));
    }
    Some(RouteObject {
        key,
        parents,
        uses_default_gateways,
        hostnames,
        rules,
        shadow,
    })
}

fn route_rule(at: &At<'_>, key: &ObjectKey, rule: HttpRouteRules) -> RouteRule {
    let own = &key.namespace;
    let matches = at.field("matches").items(rule.matches, MAX_MATCHES);
    let mut matches: Vec<RequestMatch> = matches
        .into_iter()
        .map(|(at, request)| request_match(&at, request))
        .collect();
    if matches.is_empty() {
        matches.push(RequestMatch::default());
    }
    let Filters {
        filters,
        lost_mirrors,
    } = filters(at, own, &matches, rule.filters);
    let backends = backends(at, own, &matches, rule.backend_refs);
    if !backends.is_empty() && filters.iter().any(|filter| matches!(filter, Filter::Redirect(_))) {
        at.field("backendRefs")
            .refuse("cannot stand beside a RequestRedirect filter: nothing is sent to a backend");
    }
    let read = RouteRule {
        name: rule.name,
        matches,
        filters,
        lost_mirrors,
        backends,
        session: session(at, key, rule.session_persistence),
        timeouts: rule
            .timeouts
            .map(|t| timeouts(&at.field("timeouts"), &t))
            .unwrap_or_default(),
        retry: rule.retry.and_then(|r| retry(&at.field("retry"), r)),
        unusable: Vec::new(),
    };
    RouteRule {
        unusable: at.take_unusable(),
        ..read
    }
}

pub(super) fn request_match(at: &At<'_>, request: HttpRouteRulesMatches) -> RequestMatch {
    let default = RequestMatch::default();
    let path = request.path.and_then(|path| path_match(&at.field("path"), path));
    let method = request
        .method
        .and_then(|method| same_shape::<String>(&at.field("method"), method));
    let method = method.and_then(|method| {
        let method = Method::from_bytes(method.as_bytes());
        at.field("method")
            .keep(method.map_err(|_| FieldError::new("is not a method")))
    });
    RequestMatch {
        path: path.unwrap_or(default.path),
        method,
        headers: header_matches(at, request.headers),
        query: query_matches(at, request.query_params),
        grpc_only: false,
    }
}

fn path_match(at: &At<'_>, path: HttpRouteRulesMatchesPath) -> Option<PathMatch> {
    let value = path.value.as_deref().unwrap_or("/");
    let at = at.field("value");
    match path.r#type {
        Some(HttpRouteRulesMatchesPathType::Exact) => at.keep(PathMatch::exact(value)),
        None | Some(HttpRouteRulesMatchesPathType::PathPrefix) => at.keep(PathMatch::prefix(value)),
        Some(HttpRouteRulesMatchesPathType::RegularExpression) => at.usable(PathMatch::regex(value)),
    }
}

/// Of several entries with one name only the first counts (Gateway API).
fn query_matches(
    at: &At<'_>,
    list: Option<Vec<HttpRouteRulesMatchesQueryParams>>,
) -> Vec<(String, ValuePattern)> {
    let mut seen = BTreeSet::new();
    let mut matches = Vec::new();
    for (at, query) in at.field("queryParams").items(list, MAX_VALUE_MATCHES) {
        if query.name.is_empty() || query.name.len() > MAX_QUERY_NAME_BYTES {
            at.field("name").refuse(format!(
                "a query parameter's name has 1-{MAX_QUERY_NAME_BYTES} bytes"
            ));
        }
        let regex = query.r#type == Some(HttpRouteRulesMatchesQueryParamsType::RegularExpression);
        if let Some(pattern) = value_pattern(&at.field("value"), regex, query.value)
            && seen.insert(query.name.clone())
        {
            matches.push((query.name, pattern));
        }
    }
    matches
}

fn timeouts(at: &At<'_>, timeouts: &HttpRouteRulesTimeouts) -> Timeouts {
    let request = timeouts
        .request
        .as_ref()
        .and_then(|text| duration(&at.field("request"), text));
    let backend = timeouts
        .backend_request
        .as_ref()
        .and_then(|text| duration(&at.field("backendRequest"), text));
    at.keep(Timeouts::new(request, backend)).unwrap_or_default()
}

fn retry(at: &At<'_>, retry: HttpRouteRulesRetry) -> Option<RetryPolicy> {
    let codes = at.field("codes").items(retry.codes, MAX_CODES);
    let codes: BTreeSet<u16> = codes
        .into_iter()
        .filter_map(|(at, code)| at.keep(retry_code(code)))
        .collect();
    let attempts = match retry.attempts {
        None => RetryPolicy::DEFAULT_ATTEMPTS,
        Some(attempts) => {
            let at = at.field("attempts");
            let why = |_| FieldError::new(format!("{attempts} is not 0-{}", RetryPolicy::MAX_ATTEMPTS));
            let read = u8::try_from(attempts).map_err(why);
            match attempts < 0 {
                true => at.keep(read)?,
                false => at.usable(read)?,
            }
        }
    };
    let backoff = match &retry.backoff {
        None => RetryPolicy::DEFAULT_BACKOFF,
        Some(backoff) => duration(&at.field("backoff"), backoff)?,
    };
    at.usable(RetryPolicy::new(codes, attempts, backoff))
}

/// One code alone, so that its error stands at its own place in the list.
fn retry_code(code: i64) -> Result<u16, FieldError> {
    let status =
        u16::try_from(code).map_err(|_| FieldError::new(format!("{code} is not a status of 400-599")))?;
    RetryPolicy::new(BTreeSet::from([status]), 0, Duration::ZERO)
        .map(|_| status)
        .map_err(|error| FieldError::new(error.why))
}
