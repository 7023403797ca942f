//! What of a policy is refused. Errors name fields as YAML does.

use std::time::Duration;

use http::HeaderName;

use super::{
    AdaptiveConcurrency, Algorithm, Check, ConnectionPolicy, ConsistentHash, HashCookie, HashKey,
    HealthCheck, HedgeDelay, Hedging, LoadBalancer, OutlierDetection, RetryConstraint, TrafficPolicy,
};
use crate::FieldError;

impl LoadBalancer {
    pub(super) fn check(&self) -> Result<(), FieldError> {
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
    pub(super) fn check(&self, prime: bool) -> Result<(), FieldError> {
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
    pub(super) fn check(&self) -> Result<(), FieldError> {
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
    pub(super) fn check(&self) -> Result<(), FieldError> {
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
    pub(super) fn check(&self) -> Result<(), FieldError> {
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
    pub(super) fn check(&self) -> Result<(), FieldError> {
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
    pub(super) fn check(&self) -> Result<(), FieldError> {
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
    pub(super) fn check(&self) -> Result<(), FieldError> {
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
    pub(super) fn check(&self) -> Result<(), FieldError> {
        if self.min == 0 {
            return Err(FieldError::at("minConcurrency", "is at least 1"));
        }
        if self.max < self.min {
            return Err(FieldError::at("maxConcurrency", "is under minConcurrency"));
        }
        time("interval", self.interval, TrafficPolicy::MIN_INTERVAL)
    }
}

pub(super) fn within(field: &'static str) -> impl Fn(FieldError) -> FieldError {
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

pub(super) fn percentage(field: &str, value: u8) -> Result<(), FieldError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resilience::RetryBudget;
    use crate::traffic_policy::TcpKeepalive;

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
