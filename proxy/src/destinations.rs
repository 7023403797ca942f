//! What a worker has worked out about the services that are called: once per configuration, not per request.
//!
//! A destination is found by what callers write as authority, or by the local port that stands for it. What was
//! found holds for one snapshot; of the next one only what changed is worked out anew.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use decision::Reason;
use decision::message::host;
use decision::traffic::budget::RetryBudgetState;
use decision::traffic::route::{RequestView, RouteTable};
use http::uri::Authority;
use model::endpoint::OutsidePort;
use model::filter::Filter;
use model::route::Rule;
use model::service::DestinationPort;
use model::{Destination, EndpointSet, ServicePort, Snapshot};

use crate::config::Learned;
use crate::stats::Direction;
use crate::telemetry::Labels;
use crate::upstream::Cluster;
use crate::worker::Worker;

/// The destinations that one worker's callers named.
#[derive(Default)]
pub(crate) struct Destinations {
    named: RefCell<HashMap<Box<str>, Rc<Known>>>,
    local: RefCell<HashMap<ServicePort, Rc<Known>>>,
}

/// A destination as one snapshot has it.
pub(crate) struct Known {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) target: ServicePort,
    /// What the caller wrote, as HTTP/2 carries it.
    pub(crate) authority: Option<Authority>,
    pub(crate) budget: Rc<RefCell<RetryBudgetState>>,
    /// Of a request that no rule fits.
    pub(crate) labels: Rc<Labels>,
    destination: Arc<Destination>,
    table: Rc<RouteTable>,
    /// By rule and backend, as they are used.
    lanes: RefCell<HashMap<(usize, usize), Rc<Lane>>>,
}

/// One backend of one rule: everything that is the same for all requests that go there.
pub(crate) struct Lane {
    pub(crate) backend: ServicePort,
    pub(crate) cluster: Rc<Cluster>,
    /// `None` where nothing is known of the backend's endpoints.
    pub(crate) endpoints: Option<Arc<EndpointSet>>,
    pub(crate) labels: Rc<Labels>,
}

impl Lane {
    /// What serves the backend outside the mesh; `None` where workloads do.
    pub(crate) fn outside(&self) -> Option<&OutsidePort> {
        self.endpoints.as_ref()?.endpoints.outside(self.backend.port)
    }
}

impl Destinations {
    /// Finds the service that `authority` names, or that the connection itself stands for. Its first caller waits until
    /// the control plane has told about it.
    pub(crate) async fn find(
        &self,
        worker: &Worker,
        local: Option<&ServicePort>,
        authority: &str,
    ) -> Result<Rc<Known>, Reason> {
        let snapshot = worker.snapshot();
        let before = match local {
            Some(port) => self.local.borrow().get(port).cloned(),
            None => self.named.borrow().get(authority).cloned(),
        };
        if let Some(known) = &before
            && Arc::ptr_eq(&known.snapshot, &snapshot)
        {
            return Ok(known.clone());
        }
        let known = Rc::new(Known::learn(worker, snapshot, local, authority, before.as_deref()).await?);
        let most = worker.limits.known_destinations;
        match local {
            Some(port) => keep(&mut self.local.borrow_mut(), port.clone(), &known, most),
            None => keep(&mut self.named.borrow_mut(), authority.into(), &known, most),
        }
        Ok(known)
    }

    /// Forgets what an older snapshot said, so that it can go.
    pub(crate) fn sweep(&self, snapshot: &Arc<Snapshot>) {
        let is_current = |known: &Rc<Known>| Arc::ptr_eq(&known.snapshot, snapshot);
        self.named.borrow_mut().retain(|_, known| is_current(known));
        self.local.borrow_mut().retain(|_, known| is_current(known));
    }
}

fn keep<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Rc<Known>>, key: K, known: &Rc<Known>, most: usize) {
    // Callers choose what they write: a list that is full begins anew.
    if map.len() >= most {
        map.clear();
    }
    map.insert(key, known.clone());
}

impl Known {
    async fn learn(
        worker: &Worker,
        mut snapshot: Arc<Snapshot>,
        local: Option<&ServicePort>,
        authority: &str,
        before: Option<&Self>,
    ) -> Result<Self, Reason> {
        let settings = &worker.shared.settings;
        let (service, explicit) = match local {
            Some(local) => (local.service.clone(), Some(local.port)),
            None => host::resolve(authority, &settings.namespace, &worker.shared.domain)?
                .ok_or(Reason::UnknownService)?,
        };
        if !snapshot.destinations.contains_key(&service) {
            let patience = worker.limits.discovery_timeout;
            snapshot = match worker.shared.config.learn(&service, patience).await {
                Learned::Exists(snapshot) | Learned::DoesNotExist(snapshot) => snapshot,
                Learned::TimedOut => return Err(Reason::DiscoveryTimeout),
                Learned::TooMany { .. } => return Err(Reason::Overloaded),
            };
        }
        let found = snapshot.destinations.get(&service).and_then(Option::as_ref);
        let destination = found.ok_or(Reason::UnknownService)?.clone();
        let port = host::choose_port(&destination, explicit).ok_or(Reason::UnknownPort)?;
        let target = service.port(port);
        let rules = destination.ports.get(&port).map_or(&[][..], |port| &port.rules);
        let table = match before {
            Some(before) if Arc::ptr_eq(&before.destination, &destination) && before.target == target => {
                before.table.clone()
            }
            _ => Rc::new(RouteTable::compile(rules)),
        };
        Ok(Self {
            authority: Authority::try_from(authority).ok(),
            budget: worker.budget(&target),
            labels: worker
                .recorder
                .labels(Direction::Outbound, Some(&target), None, None),
            lanes: RefCell::default(),
            snapshot,
            target,
            destination,
            table,
        })
    }

    /// The rule that governs a request, with its place; `None` where no route is attached to the service.
    pub(crate) fn rule(&self, request: &RequestView<'_>) -> Result<Option<(usize, &Rule)>, Reason> {
        let rules = &self.port()?.rules;
        if rules.is_empty() {
            return Ok(None);
        }
        let index = self.table.choose(rules, request).ok_or(Reason::NoRoute)?;
        Ok(rules.get(index).map(|rule| (index, rule)))
    }

    /// Where a rule's requests go for the backend at this place; to the service itself where no rule governs them. And
    /// what that backend wants changed.
    pub(crate) fn lane(
        &self,
        worker: &Worker,
        rule: Option<(usize, &Rule)>,
        backend: usize,
    ) -> Result<Rc<Lane>, Reason> {
        let at = (rule.map_or(usize::MAX, |(index, _)| index), backend);
        if let Some(lane) = self.lanes.borrow().get(&at) {
            return Ok(lane.clone());
        }
        let target = match rule {
            None => self.target.clone(),
            Some((_, rule)) => {
                let backend = rule.backends.get(backend).ok_or(Reason::BackendNotFound)?;
                backend.target.clone().ok_or(Reason::BackendNotFound)?
            }
        };
        let route = rule.map(|(_, rule)| &rule.name);
        let lane = Rc::new(Lane {
            cluster: worker.cluster(&target),
            endpoints: self.snapshot.endpoints.get(&target.service).cloned(),
            labels: worker
                .recorder
                .labels(Direction::Outbound, Some(&self.target), Some(&target), route),
            backend: target,
        });
        self.lanes.borrow_mut().insert(at, lane.clone());
        Ok(lane)
    }

    fn port(&self) -> Result<&DestinationPort, Reason> {
        self.destination
            .ports
            .get(&self.target.port)
            .ok_or(Reason::UnknownPort)
    }
}

/// What a rule wants changed, and what one of its backends does besides.
pub(crate) fn filters(rule: Option<(usize, &Rule)>, backend: usize) -> [&[Filter]; 2] {
    let Some((_, rule)) = rule else {
        return [&[], &[]];
    };
    let backend = rule
        .backends
        .get(backend)
        .map_or(&[][..], |backend| &backend.filters);
    [&rule.filters, backend]
}
