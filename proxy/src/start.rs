//! Starts a proxy and stops it: listeners, identity, configuration, workers, pages.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use certs::ServerTls;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Pages};
use crate::config::{AppReadiness, ConfigHandle, ConfigSettings, ConfigTask, ReadinessSettings};
use crate::connection::Role;
use crate::gateway::ports::{Opened, Plans, Ports};
use crate::identity::{AddressError, IdentityError, IdentityKeeper, IdentitySettings};
use crate::listener::Listener;
use crate::settings::{LocalPort, Settings};
use crate::stats::{CertificateStats, Registry, Stats};
use crate::threads;
use crate::tls::{ALPN_HTTP1, ALPN_HTTP2, ALPN_TCP};
use crate::upstream::Shown;
use crate::worker::Shared;

/// How long the control plane is waited for when the workload says that it leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last spans may take to be sent.
const TELEMETRY_TIMEOUT: Duration = Duration::from_secs(3);

/// The sidecar, or a gateway, as a library.
pub struct Proxy;

/// A proxy that serves. Dropping it stops it without waiting; [`Running::stop`] lets requests finish.
pub struct Running {
    /// Where the application sends its calls; `None` at a gateway, whose ports are in the configuration.
    pub outbound: Option<SocketAddr>,
    /// Where other sidecars connect; `None` at a gateway.
    pub inbound: Option<SocketAddr>,
    pub admin: SocketAddr,
    pub metrics: SocketAddr,
    /// The local ports with the addresses they were bound to.
    pub locals: Vec<LocalPort>,
    config: ConfigHandle,
    stats: Arc<dyn Fn() -> Stats + Send + Sync>,
    stopping: CancellationToken,
    ended: oneshot::Receiver<()>,
}

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{0} is a wildcard: say with --advertise how other sidecars reach this one")]
    NoAddress(SocketAddr),
    #[error("the control plane's address: {0}")]
    ControlPlane(#[source] AddressError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("TLS settings: {0}")]
    Tls(#[from] certs::CertError),
    #[error("traces: {0}")]
    Telemetry(#[from] telemetry::TelemetryError),
    #[error("a thread could not be started: {0}")]
    Thread(#[source] io::Error),
    #[error("the proxy ended while it was starting")]
    Ended,
}

impl Proxy {
    /// Starts a proxy on threads of its own. Returns when its listeners accept, which is when it has an identity;
    /// waits as long as the control plane cannot be reached.
    pub async fn start(settings: Settings) -> Result<Running, ProxyError> {
        let (report, started) = oneshot::channel();
        thread::Builder::new()
            .name("weft-control".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                match runtime {
                    Ok(runtime) => tokio::task::LocalSet::new().block_on(&runtime, control(settings, report)),
                    // Nobody waits any more where this cannot be told.
                    Err(error) => drop(report.send(Err(ProxyError::Thread(error)))),
                }
            })
            .map_err(ProxyError::Thread)?;
        started.await.map_err(|_| ProxyError::Ended)?
    }
}

impl Running {
    /// All counts at this moment.
    pub fn stats(&self) -> Stats {
        (self.stats)()
    }

    /// The mesh's generation in use.
    pub fn generation(&self) -> u64 {
        self.config.snapshot().generation.0
    }

    /// Whether the control plane has been told that the application accepts connections.
    pub fn is_ready(&self) -> bool {
        self.config.is_ready()
    }

    /// Stops: tells the control plane, finishes what has begun, for at most the drain timeout.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        // An error says that it has ended already.
        let _ = (&mut self.ended).await;
    }
}

/// The control thread: everything that is not a request.
async fn control(settings: Settings, report: oneshot::Sender<Result<Running, ProxyError>>) {
    let stopping = CancellationToken::new();
    let (ended, has_ended) = oneshot::channel();
    // Whoever started the proxy may have given up waiting.
    let mut report = report;
    let built = tokio::select! {
        built = Parts::build(settings) => built,
        () = report.closed() => return,
    };
    let parts = match built {
        Ok(parts) => parts,
        Err(error) => return drop(report.send(Err(error))),
    };
    let draining = parts.shared.draining.clone();
    let started = parts.start();
    let (running, threads) = match started {
        Ok(started) => started,
        Err(error) => return drop(report.send(Err(error))),
    };
    let (config, telemetry) = (running.config.clone(), running.telemetry.clone());
    let told = report.send(Ok(running.into_running(stopping.clone(), has_ended)));
    if told.is_ok() {
        stopping.cancelled().await;
    }
    if !config.leave(LEAVE_TIMEOUT).await {
        tracing::info!("the control plane was not told that this workload leaves");
    }
    draining.cancel();
    let joined =
        tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
    // A worker that panicked has ended too.
    let _ = joined.await;
    let flushed = tokio::task::spawn_blocking(move || telemetry.shutdown(TELEMETRY_TIMEOUT));
    let _ = flushed.await;
    let _ = ended.send(());
}

/// A proxy whose sockets are bound and which has an identity.
struct Parts {
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    keeper: IdentityKeeper,
    config_task: ConfigTask,
    /// Of a gateway.
    ports: Option<Arc<Ports>>,
    opened: mpsc::UnboundedReceiver<Opened>,
    pages: [(TcpListener, Pages); 2],
    telemetry: telemetry::Telemetry,
    addresses: Addresses,
}

struct Addresses {
    outbound: Option<SocketAddr>,
    inbound: Option<SocketAddr>,
    admin: SocketAddr,
    metrics: SocketAddr,
    locals: Vec<LocalPort>,
}

impl Addresses {
    fn ports(&self) -> Vec<u16> {
        let of_sidecar = self.outbound.iter().chain(&self.inbound);
        let pages = [&self.admin, &self.metrics];
        let locals = self.locals.iter().map(|local| &local.listen);
        let all = of_sidecar.chain(pages).chain(locals);
        all.map(SocketAddr::port).collect()
    }
}

/// What [`Parts::start`] leaves to be told.
struct Started {
    addresses: Addresses,
    config: ConfigHandle,
    stats: Arc<dyn Fn() -> Stats + Send + Sync>,
    telemetry: telemetry::Telemetry,
}

impl Started {
    fn into_running(self, stopping: CancellationToken, ended: oneshot::Receiver<()>) -> Running {
        let Addresses {
            outbound,
            inbound,
            admin,
            metrics,
            locals,
        } = self.addresses;
        Running {
            outbound,
            inbound,
            admin,
            metrics,
            locals,
            config: self.config,
            stats: self.stats,
            stopping,
            ended,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl Parts {
    async fn build(settings: Settings) -> Result<Self, ProxyError> {
        let registry = Arc::new(Registry::default());
        let limits = &settings.limits;
        let listen = |address, role| {
            Listener::bind(address, role, limits, &registry)
                .and_then(|listener| listener.address().map(|bound| (listener, bound)))
                .map_err(|source| ProxyError::Listen { address, source })
        };
        let page = |address| async move {
            let bound = admin::bind_loopback(address).await;
            bound.map_err(|source| ProxyError::Listen { address, source })
        };
        let is_gateway = settings.gateway.is_some();
        let mut listeners = Vec::new();
        let mut outbound_address = None;
        if !is_gateway {
            let (outbound, bound) = listen(settings.outbound, Role::Outbound)?;
            listeners.push(outbound);
            outbound_address = Some(bound);
        }
        let mut locals = Vec::new();
        for local in &settings.locals {
            let (listener, bound) = listen(local.listen, Role::Local(local.service.port(local.port)))?;
            listeners.push(listener);
            locals.push(LocalPort {
                listen: bound,
                ..local.clone()
            });
        }
        let admin_page = page(settings.admin).await?;
        let metrics_page =
            TcpListener::bind(settings.metrics)
                .await
                .map_err(|source| ProxyError::Listen {
                    address: settings.metrics,
                    source,
                })?;

        let keeper = IdentityKeeper::obtain(identity_settings(&settings)?).await?;
        let cell = keeper.cell();
        let mut inbound_address = None;
        if !is_gateway {
            let alpn = [ALPN_HTTP2, ALPN_HTTP1, ALPN_TCP];
            let tls = ServerTls::new(&cell, &alpn, limits.tls_sessions);
            // What is wrong with the settings is said here, not to each caller.
            tls.config()?;
            let (inbound, bound) = listen(settings.inbound, Role::Inbound(tls))?;
            listeners.push(inbound);
            inbound_address = Some(bound);
        }
        let advertised = settings.advertise.or(inbound_address);
        if let Some(address) = advertised.filter(|address| address.ip().is_unspecified()) {
            return Err(ProxyError::NoAddress(address));
        }
        let telemetry = start_telemetry(&settings)?;
        let (config, config_task) = ConfigTask::new(
            config_settings(&settings, advertised)?,
            keeper.control_plane_tls(),
        );
        let (plans, shown, draining) = (Plans::default(), Shown::default(), CancellationToken::new());
        let (open, opened) = mpsc::unbounded_channel();
        let ports = is_gateway.then(|| {
            let (config, limits) = (config.clone(), limits.clone());
            Ports::new(
                (plans.clone(), shown.clone()),
                config,
                open,
                limits,
                registry.clone(),
                draining.clone(),
            )
        });
        let config_task = match &ports {
            Some(ports) => {
                let ports = ports.clone();
                config_task.following(Box::new(move |snapshot| ports.follow(snapshot)))
            }
            None => config_task,
        };
        let address_of = |listener: &TcpListener, asked| {
            listener.local_addr().map_err(|source| ProxyError::Listen {
                address: asked,
                source,
            })
        };
        let addresses = Addresses {
            outbound: outbound_address,
            inbound: inbound_address,
            admin: address_of(&admin_page, settings.admin)?,
            metrics: address_of(&metrics_page, settings.metrics)?,
            locals,
        };
        let own_ports = addresses.ports();
        let shared = Arc::new(Shared {
            own_ports,
            config,
            identity: cell,
            domain: keeper.mesh_domain().clone(),
            plans,
            registry,
            tracer: telemetry.tracer(),
            exporting: telemetry.enabled(),
            draining,
            joints: Arc::default(),
            minimums: crate::budget::Minimums::default(),
            shown,
            settings,
        });
        let pages = [(admin_page, Pages::Admin), (metrics_page, Pages::Metrics)];
        Ok(Self {
            shared,
            listeners,
            keeper,
            config_task,
            ports,
            opened,
            pages,
            telemetry,
            addresses,
        })
    }

    fn start(self) -> Result<(Started, Vec<thread::JoinHandle<()>>), ProxyError> {
        let shared = self.shared;
        let threads = threads::start(&shared, shared.settings.workers, self.listeners, self.opened)
            .map_err(ProxyError::Thread)?;
        let stats = stats_of(&shared, &self.keeper, &self.telemetry);
        let admin = Admin::new(
            shared.settings.workload_id.to_string(),
            shared.settings.gateway.is_some(),
            shared.config.clone(),
            self.keeper.status(),
            shared.registry.clone(),
            stats.clone(),
        );
        for (listener, pages) in self.pages {
            tokio::task::spawn_local(admin::serve(listener, pages, admin.clone()));
        }
        if let Some(ports) = self.ports {
            tokio::task::spawn_local(ports.retry());
        } else {
            let apps = shared.settings.app.iter().map(|app| app.address).collect();
            let readiness = AppReadiness::new(apps, shared.config.clone(), ReadinessSettings::default());
            tokio::task::spawn_local(readiness.run());
        }
        tokio::task::spawn_local(self.config_task.run());
        tokio::task::spawn_local(self.keeper.run());
        let started = Started {
            addresses: self.addresses,
            config: shared.config.clone(),
            stats,
            telemetry: self.telemetry,
        };
        Ok((started, threads))
    }
}

fn identity_settings(settings: &Settings) -> Result<IdentitySettings, ProxyError> {
    let address = settings.control_plane.parse().map_err(ProxyError::ControlPlane)?;
    let mut identity = IdentitySettings::new(address, settings.namespace.clone());
    identity.token.clone_from(&settings.token);
    identity.data.clone_from(&settings.data);
    identity.service_account.clone_from(&settings.service_account);
    identity.workload_id = Some(settings.workload_id.clone());
    Ok(identity)
}

fn config_settings(
    settings: &Settings,
    advertised: Option<SocketAddr>,
) -> Result<ConfigSettings, ProxyError> {
    let address = settings.control_plane.parse().map_err(ProxyError::ControlPlane)?;
    let mut config = ConfigSettings::new(address, settings.workload_id.clone());
    config.inbound = advertised;
    config.gateway.clone_from(&settings.gateway);
    config.labels = settings.labels.clone();
    config.app_ports.clone_from(&settings.app);
    Ok(config)
}

fn start_telemetry(settings: &Settings) -> Result<telemetry::Telemetry, ProxyError> {
    let resource = telemetry::Resource {
        service_name: &settings.service,
        service_namespace: settings.namespace.as_str(),
        service_instance_id: settings.workload_id.as_str(),
        service_version: settings.labels.get("version").unwrap_or_default(),
    };
    Ok(telemetry::Telemetry::start(resource, settings.traces.clone())?)
}

/// Reads all counts of a proxy together.
fn stats_of(
    shared: &Arc<Shared>,
    keeper: &IdentityKeeper,
    telemetry: &telemetry::Telemetry,
) -> Arc<dyn Fn() -> Stats + Send + Sync> {
    let (registry, identity, telemetry) = (shared.registry.clone(), keeper.status(), telemetry.clone());
    Arc::new(move || {
        let identity = identity.borrow();
        let spans = telemetry.counts();
        Stats {
            certificate: Some(CertificateStats {
                spiffe_id: identity.spiffe_id.to_string(),
                not_before: identity.not_before,
                not_after: identity.not_after,
            }),
            spans_exported: spans.exported,
            spans_dropped: spans.dropped,
            ..registry.read()
        }
    })
}
