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
use decision::traffic::budget::RetryBudgetState;
use decision::traffic::lineage::Lineages;
use decision::traffic::split::EvenDice;
use model::gateway::Transport;
use model::resilience::RetryBudget;
use model::{MeshDomain, ServicePort, Snapshot};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ConfigHandle;
use crate::destinations::Destinations;
use crate::gateway::plan::{Plan, Socket};
use crate::gateway::ports::Plans;
use crate::presence::Connections;
use crate::settings::Settings;
use crate::telemetry::Recorder;
use crate::upstream::{Cluster, Route, Upstream};

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
    plans: RefCell<Cache<Plans, Arc<Plan>>>,
    clusters: RefCell<HashMap<ServicePort, Rc<Cluster>>>,
    apps: RefCell<HashMap<SocketAddr, Rc<Upstream>>>,
    budgets: RefCell<HashMap<ServicePort, Rc<RefCell<RetryBudgetState>>>>,
    pub(crate) destinations: Destinations,
    /// The requests that the application is answering.
    pub(crate) lineages: Rc<RefCell<Lineages>>,
    /// Copies of requests on their way.
    pub(crate) mirrored: Cell<usize>,
    dice: RefCell<SmallRng>,
    split_dice: RefCell<EvenDice>,
    /// Connections and tunnels; a stopping worker waits for them.
    pub(crate) tasks: TaskTracker,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>) -> Rc<Self> {
        let recorder = Recorder::new(
            shared.registry.clone(),
            shared.tracer.clone(),
            shared.exporting,
            shared.settings.access_log,
        );
        Rc::new(Self {
            limits: Arc::new(shared.settings.limits.clone()),
            recorder,
            connections: Connections::default(),
            snapshots: RefCell::new(Cache::new(Snapshots(shared.config.clone()))),
            plans: RefCell::new(Cache::new(shared.plans.clone())),
            clusters: RefCell::default(),
            apps: RefCell::default(),
            budgets: RefCell::default(),
            destinations: Destinations::default(),
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

    pub(crate) fn cluster(&self, target: &ServicePort) -> Rc<Cluster> {
        let mut clusters = self.clusters.borrow_mut();
        if let Some(cluster) = clusters.get(target) {
            return cluster.clone();
        }
        let cluster = Cluster::new(
            target,
            &self.shared.domain,
            self.shared.identity.clone(),
            self.limits.clone(),
        );
        clusters.insert(target.clone(), cluster.clone());
        cluster
    }

    pub(crate) fn app(&self, address: SocketAddr) -> Rc<Upstream> {
        let new = || Upstream::new(Route::App(address), self.limits.clone());
        self.apps.borrow_mut().entry(address).or_insert_with(new).clone()
    }

    /// This worker's share of a destination's retry budget.
    pub(crate) fn budget(&self, destination: &ServicePort) -> Rc<RefCell<RetryBudgetState>> {
        let mut budgets = self.budgets.borrow_mut();
        if let Some(budget) = budgets.get(destination) {
            return budget.clone();
        }
        let whole = RetryBudget::default();
        let share = RetryBudget {
            min_retries: whole.min_retries / self.shared.settings.workers.max(1) as f64,
            ..whole
        };
        let new = RetryBudgetState::new(share, Instant::now());
        let budget = Rc::new(RefCell::new(new));
        budgets.insert(destination.clone(), budget.clone());
        budget
    }

    /// Asks the connections of ports to end that a gateway has no more, or for something else.
    pub(crate) fn close_ports(&self) {
        let plan = self.plan();
        self.connections.close_where(|front| {
            let serves = if front.is_tls {
                Transport::Tls
            } else {
                Transport::Http
            };
            front
                .port
                .is_some_and(|port| plan.transport(Socket::tcp(port)) != Some(serves))
        });
    }

    /// Closes what was not used for a while, and forgets services that are gone.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let snapshot = self.snapshot();
        self.connections.sweep(now, self.limits.idle_timeout);
        self.destinations.sweep(&snapshot);
        self.clusters.borrow_mut().retain(|target, cluster| {
            cluster.close_idle(now);
            snapshot.endpoints.contains_key(&target.service)
        });
        self.budgets.borrow_mut().retain(|target, _| {
            snapshot.destinations.contains_key(&target.service)
                || snapshot.endpoints.contains_key(&target.service)
        });
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
