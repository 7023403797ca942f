//! BackendTrafficPolicy as YAML has it. Names are Envoy Gateway's, where it has them; durations are text (GEP-2257).

use std::collections::BTreeMap;

use gateway_api::experimental::httproutes::HttpRouteRulesSessionPersistence;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(in crate::sources) struct BackendTrafficPolicy {
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub(super) target_refs: Option<Vec<TargetRef>>,
    pub(super) load_balancer: Option<LoadBalancer>,
    pub(super) health_check: Option<HealthCheck>,
    /// Another name of `healthCheck.passive`.
    pub(super) outlier_detection: Option<Passive>,
    pub(super) circuit_breaker: Option<CircuitBreaker>,
    pub(super) retry: Option<Retry>,
    pub(super) timeout: Option<Timeout>,
    pub(super) tcp_keepalive: Option<TcpKeepalive>,
    pub(super) retry_constraint: Option<RetryConstraint>,
    pub(super) hedging: Option<Hedging>,
    pub(super) adaptive_concurrency: Option<AdaptiveConcurrency>,
    /// Gateway API's, as in a rule.
    pub(super) session_persistence: Option<HttpRouteRulesSessionPersistence>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::sources) struct TargetRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
    pub(super) section_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LoadBalancer {
    pub(super) r#type: Option<BalancerType>,
    pub(super) consistent_hash: Option<ConsistentHash>,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) zone_aware: Option<ZoneAware>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum BalancerType {
    #[serde(alias = "PeakEwma")]
    PeakEWMA,
    LeastRequest,
    RoundRobin,
    Random,
    /// Envoy Gateway's word for Maglev.
    ConsistentHash,
    Maglev,
    RingHash,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ConsistentHash {
    pub(super) r#type: Option<HashType>,
    pub(super) header: Option<HashHeader>,
    pub(super) headers: Option<Vec<HashHeader>>,
    pub(super) cookie: Option<HashCookie>,
    pub(super) table_size: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum HashType {
    SourceIP,
    Header,
    Headers,
    Cookie,
}

#[derive(Debug, Deserialize)]
pub(super) struct HashHeader {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct HashCookie {
    pub(super) name: String,
    pub(super) ttl: Option<String>,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SlowStart {
    pub(super) window: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ZoneAware {
    pub(super) prefer_local: Option<PreferLocal>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PreferLocal {
    pub(super) min_endpoints_threshold: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HealthCheck {
    pub(super) active: Option<Active>,
    pub(super) passive: Option<Passive>,
    pub(super) panic_threshold: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Active {
    pub(super) timeout: Option<String>,
    pub(super) interval: Option<String>,
    pub(super) unhealthy_threshold: Option<u32>,
    pub(super) healthy_threshold: Option<u32>,
    pub(super) r#type: Option<CheckType>,
    pub(super) http: Option<HttpCheck>,
    pub(super) grpc: Option<GrpcCheck>,
    pub(super) tcp: Option<TcpCheck>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum CheckType {
    Http,
    Grpc,
    Tcp,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HttpCheck {
    pub(super) hostname: Option<String>,
    pub(super) path: Option<String>,
    pub(super) method: Option<String>,
    pub(super) expected_statuses: Option<Vec<u16>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GrpcCheck {
    pub(super) service: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TcpCheck {
    pub(super) send: Option<Payload>,
    pub(super) receive: Option<Payload>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Payload {
    pub(super) r#type: PayloadType,
    pub(super) text: Option<String>,
    /// In base64.
    pub(super) binary: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum PayloadType {
    Text,
    Binary,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Passive {
    pub(super) split_external_local_origin_errors: Option<bool>,
    pub(super) interval: Option<String>,
    pub(super) consecutive_local_origin_failures: Option<u32>,
    pub(super) consecutive_gateway_errors: Option<u32>,
    #[serde(rename = "consecutive5XxErrors", alias = "consecutive5xxErrors")]
    pub(super) consecutive_5xx_errors: Option<u32>,
    pub(super) base_ejection_time: Option<String>,
    pub(super) max_ejection_time: Option<String>,
    pub(super) max_ejection_percent: Option<u32>,
    pub(super) failure_percentage_threshold: Option<u32>,
    pub(super) success_rate: Option<SuccessRate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SuccessRate {
    pub(super) minimum_hosts: Option<u32>,
    pub(super) request_volume: Option<u32>,
    pub(super) stdev_factor: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CircuitBreaker {
    pub(super) max_connections: Option<u32>,
    pub(super) max_pending_requests: Option<u32>,
    pub(super) max_parallel_requests: Option<u32>,
    pub(super) max_parallel_retries: Option<u32>,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) per_endpoint: Option<PerEndpoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PerEndpoint {
    pub(super) max_connections: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Retry {
    pub(super) num_retries: Option<u32>,
    pub(super) retry_on: Option<RetryOn>,
    pub(super) per_retry: Option<PerRetry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RetryOn {
    pub(super) triggers: Option<Vec<Trigger>>,
    pub(super) http_status_codes: Option<Vec<u16>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Trigger {
    #[serde(rename = "5xx")]
    ServerErrors,
    GatewayError,
    Reset,
    ResetBeforeRequest,
    ConnectFailure,
    #[serde(rename = "retriable-4xx")]
    RetriableClientErrors,
    RefusedStream,
    RetriableStatusCodes,
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PerRetry {
    pub(super) timeout: Option<String>,
    pub(super) back_off: Option<BackOff>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BackOff {
    pub(super) base_interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Timeout {
    pub(super) tcp: Option<TcpTimeout>,
    pub(super) http: Option<HttpTimeout>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TcpTimeout {
    pub(super) connect_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HttpTimeout {
    pub(super) request_timeout: Option<String>,
    pub(super) connection_idle_timeout: Option<String>,
    pub(super) max_connection_duration: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TcpKeepalive {
    pub(super) probes: Option<u32>,
    pub(super) idle_time: Option<String>,
    pub(super) interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RetryConstraint {
    pub(super) budget: Option<Budget>,
    pub(super) min_retry_rate: Option<MinRetryRate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Budget {
    pub(super) percent: Option<u32>,
    pub(super) interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MinRetryRate {
    pub(super) count: Option<u32>,
    pub(super) interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Hedging {
    pub(super) delay: Option<String>,
    pub(super) percentile: Option<u8>,
    pub(super) max_attempts: Option<u8>,
    pub(super) grpc: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AdaptiveConcurrency {
    pub(super) r#type: Option<ConcurrencyType>,
    pub(super) min_concurrency: Option<u32>,
    pub(super) max_concurrency: Option<u32>,
    pub(super) interval: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum ConcurrencyType {
    Gradient,
    #[serde(rename = "AIMD")]
    Aimd,
}
