//! `BackendTrafficPolicy` of `weft.dev/v1alpha1`: whose traffic, and what becomes of it.

mod endpoints;
mod requests;
mod spec;

use std::sync::Arc;

use model::TrafficPolicy;
use model::traffic_policy::{ConnectionPolicy, TcpKeepalive};

use self::spec::BackendTrafficPolicy;
pub(super) use self::spec::TargetRef;
use super::check::{At, Distinct, key};
use super::kind::{Kind, ObjectKey, ObjectName};
use super::reference::{GATEWAY_GROUP, core_is_empty};
use super::route::duration;
use super::session::session;
use super::shadow::{self, Shadow};

/// Most targets of one policy (Gateway API's limit for its own).
const MAX_TARGETS: usize = 16;

/// What a BackendTrafficPolicy says, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficPolicyObject {
    pub key: ObjectKey,
    /// In the policy's own namespace; never empty, each once.
    pub targets: Vec<TrafficTarget>,
    pub policy: Arc<TrafficPolicy>,
    /// `None` for a policy that is in force.
    pub shadow: Option<Shadow>,
}

/// One `targetRefs` entry, not yet checked for existence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrafficTarget {
    /// Service, HTTPRoute or GRPCRoute.
    pub kind: Kind,
    pub name: ObjectName,
    /// `sectionName`: a port of the Service, or a rule of the route, by its name.
    pub section: Option<String>,
}

pub(super) fn policy(at: &At<'_>, policy: BackendTrafficPolicy) -> Option<TrafficPolicyObject> {
    let key = key(at, Kind::BackendTrafficPolicy, &policy.metadata);
    let shadow = shadow::marker(at, &policy.metadata);
    let (at, spec) = (at.field("spec"), policy.spec);
    let targets = targets(&at, spec.target_refs);
    let health = spec.health_check.unwrap_or_default();
    let passive = match (health.passive, spec.outlier_detection) {
        (Some(_), Some(_)) => {
            at.field("outlierDetection")
                .refuse("is another name of healthCheck.passive: one of them is given");
            None
        }
        (passive, None) => passive.map(|passive| (at.field("healthCheck").field("passive"), passive)),
        (None, outlier) => outlier.map(|passive| (at.field("outlierDetection"), passive)),
    };
    let timeout = spec.timeout.unwrap_or_default();
    let connection = connection(&at, &timeout, spec.tcp_keepalive);
    let per_try = spec.retry.as_ref().and_then(|retry| retry.per_retry.as_ref());
    let policy = TrafficPolicy {
        balance: spec
            .load_balancer
            .map(|balance| endpoints::balance(&at.field("loadBalancer"), balance)),
        outlier: passive.map(|(at, passive)| endpoints::outlier(&at, &passive)),
        health_check: health
            .active
            .and_then(|active| endpoints::health_check(&at.field("healthCheck").field("active"), active)),
        panic_threshold: health
            .panic_threshold
            .map(|percent| percentage(&at.field("healthCheck").field("panicThreshold"), percent)),
        breaker: spec.circuit_breaker.as_ref().map(endpoints::breaker),
        connection: (connection != ConnectionPolicy::default()).then_some(connection),
        timeouts: requests::timeouts(&at, timeout.http.as_ref(), per_try),
        retry_constraint: spec
            .retry_constraint
            .map(|constraint| requests::retry_constraint(&at.field("retryConstraint"), constraint)),
        hedging: spec
            .hedging
            .and_then(|hedging| requests::hedging(&at.field("hedging"), &hedging)),
        concurrency: spec
            .adaptive_concurrency
            .map(|adaptive| requests::concurrency(&at.field("adaptiveConcurrency"), &adaptive)),
        retry: spec
            .retry
            .and_then(|retry| requests::retry(&at.field("retry"), retry)),
        session: key
            .as_ref()
            .and_then(|key| session(&at, key, spec.session_persistence)),
    };
    let policy = at.keep(policy.checked());
    Some(TrafficPolicyObject {
        key: key?,
        targets,
        policy: Arc::new(policy?),
        shadow,
    })
}

pub(super) fn targets(at: &At<'_>, list: Option<Vec<TargetRef>>) -> Vec<TrafficTarget> {
    if list.as_ref().is_none_or(Vec::is_empty) {
        at.refuse("targetRefs has at least one entry");
    }
    let mut distinct = Distinct::new();
    let mut targets = Vec::new();
    let items = at.field("targetRefs").items(list, MAX_TARGETS);
    for (index, (at, target)) in items.into_iter().enumerate() {
        if let Some(target) = target_of(&at, target) {
            distinct.check(&at, index, target.clone());
            targets.push(target);
        }
    }
    targets
}

fn target_of(at: &At<'_>, target: TargetRef) -> Option<TrafficTarget> {
    let Some(kind) = target.kind else {
        at.refuse("kind is missing (supported: Service, HTTPRoute, GRPCRoute)");
        return None;
    };
    let (kind, group) = match kind.as_str() {
        "Service" => (Kind::Service, ""),
        "HTTPRoute" => (Kind::HttpRoute, GATEWAY_GROUP),
        "GRPCRoute" => (Kind::GrpcRoute, GATEWAY_GROUP),
        kind => {
            at.field("kind").refuse(format!(
                "{kind:?} is not supported (supported: Service, HTTPRoute, GRPCRoute)"
            ));
            return None;
        }
    };
    let given = core_is_empty(target.group.as_deref().unwrap_or_default());
    if given != group {
        at.field("group")
            .refuse(format!("{given:?} has no {kind}; its group is {group:?}"));
    }
    let section = target.section_name.filter(|section| !section.is_empty());
    let Some(name) = target.name else {
        at.refuse("name is missing");
        return None;
    };
    let name = at.field("name").keep(name.parse::<ObjectName>())?;
    Some(TrafficTarget { kind, name, section })
}

fn connection(
    at: &At<'_>,
    timeout: &spec::Timeout,
    keepalive: Option<spec::TcpKeepalive>,
) -> ConnectionPolicy {
    let time = |at: &At<'_>, text: Option<&String>| text.and_then(|text| duration(at, text));
    let at_timeout = at.field("timeout");
    let tcp = timeout.tcp.as_ref();
    let http = timeout.http.as_ref();
    let at_http = at_timeout.field("http");
    ConnectionPolicy {
        connect_timeout: time(
            &at_timeout.field("tcp").field("connectTimeout"),
            tcp.and_then(|tcp| tcp.connect_timeout.as_ref()),
        ),
        idle_timeout: time(
            &at_http.field("connectionIdleTimeout"),
            http.and_then(|http| http.connection_idle_timeout.as_ref()),
        ),
        // As in Envoy Gateway, zero is no limit.
        max_duration: time(
            &at_http.field("maxConnectionDuration"),
            http.and_then(|http| http.max_connection_duration.as_ref()),
        )
        .filter(|time| !time.is_zero()),
        keepalive: keepalive.map(|keepalive| {
            let at = at.field("tcpKeepalive");
            TcpKeepalive {
                probes: keepalive.probes,
                idle: time(&at.field("idleTime"), keepalive.idle_time.as_ref()),
                interval: time(&at.field("interval"), keepalive.interval.as_ref()),
            }
        }),
    }
}

/// 0 after a complaint, for what is no percentage.
fn percentage(at: &At<'_>, percent: u32) -> u8 {
    let read = u8::try_from(percent).ok().filter(|percent| *percent <= 100);
    if read.is_none() {
        at.refuse(format!("{percent} is not 0-100"));
    }
    read.unwrap_or_default()
}
