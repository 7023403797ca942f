//! Starts a control plane and stops it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use certs::ClientAuth;
use proto::v1::configuration_server::ConfigurationServer;
use proto::v1::identity_server::IdentityServer;
use proto::v1::operator_server::OperatorServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::admin;
use crate::api::{IdentityService, OperatorService};
use crate::authority::{AuthorityError, Issuer};
use crate::folder::Folder;
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::serve;
use crate::settings::Settings;
use crate::sources::WatchError;
use crate::store::{Store, StoreError};
use crate::stream::ConfigService;
use crate::tokens::{self, TokenError};

/// ALPN of gRPC.
const ALPN_HTTP2: &[u8] = b"h2";
/// Concurrent calls of one connection: a sidecar has a stream and now and then a renewal.
const CALLS_PER_CONNECTION: u32 = 64;
/// The shortest certificate that may be asked for.
const MIN_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(10);
/// How long open streams may take to end when the control plane stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The control plane as a library.
pub struct ControlPlane;

/// A control plane that serves. Dropping it stops it without waiting.
pub struct Running {
    grpc: SocketAddr,
    admin: SocketAddr,
    mesh: Arc<Mesh>,
    issuer: Arc<Issuer>,
    settings: Settings,
    stopping: CancellationToken,
    tasks: TaskTracker,
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
}

impl ControlPlane {
    /// Starts on the runtime of the caller. Returns when it accepts connections and has read its folder.
    pub async fn start(settings: Settings) -> Result<Running, StartError> {
        if settings.limits.certificate_lifetime < MIN_CERTIFICATE_LIFETIME {
            return Err(StartError::Lifetime);
        }
        let data = |source| StartError::Data {
            path: settings.data.clone(),
            source,
        };
        std::fs::create_dir_all(&settings.data).map_err(data)?;
        let store = Store::open(&settings.data.join("weft.redb"))?;
        let remembered = store.read()?;
        let issuer = Issuer::open(
            &store,
            &remembered,
            settings.trust_domain.as_ref(),
            settings.limits.certificate_lifetime,
            &settings.data,
        )?;
        let mesh = Arc::new(Mesh::new(store, remembered));
        let folder = Arc::new(Folder::new(settings.config.clone()));
        // Watched before it is read, so that no change falls between.
        let watcher = folder.watch()?;
        folder.take(&mesh).await?;

        let listener = listen(settings.listen).await?;
        let admin_listener = listen(settings.admin).await?;
        let grpc = listener.local_addr().map_err(data)?;
        let admin = admin_listener.local_addr().map_err(data)?;
        issuer.write("address", &format!("{grpc}\n"))?;

        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let metrics = Arc::new(Metrics::default());
        let running = Running {
            grpc,
            admin,
            mesh,
            issuer,
            settings,
            stopping,
            tasks,
        };
        running.serve_grpc(listener, &metrics, &folder)?;
        running.keep_house(admin_listener, metrics, folder, watcher);
        tracing::info!(%grpc, %admin, trust_domain = %running.issuer.trust_domain(), "the control plane serves");
        Ok(running)
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
    pub async fn create_token(&self, namespace: &str, service_account: &str) -> Result<String, String> {
        let (store, hash) = (self.mesh.store.clone(), *self.issuer.root_hash());
        let (lifetime, most) = (
            self.settings.limits.token_lifetime,
            self.settings.limits.join_tokens,
        );
        let (namespace, account) = (namespace.to_owned(), service_account.to_owned());
        let created = tokio::task::spawn_blocking(move || {
            tokens::create(&store, &hash, &namespace, &account, lifetime, most)
        });
        let created: Result<_, TokenError> = created.await.map_err(|error| error.to_string())?;
        created.map(|(token, _)| token).map_err(|error| error.to_string())
    }

    /// Stops: streams end, what is known of workloads is kept for the next start.
    pub async fn shutdown(self) {
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some connections were cut off");
        }
    }

    fn serve_grpc(
        &self,
        listener: TcpListener,
        metrics: &Arc<Metrics>,
        folder: &Arc<Folder>,
    ) -> Result<(), StartError> {
        let limits = &self.settings.limits;
        let tls = certs::server_config(&self.issuer.cell, &[ALPN_HTTP2], ClientAuth::Optional)?;
        let connections = serve::connections(listener, tls, limits, metrics.clone(), self.stopping.clone());
        let identity = IdentityService {
            issuer: self.issuer.clone(),
            mesh: self.mesh.clone(),
            metrics: metrics.clone(),
            mesh_domain: self.settings.mesh_domain.clone(),
        };
        let operator = OperatorService {
            mesh: self.mesh.clone(),
            issuer: self.issuer.clone(),
            folder: folder.clone(),
            limits: limits.clone(),
        };
        let config = ConfigService::new(
            self.mesh.clone(),
            metrics.clone(),
            limits.clone(),
            self.stopping.clone(),
        );
        let stopping = self.stopping.clone();
        let serving = Server::builder()
            .http2_keepalive_interval(Some(limits.keepalive_interval))
            .http2_keepalive_timeout(Some(limits.keepalive_timeout))
            .max_concurrent_streams(CALLS_PER_CONNECTION)
            .add_service(IdentityServer::new(identity).max_decoding_message_size(limits.message_bytes))
            .add_service(ConfigurationServer::new(config).max_decoding_message_size(limits.message_bytes))
            .add_service(
                OperatorServer::new(operator).max_decoding_message_size(limits.operator_message_bytes),
            )
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
                stopping.cancelled().await;
            });
        self.tasks.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the gRPC server ended");
            }
        });
        Ok(())
    }

    /// Starts what goes on beside the calls.
    fn keep_house(
        &self,
        admin_listener: TcpListener,
        metrics: Arc<Metrics>,
        folder: Arc<Folder>,
        watcher: Option<crate::sources::Watcher>,
    ) {
        let stopping = &self.stopping;
        self.tasks.spawn(self.issuer.clone().keep_fresh(stopping.clone()));
        self.tasks.spawn(admin::serve(
            admin_listener,
            metrics,
            self.mesh.clone(),
            stopping.clone(),
        ));
        if let Some(watcher) = watcher {
            let (mesh, stopping) = (self.mesh.clone(), stopping.clone());
            self.tasks
                .spawn(async move { folder.follow(watcher, &mesh, stopping).await });
        }
        let (mesh, grace, stopping) = (
            self.mesh.clone(),
            self.settings.limits.restart_grace,
            stopping.clone(),
        );
        self.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(grace) => end_grace(&mesh).await,
                () = stopping.cancelled() => {}
            }
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// Removes the workloads that have not come back after a restart.
async fn end_grace(mesh: &Mesh) {
    let proxies = mesh.proxies();
    let state = mesh.state();
    let missing: Vec<_> = state
        .workloads
        .keys()
        .filter(|id| !proxies.contains_key(*id))
        .cloned()
        .collect();
    if missing.is_empty() {
        return;
    }
    tracing::info!(
        count = missing.len(),
        "workloads did not come back after the restart"
    );
    if let Err(error) = mesh.remove_workloads(&missing).await {
        tracing::error!(%error, "the store failed");
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen { address, source })
}
