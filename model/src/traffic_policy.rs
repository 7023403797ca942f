//! How the endpoints of a Service are used: which one is chosen, which are left out, and how much they are given.
//!
//! A section that is `None` says nothing: the proxy then does what it does without a policy.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, Method};

use crate::FieldError;
use crate::resilience::{RetryBudget, RetryPolicy, Timeouts};

/// What a BackendTrafficPolicy says, section by section. [`TrafficPolicy::checked`] holds its bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficPolicy {
    pub balance: Option<LoadBalancer>,
    pub outlier: Option<OutlierDetection>,
    pub health_check: Option<HealthCheck>,
    /// Percent of the endpoints, 0–100: where fewer can be used, all of them are. Default
    /// [`TrafficPolicy::DEFAULT_PANIC_THRESHOLD`].
    pub panic_threshold: Option<u8>,
    pub breaker: Option<CircuitBreaker>,
    pub connection: Option<ConnectionPolicy>,
    /// Of requests whose rule has none.
    pub retry: Option<RetryPolicy>,
    /// Of requests whose rule has none.
    pub timeouts: Option<Timeouts>,
    pub retry_constraint: Option<RetryConstraint>,
    pub hedging: Option<Hedging>,
    pub concurrency: Option<AdaptiveConcurrency>,
}

/// Which endpoint a request goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancer {
    pub algorithm: Algorithm,
    /// How long an endpoint that has come takes to get its full share. `None`: it has it at once.
    pub slow_start: Option<Duration>,
    /// `None`: where an endpoint is makes no difference.
    pub prefer_local: Option<PreferLocal>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// The better of two at random, by a moving average of response times that follows a worse one at once.
    #[default]
    PeakEwma,
    /// The one of two at random with fewer requests in hand.
    LeastRequest,
    RoundRobin,
    Random,
    Maglev(ConsistentHash),
    RingHash(ConsistentHash),
}

/// Equal keys go to one endpoint, as long as it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistentHash {
    pub key: HashKey,
    /// For Maglev the places of the table, a prime; for a ring those of each endpoint. More are more even.
    pub table_size: u32,
}

impl ConsistentHash {
    /// As Envoy's.
    pub const DEFAULT_MAGLEV_SIZE: u32 = 65_537;
    /// With so many an endpoint has its share of the keys within some 10 %. Each is 8 bytes.
    pub const DEFAULT_RING_SIZE: u32 = 1024;
    /// Largest table that is accepted; Envoy takes up to 5,000,011, which is 10 MB per Service and worker here.
    pub const MAX_TABLE_SIZE: u32 = 1_000_003;
    /// Most places of one endpoint on a ring.
    pub const MAX_RING_SIZE: u32 = 4096;
}

/// What of a request is hashed. A request without it goes to any endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    SourceIp,
    /// All of them together.
    Headers(Vec<HeaderName>),
    Cookie(HashCookie),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashCookie {
    pub name: String,
    /// Where the client has no such cookie it is given one that lasts so long; zero: as long as its session. `None`: it
    /// is given none.
    pub ttl: Option<Duration>,
    /// Further attributes of the cookie that is given, as `SameSite: Strict`; one without a value is only named.
    pub attributes: Vec<(String, String)>,
}

/// Endpoints of the caller's own sub-zone come first, then those of its zone, its region, and all others. A nearer group
/// that has lost endpoints hands on what it cannot take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreferLocal {
    /// With fewer endpoints in all, where they are makes no difference.
    pub min_endpoints: u32,
}

/// An endpoint whose answers are bad is left out for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Consecutive answers of 500–599, and failures of this side where `split_local` is not set. 0: not counted.
    pub consecutive_5xx: u32,
    /// Consecutive answers of 502, 503 and 504. 0: not counted.
    pub consecutive_gateway: u32,
    /// Consecutive connections that failed, broke or took too long; counted where `split_local` is set. 0: not counted.
    pub consecutive_local: u32,
    /// Counts failures of this side by themselves.
    pub split_local: bool,
    /// How often rates are looked at.
    pub interval: Duration,
    /// The first time; twice that the second, and so on.
    pub base_ejection: Duration,
    /// At most so long.
    pub max_ejection: Duration,
    /// Percent of the endpoints that may be out at a time; one always may.
    pub max_ejection_percent: u8,
    /// Out is who has fewer good answers than the others by so much.
    pub success_rate: Option<SuccessRate>,
    /// Percent of bad answers from which on an endpoint is out. `None`: not looked at.
    pub failure_percentage: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRate {
    /// Endpoints with enough requests that are needed for a comparison.
    pub minimum_hosts: u32,
    /// Requests within an interval that make an endpoint comparable.
    pub request_volume: u32,
    /// Standard deviations below the mean, times 1,000.
    pub stdev_factor: u32,
}

/// Endpoints are asked how they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub timeout: Duration,
    pub interval: Duration,
    /// Failures in a row after which an endpoint is left out.
    pub unhealthy_threshold: u32,
    /// Successes in a row after which it is used again.
    pub healthy_threshold: u32,
    pub check: Check,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    Http {
        /// `None`: the Service's DNS name.
        hostname: Option<String>,
        path: String,
        method: Method,
        /// Never empty, ascending.
        expected: Vec<u16>,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// Empty: the whole server.
        service: String,
    },
    /// A connection, and what is then sent and expected, where that is not empty.
    Tcp { send: Vec<u8>, receive: Vec<u8> },
}

/// What a cluster is given at most, over all workers of one proxy. Beyond it a request is answered with 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitBreaker {
    pub max_connections: u32,
    /// Requests that wait for one of the connections.
    pub max_pending: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    pub max_requests_per_connection: Option<u32>,
    pub max_connections_per_endpoint: Option<u32>,
}

impl CircuitBreaker {
    /// Envoy's and Envoy Gateway's own for each count that is not given.
    pub const DEFAULT: u32 = 1024;
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            max_connections: Self::DEFAULT,
            max_pending: Self::DEFAULT,
            max_requests: Self::DEFAULT,
            max_retries: Self::DEFAULT,
            max_requests_per_connection: None,
            max_connections_per_endpoint: None,
        }
    }
}

/// `None` is what the proxy's own settings say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionPolicy {
    /// TLS included.
    pub connect_timeout: Option<Duration>,
    /// After so long out of use a connection is closed.
    pub idle_timeout: Option<Duration>,
    /// An older connection takes no new request.
    pub max_duration: Option<Duration>,
    pub keepalive: Option<TcpKeepalive>,
}

/// Whole seconds; `None` is the machine's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    pub probes: Option<u32>,
    pub idle: Option<Duration>,
    pub interval: Option<Duration>,
}

/// Gateway API's `retryConstraint` (GEP-3388): how many retries a Service may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryConstraint {
    /// Retries per hundred requests, 0–100.
    pub percent: u8,
    /// How long a request counts.
    pub interval: Duration,
    /// So many retries are allowed besides …
    pub min_count: u32,
    /// … in each such time.
    pub min_interval: Duration,
}

/// A request whose answer takes long is sent to another endpoint as well; the first good answer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedging {
    pub delay: HedgeDelay,
    /// The first one included; 2–[`Hedging::MAX_ATTEMPTS`].
    pub max_attempts: u8,
    /// gRPC calls may arrive more than once.
    pub grpc: bool,
}

impl Hedging {
    pub const MAX_ATTEMPTS: u8 = 5;
}

/// After how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeDelay {
    After(Duration),
    /// When so many percent of the last answers had come, 1–99.
    Percentile(u8),
}

/// How many requests are in flight at a time is found out from how they are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveConcurrency {
    pub kind: ConcurrencyKind,
    /// The limit's own bounds.
    pub min: u32,
    pub max: u32,
    /// How often it is moved.
    pub interval: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConcurrencyKind {
    /// By how answers slow down.
    Gradient,
    /// By overloads: additive increase, multiplicative decrease.
    Aimd,
}

impl Default for AdaptiveConcurrency {
    fn default() -> Self {
        Self {
            kind: ConcurrencyKind::Gradient,
            min: 3,
            max: 1000,
            interval: Duration::from_millis(100),
        }
    }
}

impl Default for RetryConstraint {
    /// 20 % over 10 s, and 10 per second.
    fn default() -> Self {
        Self {
            percent: 20,
            interval: Duration::from_secs(10),
            min_count: 10,
            min_interval: Duration::from_secs(1),
        }
    }
}

impl RetryConstraint {
    /// As the counting needs it.
    pub fn budget(&self) -> RetryBudget {
        RetryBudget {
            ratio: f64::from(self.percent) / 100.0,
            window: self.interval,
            min_retries: f64::from(self.min_count),
            min_interval: self.min_interval,
        }
    }
}

impl Default for LoadBalancer {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::PeakEwma,
            slow_start: None,
            prefer_local: None,
        }
    }
}

impl Default for PreferLocal {
    fn default() -> Self {
        Self { min_endpoints: 1 }
    }
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway: 0,
            consecutive_local: 5,
            split_local: false,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejection_percent: 10,
            success_rate: None,
            failure_percentage: None,
        }
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            minimum_hosts: 5,
            request_volume: 100,
            stdev_factor: 1900,
        }
    }
}

impl TrafficPolicy {
    /// Percent, as Envoy's.
    pub const DEFAULT_PANIC_THRESHOLD: u8 = 50;
    /// Longest time of any kind that is accepted.
    pub const MAX_TIME: Duration = Duration::from_secs(24 * 3600);
    /// Shortest time between two looks or checks.
    pub const MIN_INTERVAL: Duration = Duration::from_millis(10);
    /// Most headers that are hashed together, and most attributes of a cookie.
    pub const MAX_LIST: usize = 16;
    /// Longest text or payload of a health check, in bytes.
    pub const MAX_CHECK_BYTES: usize = 1024;

    /// The policy, if it is within its bounds.
    ///
    /// # Errors
    /// Names the first field that is not, as YAML has it.
    pub fn checked(self) -> Result<Self, FieldError> {
        if let Some(balance) = &self.balance {
            balance.check().map_err(within("loadBalancer"))?;
        }
        if let Some(outlier) = &self.outlier {
            outlier.check().map_err(within("outlierDetection"))?;
        }
        if let Some(check) = &self.health_check {
            check
                .check()
                .map_err(within("active"))
                .map_err(within("healthCheck"))?;
        }
        if let Some(percent) = self.panic_threshold {
            percentage("panicThreshold", percent).map_err(within("healthCheck"))?;
        }
        if let Some(connection) = &self.connection {
            connection.check()?;
        }
        if let Some(constraint) = &self.retry_constraint {
            constraint.check().map_err(within("retryConstraint"))?;
        }
        if let Some(hedging) = &self.hedging {
            hedging.check().map_err(within("hedging"))?;
        }
        if let Some(concurrency) = &self.concurrency {
            concurrency.check().map_err(within("adaptiveConcurrency"))?;
        }
        Ok(self)
    }

    /// This policy, and for every section on which it is silent what `other` says.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let (mine, other) = (self.clone(), other.clone());
        Self {
            balance: mine.balance.or(other.balance),
            outlier: mine.outlier.or(other.outlier),
            health_check: mine.health_check.or(other.health_check),
            panic_threshold: mine.panic_threshold.or(other.panic_threshold),
            breaker: mine.breaker.or(other.breaker),
            connection: mine.connection.or(other.connection),
            retry: mine.retry.or(other.retry),
            timeouts: mine.timeouts.or(other.timeouts),
            retry_constraint: mine.retry_constraint.or(other.retry_constraint),
            hedging: mine.hedging.or(other.hedging),
            concurrency: mine.concurrency.or(other.concurrency),
        }
    }

    /// The sections that it has something to say in, by their names in YAML.
    pub fn sections(&self) -> Vec<(&'static str, &dyn fmt::Debug)> {
        fn given<T: fmt::Debug>(section: &Option<T>) -> Option<&dyn fmt::Debug> {
            section.as_ref().map(|section| section as &dyn fmt::Debug)
        }
        let sections = [
            ("loadBalancer", given(&self.balance)),
            ("outlierDetection", given(&self.outlier)),
            ("healthCheck", given(&self.health_check)),
            ("panicThreshold", given(&self.panic_threshold)),
            ("circuitBreaker", given(&self.breaker)),
            ("connections", given(&self.connection)),
            ("retry", given(&self.retry)),
            ("timeout", given(&self.timeouts)),
            ("retryConstraint", given(&self.retry_constraint)),
            ("hedging", given(&self.hedging)),
            ("adaptiveConcurrency", given(&self.concurrency)),
        ];
        let given = sections.into_iter();
        given
            .filter_map(|(name, section)| Some((name, section?)))
            .collect()
    }

    /// Whether anything in it is about endpoints and their connections, and not only about requests.
    pub fn governs_endpoints(&self) -> bool {
        self.balance.is_some()
            || self.outlier.is_some()
            || self.health_check.is_some()
            || self.panic_threshold.is_some()
            || self.breaker.is_some()
            || self.connection.is_some()
            || self.concurrency.is_some()
    }
}

impl LoadBalancer {
    fn check(&self) -> Result<(), FieldError> {
        if let Some(window) = self.slow_start {
            time("window", window, Duration::ZERO).map_err(within("slowStart"))?;
        }
        match &self.algorithm {
            Algorithm::Maglev(hash) => hash.check(true),
            Algorithm::RingHash(hash) => hash.check(false),
            Algorithm::PeakEwma | Algorithm::LeastRequest | Algorithm::RoundRobin | Algorithm::Random => {
                Ok(())
            }
        }
        .map_err(within("consistentHash"))
    }
}

impl ConsistentHash {
    fn check(&self, prime: bool) -> Result<(), FieldError> {
        let size = self.table_size;
        let most = if prime {
            Self::MAX_TABLE_SIZE
        } else {
            Self::MAX_RING_SIZE
        };
        if !(2..=most).contains(&size) {
            let why = format!("{size} is not 2-{most}");
            return Err(FieldError::at("tableSize", why));
        }
        if prime && !is_prime(size) {
            return Err(FieldError::at("tableSize", format!("{size} is not a prime")));
        }
        match &self.key {
            HashKey::SourceIp => Ok(()),
            HashKey::Headers(names) if names.is_empty() => Err(FieldError::at("headers", "names no header")),
            HashKey::Headers(names) => at_most("headers", names.len(), TrafficPolicy::MAX_LIST),
            HashKey::Cookie(cookie) => cookie.check().map_err(within("cookie")),
        }
    }
}

impl HashCookie {
    fn check(&self) -> Result<(), FieldError> {
        // RFC 6265 section 4.1.1: a name is a token.
        if !is_token(&self.name) {
            return Err(FieldError::at(
                "name",
                format!("{:?} is not a cookie's name", self.name),
            ));
        }
        if let Some(ttl) = self.ttl {
            // A cookie may outlive a day by far.
            at_most(
                "ttl",
                usize::try_from(ttl.as_secs()).unwrap_or(usize::MAX),
                400 * 24 * 3600,
            )?;
        }
        at_most("attributes", self.attributes.len(), TrafficPolicy::MAX_LIST)?;
        for (name, value) in &self.attributes {
            let plain = |c: char| (' '..='~').contains(&c) && c != ';';
            if !is_token(name) || !value.chars().all(plain) {
                return Err(FieldError::at(
                    "attributes",
                    format!("{name:?} is not an attribute"),
                ));
            }
        }
        Ok(())
    }
}

impl OutlierDetection {
    fn check(&self) -> Result<(), FieldError> {
        time("interval", self.interval, TrafficPolicy::MIN_INTERVAL)?;
        time(
            "baseEjectionTime",
            self.base_ejection,
            TrafficPolicy::MIN_INTERVAL,
        )?;
        time("maxEjectionTime", self.max_ejection, TrafficPolicy::MIN_INTERVAL)?;
        percentage("maxEjectionPercent", self.max_ejection_percent)?;
        match self.failure_percentage {
            Some(0) => Err(FieldError::at("failurePercentageThreshold", "0 is not 1-100")),
            Some(percent) => percentage("failurePercentageThreshold", percent),
            None => Ok(()),
        }
    }
}

impl HealthCheck {
    fn check(&self) -> Result<(), FieldError> {
        time("timeout", self.timeout, Duration::from_millis(1))?;
        time("interval", self.interval, TrafficPolicy::MIN_INTERVAL)?;
        for (field, threshold) in [
            ("unhealthyThreshold", self.unhealthy_threshold),
            ("healthyThreshold", self.healthy_threshold),
        ] {
            if threshold == 0 {
                return Err(FieldError::at(field, "is at least 1"));
            }
        }
        let bytes = TrafficPolicy::MAX_CHECK_BYTES;
        match &self.check {
            Check::Http {
                hostname,
                path,
                expected,
                ..
            } => http_check(hostname.as_deref(), path, expected).map_err(within("http")),
            Check::Grpc { service } => at_most("service", service.len(), bytes).map_err(within("grpc")),
            Check::Tcp { send, receive } => at_most("send", send.len(), bytes)
                .and_then(|()| at_most("receive", receive.len(), bytes))
                .map_err(within("tcp")),
        }
    }
}

fn http_check(hostname: Option<&str>, path: &str, expected: &[u16]) -> Result<(), FieldError> {
    let is_path = path.starts_with('/') && path.bytes().all(|b| (b'!'..=b'~').contains(&b) && b != b'#');
    if !is_path {
        return Err(FieldError::at("path", format!("{path:?} is not a path")));
    }
    at_most("path", path.len(), TrafficPolicy::MAX_CHECK_BYTES)?;
    if let Some(hostname) = hostname
        && (hostname.parse::<http::uri::Authority>().is_err() || hostname.len() > 253)
    {
        return Err(FieldError::at(
            "hostname",
            format!("{hostname:?} is not a host name"),
        ));
    }
    let is_status = |code: &u16| (100..=599).contains(code);
    match expected.iter().find(|code| !is_status(code)) {
        Some(code) => Err(FieldError::at(
            "expectedStatuses",
            format!("{code} is not a status of 100-599"),
        )),
        None if expected.is_empty() => Err(FieldError::at("expectedStatuses", "is empty")),
        None => Ok(()),
    }
}

impl ConnectionPolicy {
    fn check(&self) -> Result<(), FieldError> {
        let least = Duration::from_millis(1);
        if let Some(timeout) = self.connect_timeout {
            time("connectTimeout", timeout, least)
                .map_err(within("tcp"))
                .map_err(within("timeout"))?;
        }
        for (field, value) in [
            ("connectionIdleTimeout", self.idle_timeout),
            ("maxConnectionDuration", self.max_duration),
        ] {
            if let Some(value) = value {
                time(field, value, least)
                    .map_err(within("http"))
                    .map_err(within("timeout"))?;
            }
        }
        let Some(keepalive) = &self.keepalive else {
            return Ok(());
        };
        let second = Duration::from_secs(1);
        for (field, value) in [("idleTime", keepalive.idle), ("interval", keepalive.interval)] {
            if let Some(value) = value {
                // Linux counts them in 15 bits.
                let least = time(field, value, second).and_then(|()| {
                    at_most(
                        field,
                        usize::try_from(value.as_secs()).unwrap_or(usize::MAX),
                        32_767,
                    )
                });
                least.map_err(within("tcpKeepalive"))?;
            }
        }
        match keepalive.probes {
            Some(probes) if !(1..=127).contains(&probes) => {
                Err(FieldError::at("probes", format!("{probes} is not 1-127")).within("tcpKeepalive"))
            }
            _ => Ok(()),
        }
    }
}

impl RetryConstraint {
    fn check(&self) -> Result<(), FieldError> {
        percentage("percent", self.percent).map_err(within("budget"))?;
        let hour = Duration::from_secs(3600);
        let bounded = |field, value| match time(field, value, Duration::from_secs(1)) {
            // GEP-3388: at most an hour.
            Ok(()) if value > hour => Err(FieldError::at(field, "is over 1h")),
            checked => checked,
        };
        bounded("interval", self.interval).map_err(within("budget"))?;
        bounded("interval", self.min_interval).map_err(within("minRetryRate"))?;
        at_most("count", self.min_count as usize, 1_000_000).map_err(within("minRetryRate"))
    }
}

impl Hedging {
    fn check(&self) -> Result<(), FieldError> {
        if !(2..=Self::MAX_ATTEMPTS).contains(&self.max_attempts) {
            let why = format!("{} is not 2-{}", self.max_attempts, Self::MAX_ATTEMPTS);
            return Err(FieldError::at("maxAttempts", why));
        }
        match self.delay {
            HedgeDelay::After(delay) => time("delay", delay, Duration::from_millis(1)),
            HedgeDelay::Percentile(1..=99) => Ok(()),
            HedgeDelay::Percentile(percent) => {
                Err(FieldError::at("percentile", format!("{percent} is not 1-99")))
            }
        }
    }
}

impl AdaptiveConcurrency {
    fn check(&self) -> Result<(), FieldError> {
        if self.min == 0 {
            return Err(FieldError::at("minConcurrency", "is at least 1"));
        }
        if self.max < self.min {
            return Err(FieldError::at("maxConcurrency", "is under minConcurrency"));
        }
        time("interval", self.interval, TrafficPolicy::MIN_INTERVAL)
    }
}

fn within(field: &'static str) -> impl Fn(FieldError) -> FieldError {
    move |error| error.within(field)
}

fn time(field: &str, value: Duration, least: Duration) -> Result<(), FieldError> {
    if value < least {
        return Err(FieldError::at(
            field,
            format!("is under {} ms", least.as_millis()),
        ));
    }
    if value > TrafficPolicy::MAX_TIME {
        return Err(FieldError::at(field, "is over 24h"));
    }
    Ok(())
}

fn percentage(field: &str, value: u8) -> Result<(), FieldError> {
    if value > 100 {
        return Err(FieldError::at(field, format!("{value} is not 0-100")));
    }
    Ok(())
}

fn at_most(field: &str, value: usize, most: usize) -> Result<(), FieldError> {
    if value > most {
        return Err(FieldError::at(field, format!("{value} is over {most}")));
    }
    Ok(())
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && HeaderName::from_bytes(text.as_bytes()).is_ok()
}

fn is_prime(number: u32) -> bool {
    let factors = (2u32..).take_while(|factor| factor.saturating_mul(*factor) <= number);
    number >= 2 && { factors }.all(|factor| !number.is_multiple_of(factor))
}

/// Labels that say where a workload runs, from the nearest to the farthest; the first is Istio's, the others are
/// Kubernetes'.
pub const LOCALITY_LABELS: [&str; 3] = [
    "topology.istio.io/subzone",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(policy: TrafficPolicy) -> String {
        policy.checked().expect_err("out of bounds").to_string()
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let hash = |table_size| {
            let key = HashKey::SourceIp;
            let balance = LoadBalancer {
                algorithm: Algorithm::Maglev(ConsistentHash { key, table_size }),
                ..LoadBalancer::default()
            };
            TrafficPolicy {
                balance: Some(balance),
                ..TrafficPolicy::default()
            }
        };
        assert!(hash(65_537).checked().is_ok());
        assert_eq!(
            refusal(hash(65_536)),
            "loadBalancer.consistentHash.tableSize: 65536 is not a prime"
        );
        let outlier = OutlierDetection {
            max_ejection_percent: 101,
            ..OutlierDetection::default()
        };
        let policy = TrafficPolicy {
            outlier: Some(outlier),
            ..TrafficPolicy::default()
        };
        assert_eq!(
            refusal(policy),
            "outlierDetection.maxEjectionPercent: 101 is not 0-100"
        );
        let keepalive = TcpKeepalive {
            probes: Some(0),
            ..TcpKeepalive::default()
        };
        let policy = TrafficPolicy {
            connection: Some(ConnectionPolicy {
                keepalive: Some(keepalive),
                ..ConnectionPolicy::default()
            }),
            ..TrafficPolicy::default()
        };
        assert_eq!(refusal(policy), "tcpKeepalive.probes: 0 is not 1-127");
    }

    #[test]
    fn the_default_constraint_is_the_default_budget() {
        assert_eq!(RetryConstraint::default().budget(), RetryBudget::default());
    }
}
