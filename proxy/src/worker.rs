//! What one data-plane thread has for itself: everything a connection needs on it.
//!
//! A connection lives and dies on one worker. What workers share is read without a lock (the snapshot, the
//! identity) or written by one relaxed addition (the counts).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use certs::IdentityCell;
use decision::traffic::lineage::Lineages;
use decision::traffic::split::EvenDice;
use model::gateway::Transport;
use model::resilience::RetryBudget;
use model::{MeshDomain, ServicePort, Snapshot, TrafficPolicy};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::{Budget, BudgetKey, Minimums};
use crate::config::ConfigHandle;
use crate::destinations::Destinations;
use crate::gateway::plan::{Plan, Socket};
use crate::gateway::ports::Plans;
use crate::outside::OutsideCalls;
use crate::presence::Connections;
use crate::settings::Settings;
use crate::telemetry::Recorder;
use crate::upstream::{Cluster, Joints, Route, Shown, Surroundings, Upstream, Wanted};

/// What all workers of a proxy have in common.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) config: ConfigHandle,
    pub(crate) identity: IdentityCell,
    pub(crate) domain: MeshDomain,
    /// What a gateway serves; nothing in a sidecar.
    pub(crate) plans: Plans,
    pub(crate) registry: Arc<crate::stats::Registry>,
    pub(crate) tracer: opentelemetry_sdk::trace::SdkTracer,
    pub(crate) exporting: bool,
    pub(crate) joints: Arc<Joints>,
    pub(crate) minimums: Minimums,
    pub(crate) shown: Shown,
    /// Every port that the proxy listens on; none at a gateway, which calls nobody outside.
    pub(crate) own_ports: Vec<u16>,
    /// Cancelled when the proxy begins to stop.
    pub(crate) draining: CancellationToken,
}

/// What one worker has for itself.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) limits: Arc<crate::settings::Limits>,
    pub(crate) recorder: Rc<Recorder>,
    pub(crate) connections: Connections,
    snapshots: RefCell<Cache<Snapshots, Arc<Snapshot>>>,
    around: Rc<Surroundings>,
    plans: RefCell<Cache<Plans, Arc<Plan>>>,
    clusters: RefCell<HashMap<ClusterKey, Rc<Cluster>>>,
    /// Of single endpoints that are called by their addresses.
    single: RefCell<HashMap<(ServicePort, SocketAddr), Rc<Cluster>>>,
    /// By addresses that the control plane says: no caller can make them collide.
    apps: RefCell<HashMap<SocketAddr, Rc<Upstream>, foldhash::fast::RandomState>>,
    budgets: RefCell<HashMap<BudgetKey, Rc<Budget>>>,
    pub(crate) destinations: Destinations,
    pub(crate) outside: OutsideCalls,
    /// The requests that the application is answering.
    pub(crate) lineages: Rc<RefCell<Lineages>>,
    /// Copies of requests on their way.
    pub(crate) mirrored: Cell<usize>,
    dice: RefCell<SmallRng>,
    split_dice: RefCell<EvenDice>,
    /// Connections and tunnels; a stopping worker waits for them.
    pub(crate) tasks: TaskTracker,
}

/// A service port, and the route whose policy stands over that of the service, where one does: what such a policy says
/// about endpoints is true for its own requests only.
pub(crate) type ClusterKey = (ServicePort, Option<Arc<str>>);

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>) -> Rc<Self> {
        let recorder = Recorder::new(
            shared.registry.clone(),
            shared.tracer.clone(),
            shared.exporting,
            shared.settings.access_log,
        );
        let limits = Arc::new(shared.settings.limits.clone());
        Rc::new(Self {
            around: Rc::new(Surroundings {
                domain: shared.domain.clone(),
                identity: shared.identity.clone(),
                limits: limits.clone(),
                labels: shared.settings.labels.clone(),
                joints: shared.joints.clone(),
                shown: shared.shown.clone(),
            }),
            limits,
            recorder,
            connections: Connections::default(),
            snapshots: RefCell::new(Cache::new(Snapshots(shared.config.clone()))),
            plans: RefCell::new(Cache::new(shared.plans.clone())),
            clusters: RefCell::default(),
            single: RefCell::default(),
            apps: RefCell::default(),
            budgets: RefCell::default(),
            destinations: Destinations::default(),
            outside: OutsideCalls::default(),
            lineages: Rc::default(),
            mirrored: Cell::new(0),
            dice: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            split_dice: RefCell::new(EvenDice::new(rand::random())),
            tasks: TaskTracker::new(),
            shared,
        })
    }

    /// The configuration in use now. A request keeps what it got from beginning to end.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow_mut().load().clone()
    }

    /// What a gateway serves now, with the configuration that says so.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plans.borrow_mut().load().clone()
    }

    pub(crate) fn dice(&self) -> u64 {
        self.dice.borrow_mut().next_u64()
    }

    /// Dice for a split by weight.
    pub(crate) fn split_dice(&self) -> u64 {
        self.split_dice.borrow_mut().roll()
    }

    /// Dice between 0 and 1.
    pub(crate) fn unit_dice(&self) -> f64 {
        (self.dice() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn cluster(&self, key: &ClusterKey) -> Rc<Cluster> {
        let mut clusters = self.clusters.borrow_mut();
        if let Some(cluster) = clusters.get(key) {
            return cluster.clone();
        }
        let cluster = Cluster::new(key, self.around.clone());
        clusters.insert(key.clone(), cluster.clone());
        cluster
    }

    /// Of the only endpoint that is called, apart from the others of its service.
    pub(crate) fn endpoint_cluster(&self, target: &ServicePort, address: SocketAddr) -> Rc<Cluster> {
        let new = || Cluster::new(&(target.clone(), None), self.around.clone());
        let key = (target.clone(), address);
        let mut single = self.single.borrow_mut();
        single.entry(key).or_insert_with(new).clone()
    }

    pub(crate) fn app(&self, address: SocketAddr) -> Rc<Upstream> {
        let new = || Upstream::new(Rc::new(Route::App(address)), self.limits.clone());
        self.apps.borrow_mut().entry(address).or_insert_with(new).clone()
    }

    /// The retry budget of a destination, as its policy has it.
    pub(crate) fn budget(&self, key: ClusterKey, policy: Option<&TrafficPolicy>) -> Rc<Budget> {
        let constraint = policy.and_then(|policy| policy.retry_constraint);
        let key = (key, constraint.is_some());
        let budget = constraint.map_or_else(RetryBudget::default, |constraint| constraint.budget());
        let mut budgets = self.budgets.borrow_mut();
        if let Some(known) = budgets.get(&key).filter(|known| known.is_of(&budget)) {
            return known.clone();
        }
        let new = Rc::new(Budget::new(&self.shared.minimums, &key, budget, Instant::now()));
        budgets.insert(key, new.clone());
        new
    }

    /// Takes up a changed configuration where that cannot wait for a request: ports are closed, and what policies keep for
    /// endpoints follows them.
    pub(crate) fn take_up(&self) {
        if self.shared.settings.gateway.is_some() {
            self.close_ports();
        }
        self.follow_policies(&self.snapshot());
    }

    fn follow_policies(&self, snapshot: &Snapshot) {
        let now = Instant::now();
        let with_policy = snapshot.rules().filter(|rule| rule.policy.is_some());
        let rules: HashMap<_, _> = with_policy.map(|rule| (&rule.name, rule)).collect();
        // What a route has of its own for a backend ends with its policy, and with the backend.
        let policy_for = |target: &ServicePort, route: &Arc<str>| {
            let rule = rules.get(route)?;
            let mut targets = rule.backends.iter().filter_map(|backend| backend.target.as_ref());
            targets.any(|one| one == target).then_some(rule.policy.as_ref()?)
        };
        self.budgets.borrow_mut().retain(|((target, route), _), _| {
            let policy = route.as_ref().map(|route| policy_for(target, route));
            policy.is_none_or(|policy| policy.is_some_and(|policy| policy.retry_constraint.is_some()))
        });
        let mut clusters = self.clusters.borrow_mut();
        clusters.retain(|(target, route), cluster| {
            let policy = route.as_ref().map(|route| policy_for(target, route));
            let stays = policy.is_none_or(|policy| policy.is_some_and(|policy| policy.governs_endpoints()));
            if !stays {
                cluster.end_checks();
            }
            stays
        });
        for ((target, route), cluster) in clusters.iter() {
            let Some(set) = snapshot.endpoints.get(&target.service) else {
                continue;
            };
            let of_route = route.as_ref().and_then(|route| policy_for(target, route));
            let policy = match of_route {
                Some(_) => TrafficPolicy::joined(of_route, set.policies.get(&target.port)),
                None => set.governing(target.port).cloned(),
            };
            cluster.refresh(&Wanted::any(set, policy.as_ref(), self.dice(), now));
        }
    }

    /// Asks the connections of ports to end that a gateway has no more, or for something else, and those of clients who
    /// would have to show something else by now.
    fn close_ports(&self) {
        let plan = self.plan();
        self.connections.close_where(|front, entry| {
            let serves = if front.is_tls {
                Transport::Tls
            } else {
                Transport::Http
            };
            front.port.is_some_and(|port| {
                plan.transport(Socket::tcp(port)) != Some(serves)
                    || entry.is_some_and(|entry| !plan.still_admits(port, entry))
            })
        });
    }

    /// Closes what was not used for a while, and forgets services that are gone.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let snapshot = self.snapshot();
        self.connections.sweep(now, self.limits.idle_timeout);
        self.destinations.sweep(&snapshot);
        self.outside.close_idle(now);
        self.clusters.borrow_mut().retain(|(target, _), cluster| {
            cluster.close_idle(now);
            snapshot.endpoints.contains_key(&target.service)
        });
        self.budgets.borrow_mut().retain(|((target, _), _), _| {
            snapshot.destinations.contains_key(&target.service)
                || snapshot.endpoints.contains_key(&target.service)
        });
        self.single.borrow_mut().retain(|(_, address), cluster| {
            cluster.close_idle(now);
            matches!(snapshot.addresses.get(address), Some(Some(_)))
        });
        // A request that began before may have made anew what had ended.
        self.follow_policies(&snapshot);
        for app in self.apps.borrow().values() {
            app.close_idle(now);
        }
    }
}

/// Where the cache looks for a newer snapshot.
struct Snapshots(ConfigHandle);

impl Deref for Snapshots {
    type Target = ArcSwap<Snapshot>;

    fn deref(&self) -> &ArcSwap<Snapshot> {
        self.0.snapshots()
    }
}
