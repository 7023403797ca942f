//! What the sidecars of a mesh counted, added up by service.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use proxy::stats::{Direction, Stats};

/// How far back "lately" goes.
const LATELY: Duration = Duration::from_secs(10);

/// The counts of all sidecars of a mesh at one moment, or between two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MeshCounts {
    /// By `namespace/name` of the service that was called.
    pub services: BTreeMap<String, ServiceCounts>,
    /// Sendings from one sidecar to another.
    pub hops: u64,
    pub hops_over_mtls: u64,
    /// Requests that came in from other sidecars: the other end of the hops.
    pub received: u64,
    pub received_over_mtls: u64,
}

/// Calls of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServiceCounts {
    pub requests: u64,
    pub successes: u64,
    pub attempts: u64,
    pub attempt_failures: u64,
    /// Requests by `namespace/name` of the service that a route chose.
    pub backends: BTreeMap<String, u64>,
}

impl MeshCounts {
    /// Adds up what callers counted; the other end counts the same requests once more.
    pub(crate) fn of<'a>(sidecars: impl IntoIterator<Item = &'a Stats>) -> Self {
        let mut counts = Self::default();
        for stats in sidecars.into_iter().flat_map(|sidecar| &sidecar.requests) {
            if stats.series.direction == Direction::Inbound {
                counts.received += stats.requests;
                counts.received_over_mtls += stats.mtls_requests;
                continue;
            }
            counts.hops += stats.attempts;
            counts.hops_over_mtls += stats.mtls_attempts;
            let service = counts
                .services
                .entry(without_port(&stats.series.destination))
                .or_default();
            service.requests += stats.requests;
            service.successes += stats.successes;
            service.attempts += stats.attempts;
            service.attempt_failures += stats.attempt_failures;
            *service
                .backends
                .entry(without_port(&stats.series.backend))
                .or_default() += stats.requests;
        }
        counts
    }

    /// What was added since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let nothing = ServiceCounts::default();
        let services = self.services.iter().map(|(name, now)| {
            (
                name.clone(),
                now.since(earlier.services.get(name).unwrap_or(&nothing)),
            )
        });
        Self {
            services: services.collect(),
            hops: self.hops.saturating_sub(earlier.hops),
            hops_over_mtls: self.hops_over_mtls.saturating_sub(earlier.hops_over_mtls),
            received: self.received.saturating_sub(earlier.received),
            received_over_mtls: self.received_over_mtls.saturating_sub(earlier.received_over_mtls),
        }
    }

    /// All sendings, and those that failed: what callers would see without retries.
    pub(crate) fn attempts(&self) -> (u64, u64) {
        self.services.values().fold((0, 0), |(all, failed), service| {
            (all + service.attempts, failed + service.attempt_failures)
        })
    }

    /// Whether there were hops and each was over mTLS, by the count of both ends.
    pub(crate) fn all_over_mtls(&self) -> bool {
        self.hops > 0
            && self.received > 0
            && self.hops == self.hops_over_mtls
            && self.received == self.received_over_mtls
    }
}

impl ServiceCounts {
    fn since(&self, earlier: &Self) -> Self {
        let backends = self.backends.iter().map(|(name, now)| {
            (
                name.clone(),
                now.saturating_sub(earlier.backends.get(name).copied().unwrap_or_default()),
            )
        });
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            successes: self.successes.saturating_sub(earlier.successes),
            attempts: self.attempts.saturating_sub(earlier.attempts),
            attempt_failures: self.attempt_failures.saturating_sub(earlier.attempt_failures),
            backends: backends.collect(),
        }
    }
}

/// `namespace/name:port` without the port.
fn without_port(service_port: &str) -> String {
    service_port
        .rsplit_once(':')
        .map_or(service_port, |(service, _)| service)
        .to_owned()
}

/// Remembers counts for as long as "lately" goes back.
#[derive(Debug)]
pub(crate) struct History(VecDeque<(Instant, MeshCounts)>);

impl History {
    /// Begins where nothing has been counted.
    pub(crate) fn new(now: Instant) -> Self {
        Self([(now, MeshCounts::default())].into())
    }

    /// Takes the counts of this moment; answers what was added lately.
    pub(crate) fn turn(&mut self, now: Instant, counts: &MeshCounts) -> MeshCounts {
        self.0.push_back((now, counts.clone()));
        // The first one that is old enough stays: the difference is taken from it.
        while self
            .0
            .get(1)
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) >= LATELY)
        {
            self.0.pop_front();
        }
        self.0
            .front()
            .map(|(_, earliest)| counts.since(earliest))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy::stats::{RequestStats, Series};

    fn stats(direction: Direction, backend: &str, requests: u64, attempts: u64, plain: u64) -> RequestStats {
        let series = Series {
            direction,
            destination: "default/checkout:80".to_owned(),
            backend: backend.to_owned(),
            route: String::new(),
        };
        RequestStats {
            series,
            requests,
            successes: requests,
            attempts,
            attempt_failures: attempts - requests,
            mtls_attempts: attempts - plain,
            mtls_requests: requests,
        }
    }

    fn mesh(plain: u64) -> MeshCounts {
        let caller = Stats {
            requests: vec![
                stats(Direction::Outbound, "default/checkout-v1:8080", 90, 120, plain),
                stats(Direction::Outbound, "default/checkout-v2:8080", 10, 10, 0),
            ],
            ..Stats::default()
        };
        let called = Stats {
            requests: vec![stats(Direction::Inbound, "", 130, 130, 130)],
            ..Stats::default()
        };
        MeshCounts::of([&caller, &called])
    }

    #[test]
    fn callers_counts_are_added_up_by_service_and_backend() {
        let counts = mesh(0);
        let checkout = &counts.services["default/checkout"];
        assert_eq!(
            (checkout.requests, checkout.attempts, checkout.attempt_failures),
            (100, 130, 30)
        );
        assert_eq!(checkout.backends["default/checkout-v1"], 90);
        assert_eq!(counts.attempts(), (130, 30));
        assert_eq!((counts.hops, counts.received), (130, 130));
    }

    #[test]
    fn one_plain_hop_or_none_at_all_is_not_all_over_mtls() {
        assert!(mesh(0).all_over_mtls());
        assert!(!mesh(1).all_over_mtls());
        assert!(!MeshCounts::default().all_over_mtls());
    }

    #[test]
    fn lately_is_the_difference_to_ten_seconds_ago() {
        let start = Instant::now();
        let mut history = History::new(start);
        let at = |second| start + Duration::from_secs(second);
        let counts = |hops| MeshCounts {
            hops,
            ..MeshCounts::default()
        };
        assert_eq!(history.turn(at(5), &counts(50)).hops, 50);
        assert_eq!(history.turn(at(10), &counts(100)).hops, 100);
        assert_eq!(history.turn(at(15), &counts(150)).hops, 100);
        assert_eq!(history.turn(at(60), &counts(200)).hops, 50);
    }
}
