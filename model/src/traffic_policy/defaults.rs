//! What a section says where a field is not given: Envoy's and Envoy Gateway's own words, where they have one.

use std::time::Duration;

use super::{
    AdaptiveConcurrency, Algorithm, CircuitBreaker, ConcurrencyKind, LoadBalancer, OutlierDetection,
    PreferLocal, RetryConstraint, SuccessRate,
};

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
