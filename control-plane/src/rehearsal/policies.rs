//! What policies say, field by field as YAML has them, for people to read and for two of them to be compared.

use std::time::Duration;

use model::TrafficPolicy;
use model::fault::{AbortStatus, Fault, Share};
use model::gateway::{BackendTls, SubjectAltName};
use model::resilience::{GRPC_STATUS_NAMES, RetryPolicy};
use model::route::RequestMatch;
use model::traffic_policy::{
    Algorithm, Check, CircuitBreaker, ConcurrencyKind, ConsistentHash, HashKey, HealthCheck, HedgeDelay,
    LoadBalancer, OutlierDetection, RetryConstraint,
};

use super::words::{self, of_duration};

/// Fields and their values, in the order of docs/policies.md. What has a default is said as well.
#[derive(Debug, Default)]
struct Fields(Vec<(String, String)>);

impl Fields {
    fn say(&mut self, field: &str, value: impl ToString) {
        self.0.push((field.to_owned(), value.to_string()));
    }

    fn may(&mut self, field: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.say(field, value);
        }
    }

    fn time(&mut self, field: &str, time: Option<Duration>) {
        self.may(field, time.map(of_duration));
    }
}

/// Every field of a BackendTrafficPolicy that counts.
pub(super) fn fields(policy: &TrafficPolicy) -> Vec<(String, String)> {
    // By name, so that whoever adds a section must say how it is shown.
    let TrafficPolicy {
        balance,
        outlier,
        health_check,
        panic_threshold,
        breaker,
        connection,
        retry,
        timeouts,
        retry_constraint,
        hedging,
        concurrency,
        session,
    } = policy;
    let mut fields = Fields::default();
    let to = &mut fields;
    balance.iter().for_each(|balance| of_balance(to, balance));
    to.may("healthCheck.panicThreshold", *panic_threshold);
    health_check.iter().for_each(|check| of_check(to, check));
    outlier.iter().for_each(|outlier| of_outlier(to, outlier));
    breaker.iter().for_each(|breaker| of_breaker(to, breaker));
    let connection = connection.unwrap_or_default();
    to.time("timeout.tcp.connectTimeout", connection.connect_timeout);
    to.time(
        "timeout.http.requestTimeout",
        timeouts.and_then(|times| times.request),
    );
    to.time("timeout.http.connectionIdleTimeout", connection.idle_timeout);
    to.time("timeout.http.maxConnectionDuration", connection.max_duration);
    if let Some(keepalive) = connection.keepalive {
        to.may("tcpKeepalive.probes", keepalive.probes);
        to.time("tcpKeepalive.idleTime", keepalive.idle);
        to.time("tcpKeepalive.interval", keepalive.interval);
    }
    retry.iter().for_each(|retry| of_retry(to, retry));
    to.time(
        "retry.perRetry.timeout",
        timeouts.and_then(|times| times.backend_request),
    );
    retry_constraint
        .iter()
        .for_each(|constraint| of_constraint(to, constraint));
    to.may("sessionPersistence", session.as_ref().map(words::of_session));
    if let Some(hedging) = hedging {
        match hedging.delay {
            HedgeDelay::After(delay) => to.say("hedging.delay", of_duration(delay)),
            HedgeDelay::Percentile(percentile) => to.say("hedging.percentile", percentile),
        }
        to.say("hedging.maxAttempts", hedging.max_attempts);
        to.say("hedging.grpc", hedging.grpc);
    }
    if let Some(concurrency) = concurrency {
        let kind = match concurrency.kind {
            ConcurrencyKind::Gradient => "Gradient",
            ConcurrencyKind::Aimd => "AIMD",
        };
        to.say("adaptiveConcurrency.type", kind);
        to.say("adaptiveConcurrency.minConcurrency", concurrency.min);
        to.say("adaptiveConcurrency.maxConcurrency", concurrency.max);
        to.say("adaptiveConcurrency.interval", of_duration(concurrency.interval));
    }
    fields.0
}

fn of_balance(to: &mut Fields, balance: &LoadBalancer) {
    let (kind, hash) = match &balance.algorithm {
        Algorithm::PeakEwma => ("PeakEWMA", None),
        Algorithm::LeastRequest => ("LeastRequest", None),
        Algorithm::RoundRobin => ("RoundRobin", None),
        Algorithm::Random => ("Random", None),
        Algorithm::Maglev(hash) => ("Maglev", Some(hash)),
        Algorithm::RingHash(hash) => ("RingHash", Some(hash)),
    };
    to.say("loadBalancer.type", kind);
    if let Some(ConsistentHash { key, table_size }) = hash {
        match key {
            HashKey::SourceIp => to.say("loadBalancer.consistentHash.type", "SourceIP"),
            HashKey::Headers(names) => {
                let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
                to.say("loadBalancer.consistentHash.headers", names.join(", "));
            }
            HashKey::Cookie(cookie) => {
                to.say("loadBalancer.consistentHash.cookie.name", &cookie.name);
                to.time("loadBalancer.consistentHash.cookie.ttl", cookie.ttl);
                let attributes = cookie.attributes.iter();
                let attributes: Vec<_> = attributes
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                let attributes = Some(attributes.join(", ")).filter(|some| !some.is_empty());
                to.may("loadBalancer.consistentHash.cookie.attributes", attributes);
            }
        }
        to.say("loadBalancer.consistentHash.tableSize", table_size);
    }
    to.time("loadBalancer.slowStart.window", balance.slow_start);
    to.may(
        "loadBalancer.zoneAware.preferLocal.minEndpointsThreshold",
        balance.prefer_local.map(|prefer| prefer.min_endpoints),
    );
}

fn of_check(to: &mut Fields, check: &HealthCheck) {
    let bytes = |bytes: &Vec<u8>| (!bytes.is_empty()).then(|| format!("{} bytes", bytes.len()));
    match &check.check {
        Check::Http {
            hostname,
            path,
            method,
            expected,
        } => {
            to.say("healthCheck.active.type", "HTTP");
            to.may("healthCheck.active.http.hostname", hostname.as_ref());
            to.say("healthCheck.active.http.path", path);
            to.say("healthCheck.active.http.method", method);
            let expected: Vec<String> = expected.iter().map(u16::to_string).collect();
            to.say("healthCheck.active.http.expectedStatuses", expected.join(", "));
        }
        Check::Grpc { service } => {
            to.say("healthCheck.active.type", "GRPC");
            to.may(
                "healthCheck.active.grpc.service",
                Some(service).filter(|name| !name.is_empty()),
            );
        }
        Check::Tcp { send, receive } => {
            to.say("healthCheck.active.type", "TCP");
            to.may("healthCheck.active.tcp.send", bytes(send));
            to.may("healthCheck.active.tcp.receive", bytes(receive));
        }
    }
    to.say("healthCheck.active.timeout", of_duration(check.timeout));
    to.say("healthCheck.active.interval", of_duration(check.interval));
    to.say("healthCheck.active.unhealthyThreshold", check.unhealthy_threshold);
    to.say("healthCheck.active.healthyThreshold", check.healthy_threshold);
}

fn of_outlier(to: &mut Fields, outlier: &OutlierDetection) {
    to.say("outlierDetection.consecutive5XxErrors", outlier.consecutive_5xx);
    to.say(
        "outlierDetection.consecutiveGatewayErrors",
        outlier.consecutive_gateway,
    );
    to.say(
        "outlierDetection.consecutiveLocalOriginFailures",
        outlier.consecutive_local,
    );
    to.say(
        "outlierDetection.splitExternalLocalOriginErrors",
        outlier.split_local,
    );
    to.say("outlierDetection.interval", of_duration(outlier.interval));
    to.say(
        "outlierDetection.baseEjectionTime",
        of_duration(outlier.base_ejection),
    );
    to.say(
        "outlierDetection.maxEjectionTime",
        of_duration(outlier.max_ejection),
    );
    to.say(
        "outlierDetection.maxEjectionPercent",
        outlier.max_ejection_percent,
    );
    if let Some(rate) = outlier.success_rate {
        to.say("outlierDetection.successRate.stdevFactor", rate.stdev_factor);
        to.say("outlierDetection.successRate.minimumHosts", rate.minimum_hosts);
        to.say("outlierDetection.successRate.requestVolume", rate.request_volume);
    }
    to.may(
        "outlierDetection.failurePercentageThreshold",
        outlier.failure_percentage,
    );
}

fn of_breaker(to: &mut Fields, breaker: &CircuitBreaker) {
    to.say("circuitBreaker.maxConnections", breaker.max_connections);
    to.say("circuitBreaker.maxPendingRequests", breaker.max_pending);
    to.say("circuitBreaker.maxParallelRequests", breaker.max_requests);
    to.say("circuitBreaker.maxParallelRetries", breaker.max_retries);
    to.may(
        "circuitBreaker.maxRequestsPerConnection",
        breaker.max_requests_per_connection,
    );
    to.may(
        "circuitBreaker.perEndpoint.maxConnections",
        breaker.max_connections_per_endpoint,
    );
}

fn of_retry(to: &mut Fields, retry: &RetryPolicy) {
    to.say("retry.numRetries", retry.attempts);
    to.say("retry.retryOn", words::of_retry_on(retry));
    to.say("retry.perRetry.backOff.baseInterval", of_duration(retry.backoff));
}

fn of_constraint(to: &mut Fields, constraint: &RetryConstraint) {
    to.say("retryConstraint.budget.percent", constraint.percent);
    to.say(
        "retryConstraint.budget.interval",
        of_duration(constraint.interval),
    );
    to.say("retryConstraint.minRetryRate.count", constraint.min_count);
    to.say(
        "retryConstraint.minRetryRate.interval",
        of_duration(constraint.min_interval),
    );
}

/// `delay 200ms for 30 %, abort 418, where PathPrefix /charge`.
pub(super) fn of_fault(fault: &Fault) -> String {
    let share = |share: Share| match share {
        Share::ALL => String::new(),
        some => format!(" for {} %", f64::from(some.as_millionths()) / 10_000.0),
    };
    let delay = fault.delay.map(|delay| {
        let time = of_duration(delay.time);
        format!("delay {time}{}", share(delay.share))
    });
    let abort = fault.abort.map(|abort| {
        let status = match abort.status {
            AbortStatus::Http(status) => status.as_u16().to_string(),
            AbortStatus::Grpc(status) => {
                let name = GRPC_STATUS_NAMES.get(usize::from(status)).unwrap_or(&"");
                format!("with gRPC status {name}")
            }
        };
        format!("abort {status}{}", share(abort.share))
    });
    let everything = [RequestMatch::default()];
    let matches = fault.matches.iter().map(words::of_match);
    let matches =
        (fault.matches != everything).then(|| format!("where {}", matches.collect::<Vec<_>>().join(" or ")));
    let words = [delay, abort, matches].into_iter().flatten();
    words.collect::<Vec<_>>().join(", ")
}

/// What a BackendTLSPolicy says of connections.
pub(super) fn of_tls(tls: &BackendTls) -> String {
    let trusts = match &tls.authorities {
        Some(pem) => {
            let some = pem.matches("BEGIN CERTIFICATE").count();
            format!("authorities given ({some})")
        }
        None => "the machine's authorities".to_owned(),
    };
    let names = tls.names.iter().map(|name| match name {
        SubjectAltName::Hostname(name) => format!("name {name}"),
        SubjectAltName::Uri(uri) => format!("name {uri}"),
    });
    let words = [format!("hostname {}", tls.hostname), trusts].into_iter();
    words.chain(names).collect::<Vec<_>>().join(", ")
}
