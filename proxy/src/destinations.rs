//! What a worker has worked out about the services that are called: once per configuration, not per request.
//!
//! A destination is found by what callers write as authority, or by the local port that stands for it. However many
//! ways there are to write it, it is worked out once, for one snapshot; of the next one only what changed is anew.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use decision::Reason;
use decision::message::host;
use decision::traffic::balance::key;
use decision::traffic::quickest::Quickest;
use decision::traffic::route::{RequestView, RouteTable};
use decision::traffic::session::EndpointKey;
use decision::traffic::shadow::{Example, Governed as Verdict};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};
use model::endpoint::OutsidePort;
use model::fault::Fault;
use model::filter::{Filter, HeaderModifier, Rewrite};
use model::resilience::{RetryPolicy, Timeouts};
use model::route::Rule;
use model::traffic_policy::{Algorithm, HashKey};
use model::{Destination, EndpointSet, ServicePort, Snapshot, TrafficPolicy};

use crate::config::Learned;
use crate::gateway::plan::Plan;
use crate::hedge::Hedges;
use crate::http::gate::Gate;
use crate::http::mirror::MirrorTo;
use crate::shadow::{self, Watch};
use crate::stats::Direction;
use crate::telemetry::Labels;
use crate::upstream::{Cluster, Wanted};
use crate::worker::{Budget, Worker};

/// The destinations that one worker's callers named.
#[derive(Default)]
pub(crate) struct Destinations {
    /// By authority.
    named: RefCell<HashMap<Box<str>, Found, foldhash::quality::RandomState>>,
    known: RefCell<HashMap<ServicePort, Rc<Known>>>,
    /// Of a gateway, by their places.
    listeners: RefCell<Vec<Option<Rc<Known>>>>,
}

/// What a request's destination is.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) known: Rc<Known>,
    /// What the caller wrote, as HTTP/2 carries it. `None` where a local port says whom a call is for.
    pub(crate) authority: Option<Authority>,
}

/// A destination, or a gateway's listener, as one snapshot has it.
pub(crate) struct Known {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) target: ServicePort,
    /// Of a request that no rule fits.
    pub(crate) labels: Rc<Labels>,
    /// Where its requests are compared with routes in shadow; `None` where there are none.
    watch: Option<Arc<Watch>>,
    governed: Governed,
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
struct Tables {
    table: Rc<RouteTable>,
    /// Of the rules as they would be.
    shadow: Option<Rc<RouteTable>>,
}

/// One backend of one rule: everything that is the same for all requests that go there.
pub(crate) struct Lane {
    pub(crate) backend: ServicePort,
    pub(crate) cluster: Rc<Cluster>,
    /// `None` where nothing is known of the backend's endpoints.
    pub(crate) endpoints: Option<Arc<EndpointSet>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Option<RetryPolicy>,
    /// Of the service that was called; at a gateway, where nobody calls one, and where a policy says, the backend's own.
    pub(crate) budget: Budget,
    /// `None` where nothing is sent beside another attempt.
    pub(crate) hedges: Option<Hedges>,
    /// What governs the endpoints; `None` where no policy does.
    pub(crate) policy: Option<Arc<TrafficPolicy>>,
    /// What is done to requests on purpose; `None` where nothing is.
    pub(crate) faults: Option<Rc<[Fault]>>,
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
    pub(crate) quickest: RefCell<Quickest>,
}

/// Where equal requests go to one endpoint: the key of this one, and the cookie that its client is given for the next.
#[derive(Default)]
pub(crate) struct Affinity {
    pub(crate) key: Option<u64>,
    pub(crate) cookie: Option<Box<HeaderValue>>,
}

impl Lane {
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

impl Destinations {
    /// Finds the service that `authority` names, or that the connection itself stands for. Its first caller waits until
    /// the control plane has told about it.
    pub(crate) async fn find(
        &self,
        worker: &Worker,
        local: Option<&ServicePort>,
        authority: &str,
    ) -> Result<Found, Reason> {
        let snapshot = worker.snapshot();
        let at_hand = match local {
            Some(port) => self.known.borrow().get(port).map(|known| Found {
                known: known.clone(),
                authority: None,
            }),
            None => self.named.borrow().get(authority).cloned(),
        };
        if let Some(found) = at_hand
            && Arc::ptr_eq(&found.known.snapshot, &snapshot)
        {
            return Ok(found);
        }
        let known = self.look_up(worker, snapshot, local, authority).await?;
        if local.is_some() {
            return Ok(Found {
                known,
                authority: None,
            });
        }
        let found = Found {
            known,
            authority: Authority::try_from(authority).ok(),
        };
        let mut named = self.named.borrow_mut();
        // Callers choose what they write: a list that is full begins anew.
        if named.len() >= worker.limits.known_destinations {
            named.clear();
        }
        named.insert(authority.into(), found.clone());
        Ok(found)
    }

    /// Finds the listener of a gateway's port that a request for `authority` meets; `sni` is what its connection named,
    /// where there is TLS.
    pub(crate) fn at_gateway(
        &self,
        worker: &Worker,
        port: u16,
        sni: Option<&str>,
        authority: &str,
    ) -> Result<Found, Reason> {
        let plan = worker.plan();
        let place = plan.by_host(port, sni, &host::normal(authority))?;
        let mut listeners = self.listeners.borrow_mut();
        if let Some(Some(known)) = listeners.get(place)
            && Arc::ptr_eq(&known.snapshot, &plan.snapshot)
        {
            return Ok(Found {
                known: known.clone(),
                authority: None,
            });
        }
        let known = Rc::new(Known::listener(worker, plan, place).ok_or(Reason::NoListener)?);
        if listeners.len() <= place {
            listeners.resize(place + 1, None);
        }
        if let Some(slot) = listeners.get_mut(place) {
            *slot = Some(known.clone());
        }
        Ok(Found {
            known,
            authority: None,
        })
    }

    /// Forgets what an older snapshot said, so that it can go.
    pub(crate) fn sweep(&self, snapshot: &Arc<Snapshot>) {
        let is_current = |known: &Rc<Known>| Arc::ptr_eq(&known.snapshot, snapshot);
        self.named
            .borrow_mut()
            .retain(|_, found| is_current(&found.known));
        self.known.borrow_mut().retain(|_, known| is_current(known));
        let mut listeners = self.listeners.borrow_mut();
        for listener in &mut *listeners {
            _ = listener.take_if(|known| !is_current(known));
        }
    }

    async fn look_up(
        &self,
        worker: &Worker,
        mut snapshot: Arc<Snapshot>,
        local: Option<&ServicePort>,
        authority: &str,
    ) -> Result<Rc<Known>, Reason> {
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
        let before = self.known.borrow().get(&target).cloned();
        if let Some(before) = &before
            && Arc::ptr_eq(&before.snapshot, &snapshot)
        {
            return Ok(before.clone());
        }
        let tables = before.and_then(|before| before.tables_of(&destination));
        let known = Rc::new(Known::new(worker, snapshot, destination, target.clone(), tables));
        self.known.borrow_mut().insert(target, known.clone());
        Ok(known)
    }
}

impl Known {
    fn new(
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

    /// `None` where the Gateway has no such listener.
    fn listener(worker: &Worker, plan: Arc<Plan>, place: usize) -> Option<Self> {
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
            lanes: RefCell::default(),
            gates: RefCell::default(),
            snapshot,
            target,
            governed,
        }
    }

    /// The route tables, if they are those of this destination.
    fn tables_of(&self, of: &Arc<Destination>) -> Option<Tables> {
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
            lane.is_some_and(|lane| {
                let set = lane.endpoints.as_ref();
                let any = |set| Wanted::any(set, lane.policy.as_ref(), 0, Instant::now());
                set.is_some_and(|set| lane.cluster.has(&any(set), endpoint))
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
        let (target, of_rule, of_backend) = match rule {
            None => (self.target.clone(), &[][..], &[][..]),
            Some((_, rule)) => {
                let backend = rule.backends.get(backend).ok_or(Reason::BackendNotFound)?;
                let target = backend.target.clone().ok_or(Reason::BackendNotFound)?;
                (target, &rule.filters[..], &backend.filters[..])
            }
        };
        let filters = || of_rule.iter().chain(of_backend);
        let rule = rule.map(|(_, rule)| rule);
        let route = rule.map(|rule| &rule.name);
        let endpoints = self.snapshot.endpoints.get(&target.service).cloned();
        let of_service = endpoints.as_ref().and_then(|set| set.policies.get(&target.port));
        let of_route = rule.and_then(|rule| rule.policy.as_ref());
        let policy = match (of_route, of_service) {
            (Some(route), Some(service)) => Some(Arc::new(route.or(service))),
            (one, other) => one.or(other).cloned(),
        };
        // Only what says something about endpoints or budgets keeps its requests apart from those of other routes.
        let apart = |own: bool| (target.clone(), route.filter(|_| own).cloned());
        let governs = of_route.is_some_and(|policy| policy.governs_endpoints());
        let constrains = of_route.is_some_and(|policy| policy.retry_constraint.is_some());
        let constrained = policy.as_ref().filter(|policy| policy.retry_constraint.is_some());
        let own_timeouts = rule.map(|rule| rule.timeouts).unwrap_or_default();
        let timeouts = policy
            .as_ref()
            .and_then(|policy| policy.timeouts)
            .unwrap_or_default();
        let budgeted = match &self.governed {
            Governed::Service { .. } => &self.target,
            Governed::Listener(..) => &target,
        };
        let of_port = endpoints.as_ref().and_then(|set| set.faults.get(&target.port));
        let faults = rule.into_iter().flat_map(|rule| &rule.faults);
        let faults: Rc<[Fault]> = faults.chain(of_port.into_iter().flatten()).cloned().collect();
        let lane = Rc::new(Lane {
            faults: Some(faults).filter(|faults| !faults.is_empty()),
            cluster: worker.cluster(&apart(governs)),
            timeouts: or_timeouts(own_timeouts, timeouts),
            retry: rule
                .and_then(|rule| rule.retry.clone())
                .or_else(|| policy.as_ref().and_then(|policy| policy.retry.clone())),
            budget: match constrained {
                Some(policy) => worker.budget(&apart(constrains), Some(policy)),
                None => worker.budget(&(budgeted.clone(), None), None),
            },
            request: filters().filter_map(of_requests).cloned().collect(),
            response: filters().filter_map(of_responses).cloned().collect(),
            rewrite: filters().filter_map(as_rewrite).fold(None, overruled),
            mirrors: filters()
                .filter_map(|filter| MirrorTo::of(worker, &self.snapshot, filter))
                .collect(),
            gate: Gate::of(worker, &self.snapshot, of_backend),
            labels: worker
                .recorder
                .labels(Direction::Outbound, Some(&self.target), Some(&target), route),
            hedges: policy.as_ref().and_then(|policy| policy.hedging.map(Hedges::new)),
            policy: policy.filter(|policy| policy.governs_endpoints()),
            endpoints,
            backend: target,
            quickest: RefCell::new(Quickest::new(Instant::now())),
        });
        self.lanes.borrow_mut().insert(at, lane.clone());
        Ok(lane)
    }
}

/// A rule's own timeouts, and what a policy says where it has none. Both are within the rule's whole time.
fn or_timeouts(own: Timeouts, policy: Timeouts) -> Timeouts {
    let request = own.request.or(policy.request);
    let backend_request = own.backend_request.or(policy.backend_request);
    Timeouts {
        request,
        backend_request: backend_request.map(|one| request.map_or(one, |whole| one.min(whole))),
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
