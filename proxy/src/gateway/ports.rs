//! Binds the ports of a Gateway as it asks for them, lets go of those it asks for no more, and says how they stand.
//!
//! It runs on the control thread, before a configuration is acknowledged. A port that stays is not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::Snapshot;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::plan::{Plan, Socket};
use super::udp::UdpListener;
use crate::config::{ConfigHandle, PortFailure, PortReport};
use crate::connection::Role;
use crate::listener::Listener;
use crate::settings::Limits;
use crate::stats::Registry;
use crate::upstream::Shown;

/// Between two attempts to bind what could not be bound.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The plan in use, for every worker.
pub(crate) type Plans = Arc<ArcSwap<Plan>>;

/// What the worker that accepts is given.
pub(crate) enum Opened {
    Tcp(Listener),
    Udp(UdpListener),
}

/// The ports of one gateway.
pub(crate) struct Ports {
    state: Mutex<State>,
    /// Told when something could not be bound.
    failure: Notify,
}

struct State {
    plans: Plans,
    shown: Shown,
    config: ConfigHandle,
    opened: mpsc::UnboundedSender<Opened>,
    bound: BTreeMap<(Socket, SocketAddr), Bound>,
    failed: BTreeMap<(Socket, SocketAddr), PortFailure>,
    limits: Limits,
    registry: Arc<Registry>,
    draining: CancellationToken,
}

/// One socket that is accepted on until this is dropped.
struct Bound {
    address: SocketAddr,
    _guard: DropGuard,
}

impl Ports {
    pub(crate) fn new(
        (plans, shown): (Plans, Shown),
        config: ConfigHandle,
        opened: mpsc::UnboundedSender<Opened>,
        limits: Limits,
        registry: Arc<Registry>,
        draining: CancellationToken,
    ) -> Arc<Self> {
        let state = State {
            plans,
            shown,
            config,
            opened,
            bound: BTreeMap::new(),
            failed: BTreeMap::new(),
            limits,
            registry,
            draining,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            failure: Notify::new(),
        })
    }

    /// Takes up a configuration that is about to be used.
    pub(crate) fn follow(&self, snapshot: &Arc<Snapshot>) {
        let mut state = self.state();
        let before = state.plans.load_full();
        let gateway = snapshot.gateway.as_ref();
        let shown = gateway.and_then(|gateway| gateway.client_certificate.clone());
        // Before the snapshot that tells clusters to look at it.
        state.shown.store(shown);
        state
            .plans
            .store(Arc::new(Plan::compile(snapshot.clone(), &before)));
        state.bind();
        if !state.failed.is_empty() {
            self.failure.notify_one();
        }
    }

    /// Tries again what could not be bound, for as long as that is wanted.
    pub(crate) async fn retry(self: Arc<Self>) {
        loop {
            self.failure.notified().await;
            loop {
                tokio::time::sleep(RETRY_INTERVAL).await;
                let mut state = self.state();
                state.bind();
                if state.failed.is_empty() {
                    break;
                }
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes what is bound what the plan asks for, as far as that is possible, and reports it.
    fn bind(&mut self) {
        let plan = self.plans.load_full();
        let wanted: BTreeSet<_> = plan.addresses().collect();
        self.bound.retain(|at, bound| {
            let stays = wanted.contains(at);
            if !stays {
                tracing::info!(address = %bound.address, udp = at.0.is_udp, "a port is closed");
            }
            stays
        });
        let failed_before = std::mem::take(&mut self.failed);
        for (socket, address) in plan.addresses() {
            if self.bound.contains_key(&(socket, address)) {
                continue;
            }
            match self.open(socket, address) {
                Ok(bound) => {
                    tracing::info!(address = %bound.address, udp = socket.is_udp, "a port is open");
                    self.bound.insert((socket, address), bound);
                }
                Err(error) if is_without_ipv6(address, &error) => {}
                Err(error) => {
                    let failure = PortFailure {
                        why: format!("{address}: {error}"),
                        no_address: error.kind() == io::ErrorKind::AddrNotAvailable,
                    };
                    if failed_before.get(&(socket, address)) != Some(&failure) {
                        tracing::warn!(%address, udp = socket.is_udp, %error, "a port cannot be bound; tried again");
                    }
                    self.failed.insert((socket, address), failure);
                }
            }
        }
        self.config.report_ports(self.report());
        let exists = plan.snapshot.gateway.is_some();
        self.config.set_ready(exists && self.failed.is_empty());
    }

    fn open(&self, socket: Socket, address: SocketAddr) -> io::Result<Bound> {
        let stop = self.draining.child_token();
        let (bound, opened) = if socket.is_udp {
            let listener = UdpListener::bind(address, socket.port, stop.clone())?;
            (listener.address()?, Opened::Udp(listener))
        } else {
            let role = Role::Gateway(socket.port);
            let listener = Listener::bind(address, role, &self.limits, &self.registry)?.until(stop.clone());
            (listener.address()?, Opened::Tcp(listener))
        };
        // Without a worker the proxy ends.
        let _ = self.opened.send(opened);
        Ok(Bound {
            address: bound,
            _guard: stop.drop_guard(),
        })
    }

    /// Every port that is asked for, whether it is bound or not.
    fn report(&self) -> Vec<PortReport> {
        let mut ports: BTreeMap<u16, PortReport> = BTreeMap::new();
        let mut of = |port: u16, note: &dyn Fn(&mut PortReport)| {
            note(ports.entry(port).or_insert_with(|| PortReport {
                port,
                addresses: Vec::new(),
                failure: None,
            }));
        };
        for ((socket, _), bound) in &self.bound {
            of(socket.port, &|report| {
                // TCP and UDP may have the same.
                if !report.addresses.contains(&bound.address) {
                    report.addresses.push(bound.address);
                }
            });
        }
        for ((socket, _), failure) in &self.failed {
            of(socket.port, &|report| {
                report.failure.get_or_insert_with(|| failure.clone());
            });
        }
        ports.into_values().collect()
    }
}

/// Whether a machine without IPv6 was asked for every address.
fn is_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let is_taken = matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    );
    address.is_ipv6() && address.ip().is_unspecified() && !is_taken
}
