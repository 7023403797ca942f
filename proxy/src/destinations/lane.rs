//! One backend of one rule, made ready: where its requests go, and what its route, its policies and its filters say.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use decision::Reason;
use decision::traffic::balance::key;
use http::{HeaderMap, HeaderValue};
use model::endpoint::OutsidePort;
use model::fault::Fault;
use model::filter::{Filter, HeaderModifier, Rewrite};
use model::resilience::{RetryPolicy, Timeouts};
use model::route::Rule;
use model::traffic_policy::{Algorithm, HashKey};
use model::{EndpointSet, ServicePort, TrafficPolicy};

use super::{Known, Measured};
use crate::budget::Budget;
use crate::hedge::Hedges;
use crate::http::fault::Faults;
use crate::http::gate::Gate;
use crate::http::mirror::MirrorTo;
use crate::shadow::{InForce, Trial};
use crate::stats::Direction;
use crate::telemetry::Labels;
use crate::upstream::Cluster;
use crate::worker::Worker;

/// One backend of one rule: everything that is the same for all requests that go there.
pub(crate) struct Lane {
    pub(crate) backend: ServicePort,
    pub(crate) cluster: Rc<Cluster>,
    /// `None` where nothing is known of the backend's endpoints.
    pub(crate) endpoints: Option<Arc<EndpointSet>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Option<RetryPolicy>,
    /// Where the retry depends on a gRPC call's status: how long an answer's head waits for it.
    pub(crate) grpc_patience: Option<Duration>,
    /// Of the service that was called; at a gateway, where nobody calls one, and where a policy says, the backend's own.
    pub(crate) budget: Rc<Budget>,
    /// `None` where nothing is sent beside another attempt.
    pub(crate) hedges: Option<Hedges>,
    /// What governs the endpoints; `None` where no policy does.
    pub(crate) policy: Option<Arc<TrafficPolicy>>,
    /// What is done to requests on purpose, or would be; `None` where nothing is.
    pub(crate) faults: Option<Faults>,
    /// What the rule wants changed in requests, and behind it what the backend does.
    pub(crate) request: Vec<HeaderModifier>,
    /// The same for answers.
    pub(crate) response: Vec<HeaderModifier>,
    pub(crate) rewrite: Option<Box<Rewrite>>,
    pub(crate) mirrors: Vec<MirrorTo>,
    /// Of the backend's own filters.
    pub(crate) gate: Option<Rc<Gate>>,
    pub(crate) labels: Rc<Labels>,
    /// Of its answers.
    pub(crate) measured: Rc<Measured>,
}

/// Where equal requests go to one endpoint: the key of this one, and the cookie that its client is given for the next.
#[derive(Default)]
pub(crate) struct Affinity {
    pub(crate) key: Option<u64>,
    pub(crate) cookie: Option<Box<HeaderValue>>,
}

impl Lane {
    /// # Errors
    /// [`Reason::BackendNotFound`] where the rule's backend is none that may be called.
    pub(super) fn new(
        worker: &Worker,
        known: &Known,
        rule: Option<&Rule>,
        backend: usize,
    ) -> Result<Self, Reason> {
        let (target, of_rule, of_backend) = match rule {
            None => (known.target.clone(), &[][..], &[][..]),
            Some(rule) => {
                let backend = rule.backends.get(backend).ok_or(Reason::BackendNotFound)?;
                let target = backend.target.clone().ok_or(Reason::BackendNotFound)?;
                (target, &rule.filters[..], &backend.filters[..])
            }
        };
        let filters = || of_rule.iter().chain(of_backend);
        let route = rule.map(|rule| &rule.name);
        let endpoints = match &known.only {
            Some((_, only)) => Some(only.clone()),
            None => known.snapshot.endpoints.get(&target.service).cloned(),
        };
        let of_service = endpoints.as_ref().and_then(|set| set.policies.get(&target.port));
        let of_route = rule.and_then(|rule| rule.policy.as_ref());
        let policy = TrafficPolicy::joined(of_route, of_service);
        // Only what says something about endpoints or budgets keeps its requests apart from those of other routes.
        let apart = |own: bool| (target.clone(), route.filter(|_| own).cloned());
        let governs = of_route.is_some_and(|policy| policy.governs_endpoints());
        // What a route says beside endpoints must not look like another policy to those whom all routes share.
        let governing = match governs {
            true => policy.clone(),
            false => endpoints
                .as_ref()
                .and_then(|set| set.governing(target.port))
                .cloned(),
        };
        let constrains = of_route.is_some_and(|policy| policy.retry_constraint.is_some());
        let constrained = policy.as_ref().filter(|policy| policy.retry_constraint.is_some());
        let own_timeouts = rule.map(|rule| rule.timeouts).unwrap_or_default();
        let timeouts = policy
            .as_ref()
            .and_then(|policy| policy.timeouts)
            .unwrap_or_default();
        let budgeted = if known.is_listener() {
            &target
        } else {
            &known.target
        };
        let of_port = endpoints.as_ref().and_then(|set| set.faults.get(&target.port));
        let faults = rule.into_iter().flat_map(|rule| &rule.faults);
        let in_force: Box<[Fault]> = faults.chain(of_port.into_iter().flatten()).cloned().collect();
        let timeouts = own_timeouts.or(timeouts);
        let trial = known.watch.as_ref().and_then(|watch| {
            let in_force = InForce {
                policy: policy.as_deref(),
                faults: &in_force,
                timeouts: &timeouts,
            };
            Trial::of(worker, watch, rule, (&target, endpoints.as_deref()), &in_force)
        });
        let faults = Faults {
            in_force,
            trial: trial.map(Rc::new),
        };
        let retry = rule
            .and_then(|rule| rule.retry.clone())
            .or_else(|| policy.as_ref().and_then(|policy| policy.retry.clone()));
        let asks_for_status = retry.as_ref().is_some_and(|retry| !retry.grpc_codes.is_empty());
        let measured = known.measured.of(route, &target);
        Ok(Self {
            faults: Some(faults).filter(|faults| !faults.in_force.is_empty() || faults.trial.is_some()),
            cluster: match known.address() {
                Some(address) => worker.endpoint_cluster(&target, address),
                None => worker.cluster(&apart(governs)),
            },
            timeouts,
            grpc_patience: asks_for_status.then_some(worker.limits.grpc_status_patience),
            retry,
            budget: match constrained {
                Some(policy) => worker.budget(apart(constrains), Some(policy)),
                None => worker.budget((budgeted.clone(), None), None),
            },
            request: filters().filter_map(of_requests).cloned().collect(),
            response: filters().filter_map(of_responses).cloned().collect(),
            rewrite: filters().filter_map(as_rewrite).fold(None, overruled),
            mirrors: filters()
                .filter_map(|filter| MirrorTo::of(worker, &known.snapshot, filter))
                .collect(),
            gate: Gate::of(worker, &known.snapshot, of_backend),
            labels: worker
                .recorder
                .labels(Direction::Outbound, Some(&known.target), Some(&target), route),
            hedges: policy
                .as_ref()
                .and_then(|policy| policy.hedging)
                .map(|hedging| Hedges::new(hedging, measured.clone())),
            policy: governing,
            endpoints,
            backend: target,
            measured,
        })
    }

    /// What keeps a request with those that are like it; nothing, where no policy hashes.
    pub(crate) fn affinity(
        &self,
        headers: &HeaderMap,
        source: IpAddr,
        dice: impl FnOnce() -> u64,
    ) -> Affinity {
        let balance = self.policy.as_ref().and_then(|policy| policy.balance.as_ref());
        let Some(Algorithm::Maglev(hash) | Algorithm::RingHash(hash)) =
            balance.map(|balance| &balance.algorithm)
        else {
            return Affinity::default();
        };
        let known = key::of_request(&hash.key, headers, source);
        match &hash.key {
            HashKey::Cookie(cookie) if known.is_none() => {
                let (cookie, key) = key::given(cookie, dice()).unzip();
                Affinity {
                    key,
                    cookie: cookie.map(Box::new),
                }
            }
            _ => Affinity {
                key: known,
                cookie: None,
            },
        }
    }

    /// What serves the backend outside the mesh; `None` where workloads do.
    pub(crate) fn outside(&self) -> Option<&OutsidePort> {
        self.endpoints.as_ref()?.endpoints.outside(self.backend.port)
    }
}

fn of_requests(filter: &Filter) -> Option<&HeaderModifier> {
    match filter {
        Filter::RequestHeaders(modifier) => Some(modifier),
        _ => None,
    }
}

fn of_responses(filter: &Filter) -> Option<&HeaderModifier> {
    match filter {
        Filter::ResponseHeaders(modifier) => Some(modifier),
        _ => None,
    }
}

fn as_rewrite(filter: &Filter) -> Option<&Rewrite> {
    match filter {
        Filter::Rewrite(rewrite) => Some(rewrite),
        _ => None,
    }
}

/// What a backend wants comes before what its rule wants.
fn overruled(before: Option<Box<Rewrite>>, rewrite: &Rewrite) -> Option<Box<Rewrite>> {
    let before = before.unwrap_or_default();
    Some(Box::new(Rewrite {
        hostname: rewrite.hostname.clone().or(before.hostname),
        path: rewrite.path.clone().or(before.path),
    }))
}
