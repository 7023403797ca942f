//! Rules of routes: matches, backends, timeouts and retries.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use model::FieldError;
use model::pattern::{Regex, ValuePattern};
use model::resilience::{RetryPolicy, Timeouts};
use model::route::{Backend, PathMatch, RequestMatch, Rule};

use super::fault::{fault_from_wire, fault_to_wire};
use super::filter::{filter_to_wire, filters_from_wire};
use super::read::{items, millis, parse};
use super::session::{session_from_wire, session_to_wire};
use super::shadow::{policy_shadow_from_wire, policy_shadow_to_wire};
use super::traffic_policy::{traffic_policy_from_wire, traffic_policy_to_wire};
use crate::v1;

pub(super) fn rule_to_wire(rule: &Rule) -> v1::Rule {
    v1::Rule {
        name: rule.name.to_string(),
        matches: rule.matches.iter().map(match_to_wire).collect(),
        filters: rule.filters.iter().map(filter_to_wire).collect(),
        backends: rule.backends.iter().map(backend_to_wire).collect(),
        request_timeout_ms: rule.timeouts.request.map(millis),
        backend_request_timeout_ms: rule.timeouts.backend_request.map(millis),
        retry: rule.retry.as_ref().map(retry_to_wire),
        session: rule.session.as_ref().map(session_to_wire),
        policy: rule.policy.as_deref().map(traffic_policy_to_wire),
        faults: rule.faults.iter().map(fault_to_wire).collect(),
        shadow: rule.shadow.as_deref().map(policy_shadow_to_wire),
    }
}

pub(super) fn rule_from_wire(wire: &v1::Rule) -> Result<Rule, FieldError> {
    if wire.matches.is_empty() {
        return Err(FieldError::at(
            "matches",
            "is empty: everything is one match of the prefix \"/\"",
        ));
    }
    let time = |ms: Option<u64>| ms.map(Duration::from_millis);
    Ok(Rule {
        name: wire.name.as_str().into(),
        matches: items("matches", &wire.matches, match_from_wire)?,
        filters: filters_from_wire(&wire.filters)?,
        backends: items("backends", &wire.backends, backend_from_wire)?,
        // Its error is in the words of the configuration: here the field has another name.
        timeouts: Timeouts::new(
            time(wire.request_timeout_ms),
            time(wire.backend_request_timeout_ms),
        )
        .map_err(|error| FieldError::at("backend_request_timeout_ms", error.why))?,
        retry: match &wire.retry {
            Some(retry) => Some(retry_from_wire(retry).map_err(|error| error.within("retry"))?),
            None => None,
        },
        session: match &wire.session {
            Some(session) => Some(session_from_wire(session).map_err(|error| error.within("session"))?),
            None => None,
        },
        policy: match &wire.policy {
            Some(policy) => {
                let read = traffic_policy_from_wire(policy).map_err(|error| error.within("policy"))?;
                Some(Arc::new(read))
            }
            None => None,
        },
        faults: items("faults", &wire.faults, fault_from_wire)?,
        shadow: match &wire.shadow {
            Some(shadow) => {
                let read = policy_shadow_from_wire(shadow).map_err(|error| error.within("shadow"))?;
                Some(Arc::new(read))
            }
            None => None,
        },
    })
}

pub(super) fn match_to_wire(wanted: &RequestMatch) -> v1::RequestMatch {
    use v1::path_match::Path;
    let path = match &wanted.path {
        PathMatch::Exact(path) => Path::Exact(path.clone()),
        PathMatch::Prefix(path) => Path::Prefix(path.clone()),
        PathMatch::Regex(regex) => Path::Regex(regex.source().to_owned()),
    };
    v1::RequestMatch {
        path: Some(v1::PathMatch { path: Some(path) }),
        method: wanted
            .method
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        headers: wanted
            .headers
            .iter()
            .map(|(name, pattern)| value_to_wire(name.as_str(), pattern))
            .collect(),
        query: wanted
            .query
            .iter()
            .map(|(name, pattern)| value_to_wire(name, pattern))
            .collect(),
        grpc_only: wanted.grpc_only,
    }
}

pub(super) fn match_from_wire(wire: &v1::RequestMatch) -> Result<RequestMatch, FieldError> {
    use v1::path_match::Path;
    let path = match wire.path.as_ref().and_then(|path| path.path.as_ref()) {
        Some(Path::Exact(path)) => PathMatch::exact(path).map_err(|error| error.within("exact")),
        Some(Path::Prefix(path)) => PathMatch::prefix(path).map_err(|error| error.within("prefix")),
        Some(Path::Regex(regex)) => PathMatch::regex(regex).map_err(|error| error.within("regex")),
        None => Err(FieldError::new("is missing")),
    };
    Ok(RequestMatch {
        path: path.map_err(|error| error.within("path"))?,
        method: match wire.method.as_str() {
            "" => None,
            method => Some(parse::<Method>("method", method)?),
        },
        headers: items("headers", &wire.headers, |header| {
            Ok((
                parse::<HeaderName>("name", &header.name)?,
                value_from_wire(header)?,
            ))
        })?,
        query: items("query", &wire.query, |query| {
            Ok((query.name.clone(), value_from_wire(query)?))
        })?,
        grpc_only: wire.grpc_only,
    })
}

fn value_to_wire(name: &str, pattern: &ValuePattern) -> v1::ValueMatch {
    use v1::value_match::Pattern;
    let pattern = match pattern {
        ValuePattern::Exact(text) => Pattern::Exact(text.clone()),
        ValuePattern::Regex(regex) => Pattern::Regex(regex.source().to_owned()),
    };
    v1::ValueMatch {
        name: name.to_owned(),
        pattern: Some(pattern),
    }
}

fn value_from_wire(wire: &v1::ValueMatch) -> Result<ValuePattern, FieldError> {
    use v1::value_match::Pattern;
    match &wire.pattern {
        Some(Pattern::Exact(text)) => Ok(ValuePattern::Exact(text.clone())),
        Some(Pattern::Regex(regex)) => Regex::new(regex)
            .map(ValuePattern::Regex)
            .map_err(|error| error.within("regex")),
        None => Err(FieldError::at("pattern", "is missing")),
    }
}

pub(super) fn backend_to_wire(backend: &Backend) -> v1::Backend {
    v1::Backend {
        target: backend
            .target
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        reference: backend.reference.to_string(),
        weight: backend.weight,
        filters: backend.filters.iter().map(filter_to_wire).collect(),
    }
}

pub(super) fn backend_from_wire(wire: &v1::Backend) -> Result<Backend, FieldError> {
    let target = match wire.target.as_str() {
        "" => None,
        target => Some(parse("target", target)?),
    };
    Backend::new(
        target,
        &wire.reference,
        wire.weight,
        filters_from_wire(&wire.filters)?,
    )
}

pub(super) fn retry_to_wire(retry: &RetryPolicy) -> v1::RetryPolicy {
    v1::RetryPolicy {
        codes: retry.codes.iter().copied().map(u32::from).collect(),
        attempts: u32::from(retry.attempts),
        backoff_ms: millis(retry.backoff),
        grpc_codes: retry.grpc_codes.iter().copied().map(u32::from).collect(),
    }
}

pub(super) fn retry_from_wire(wire: &v1::RetryPolicy) -> Result<RetryPolicy, FieldError> {
    let codes: BTreeSet<u16> = items("codes", &wire.codes, |code| {
        u16::try_from(*code).map_err(|_| FieldError::new(format!("{code} is not a status")))
    })?
    .into_iter()
    .collect();
    let attempts = u8::try_from(wire.attempts).map_err(|_| {
        FieldError::at(
            "attempts",
            format!("{} is over {}", wire.attempts, RetryPolicy::MAX_ATTEMPTS),
        )
    })?;
    let grpc_codes: BTreeSet<u8> = items("grpc_codes", &wire.grpc_codes, |code| {
        u8::try_from(*code).map_err(|_| FieldError::new(format!("{code} is not a gRPC status")))
    })?
    .into_iter()
    .collect();
    RetryPolicy::new(codes, attempts, Duration::from_millis(wire.backoff_ms))?
        .with_grpc_codes(grpc_codes)
        .map_err(|error| FieldError::at("grpc_codes", error.why))
}
