//! A policy survives the wire, and one that is out of bounds does not pass.
#![allow(clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use model::fault::{AbortStatus, Fault, FaultAbort, Share};
use model::resilience::{RetryPolicy, Timeouts};
use model::session::{SessionCarrier, SessionPersistence};
use model::shadow::{NamedPolicy, PolicyShadow};
use model::snapshot::Resource;
use model::traffic_policy::{
    AdaptiveConcurrency, Algorithm, Check, CircuitBreaker, ConcurrencyKind, ConnectionPolicy, ConsistentHash,
    HashCookie, HashKey, HealthCheck, HedgeDelay, Hedging, LoadBalancer, OutlierDetection, PreferLocal,
    RetryConstraint, SuccessRate, TcpKeepalive,
};
use model::{EndpointSet, Endpoints, TrafficPolicy};
use prost::Message as _;
use proto::convert::{resource_from_wire, resource_to_wire};
use proto::v1;

const SECOND: Duration = Duration::from_secs(1);

fn resource(policy: TrafficPolicy) -> Resource {
    Resource::Endpoints(EndpointSet {
        service: "shop/pay".parse().expect("a name"),
        endpoints: Endpoints::Mesh(Vec::new()),
        policies: BTreeMap::from([(80, Arc::new(policy))]),
        faults: BTreeMap::new(),
        shadow: BTreeMap::new(),
    })
}

/// In force nothing, and this in shadow.
fn in_shadow(policy: TrafficPolicy) -> Resource {
    let abort = FaultAbort {
        status: AbortStatus::Grpc(14),
        share: Share::ALL,
    };
    let fault = Fault::new("FaultInjectionPolicy/shop/chaos", Vec::new(), None, Some(abort));
    let shadow = PolicyShadow {
        traffic: Some(NamedPolicy {
            name: "BackendTrafficPolicy/shop/next".into(),
            policy: Arc::new(policy),
        }),
        faults: vec![fault.expect("valid")],
    };
    Resource::Endpoints(EndpointSet {
        service: "shop/pay".parse().expect("a name"),
        endpoints: Endpoints::Mesh(Vec::new()),
        policies: BTreeMap::new(),
        faults: BTreeMap::new(),
        shadow: BTreeMap::from([(80, shadow), (81, PolicyShadow::default())]),
    })
}

fn balanced(algorithm: Algorithm) -> TrafficPolicy {
    TrafficPolicy {
        balance: Some(LoadBalancer {
            algorithm,
            slow_start: Some(10 * SECOND),
            prefer_local: Some(PreferLocal { min_endpoints: 3 }),
        }),
        ..TrafficPolicy::default()
    }
}

fn checked(check: Check) -> TrafficPolicy {
    TrafficPolicy {
        health_check: Some(HealthCheck {
            timeout: SECOND,
            interval: 3 * SECOND,
            unhealthy_threshold: 3,
            healthy_threshold: 1,
            check,
        }),
        ..TrafficPolicy::default()
    }
}

fn hash(key: HashKey) -> ConsistentHash {
    ConsistentHash { key, table_size: 251 }
}

fn every_kind() -> Vec<TrafficPolicy> {
    let cookie = HashCookie {
        name: "id".to_owned(),
        ttl: Some(SECOND),
        attributes: vec![("SameSite".to_owned(), "Lax".to_owned())],
    };
    let headers = vec!["x-user".parse().expect("a name")];
    vec![
        TrafficPolicy::default(),
        balanced(Algorithm::PeakEwma),
        balanced(Algorithm::LeastRequest),
        balanced(Algorithm::RoundRobin),
        balanced(Algorithm::Random),
        balanced(Algorithm::Maglev(hash(HashKey::SourceIp))),
        balanced(Algorithm::RingHash(hash(HashKey::Headers(headers)))),
        balanced(Algorithm::Maglev(hash(HashKey::Cookie(cookie)))),
        checked(Check::Http {
            hostname: Some("pay.test".to_owned()),
            path: "/healthz".to_owned(),
            method: Method::HEAD,
            expected: vec![200, 204],
        }),
        checked(Check::Grpc {
            service: "shop.v1.Pay".to_owned(),
        }),
        checked(Check::Tcp {
            send: vec![0, 1],
            receive: vec![2],
        }),
        TrafficPolicy {
            outlier: Some(OutlierDetection {
                success_rate: Some(SuccessRate::default()),
                failure_percentage: Some(30),
                split_local: true,
                ..OutlierDetection::default()
            }),
            panic_threshold: Some(0),
            breaker: Some(CircuitBreaker {
                max_requests_per_connection: Some(1),
                max_connections_per_endpoint: Some(2),
                ..CircuitBreaker::default()
            }),
            connection: Some(ConnectionPolicy {
                connect_timeout: Some(SECOND),
                idle_timeout: Some(SECOND),
                max_duration: Some(SECOND),
                keepalive: Some(TcpKeepalive {
                    probes: Some(3),
                    idle: Some(SECOND),
                    interval: None,
                }),
            }),
            retry: Some(RetryPolicy::new([503].into(), 2, SECOND).expect("valid")),
            timeouts: Some(Timeouts::new(Some(2 * SECOND), Some(SECOND)).expect("valid")),
            retry_constraint: Some(RetryConstraint::default()),
            hedging: Some(Hedging {
                delay: HedgeDelay::Percentile(95),
                max_attempts: 3,
                grpc: true,
            }),
            concurrency: Some(AdaptiveConcurrency {
                kind: ConcurrencyKind::Aimd,
                ..AdaptiveConcurrency::default()
            }),
            session: Some(
                SessionPersistence::new(SessionCarrier::Header, "x-session", Some(SECOND), None)
                    .expect("valid"),
            ),
            ..TrafficPolicy::default()
        },
    ]
}

#[test]
fn every_kind_of_policy_survives_the_wire() {
    for policy in every_kind() {
        for sent in [resource(policy.clone()), in_shadow(policy)] {
            let bytes = resource_to_wire(&sent).encode_to_vec();
            let read = v1::Resource::decode(bytes.as_slice()).expect("what was encoded");
            assert_eq!(resource_from_wire(read), Ok(sent));
        }
    }
}

#[test]
fn a_policy_in_shadow_has_a_name() {
    let mut wire = resource_to_wire(&in_shadow(TrafficPolicy::default()));
    if let Some(v1::resource::Resource::Endpoints(set)) = &mut wire.resource
        && let Some(policies) = &mut set.shadow[0].policies
    {
        policies.traffic_name.clear();
    }
    let refused = resource_from_wire(wire).expect_err("no name");
    assert_eq!(refused.path.to_string(), "shadow[0].policies.traffic");
}

#[test]
fn what_is_out_of_bounds_is_refused_by_field() {
    type Spoil = fn(&mut TrafficPolicy);
    let table: [(Spoil, &str); 5] = [
        (
            |policy| policy.panic_threshold = Some(101),
            "policies[0].policy.healthCheck.panicThreshold",
        ),
        (
            |policy| {
                *policy = balanced(Algorithm::Maglev(ConsistentHash {
                    key: HashKey::SourceIp,
                    table_size: u32::MAX,
                }))
            },
            "policies[0].policy.loadBalancer.consistentHash.tableSize",
        ),
        (
            |policy| *policy = balanced(Algorithm::Maglev(hash(HashKey::Headers(Vec::new())))),
            "policies[0].policy.loadBalancer.consistentHash.headers",
        ),
        (
            |policy| {
                *policy = checked(Check::Tcp {
                    send: vec![0; 1025],
                    receive: Vec::new(),
                })
            },
            "policies[0].policy.healthCheck.active.tcp.send",
        ),
        (
            |policy| {
                policy.retry_constraint = Some(RetryConstraint {
                    interval: Duration::ZERO,
                    ..RetryConstraint::default()
                })
            },
            "policies[0].policy.retryConstraint.budget.interval",
        ),
    ];
    for (spoil, field) in table {
        let mut policy = TrafficPolicy::default();
        spoil(&mut policy);
        let refused = resource_from_wire(resource_to_wire(&resource(policy))).expect_err(field);
        assert_eq!(refused.path.to_string(), field);
    }
}
