//! `FaultInjectionPolicy` of `weft.dev/v1alpha1`: whose requests are delayed or aborted on purpose. What is in `delay` and
//! `abort` is named as in Envoy Gateway's `faultInjection`, and `matches` as in an HTTPRoute's rule.

use gateway_api::experimental::httproutes::HttpRouteRulesMatches;
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::FieldError;
use model::fault::{AbortStatus, Fault, FaultAbort, FaultDelay, Share};
use serde::Deserialize;

use super::check::{At, key};
use super::http_route::request_match;
use super::kind::{Kind, ObjectKey};
use super::route::{MAX_MATCHES, duration};
use super::shadow::{self, Shadow};
use super::traffic_policy::{TargetRef, TrafficTarget, targets};

/// A FaultInjectionPolicy, whose targets may not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultPolicy {
    pub key: ObjectKey,
    /// Never empty.
    pub targets: Vec<TrafficTarget>,
    pub fault: Fault,
    /// `None` for a policy that is in force.
    pub shadow: Option<Shadow>,
}

#[derive(Debug, Deserialize)]
pub(super) struct FaultInjectionPolicy {
    #[serde(default)]
    metadata: ObjectMeta,
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    target_refs: Option<Vec<TargetRef>>,
    matches: Option<Vec<HttpRouteRulesMatches>>,
    delay: Option<Delay>,
    abort: Option<Abort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Delay {
    fixed_delay: Option<String>,
    percentage: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Abort {
    http_status: Option<i64>,
    grpc_status: Option<i64>,
    percentage: Option<f64>,
}

pub(super) fn policy(at: &At<'_>, policy: FaultInjectionPolicy) -> Option<FaultPolicy> {
    let key = key(at, Kind::FaultInjectionPolicy, &policy.metadata);
    let shadow = shadow::marker(at, &policy.metadata);
    let (at, spec) = (at.field("spec"), policy.spec);
    let targets = targets(&at, spec.target_refs);
    let matches = at.field("matches").items(spec.matches, MAX_MATCHES);
    let matches = matches
        .into_iter()
        .map(|(at, request)| request_match(&at, request));
    let matches = matches.collect();
    let delay = spec.delay.map(|given| delay(&at.field("delay"), &given));
    let abort = spec.abort.map(|given| abort(&at.field("abort"), &given));
    let key = key?;
    let read = Fault::new(&key.to_string(), matches, delay.flatten(), abort.flatten());
    Some(FaultPolicy {
        fault: at.keep(read)?,
        key,
        targets,
        shadow,
    })
}

fn delay(at: &At<'_>, delay: &Delay) -> Option<FaultDelay> {
    let Some(time) = &delay.fixed_delay else {
        at.refuse("fixedDelay is missing");
        return None;
    };
    let share = share(at, delay.percentage);
    Some(FaultDelay {
        time: duration(&at.field("fixedDelay"), time)?,
        share: share?,
    })
}

fn abort(at: &At<'_>, abort: &Abort) -> Option<FaultAbort> {
    let share = share(at, abort.percentage);
    let status = match (abort.http_status, abort.grpc_status) {
        (Some(status), None) => http_status(&at.field("httpStatus"), status)?,
        (None, Some(status)) => grpc_status(&at.field("grpcStatus"), status)?,
        _ => {
            at.refuse("one of httpStatus and grpcStatus is given");
            return None;
        }
    };
    Some(FaultAbort {
        status,
        share: share?,
    })
}

fn http_status(at: &At<'_>, status: i64) -> Option<AbortStatus> {
    let code = u16::try_from(status)
        .ok()
        .filter(|code| (200..=599).contains(code));
    let read = code.and_then(|code| StatusCode::from_u16(code).ok());
    let why = || FieldError::new(format!("{status} is not a status of 200-599"));
    at.keep(read.map(AbortStatus::Http).ok_or_else(why))
}

fn grpc_status(at: &At<'_>, status: i64) -> Option<AbortStatus> {
    let read = u8::try_from(status)
        .ok()
        .filter(|status| *status <= Fault::MAX_GRPC_STATUS);
    let why = || FieldError::new(format!("{status} is not a gRPC status of 0-16"));
    at.keep(read.map(AbortStatus::Grpc).ok_or_else(why))
}

/// All requests, where nothing is said.
fn share(at: &At<'_>, percentage: Option<f64>) -> Option<Share> {
    percentage.map_or(Some(Share::ALL), |percentage| {
        at.field("percentage").keep(Share::percent(percentage))
    })
}
