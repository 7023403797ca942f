//! How the endpoints of a Service are used: which one is chosen, which are left out, and how much they are given.
//!
//! A section that is `None` says nothing: the proxy then does what it does without a policy.

mod bounds;
mod defaults;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use self::bounds::{percentage, within};
use crate::FieldError;
use crate::resilience::{RetryBudget, RetryPolicy, Timeouts};
use crate::session::SessionPersistence;

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
    /// Of requests whose rule has none.
    pub session: Option<SessionPersistence>,
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

    /// What governs the requests of a route to a service.
    pub fn joined(of_route: Option<&Arc<Self>>, of_service: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        match (of_route, of_service) {
            (Some(route), Some(service)) => Some(Arc::new(route.or(service))),
            (one, other) => one.or(other).cloned(),
        }
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
            session: mine.session.or(other.session),
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
            ("sessionPersistence", given(&self.session)),
        ];
        let given = sections.into_iter();
        given
            .filter_map(|(name, section)| Some((name, section?)))
            .collect()
    }

    /// The same policy with nothing but these sections, which are named as [`TrafficPolicy::sections`] names them.
    #[must_use]
    pub fn only(&self, sections: &[&str]) -> Self {
        fn kept<T: Clone>(section: &Option<T>, is_named: bool) -> Option<T> {
            section.clone().filter(|_| is_named)
        }
        let named = |name: &str| sections.contains(&name);
        Self {
            balance: kept(&self.balance, named("loadBalancer")),
            outlier: kept(&self.outlier, named("outlierDetection")),
            health_check: kept(&self.health_check, named("healthCheck")),
            panic_threshold: kept(&self.panic_threshold, named("panicThreshold")),
            breaker: kept(&self.breaker, named("circuitBreaker")),
            connection: kept(&self.connection, named("connections")),
            retry: kept(&self.retry, named("retry")),
            timeouts: kept(&self.timeouts, named("timeout")),
            retry_constraint: kept(&self.retry_constraint, named("retryConstraint")),
            hedging: kept(&self.hedging, named("hedging")),
            concurrency: kept(&self.concurrency, named("adaptiveConcurrency")),
            session: kept(&self.session, named("sessionPersistence")),
        }
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
            || self.session.is_some()
    }
}

/// Labels that say where a workload runs, from the nearest to the farthest; the first is Istio's, the others are
/// Kubernetes'.
pub const LOCALITY_LABELS: [&str; 3] = [
    "topology.istio.io/subzone",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];
