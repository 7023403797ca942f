//! What a policy says about requests: how long they may take, and when they are tried again.

use std::collections::BTreeSet;
use std::time::Duration;

use model::resilience::{RetryPolicy, Timeouts, grpc_status_by_name};
use model::traffic_policy::{AdaptiveConcurrency, ConcurrencyKind, HedgeDelay, Hedging, RetryConstraint};

use super::percentage;
use super::spec::{self, Trigger};
use crate::sources::check::At;
use crate::sources::route::duration;

/// What Envoy Gateway takes for `retryOn`, where it is not given.
const DEFAULT_TRIGGERS: [Trigger; 5] = [
    Trigger::ConnectFailure,
    Trigger::RefusedStream,
    Trigger::Unavailable,
    Trigger::Cancelled,
    Trigger::RetriableStatusCodes,
];

pub(super) fn retry(at: &At<'_>, retry: spec::Retry) -> Option<RetryPolicy> {
    let (triggers, codes) = match retry.retry_on {
        Some(on) => (on.triggers.unwrap_or_default(), on.http_status_codes),
        None => (DEFAULT_TRIGGERS.to_vec(), Some(vec![503])),
    };
    let at_on = at.field("retryOn");
    let mut on = BTreeSet::new();
    for trigger in &triggers {
        on.extend(codes_of(*trigger));
    }
    let is_named = triggers.contains(&Trigger::RetriableStatusCodes);
    match codes {
        Some(codes) if is_named || codes.is_empty() => on.extend(codes),
        Some(_) => at_on
            .field("httpStatusCodes")
            .refuse("counts only with the trigger retriable-status-codes"),
        None if is_named => at_on.refuse("httpStatusCodes is missing, which retriable-status-codes asks for"),
        None => {}
    }
    let attempts = retry
        .num_retries
        .unwrap_or(u32::from(RetryPolicy::DEFAULT_ATTEMPTS));
    let Ok(attempts) = u8::try_from(attempts) else {
        at.field("numRetries")
            .refuse(format!("{attempts} is over {}", RetryPolicy::MAX_ATTEMPTS));
        return None;
    };
    let base = retry.per_retry.and_then(|per| per.back_off?.base_interval);
    let at_base = at.field("perRetry").field("backOff").field("baseInterval");
    let backoff = base.map_or(Some(RetryPolicy::DEFAULT_BACKOFF), |text| {
        duration(&at_base, &text)
    });
    let grpc: BTreeSet<u8> = triggers.iter().filter_map(|trigger| grpc_of(*trigger)).collect();
    let policy = RetryPolicy::new(on, attempts, backoff?);
    match policy.and_then(|policy| policy.with_grpc_codes(grpc)) {
        Ok(policy) => Some(policy),
        Err(error) => {
            // Its fields have other names here.
            let at = match error.path.to_string().as_str() {
                "codes" => at_on.field("httpStatusCodes"),
                "attempts" => at.field("numRetries"),
                _ => at_base,
            };
            at.refuse(error.why);
            None
        }
    }
}

/// Connections that fail, break or are refused are always worth another attempt where there is a policy.
fn codes_of(trigger: Trigger) -> Vec<u16> {
    match trigger {
        Trigger::ServerErrors => (500..=599).collect(),
        Trigger::GatewayError => vec![502, 503, 504],
        Trigger::RetriableClientErrors => vec![409],
        Trigger::Reset
        | Trigger::ResetBeforeRequest
        | Trigger::ConnectFailure
        | Trigger::RefusedStream
        | Trigger::RetriableStatusCodes
        | Trigger::Cancelled
        | Trigger::DeadlineExceeded
        | Trigger::Internal
        | Trigger::ResourceExhausted
        | Trigger::Unavailable => Vec::new(),
    }
}

/// Triggers that are statuses of gRPC.
fn grpc_of(trigger: Trigger) -> Option<u8> {
    let name = match trigger {
        Trigger::Cancelled => "CANCELLED",
        Trigger::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Trigger::Internal => "INTERNAL",
        Trigger::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Trigger::Unavailable => "UNAVAILABLE",
        _ => return None,
    };
    grpc_status_by_name(name)
}

/// `None` where neither is given.
pub(super) fn timeouts(
    at: &At<'_>,
    http: Option<&spec::HttpTimeout>,
    per_retry: Option<&spec::PerRetry>,
) -> Option<Timeouts> {
    let at_request = at.field("timeout").field("http").field("requestTimeout");
    let request = http.and_then(|http| duration(&at_request, http.request_timeout.as_ref()?));
    let at_attempt = at.field("retry").field("perRetry").field("timeout");
    let attempt = per_retry.and_then(|per| duration(&at_attempt, per.timeout.as_ref()?));
    if request.is_none() && attempt.is_none() {
        return None;
    }
    match Timeouts::new(request, attempt) {
        Ok(timeouts) => Some(timeouts),
        Err(_) => {
            at_attempt.refuse("is longer than timeout.http.requestTimeout");
            None
        }
    }
}

pub(super) fn retry_constraint(at: &At<'_>, constraint: spec::RetryConstraint) -> RetryConstraint {
    let default = RetryConstraint::default();
    let time = |at: &At<'_>, text: Option<String>, default: Duration| {
        text.and_then(|text| duration(&at.field("interval"), &text))
            .unwrap_or(default)
    };
    let budget = constraint.budget.unwrap_or_default();
    let rate = constraint.min_retry_rate.unwrap_or_default();
    let at_budget = at.field("budget");
    RetryConstraint {
        percent: budget.percent.map_or(default.percent, |percent| {
            percentage(&at_budget.field("percent"), percent)
        }),
        interval: time(&at_budget, budget.interval, default.interval),
        min_count: rate.count.unwrap_or(default.min_count),
        min_interval: time(&at.field("minRetryRate"), rate.interval, default.min_interval),
    }
}

pub(super) fn hedging(at: &At<'_>, hedging: &spec::Hedging) -> Option<Hedging> {
    let delay = match (&hedging.delay, hedging.percentile) {
        (Some(_), Some(_)) => {
            at.refuse("delay and percentile are both given");
            return None;
        }
        (Some(delay), None) => HedgeDelay::After(duration(&at.field("delay"), delay)?),
        (None, percentile) => HedgeDelay::Percentile(percentile.unwrap_or(95)),
    };
    Some(Hedging {
        delay,
        max_attempts: hedging.max_attempts.unwrap_or(2),
        grpc: hedging.grpc.unwrap_or_default(),
    })
}

pub(super) fn concurrency(at: &At<'_>, adaptive: &spec::AdaptiveConcurrency) -> AdaptiveConcurrency {
    let default = AdaptiveConcurrency::default();
    let interval = adaptive.interval.as_ref();
    let interval = interval.and_then(|text| duration(&at.field("interval"), text));
    AdaptiveConcurrency {
        kind: match adaptive.r#type {
            None | Some(spec::ConcurrencyType::Gradient) => ConcurrencyKind::Gradient,
            Some(spec::ConcurrencyType::Aimd) => ConcurrencyKind::Aimd,
        },
        min: adaptive.min_concurrency.unwrap_or(default.min),
        max: adaptive.max_concurrency.unwrap_or(default.max),
        interval: interval.unwrap_or(default.interval),
    }
}
