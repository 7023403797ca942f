//! What all workers of a proxy have in common about one cluster that a policy governs: what its circuit breaker counts, and
//! what health checks found. It lives as long as one worker uses it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use model::traffic_policy::CircuitBreaker;
use tokio::sync::{Notify, Semaphore};

use super::checks::MAX_CHECKS;
use crate::worker::ClusterKey;

/// By cluster; locked when a worker meets a cluster or its endpoints change, never for a request.
#[derive(Default)]
pub(crate) struct Joints(Mutex<HashMap<ClusterKey, Weak<Joint>>>);

/// The counts of one cluster.
pub(crate) struct Joint {
    counts: [AtomicU32; 4],
    /// Told when a connection is free or gone.
    pub(crate) freed: Notify,
    /// Turns of health checks.
    pub(super) checks: Semaphore,
    /// Counts what health checks found.
    findings: AtomicU64,
    endpoints: Mutex<HashMap<String, Weak<JointEndpoint>>>,
}

/// The counts of one endpoint, and its health.
#[derive(Default)]
pub(crate) struct JointEndpoint {
    connections: AtomicU32,
    unhealthy: AtomicBool,
    /// A worker checks it.
    claimed: AtomicBool,
}

/// What a circuit breaker counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counted {
    Requests,
    Retries,
    Connections,
    Pending,
}

/// One of what is counted, until it is dropped.
pub(crate) struct Permit {
    joint: Arc<Joint>,
    counted: Counted,
}

/// An open connection, until it is dropped.
pub(crate) struct ConnectionPermit {
    endpoint: Arc<JointEndpoint>,
    _cluster: Permit,
}

impl Joints {
    pub(crate) fn of(&self, key: &ClusterKey) -> Arc<Joint> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(joint) = known.get(key).and_then(Weak::upgrade) {
            return joint;
        }
        known.retain(|_, joint| joint.strong_count() > 0);
        let joint = Arc::new(Joint::default());
        known.insert(key.clone(), Arc::downgrade(&joint));
        joint
    }
}

impl Default for Joint {
    fn default() -> Self {
        Self {
            counts: Default::default(),
            freed: Notify::new(),
            checks: Semaphore::new(MAX_CHECKS),
            findings: AtomicU64::new(0),
            endpoints: Mutex::default(),
        }
    }
}

impl JointEndpoint {
    /// Whether it is the caller who checks it from now on.
    pub(super) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::Relaxed)
    }

    /// Nobody checks it any more.
    pub(super) fn give_up(&self) {
        self.claimed.store(false, Ordering::Relaxed);
    }

    pub(super) fn set_healthy(&self, healthy: bool) {
        self.unhealthy.store(!healthy, Ordering::Relaxed);
    }

    /// One that was not checked yet is healthy.
    pub(super) fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Ordering::Relaxed)
    }
}

impl Joint {
    /// Somebody's health is another.
    pub(super) fn changed(&self) {
        self.findings.fetch_add(1, Ordering::Release);
    }

    /// How often somebody's health became another.
    pub(super) fn findings(&self) -> u64 {
        self.findings.load(Ordering::Acquire)
    }

    /// One more of these, if there are fewer than `most`.
    pub(crate) fn take(self: &Arc<Self>, counted: Counted, most: u32) -> Option<Permit> {
        let one_more = |count: u32| (count < most).then(|| count.saturating_add(1));
        let count = self.count(counted);
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Permit {
            joint: self.clone(),
            counted,
        })
    }

    /// Leave to open a connection to an endpoint.
    pub(crate) fn connection(
        self: &Arc<Self>,
        endpoint: &Arc<JointEndpoint>,
        breaker: Option<&CircuitBreaker>,
    ) -> Option<ConnectionPermit> {
        let (in_all, of_endpoint) = most_connections(breaker);
        let one_more = |count: u32| (count < of_endpoint).then(|| count.saturating_add(1));
        let count = &endpoint.connections;
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        // The cluster's is taken last: to give it back would tell those who wait, this one among them.
        let Some(cluster) = self.take(Counted::Connections, in_all) else {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        Some(ConnectionPermit {
            endpoint: endpoint.clone(),
            _cluster: cluster,
        })
    }

    /// Whether no more connections to an endpoint may be opened now.
    pub(crate) fn is_full(&self, endpoint: &JointEndpoint, breaker: Option<&CircuitBreaker>) -> bool {
        let (in_all, of_endpoint) = most_connections(breaker);
        self.now(Counted::Connections) >= in_all
            || endpoint.connections.load(Ordering::Relaxed) >= of_endpoint
    }

    /// How many there are now.
    pub(crate) fn now(&self, counted: Counted) -> u32 {
        self.count(counted).load(Ordering::Relaxed)
    }

    /// The counts of an endpoint by its name.
    pub(crate) fn endpoint(&self, name: &str) -> Arc<JointEndpoint> {
        let mut known = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = known.get(name).and_then(Weak::upgrade) {
            return endpoint;
        }
        known.retain(|_, endpoint| endpoint.strong_count() > 0);
        let endpoint = Arc::new(JointEndpoint::default());
        known.insert(name.to_owned(), Arc::downgrade(&endpoint));
        endpoint
    }

    fn count(&self, counted: Counted) -> &AtomicU32 {
        let [requests, retries, connections, pending] = &self.counts;
        match counted {
            Counted::Requests => requests,
            Counted::Retries => retries,
            Counted::Connections => connections,
            Counted::Pending => pending,
        }
    }
}

/// To all endpoints together, and to each.
fn most_connections(breaker: Option<&CircuitBreaker>) -> (u32, u32) {
    let of_endpoint = breaker.and_then(|breaker| breaker.max_connections_per_endpoint);
    let in_all = breaker.map_or(u32::MAX, |breaker| breaker.max_connections);
    (in_all, of_endpoint.unwrap_or(u32::MAX))
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.joint.count(self.counted).fetch_sub(1, Ordering::Relaxed);
        if matches!(self.counted, Counted::Connections) {
            self.joint.freed.notify_waiters();
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.endpoint.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn no_more_than_so_many_and_what_is_dropped_is_free_again() {
        let joint = Arc::new(Joint::default());
        let first = joint.take(Counted::Requests, 2);
        let second = joint.take(Counted::Requests, 2);
        assert!(first.is_some() && second.is_some());
        assert!(joint.take(Counted::Requests, 2).is_none());
        assert!(
            joint.take(Counted::Retries, 1).is_some(),
            "each is counted by itself"
        );
        drop(first);
        assert!(joint.take(Counted::Requests, 2).is_some());
    }

    #[test]
    fn a_connection_counts_for_its_endpoint_and_for_all() {
        let (joint, breaker) = (
            Arc::new(Joint::default()),
            CircuitBreaker {
                max_connections: 3,
                max_connections_per_endpoint: Some(2),
                ..CircuitBreaker::default()
            },
        );
        let [one, other] = ["a", "b"].map(|name| joint.endpoint(name));
        let open = |endpoint| joint.connection(endpoint, Some(&breaker));
        let mut held = vec![open(&one), open(&one)];
        assert!(held.iter().all(Option::is_some) && open(&one).is_none());
        assert_eq!(
            joint.now(Counted::Connections),
            2,
            "who was refused is not counted"
        );
        held.push(open(&other));
        assert!(open(&other).is_none());
        held.remove(0);
        assert!(open(&other).is_some());
    }

    #[test]
    fn who_is_refused_wakes_nobody() {
        let (joint, breaker) = (
            Arc::new(Joint::default()),
            CircuitBreaker {
                max_connections_per_endpoint: Some(1),
                ..CircuitBreaker::default()
            },
        );
        let endpoint = joint.endpoint("a");
        let held = joint.connection(&endpoint, Some(&breaker));
        let mut told = pin!(joint.freed.notified());
        let mut is_told = || told.as_mut().enable();
        assert!(!is_told());
        assert!(
            joint.is_full(&endpoint, Some(&breaker)) && joint.connection(&endpoint, Some(&breaker)).is_none()
        );
        assert!(!is_told());
        drop(held);
        assert!(is_told() && !joint.is_full(&endpoint, Some(&breaker)));
    }

    #[test]
    fn workers_that_meet_one_cluster_count_together() {
        let joints = Joints::default();
        let key = ("shop/pay:80".parse().unwrap(), None);
        let one = joints.of(&key);
        assert!(Arc::ptr_eq(&one, &joints.of(&key)));
        let endpoint = one.endpoint("a");
        assert!(Arc::ptr_eq(&endpoint, &one.endpoint("a")));
    }
}
