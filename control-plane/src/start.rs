//! Starts a control plane and stops it.

use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::ClientAuth;
use proto::encoded::configuration_server::ConfigurationServer;
use proto::v1::identity_server::IdentityServer;
use proto::v1::operator_server::OperatorServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::admin;
use crate::api::{Chronicle, IdentityService, OperatorService};
use crate::authority::{AuthorityError, Issuer};
use crate::folder::Folder;
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::serve::{Door, SeldomLog};
use crate::settings::{Limits, Settings};
use crate::sources::{WatchError, Watcher};
use crate::store::{Store, StoreError};
use crate::stream::{ConfigService, Fleet, Shared};
use crate::tasks::Tasks;
use crate::tokens::{self, Account, TokenError};

/// ALPN of gRPC.
const ALPN_HTTP2: &[u8] = b"h2";
/// The shortest certificate that may be asked for: below it, renewing is all that proxies do.
const MIN_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(10);

/// The control plane as a library.
pub struct ControlPlane;

/// A control plane that serves. Dropping it cuts everything off.
pub struct Running {
    grpc: SocketAddr,
    admin: SocketAddr,
    rooms: Rooms,
    writer: JoinHandle<()>,
    limits: Limits,
    _guard: CutOff,
}

/// Cuts off what still runs.
struct CutOff(Tasks);

impl Drop for CutOff {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// What the parts of a control plane share.
#[derive(Clone)]
struct Rooms {
    mesh: Mesh,
    fleet: Arc<Fleet>,
    chronicle: Arc<Chronicle>,
    store: Arc<Store>,
    issuer: Arc<Issuer>,
    folder: Arc<Folder>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
}

/// Why a control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot use the data folder {}: {source}", path.display())]
    Data { path: PathBuf, source: io::Error },
    #[error("certificates must be valid for 10 s at least")]
    Lifetime,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("TLS settings: {0}")]
    Tls(#[from] certs::CertError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("a thread of the start ended")]
    Ended,
}

/// Why no join token was made.
#[derive(Debug, thiserror::Error)]
#[error("no join token was made: {0}")]
pub struct CreateTokenError(String);

impl ControlPlane {
    /// Starts on the runtime of the caller. Returns when it accepts connections and has read its folder.
    pub async fn start(settings: Settings) -> Result<Running, StartError> {
        let limits = settings.limits.clone();
        if limits.certificate_lifetime < MIN_CERTIFICATE_LIFETIME {
            return Err(StartError::Lifetime);
        }
        // Before anything is written: a port that is taken changes nothing.
        let listener = listen(settings.listen).await?;
        let admin_listener = listen(settings.admin).await?;
        let (grpc, admin) = (
            bound(&listener, settings.listen)?,
            bound(&admin_listener, settings.admin)?,
        );

        let from_disk = settings.clone();
        let opened = tokio::task::spawn_blocking(move || open(&from_disk)).await;
        let (store, issuer, remembered) = opened.map_err(|_| StartError::Ended)??;
        let has_remembered = !remembered.workloads.is_empty();
        let (mesh, writer) = Mesh::new(store.clone(), remembered, settings.outside, &limits);
        // Runs on after everything else was cut off, until nobody can ask for changes any more.
        let writer = tokio::spawn(writer.run());
        let rooms = Rooms {
            mesh,
            fleet: Arc::default(),
            chronicle: Arc::default(),
            store,
            issuer,
            folder: Arc::new(Folder::new(settings.config)),
            metrics: Arc::default(),
            tasks: Tasks::default(),
        };
        // Watched before it is read, so that no change falls between.
        let watcher = rooms.folder.watch()?;
        rooms.folder.take(&rooms.mesh).await;

        let tls = certs::server_config(&rooms.issuer.cell, &[ALPN_HTTP2], ClientAuth::Optional)?;
        let door = Door {
            routes: rooms.routes(&limits, settings.mesh_domain),
            limits: limits.clone(),
            metrics: rooms.metrics.clone(),
            tasks: rooms.tasks.clone(),
            log: SeldomLog::default(),
        };
        rooms.tasks.spawn(door.serve(listener, tls));
        rooms.keep_house(
            admin_listener,
            watcher,
            has_remembered.then_some(limits.restart_grace),
        );
        rooms.issuer.write("address", &format!("{}\n", reachable(grpc)))?;
        tracing::info!(%grpc, %admin, trust_domain = %rooms.issuer.trust_domain(), "the control plane serves");
        Ok(Running {
            grpc,
            admin,
            _guard: CutOff(rooms.tasks.clone()),
            rooms,
            writer,
            limits,
        })
    }
}

impl Running {
    /// The address of the gRPC port.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc
    }

    /// The address of the admin pages.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Makes a join token for a service account, as `weft token create` does.
    pub async fn create_token(
        &self,
        namespace: &str,
        service_account: &str,
    ) -> Result<String, CreateTokenError> {
        let failed = |why: &dyn std::fmt::Display| CreateTokenError(why.to_string());
        let account = Account::new(namespace, service_account).map_err(|error| failed(&error))?;
        let (store, hash) = (self.rooms.store.clone(), *self.rooms.issuer.root_hash());
        let (lifetime, most) = (self.limits.token_lifetime, self.limits.join_tokens);
        let made =
            tokio::task::spawn_blocking(move || tokens::create(&store, &hash, &account, lifetime, most));
        let made = made.await.map_err(|error| failed(&error))?;
        made.map(|token| token.text)
            .map_err(|error: TokenError| failed(&error))
    }

    /// Stops: streams end, what is known of workloads is kept for the next start. Afterwards nothing of it runs, and
    /// the data folder can be used again.
    pub async fn shutdown(self) {
        let Self {
            rooms,
            writer,
            limits,
            _guard,
            ..
        } = self;
        if !rooms.tasks.stop(limits.stop_timeout).await {
            tracing::warn!("some calls were cut off");
        }
        drop(rooms);
        // It writes what it was asked to, and ends.
        let _ = writer.await;
    }
}

impl Rooms {
    fn routes(&self, limits: &Limits, mesh_domain: model::MeshDomain) -> Routes {
        let identity = IdentityService {
            issuer: self.issuer.clone(),
            store: self.store.clone(),
            mesh: self.mesh.clone(),
            fleet: self.fleet.clone(),
            metrics: self.metrics.clone(),
            mesh_domain,
        };
        let operator = OperatorService {
            mesh: self.mesh.clone(),
            fleet: self.fleet.clone(),
            chronicle: self.chronicle.clone(),
            store: self.store.clone(),
            issuer: self.issuer.clone(),
            folder: self.folder.clone(),
            limits: limits.clone(),
            tasks: self.tasks.clone(),
        };
        let config = ConfigService {
            shared: Arc::new(Shared {
                mesh: self.mesh.clone(),
                fleet: self.fleet.clone(),
                metrics: self.metrics.clone(),
                limits: limits.clone(),
                tasks: self.tasks.clone(),
            }),
        };
        let mut routes = Routes::builder();
        routes
            .add_service(
                IdentityServer::new(identity).max_decoding_message_size(limits.identity_message_bytes),
            )
            .add_service(ConfigurationServer::new(config).max_decoding_message_size(limits.message_bytes))
            .add_service(
                OperatorServer::new(operator)
                    .max_decoding_message_size(limits.operator_message_bytes)
                    .max_encoding_message_size(limits.operator_message_bytes),
            );
        routes.routes().prepare()
    }

    /// Starts what goes on beside the calls.
    fn keep_house(&self, admin_listener: TcpListener, watcher: Option<Watcher>, grace: Option<Duration>) {
        let tasks = &self.tasks;
        tasks.spawn(self.issuer.clone().keep_fresh(tasks.clone()));
        tasks.spawn(admin::serve(
            admin_listener,
            self.metrics.clone(),
            self.mesh.clone(),
            self.fleet.clone(),
            tasks.clone(),
        ));
        let (mesh, fleet) = (self.mesh.clone(), self.fleet.clone());
        let (chronicle, until) = (self.chronicle.clone(), tasks.clone());
        tasks.spawn(async move { chronicle.follow(&mesh, &fleet, &until).await });
        if let Some(watcher) = watcher {
            let (folder, mesh, tasks) = (self.folder.clone(), self.mesh.clone(), tasks.clone());
            self.tasks
                .spawn(async move { folder.follow(watcher, &mesh, &tasks).await });
        }
        if let Some(grace) = grace {
            let (mesh, tasks) = (self.mesh.clone(), tasks.clone());
            self.tasks.spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(grace) => end_grace(&mesh).await,
                    () = tasks.stopping() => {}
                }
            });
        }
    }
}

/// Takes away the workloads that have not come back after a restart.
async fn end_grace(mesh: &Mesh) {
    match mesh.end_grace().await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "workloads did not come back after the restart"),
        Err(error) => tracing::error!(%error, "workloads that did not come back are kept"),
    }
}

/// What comes from the disk. Blocks.
fn open(settings: &Settings) -> Result<(Arc<Store>, Arc<Issuer>, crate::store::Remembered), StartError> {
    let data = |source| StartError::Data {
        path: settings.data.clone(),
        source,
    };
    make_folder(&settings.data).map_err(data)?;
    let store = Arc::new(Store::open(&settings.data.join("weft.redb"))?);
    let issuer = Issuer::open(
        &store,
        settings.trust_domain.as_ref(),
        settings.limits.certificate_lifetime,
        &settings.data,
    )?;
    let remembered = store.remembered()?;
    Ok((store, issuer, remembered))
}

/// A new data folder is its owner's alone; one that is there keeps its permissions.
fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen { address, source })
}

fn bound(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, StartError> {
    listener
        .local_addr()
        .map_err(|source| StartError::Listen { address, source })
}

/// Where somebody on this machine reaches an address that may be every address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
