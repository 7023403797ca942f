//! How the endpoints of a service are used.

use std::time::Duration;

use http::{HeaderName, Method};
use model::FieldError;
use model::resilience::Timeouts;
use model::traffic_policy::{
    AdaptiveConcurrency, Algorithm, Check, CircuitBreaker, ConcurrencyKind, ConnectionPolicy, ConsistentHash,
    HashCookie, HashKey, HealthCheck, HedgeDelay, Hedging, LoadBalancer, OutlierDetection, PreferLocal,
    RetryConstraint, SuccessRate, TcpKeepalive, TrafficPolicy,
};

use super::read::{items, millis, parse};
use super::route::{retry_from_wire, retry_to_wire};
use super::session::{session_from_wire, session_to_wire};
use crate::v1;

pub(super) fn traffic_policy_to_wire(policy: &TrafficPolicy) -> v1::TrafficPolicy {
    v1::TrafficPolicy {
        balance: policy.balance.as_ref().map(balance_to_wire),
        outlier: policy.outlier.as_ref().map(outlier_to_wire),
        health_check: policy.health_check.as_ref().map(health_check_to_wire),
        panic_threshold: policy.panic_threshold.map(u32::from),
        breaker: policy.breaker.as_ref().map(breaker_to_wire),
        connection: policy.connection.as_ref().map(connection_to_wire),
        retry: policy.retry.as_ref().map(retry_to_wire),
        timeouts: policy.timeouts.map(|timeouts| v1::PolicyTimeouts {
            request_ms: timeouts.request.map(millis),
            backend_request_ms: timeouts.backend_request.map(millis),
        }),
        retry_constraint: policy.retry_constraint.map(|constraint| v1::RetryConstraint {
            percent: u32::from(constraint.percent),
            interval_ms: millis(constraint.interval),
            min_count: constraint.min_count,
            min_interval_ms: millis(constraint.min_interval),
        }),
        hedging: policy.hedging.as_ref().map(hedging_to_wire),
        concurrency: policy.concurrency.map(|concurrency| v1::AdaptiveConcurrency {
            aimd: concurrency.kind == ConcurrencyKind::Aimd,
            min: concurrency.min,
            max: concurrency.max,
            interval_ms: millis(concurrency.interval),
        }),
        session: policy.session.as_ref().map(session_to_wire),
    }
}

/// Bounds are those of [`TrafficPolicy::checked`], whose errors name fields as YAML does.
pub(super) fn traffic_policy_from_wire(wire: &v1::TrafficPolicy) -> Result<TrafficPolicy, FieldError> {
    let within = |field: &'static str| move |error: FieldError| error.within(field);
    let policy = TrafficPolicy {
        balance: read(wire.balance.as_ref(), balance_from_wire).map_err(within("balance"))?,
        outlier: read(wire.outlier.as_ref(), outlier_from_wire).map_err(within("outlier"))?,
        health_check: read(wire.health_check.as_ref(), health_check_from_wire)
            .map_err(within("health_check"))?,
        panic_threshold: match wire.panic_threshold {
            Some(percent) => Some(byte("panic_threshold", percent)?),
            None => None,
        },
        breaker: wire.breaker.as_ref().map(breaker_from_wire),
        connection: wire.connection.as_ref().map(connection_from_wire),
        retry: read(wire.retry.as_ref(), retry_from_wire).map_err(within("retry"))?,
        timeouts: read(wire.timeouts.as_ref(), timeouts_from_wire).map_err(within("timeouts"))?,
        retry_constraint: read(wire.retry_constraint.as_ref(), constraint_from_wire)
            .map_err(within("retry_constraint"))?,
        hedging: read(wire.hedging.as_ref(), hedging_from_wire).map_err(within("hedging"))?,
        concurrency: wire.concurrency.map(|concurrency| AdaptiveConcurrency {
            kind: match concurrency.aimd {
                true => ConcurrencyKind::Aimd,
                false => ConcurrencyKind::Gradient,
            },
            min: concurrency.min,
            max: concurrency.max,
            interval: Duration::from_millis(concurrency.interval_ms),
        }),
        session: read(wire.session.as_ref(), session_from_wire).map_err(within("session"))?,
    };
    policy.checked()
}

fn read<W, T>(
    wire: Option<&W>,
    convert: impl Fn(&W) -> Result<T, FieldError>,
) -> Result<Option<T>, FieldError> {
    wire.map(convert).transpose()
}

fn byte(field: &str, wire: u32) -> Result<u8, FieldError> {
    u8::try_from(wire).map_err(|_| FieldError::at(field, format!("{wire} is over 255")))
}

fn balance_to_wire(balance: &LoadBalancer) -> v1::LoadBalancer {
    use v1::load_balancer::Algorithm as Wire;
    let unit = v1::Unit {};
    v1::LoadBalancer {
        algorithm: Some(match &balance.algorithm {
            Algorithm::PeakEwma => Wire::PeakEwma(unit),
            Algorithm::LeastRequest => Wire::LeastRequest(unit),
            Algorithm::RoundRobin => Wire::RoundRobin(unit),
            Algorithm::Random => Wire::Random(unit),
            Algorithm::Maglev(hash) => Wire::Maglev(hash_to_wire(hash)),
            Algorithm::RingHash(hash) => Wire::RingHash(hash_to_wire(hash)),
        }),
        slow_start_ms: balance.slow_start.map(millis),
        prefer_local: balance.prefer_local.map(|prefer| v1::PreferLocal {
            min_endpoints: prefer.min_endpoints,
        }),
    }
}

fn balance_from_wire(wire: &v1::LoadBalancer) -> Result<LoadBalancer, FieldError> {
    use v1::load_balancer::Algorithm as Wire;
    let algorithm = match &wire.algorithm {
        Some(Wire::PeakEwma(_)) => Algorithm::PeakEwma,
        Some(Wire::LeastRequest(_)) => Algorithm::LeastRequest,
        Some(Wire::RoundRobin(_)) => Algorithm::RoundRobin,
        Some(Wire::Random(_)) => Algorithm::Random,
        Some(Wire::Maglev(hash)) => {
            Algorithm::Maglev(hash_from_wire(hash).map_err(|error| error.within("maglev"))?)
        }
        Some(Wire::RingHash(hash)) => {
            Algorithm::RingHash(hash_from_wire(hash).map_err(|error| error.within("ring_hash"))?)
        }
        None => {
            return Err(FieldError::at("algorithm", "is none that this version knows"));
        }
    };
    Ok(LoadBalancer {
        algorithm,
        slow_start: wire.slow_start_ms.map(Duration::from_millis),
        prefer_local: wire.prefer_local.map(|prefer| PreferLocal {
            min_endpoints: prefer.min_endpoints,
        }),
    })
}

fn hash_to_wire(hash: &ConsistentHash) -> v1::ConsistentHash {
    use v1::consistent_hash::Key;
    v1::ConsistentHash {
        key: Some(match &hash.key {
            HashKey::SourceIp => Key::SourceIp(v1::Unit {}),
            HashKey::Headers(names) => Key::Headers(v1::HeaderNames {
                names: names.iter().map(ToString::to_string).collect(),
            }),
            HashKey::Cookie(cookie) => Key::Cookie(v1::HashCookie {
                name: cookie.name.clone(),
                ttl_ms: cookie.ttl.map(millis),
                attributes: cookie
                    .attributes
                    .iter()
                    .map(|(name, value)| v1::CookieAttribute {
                        name: name.clone(),
                        value: value.clone(),
                    })
                    .collect(),
            }),
        }),
        table_size: hash.table_size,
    }
}

fn hash_from_wire(wire: &v1::ConsistentHash) -> Result<ConsistentHash, FieldError> {
    use v1::consistent_hash::Key;
    let key = match &wire.key {
        Some(Key::SourceIp(_)) => HashKey::SourceIp,
        Some(Key::Headers(headers)) => {
            let name = |name: &String| {
                HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| FieldError::new(format!("{name:?} is not a header's name")))
            };
            HashKey::Headers(items("headers", &headers.names, name)?)
        }
        Some(Key::Cookie(cookie)) => HashKey::Cookie(HashCookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl_ms.map(Duration::from_millis),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| (attribute.name.clone(), attribute.value.clone()))
                .collect(),
        }),
        None => return Err(FieldError::at("key", "is none that this version knows")),
    };
    Ok(ConsistentHash {
        key,
        table_size: wire.table_size,
    })
}

fn outlier_to_wire(outlier: &OutlierDetection) -> v1::OutlierDetection {
    v1::OutlierDetection {
        consecutive_5xx: outlier.consecutive_5xx,
        consecutive_gateway: outlier.consecutive_gateway,
        consecutive_local: outlier.consecutive_local,
        split_local: outlier.split_local,
        interval_ms: millis(outlier.interval),
        base_ejection_ms: millis(outlier.base_ejection),
        max_ejection_ms: millis(outlier.max_ejection),
        max_ejection_percent: u32::from(outlier.max_ejection_percent),
        success_rate: outlier.success_rate.map(|rate| v1::SuccessRate {
            minimum_hosts: rate.minimum_hosts,
            request_volume: rate.request_volume,
            stdev_factor: rate.stdev_factor,
        }),
        failure_percentage: outlier.failure_percentage.map(u32::from),
    }
}

fn outlier_from_wire(wire: &v1::OutlierDetection) -> Result<OutlierDetection, FieldError> {
    Ok(OutlierDetection {
        consecutive_5xx: wire.consecutive_5xx,
        consecutive_gateway: wire.consecutive_gateway,
        consecutive_local: wire.consecutive_local,
        split_local: wire.split_local,
        interval: Duration::from_millis(wire.interval_ms),
        base_ejection: Duration::from_millis(wire.base_ejection_ms),
        max_ejection: Duration::from_millis(wire.max_ejection_ms),
        max_ejection_percent: byte("max_ejection_percent", wire.max_ejection_percent)?,
        success_rate: wire.success_rate.map(|rate| SuccessRate {
            minimum_hosts: rate.minimum_hosts,
            request_volume: rate.request_volume,
            stdev_factor: rate.stdev_factor,
        }),
        failure_percentage: match wire.failure_percentage {
            Some(percent) => Some(byte("failure_percentage", percent)?),
            None => None,
        },
    })
}

fn health_check_to_wire(check: &HealthCheck) -> v1::HealthCheck {
    use v1::health_check::Check as Wire;
    v1::HealthCheck {
        timeout_ms: millis(check.timeout),
        interval_ms: millis(check.interval),
        unhealthy_threshold: check.unhealthy_threshold,
        healthy_threshold: check.healthy_threshold,
        check: Some(match &check.check {
            Check::Http {
                hostname,
                path,
                method,
                expected,
            } => Wire::Http(v1::HttpCheck {
                hostname: hostname.clone(),
                path: path.clone(),
                method: method.to_string(),
                expected: expected.iter().copied().map(u32::from).collect(),
            }),
            Check::Grpc { service } => Wire::Grpc(v1::GrpcCheck {
                service: service.clone(),
            }),
            Check::Tcp { send, receive } => Wire::Tcp(v1::TcpCheck {
                send: send.clone(),
                receive: receive.clone(),
            }),
        }),
    }
}

fn health_check_from_wire(wire: &v1::HealthCheck) -> Result<HealthCheck, FieldError> {
    use v1::health_check::Check as Wire;
    let check = match &wire.check {
        Some(Wire::Http(http)) => Check::Http {
            hostname: http.hostname.clone(),
            path: http.path.clone(),
            method: parse::<Method>("method", &http.method)?,
            expected: items("expected", &http.expected, |code| {
                u16::try_from(*code).map_err(|_| FieldError::new(format!("{code} is not a status")))
            })?,
        },
        Some(Wire::Grpc(grpc)) => Check::Grpc {
            service: grpc.service.clone(),
        },
        Some(Wire::Tcp(tcp)) => Check::Tcp {
            send: tcp.send.clone(),
            receive: tcp.receive.clone(),
        },
        None => return Err(FieldError::at("check", "is none that this version knows")),
    };
    Ok(HealthCheck {
        timeout: Duration::from_millis(wire.timeout_ms),
        interval: Duration::from_millis(wire.interval_ms),
        unhealthy_threshold: wire.unhealthy_threshold,
        healthy_threshold: wire.healthy_threshold,
        check,
    })
}

fn breaker_to_wire(breaker: &CircuitBreaker) -> v1::CircuitBreaker {
    v1::CircuitBreaker {
        max_connections: breaker.max_connections,
        max_pending: breaker.max_pending,
        max_requests: breaker.max_requests,
        max_retries: breaker.max_retries,
        max_requests_per_connection: breaker.max_requests_per_connection,
        max_connections_per_endpoint: breaker.max_connections_per_endpoint,
    }
}

fn breaker_from_wire(wire: &v1::CircuitBreaker) -> CircuitBreaker {
    CircuitBreaker {
        max_connections: wire.max_connections,
        max_pending: wire.max_pending,
        max_requests: wire.max_requests,
        max_retries: wire.max_retries,
        max_requests_per_connection: wire.max_requests_per_connection,
        max_connections_per_endpoint: wire.max_connections_per_endpoint,
    }
}

fn connection_to_wire(connection: &ConnectionPolicy) -> v1::ConnectionPolicy {
    v1::ConnectionPolicy {
        connect_timeout_ms: connection.connect_timeout.map(millis),
        idle_timeout_ms: connection.idle_timeout.map(millis),
        max_duration_ms: connection.max_duration.map(millis),
        keepalive: connection.keepalive.map(|keepalive| v1::TcpKeepalive {
            probes: keepalive.probes,
            idle_ms: keepalive.idle.map(millis),
            interval_ms: keepalive.interval.map(millis),
        }),
    }
}

fn connection_from_wire(wire: &v1::ConnectionPolicy) -> ConnectionPolicy {
    let time = |ms: Option<u64>| ms.map(Duration::from_millis);
    ConnectionPolicy {
        connect_timeout: time(wire.connect_timeout_ms),
        idle_timeout: time(wire.idle_timeout_ms),
        max_duration: time(wire.max_duration_ms),
        keepalive: wire.keepalive.map(|keepalive| TcpKeepalive {
            probes: keepalive.probes,
            idle: time(keepalive.idle_ms),
            interval: time(keepalive.interval_ms),
        }),
    }
}

fn timeouts_from_wire(wire: &v1::PolicyTimeouts) -> Result<Timeouts, FieldError> {
    let time = |ms: Option<u64>| ms.map(Duration::from_millis);
    Timeouts::new(time(wire.request_ms), time(wire.backend_request_ms))
        .map_err(|error| FieldError::at("backend_request_ms", error.why))
}

fn constraint_from_wire(wire: &v1::RetryConstraint) -> Result<RetryConstraint, FieldError> {
    Ok(RetryConstraint {
        percent: byte("percent", wire.percent)?,
        interval: Duration::from_millis(wire.interval_ms),
        min_count: wire.min_count,
        min_interval: Duration::from_millis(wire.min_interval_ms),
    })
}

fn hedging_to_wire(hedging: &Hedging) -> v1::Hedging {
    use v1::hedging::Delay;
    v1::Hedging {
        delay: Some(match hedging.delay {
            HedgeDelay::After(delay) => Delay::AfterMs(millis(delay)),
            HedgeDelay::Percentile(percent) => Delay::Percentile(u32::from(percent)),
        }),
        max_attempts: u32::from(hedging.max_attempts),
        grpc: hedging.grpc,
    }
}

fn hedging_from_wire(wire: &v1::Hedging) -> Result<Hedging, FieldError> {
    use v1::hedging::Delay;
    Ok(Hedging {
        delay: match wire.delay {
            Some(Delay::AfterMs(ms)) => HedgeDelay::After(Duration::from_millis(ms)),
            Some(Delay::Percentile(percent)) => HedgeDelay::Percentile(byte("percentile", percent)?),
            None => return Err(FieldError::at("delay", "is missing")),
        },
        max_attempts: byte("max_attempts", wire.max_attempts)?,
        grpc: wire.grpc,
    })
}
