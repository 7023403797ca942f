//! What a policy says about endpoints: choosing among them, checking them, and how much they are given.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderName, Method};
use model::FieldError;
use model::traffic_policy::{
    Algorithm, Check, CircuitBreaker, ConsistentHash, HashCookie, HashKey, HealthCheck, LoadBalancer,
    OutlierDetection, PreferLocal, SuccessRate, TrafficPolicy,
};

use super::percentage;
use super::spec;
use crate::sources::check::At;
use crate::sources::route::duration;

pub(super) fn balance(at: &At<'_>, balance: spec::LoadBalancer) -> LoadBalancer {
    use spec::BalancerType as Type;
    let r#type = balance.r#type.unwrap_or(Type::PeakEWMA);
    let is_hash = matches!(r#type, Type::ConsistentHash | Type::Maglev | Type::RingHash);
    if balance.consistent_hash.is_some() && !is_hash {
        at.field("consistentHash")
            .refuse("is not what the load balancer's type says");
    }
    let hash = |default_size| {
        let Some(hash) = &balance.consistent_hash else {
            at.refuse("consistentHash is missing, which the load balancer's type asks for");
            return None;
        };
        consistent_hash(&at.field("consistentHash"), hash, default_size)
    };
    let algorithm = match r#type {
        Type::PeakEWMA => Some(Algorithm::PeakEwma),
        Type::LeastRequest => Some(Algorithm::LeastRequest),
        Type::RoundRobin => Some(Algorithm::RoundRobin),
        Type::Random => Some(Algorithm::Random),
        Type::ConsistentHash | Type::Maglev => {
            hash(ConsistentHash::DEFAULT_MAGLEV_SIZE).map(Algorithm::Maglev)
        }
        Type::RingHash => hash(ConsistentHash::DEFAULT_RING_SIZE).map(Algorithm::RingHash),
    };
    let window = |slow_start: spec::SlowStart| {
        let at = at.field("slowStart");
        if is_hash {
            // A key whose endpoint changes with its age would not be kept there.
            at.refuse("has no meaning for a consistent hash");
        }
        duration(&at.field("window"), &slow_start.window)
    };
    LoadBalancer {
        algorithm: algorithm.unwrap_or_default(),
        slow_start: balance.slow_start.and_then(window),
        prefer_local: balance
            .zone_aware
            .and_then(|zone| zone.prefer_local)
            .map(|prefer| PreferLocal {
                min_endpoints: prefer
                    .min_endpoints_threshold
                    .unwrap_or(PreferLocal::default().min_endpoints),
            }),
    }
}

fn consistent_hash(at: &At<'_>, hash: &spec::ConsistentHash, default_size: u32) -> Option<ConsistentHash> {
    use spec::HashType as Type;
    let Some(r#type) = hash.r#type else {
        at.refuse("type is missing (SourceIP, Header, Headers, Cookie)");
        return None;
    };
    let given = [
        ("header", Type::Header, hash.header.is_some()),
        ("headers", Type::Headers, hash.headers.is_some()),
        ("cookie", Type::Cookie, hash.cookie.is_some()),
    ];
    for (field, of_type, is_given) in given {
        if is_given && of_type != r#type {
            at.field(field).refuse("is not what the type says");
        } else if !is_given && of_type == r#type {
            at.refuse(format!("{field} is missing, which the type asks for"));
            return None;
        }
    }
    let name = |at: &At<'_>, header: &spec::HashHeader| {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        at.field("name")
            .keep(name.map_err(|_| FieldError::new(format!("{:?} is not a header's name", header.name))))
    };
    let key = match r#type {
        Type::SourceIP => HashKey::SourceIp,
        Type::Header => HashKey::Headers(
            hash.header
                .iter()
                .filter_map(|header| name(&at.field("header"), header))
                .collect(),
        ),
        Type::Headers => HashKey::Headers(
            hash.headers
                .iter()
                .flatten()
                .enumerate()
                .filter_map(|(index, header)| name(&at.field("headers").item(index), header))
                .collect(),
        ),
        Type::Cookie => {
            let cookie = hash.cookie.as_ref()?;
            let ttl = cookie.ttl.as_ref();
            HashKey::Cookie(HashCookie {
                name: cookie.name.clone(),
                ttl: ttl.and_then(|ttl| duration(&at.field("cookie").field("ttl"), ttl)),
                attributes: cookie
                    .attributes
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect(),
            })
        }
    };
    let table_size = match hash.table_size {
        Some(size) => u32::try_from(size).unwrap_or(u32::MAX),
        None => default_size,
    };
    Some(ConsistentHash { key, table_size })
}

pub(super) fn outlier(at: &At<'_>, passive: &spec::Passive) -> OutlierDetection {
    let default = OutlierDetection::default();
    let time = |field, text: &Option<String>, default| {
        let read = text.as_ref().and_then(|text| duration(&at.field(field), text));
        read.unwrap_or(default)
    };
    let percent = |field, percent: Option<u32>| percent.map(|value| percentage(&at.field(field), value));
    let base_ejection = time(
        "baseEjectionTime",
        &passive.base_ejection_time,
        default.base_ejection,
    );
    OutlierDetection {
        consecutive_5xx: passive.consecutive_5xx_errors.unwrap_or(default.consecutive_5xx),
        consecutive_gateway: passive
            .consecutive_gateway_errors
            .unwrap_or(default.consecutive_gateway),
        consecutive_local: passive
            .consecutive_local_origin_failures
            .unwrap_or(default.consecutive_local),
        split_local: passive.split_external_local_origin_errors.unwrap_or_default(),
        interval: time("interval", &passive.interval, default.interval),
        base_ejection,
        // As Envoy has it: never under the time of a first ejection.
        max_ejection: time(
            "maxEjectionTime",
            &passive.max_ejection_time,
            default.max_ejection,
        )
        .max(base_ejection),
        max_ejection_percent: percent("maxEjectionPercent", passive.max_ejection_percent)
            .unwrap_or(default.max_ejection_percent),
        success_rate: passive.success_rate.as_ref().map(|rate| {
            let default = SuccessRate::default();
            SuccessRate {
                minimum_hosts: rate.minimum_hosts.unwrap_or(default.minimum_hosts),
                request_volume: rate.request_volume.unwrap_or(default.request_volume),
                stdev_factor: rate.stdev_factor.unwrap_or(default.stdev_factor),
            }
        }),
        failure_percentage: percent("failurePercentageThreshold", passive.failure_percentage_threshold),
    }
}

pub(super) fn health_check(at: &At<'_>, active: spec::Active) -> Option<HealthCheck> {
    use spec::CheckType as Type;
    let Some(r#type) = active.r#type else {
        at.refuse("type is missing (HTTP, GRPC, TCP)");
        return None;
    };
    let given = [
        ("http", Type::Http, active.http.is_some()),
        ("grpc", Type::Grpc, active.grpc.is_some()),
        ("tcp", Type::Tcp, active.tcp.is_some()),
    ];
    for (field, of_type, is_given) in given {
        if is_given && of_type != r#type {
            at.field(field).refuse("is not what the check's type says");
        }
    }
    let check = match r#type {
        Type::Http => http_check(&at.field("http"), active.http.unwrap_or_default()),
        Type::Grpc => Check::Grpc {
            service: active.grpc.and_then(|grpc| grpc.service).unwrap_or_default(),
        },
        Type::Tcp => {
            let (at, tcp) = (at.field("tcp"), active.tcp.unwrap_or_default());
            let bytes = |field, payload: Option<spec::Payload>| {
                payload.and_then(|p| payload_bytes(&at.field(field), p))
            };
            Check::Tcp {
                send: bytes("send", tcp.send).unwrap_or_default(),
                receive: bytes("receive", tcp.receive).unwrap_or_default(),
            }
        }
    };
    let time = |field, text: &Option<String>, default| {
        let read = text.as_ref().and_then(|text| duration(&at.field(field), text));
        read.unwrap_or(default)
    };
    // Defaults are Envoy Gateway's.
    Some(HealthCheck {
        timeout: time("timeout", &active.timeout, Duration::from_secs(1)),
        interval: time("interval", &active.interval, Duration::from_secs(3)),
        unhealthy_threshold: active.unhealthy_threshold.unwrap_or(3),
        healthy_threshold: active.healthy_threshold.unwrap_or(1),
        check,
    })
}

fn http_check(at: &At<'_>, http: spec::HttpCheck) -> Check {
    let method = http.method.as_deref().unwrap_or("GET");
    let read = Method::from_bytes(method.as_bytes())
        .ok()
        .filter(|method| *method != Method::CONNECT);
    if read.is_none() {
        at.field("method").refuse(format!("{method:?} is not a method"));
    }
    let mut expected = http.expected_statuses.unwrap_or_else(|| vec![200]);
    expected.sort_unstable();
    expected.dedup();
    Check::Http {
        hostname: http.hostname,
        path: http.path.unwrap_or_else(|| "/".to_owned()),
        method: read.unwrap_or_default(),
        expected,
    }
}

fn payload_bytes(at: &At<'_>, payload: spec::Payload) -> Option<Vec<u8>> {
    let (field, read) = match payload.r#type {
        spec::PayloadType::Text => ("text", payload.text.map(|text| Ok(text.into_bytes()))),
        spec::PayloadType::Binary => (
            "binary",
            payload.binary.map(|binary| {
                let read = BASE64_STANDARD.decode(binary);
                read.map_err(|error| FieldError::new(format!("is not base64: {error}")))
            }),
        ),
    };
    let Some(read) = read else {
        at.refuse(format!("{field} is missing, which the payload's type asks for"));
        return None;
    };
    let read = at.field(field).keep(read)?;
    if read.is_empty() || read.len() > TrafficPolicy::MAX_CHECK_BYTES {
        at.field(field)
            .refuse(format!("has 1-{} bytes", TrafficPolicy::MAX_CHECK_BYTES));
    }
    Some(read)
}

pub(super) fn breaker(breaker: &spec::CircuitBreaker) -> CircuitBreaker {
    let count = |count: Option<u32>| count.unwrap_or(CircuitBreaker::DEFAULT);
    let per_endpoint = breaker.per_endpoint.as_ref();
    CircuitBreaker {
        max_connections: count(breaker.max_connections),
        max_pending: count(breaker.max_pending_requests),
        max_requests: count(breaker.max_parallel_requests),
        max_retries: count(breaker.max_parallel_retries),
        // As in Envoy, zero is no limit.
        max_requests_per_connection: breaker.max_requests_per_connection.filter(|most| *most > 0),
        max_connections_per_endpoint: per_endpoint.and_then(|per_endpoint| per_endpoint.max_connections),
    }
}
