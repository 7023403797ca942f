//! A destination, or a gateway's listener, made ready for its requests: which rule governs one, and what may answer it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use decision::Reason;
use decision::message::host;
use decision::traffic::route::{RequestView, RouteTable};
use decision::traffic::session::EndpointKey;
use decision::traffic::shadow::{Example, Governed as Verdict};
use http::HeaderMap;
use model::route::Rule;
use model::service::DestinationPort;
use model::snapshot::Owner;
use model::{Destination, EndpointSet, Endpoints, ServicePort, Snapshot};

use super::{Lane, Measurements};
use crate::gateway::plan::Plan;
use crate::http::gate::Gate;
use crate::http::session::Sticky;
use crate::shadow::{self, Watch};
use crate::stats::Direction;
use crate::telemetry::Labels;
use crate::upstream::Wanted;
use crate::worker::Worker;

/// A destination, or a gateway's listener, as one snapshot has it.
pub(crate) struct Known {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) target: ServicePort,
    /// Of a request that no rule fits.
    pub(crate) labels: Rc<Labels>,
    /// Where its requests are compared with what is in shadow; `None` where nothing is.
    pub(super) watch: Option<Arc<Watch>>,
    /// Whether the policy of any service keeps sessions.
    pub(crate) has_sessions: bool,
    governed: Governed,
    /// The only endpoint that is called, by its address; `None` where it is any of the service's.
    pub(super) only: Option<(SocketAddr, Arc<EndpointSet>)>,
    pub(super) measured: Rc<Measurements>,
    /// By rule and backend, as they are used.
    lanes: RefCell<HashMap<(usize, usize), Rc<Lane>, foldhash::fast::RandomState>>,
    /// By rule, as they are used.
    gates: RefCell<HashMap<usize, Labelled<Gate>>>,
}

/// Whose rules govern requests.
enum Governed {
    Service {
        destination: Arc<Destination>,
        tables: Tables,
    },
    /// By host name first; at this place in the Gateway.
    Listener(Arc<Plan>, usize),
}

/// What there may be, with the labels of the requests that it answers.
type Labelled<T> = Option<(Rc<T>, Rc<Labels>)>;

/// The rules of one port, made ready.
#[derive(Clone)]
pub(super) struct Tables {
    table: Rc<RouteTable>,
    /// Of the rules as they would be.
    shadow: Option<Rc<RouteTable>>,
}

impl Known {
    pub(super) fn new(
        worker: &Worker,
        snapshot: Arc<Snapshot>,
        destination: Arc<Destination>,
        target: ServicePort,
        tables: Option<Tables>,
    ) -> Self {
        let compile = || {
            let port = destination.ports.get(&target.port);
            let shadow = port.and_then(|port| port.shadow.as_ref());
            Tables {
                table: Rc::new(RouteTable::compile(port.map_or(&[], |port| &port.rules))),
                shadow: shadow.map(|rules| Rc::new(RouteTable::compile(rules))),
            }
        };
        let governed = Governed::Service {
            tables: tables.unwrap_or_else(compile),
            destination,
        };
        let watch = worker
            .shared
            .config
            .ledger()
            .watch(&shadow::service(&target), &snapshot);
        Self::governed(worker, snapshot, target, governed, watch)
    }

    /// One endpoint, past the routes of its service and the policies of those.
    pub(super) fn endpoint(worker: &Worker, snapshot: Arc<Snapshot>, owner: &Owner) -> Self {
        let target = &owner.target;
        let port = DestinationPort {
            protocol: owner.protocol,
            ..DestinationPort::default()
        };
        let destination = Destination {
            service: target.service.clone(),
            ports: [(target.port, port)].into(),
        };
        let all = snapshot.endpoints.get(&target.service);
        let workloads = all.map(|set| set.endpoints.workloads()).unwrap_or_default();
        let at_it = workloads.iter().filter(|one| one.workload == owner.workload);
        let set = EndpointSet {
            service: target.service.clone(),
            endpoints: Endpoints::Mesh(at_it.cloned().collect()),
            policies: BTreeMap::new(),
            faults: BTreeMap::new(),
            shadow: BTreeMap::new(),
        };
        let governed = Governed::Service {
            destination: Arc::new(destination),
            tables: Tables {
                table: Rc::new(RouteTable::compile(&[])),
                shadow: None,
            },
        };
        let mut known = Self::governed(worker, snapshot, target.clone(), governed, None);
        known.only = Some((owner.address, Arc::new(set)));
        known
    }

    /// Of the only endpoint that is called.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.only.as_ref().map(|(address, _)| *address)
    }

    /// `None` where the Gateway has no such listener.
    pub(super) fn listener(worker: &Worker, plan: Arc<Plan>, place: usize) -> Option<Self> {
        let listener = plan.listener(place)?;
        let target = plan.target(listener)?;
        let snapshot = plan.snapshot.clone();
        let at = shadow::listener(snapshot.gateway.as_ref()?, listener);
        let watch = worker.shared.config.ledger().watch(&at, &snapshot);
        let governed = Governed::Listener(plan, place);
        Some(Self::governed(worker, snapshot, target, governed, watch))
    }

    fn governed(
        worker: &Worker,
        snapshot: Arc<Snapshot>,
        target: ServicePort,
        governed: Governed,
        watch: Option<Arc<Watch>>,
    ) -> Self {
        Self {
            watch,
            labels: worker
                .recorder
                .labels(Direction::Outbound, Some(&target), None, None),
            measured: worker.destinations.measurements(&target),
            lanes: RefCell::default(),
            gates: RefCell::default(),
            has_sessions: has_sessions(&snapshot),
            snapshot,
            target,
            governed,
            only: None,
        }
    }

    /// The route tables, if they are those of this destination.
    pub(super) fn tables_of(&self, of: &Arc<Destination>) -> Option<Tables> {
        match &self.governed {
            Governed::Service { destination, tables } => Arc::ptr_eq(destination, of).then(|| tables.clone()),
            Governed::Listener(..) => None,
        }
    }

    /// The rule that governs a request, with its place; `None` where no route is attached to the service. Whom the
    /// request is for, as the client wrote it, counts at a gateway.
    pub(crate) fn rule(
        &self,
        authority: &str,
        request: &RequestView<'_>,
    ) -> Result<Option<(usize, &Rule)>, Reason> {
        let (destination, table) = match &self.governed {
            Governed::Service { destination, tables } => (destination, &tables.table),
            Governed::Listener(plan, place) => {
                return plan.rule(*place, &host::normal(authority), request).map(Some);
            }
        };
        let port = destination.ports.get(&self.target.port);
        let rules = &port.ok_or(Reason::UnknownPort)?.rules;
        if rules.is_empty() {
            return Ok(None);
        }
        let index = table.choose(rules, request).ok_or(Reason::NoRoute)?;
        Ok(rules.get(index).map(|rule| (index, rule)))
    }

    /// What may answer a rule's requests before they go anywhere; `None` where nothing does.
    pub(crate) fn gate(&self, worker: &Worker, (index, rule): (usize, &Rule)) -> Labelled<Gate> {
        if !rule.filters.iter().any(Gate::has) {
            return None;
        }
        let mut gates = self.gates.borrow_mut();
        let new = || {
            let (target, route) = (Some(&self.target), Some(&rule.name));
            let labels = worker.recorder.labels(Direction::Outbound, target, None, route);
            Gate::of(worker, &self.snapshot, &rule.filters).map(|gate| (gate, labels))
        };
        let (gate, labels) = gates.entry(index).or_insert_with(new).as_ref()?;
        Some((gate.clone(), labels.clone()))
    }

    /// The place of the rule's backend that has this endpoint, whatever its weight.
    pub(crate) fn backend_with(
        &self,
        worker: &Worker,
        (index, rule): (usize, &Rule),
        endpoint: EndpointKey,
    ) -> Option<usize> {
        (0..rule.backends.len()).find(|at| {
            let lane = self.lane(worker, Some((index, rule)), *at).ok();
            lane.is_some_and(|lane| has_endpoint(&lane, endpoint))
        })
    }

    /// The place of the rule's backend whose own policy keeps the session that a request belongs to, whatever its weight.
    #[cold]
    pub(crate) fn backend_of_session(
        &self,
        worker: &Worker,
        (index, rule): (usize, &Rule),
        headers: &HeaderMap,
    ) -> Option<usize> {
        (0..rule.backends.len()).find(|at| {
            let lane = self.lane(worker, Some((index, rule)), *at).ok();
            lane.is_some_and(|lane| {
                let session = lane.policy.as_ref().and_then(|policy| policy.session.as_ref());
                let wanted = Sticky::of(session, headers).and_then(|sticky| sticky.wanted());
                wanted.is_some_and(|endpoint| has_endpoint(&lane, endpoint))
            })
        })
    }

    /// Compares what governs a request with what would if routes in shadow were in force, where there are some.
    #[inline]
    pub(crate) fn compare(
        &self,
        worker: &Worker,
        now: &Result<Option<(usize, &Rule)>, Reason>,
        authority: &str,
        request: &RequestView<'_>,
    ) {
        if let Some(watch) = &self.watch {
            self.compare_with_shadow(worker, watch, now, (authority, request));
        }
    }

    #[cold]
    #[inline(never)]
    fn compare_with_shadow(
        &self,
        worker: &Worker,
        watch: &Arc<Watch>,
        now: &Result<Option<(usize, &Rule)>, Reason>,
        (authority, request): (&str, &RequestView<'_>),
    ) {
        let now = match now {
            Ok(Some((_, rule))) => Verdict::Rule(rule),
            Ok(None) => Verdict::Service,
            Err(Reason::NoRoute) => Verdict::NoRoute,
            // It is for nothing that routes could govern.
            Err(_) => return,
        };
        let then = match &self.governed {
            Governed::Service { destination, tables } => {
                let port = destination.ports.get(&self.target.port);
                let rules = port.and_then(|port| port.shadow.as_ref());
                let Some((table, rules)) = tables.shadow.as_ref().zip(rules) else {
                    return;
                };
                match table.choose(rules, request).and_then(|index| rules.get(index)) {
                    _ if rules.is_empty() => Verdict::Service,
                    Some(rule) => Verdict::Rule(rule),
                    None => Verdict::NoRoute,
                }
            }
            // Policies alone are in shadow.
            Governed::Listener(..) if !watch.compares_routes() => return,
            Governed::Listener(plan, place) => plan
                .shadow_rule(*place, &host::normal(authority), request)
                .map_or(Verdict::NoRoute, Verdict::Rule),
        };
        let example = || Example::new(request.method.as_str(), authority, request.path);
        worker.shared.config.ledger().compare(watch, &now, &then, example);
    }

    /// Where a rule's requests go for the backend at this place; to the service itself where no rule governs them.
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
        let lane = Rc::new(Lane::new(worker, self, rule.map(|(_, rule)| rule), backend)?);
        self.lanes.borrow_mut().insert(at, lane.clone());
        Ok(lane)
    }

    /// Whether it is a gateway's listener, where nobody calls a service.
    pub(super) fn is_listener(&self) -> bool {
        matches!(self.governed, Governed::Listener(..))
    }
}

fn has_endpoint(lane: &Lane, endpoint: EndpointKey) -> bool {
    let set = lane.endpoints.as_ref();
    let any = |set| Wanted::any(set, lane.policy.as_ref(), 0, Instant::now());
    set.is_some_and(|set| lane.cluster.has(&any(set), endpoint))
}

fn has_sessions(snapshot: &Snapshot) -> bool {
    let policies = snapshot.endpoints.values().flat_map(|set| set.policies.values());
    { policies }.any(|policy| policy.session.is_some())
}
