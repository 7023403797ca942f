//! BackendTrafficPolicy: what is read, and what is refused where.

use std::time::Duration;

use model::TrafficPolicy;
use model::resilience::Timeouts;
use model::traffic_policy::{
    Algorithm, Check, CircuitBreaker, ConnectionPolicy, ConsistentHash, HashCookie, HashKey, LoadBalancer,
    OutlierDetection, PreferLocal, RetryConstraint, TcpKeepalive,
};

use super::*;

/// A policy around some lines of its spec, which begin on line 10.
fn policy(lines: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1
kind: BackendTrafficPolicy
metadata:
  name: pay
spec:
  targetRefs:
    - group: ''
      kind: Service
      name: pay
{lines}"
    )
}

fn only_policy(lines: &str) -> TrafficPolicy {
    match only(&policy(lines)) {
        Object::TrafficPolicy(policy) => (*policy.policy).clone(),
        other => panic!("a policy, not {other:?}"),
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_policy_is_read_with_envoy_gateways_names_and_defaults() {
    let read = only_policy(
        "  loadBalancer:
    type: ConsistentHash
    consistentHash: {type: Cookie, cookie: {name: id, ttl: 1h, attributes: {SameSite: Lax}}}
    zoneAware: {preferLocal: {minEndpointsThreshold: 3}}
  healthCheck:
    panicThreshold: 30
    active: {type: HTTP, interval: 2s, http: {path: /healthz, expectedStatuses: [204, 200]}}
    passive: {consecutive5XxErrors: 3, maxEjectionPercent: 50}
  circuitBreaker: {maxConnections: 7, perEndpoint: {maxConnections: 2}}
  retry: {numRetries: 4, retryOn: {triggers: [gateway-error, retriable-status-codes, unavailable, deadline-exceeded], httpStatusCodes: [429]}, perRetry: {timeout: 250ms}}
  timeout: {tcp: {connectTimeout: 1s}, http: {requestTimeout: 5s, maxConnectionDuration: 0s}}
  tcpKeepalive: {probes: 3, idleTime: 10s}
  retryConstraint: {budget: {percent: 50}, minRetryRate: {count: 1, interval: 2s}}
",
    );
    let cookie = HashCookie {
        name: "id".to_owned(),
        ttl: Some(3600 * SECOND),
        attributes: vec![("SameSite".to_owned(), "Lax".to_owned())],
    };
    assert_eq!(
        read.balance,
        Some(LoadBalancer {
            algorithm: Algorithm::Maglev(ConsistentHash {
                key: HashKey::Cookie(cookie),
                table_size: 65_537
            }),
            slow_start: None,
            prefer_local: Some(PreferLocal { min_endpoints: 3 }),
        })
    );
    assert_eq!(
        read.outlier,
        Some(OutlierDetection {
            consecutive_5xx: 3,
            max_ejection_percent: 50,
            ..OutlierDetection::default()
        })
    );
    let check = read.health_check.expect("a check");
    assert_eq!((check.timeout, check.interval), (SECOND, 2 * SECOND));
    assert_eq!((check.unhealthy_threshold, check.healthy_threshold), (3, 1));
    assert!(
        matches!(check.check, Check::Http { path, expected, .. } if path == "/healthz" && expected == [200, 204])
    );
    assert_eq!(read.panic_threshold, Some(30));
    assert_eq!(
        read.breaker,
        Some(CircuitBreaker {
            max_connections: 7,
            max_connections_per_endpoint: Some(2),
            ..CircuitBreaker::default()
        })
    );
    let retry = read.retry.expect("a retry");
    assert_eq!((retry.attempts, retry.backoff), (4, Duration::from_millis(25)));
    assert_eq!(retry.codes, [429, 502, 503, 504].into());
    assert_eq!(retry.grpc_codes, [4, 14].into());
    let timeouts = Timeouts {
        request: Some(5 * SECOND),
        backend_request: Some(Duration::from_millis(250)),
    };
    assert_eq!(read.timeouts, Some(timeouts));
    assert_eq!(
        read.connection,
        Some(ConnectionPolicy {
            connect_timeout: Some(SECOND),
            keepalive: Some(TcpKeepalive {
                probes: Some(3),
                idle: Some(10 * SECOND),
                interval: None
            }),
            ..ConnectionPolicy::default()
        })
    );
    assert_eq!(
        read.retry_constraint,
        Some(RetryConstraint {
            percent: 50,
            min_count: 1,
            min_interval: 2 * SECOND,
            ..RetryConstraint::default()
        })
    );
}

#[test]
fn the_issues_names_are_names_too() {
    let read = only_policy(
        "  outlierDetection: {consecutive5xxErrors: 2}\n  loadBalancer: {type: PeakEWMA, slowStart: {window: 10s}}\n",
    );
    assert_eq!(read.outlier.map(|outlier| outlier.consecutive_5xx), Some(2));
    assert_eq!(
        read.balance.and_then(|balance| balance.slow_start),
        Some(10 * SECOND)
    );
    let ring = only_policy("  loadBalancer: {type: RingHash, consistentHash: {type: SourceIP}}\n");
    assert!(matches!(
        ring.balance.map(|balance| balance.algorithm),
        Some(Algorithm::RingHash(ConsistentHash {
            key: HashKey::SourceIp,
            table_size: 1024
        }))
    ));
}

#[test]
fn what_is_wrong_in_a_policy_is_found_at_its_place() {
    let table = [
        (
            "  loadBalancer: {type: Fair}\n",
            "10:24: spec.loadBalancer.type: unknown variant `Fair`",
        ),
        ("  loadbalancer: {}\n", "10:3: spec.loadbalancer: no such field"),
        (
            "  loadBalancer: {type: Maglev}\n",
            "10:3: spec.loadBalancer: consistentHash is missing, which the load balancer's type asks for",
        ),
        (
            "  loadBalancer: {type: Maglev, consistentHash: {type: Header}}\n",
            "10:32: spec.loadBalancer.consistentHash: header is missing, which the type asks for",
        ),
        (
            "  loadBalancer: {type: Maglev, consistentHash: {type: SourceIP, tableSize: 100}}\n",
            "10:76: spec.loadBalancer.consistentHash.tableSize: 100 is not a prime",
        ),
        (
            "  loadBalancer: {type: Random, consistentHash: {type: SourceIP}}\n",
            "10:32: spec.loadBalancer.consistentHash: is not what the load balancer's type says",
        ),
        (
            "  outlierDetection: {maxEjectionPercent: 101}\n",
            "10:42: spec.outlierDetection.maxEjectionPercent: 101 is not 0-100",
        ),
        (
            "  healthCheck: {active: {type: HTTP, tcp: {}}}\n",
            "10:38: spec.healthCheck.active.tcp: is not what the check's type says",
        ),
        (
            "  healthCheck: {active: {type: HTTP, http: {path: healthz}}}\n",
            "10:51: spec.healthCheck.active.http.path: \"healthz\" is not a path",
        ),
        (
            "  timeout: {tcp: {connectTimeout: soon}}\n",
            "10:35: spec.timeout.tcp.connectTimeout: \"soon\" is not a duration",
        ),
        (
            "  retry: {numRetries: 21}\n",
            "10:23: spec.retry.numRetries: 21 is over 20",
        ),
        (
            "  retry: {retryOn: {triggers: [5xx], httpStatusCodes: [429]}}\n",
            "10:38: spec.retry.retryOn.httpStatusCodes: counts only with the trigger retriable-status-codes",
        ),
        (
            "  retryConstraint: {budget: {percent: 20, interval: 2h}}\n",
            "10:53: spec.retryConstraint.budget.interval: is over 1h",
        ),
        (
            "  tcpKeepalive: {probes: 0}\n",
            "10:26: spec.tcpKeepalive.probes: 0 is not 1-127",
        ),
    ];
    for (lines, expected) in table {
        let complaints = complaints(&policy(lines));
        assert!(
            complaints.len() == 1 && complaints[0].starts_with(expected),
            "{lines}: {complaints:?}, not {expected}"
        );
    }
}

#[test]
fn targets_are_services_and_routes_of_its_own_namespace() {
    let of = |target: &str| {
        format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: BackendTrafficPolicy, metadata: {{name: a}}, \
             spec: {{targetRefs: [{target}], loadBalancer: {{}}}}}}"
        )
    };
    let Object::TrafficPolicy(read) = only(&of(
        "{group: '', kind: Service, name: a, sectionName: http}, {group: gateway.networking.k8s.io, kind: HTTPRoute, name: b, sectionName: r}",
    )) else {
        panic!("a policy");
    };
    let said: Vec<_> = read
        .targets
        .iter()
        .map(|target| (target.kind, target.name.as_str(), target.section.as_deref()))
        .collect();
    assert_eq!(
        said,
        [
            (Kind::Service, "a", Some("http")),
            (Kind::HttpRoute, "b", Some("r"))
        ]
    );
    for (target, expected) in [
        ("", "targetRefs has at least one entry"),
        (
            "{kind: Gateway, name: a}",
            "\"Gateway\" is not supported (supported: Service, HTTPRoute, GRPCRoute)",
        ),
        (
            "{kind: HTTPRoute, name: a}",
            "\"\" has no HTTPRoute; its group is \"gateway.networking.k8s.io\"",
        ),
        ("{kind: Service, name: a, namespace: b}", "no such field"),
        (
            "{kind: Service, name: a}, {kind: Service, name: a}",
            "is the same as item 0",
        ),
    ] {
        let complaints = complaints(&of(target));
        assert!(
            complaints.len() == 1 && complaints[0].ends_with(expected),
            "{complaints:?}"
        );
    }
}
