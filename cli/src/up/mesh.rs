//! The running mesh of `weft up`: control plane, sidecars, applications, and where their spans go.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use control_plane::{ControlPlane, Running, Settings, StartError};
use futures_util::future::join_all;
use model::WorkloadId;
use proto::v1::{ProxyStatus, StatusRequest};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::door::{Door, Source};
use super::plan::Plan;
use super::receiver::Receiver;
use super::sidecar::{Sidecar, Surroundings, WorkloadError, target_folder};
use super::view::Certificate;
use crate::connection::{self, ConnectionError, Operator, Target, refused};
use crate::diagnostic;
use crate::pointer::{self, Pointer, Published};

/// All workloads must be ready by then.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the control plane is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Where spans go if one of these is set, the more special one first (OpenTelemetry's exporter specification).
const OTLP_VARIABLES: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Everything that runs; when it is dropped, no process is left.
pub(crate) struct Mesh {
    sidecars: Vec<Sidecar>,
    control_plane: Running,
    /// The OTLP endpoint from the environment; `None`: traces are kept here.
    exported_to: Option<String>,
    _receiver: Option<Receiver>,
    door: Door,
    published: Option<Published>,
    folder: Folder,
}

/// Why the mesh does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeshError {
    #[error("cannot use {} for data", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("the control plane does not start")]
    ControlPlane(#[source] StartError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error("no loopback port for traces")]
    Traces(#[source] io::Error),
    #[error("{0}")]
    Ended(String),
    /// Places, messages and lines.
    #[error("the configuration is not valid\n{0}")]
    Sources(String),
    #[error("not ready after {} s: {waiting}", READY_TIMEOUT.as_secs())]
    NotReady { waiting: String },
}

/// The data folder: the operator's own, or one that goes away.
#[derive(Debug)]
enum Folder {
    Kept(PathBuf),
    Passing(TempDir),
}

impl Mesh {
    /// Starts everything and waits until every workload is an endpoint that can be called.
    pub(crate) async fn start(plan: &Plan, keep_data: Option<&Path>) -> Result<Self, MeshError> {
        let folder = Folder::open(keep_data)?;
        let control_plane = start_control_plane(plan, &folder).await?;
        let mut operator = connection::connect(&Target::data(&folder.control_plane())).await?;
        check_sources(&mut operator).await?;
        let exported_to = otlp_from(|name| std::env::var(name).ok());
        let receiver = match exported_to {
            Some(_) => None,
            None => Some(Receiver::start().await.map_err(MeshError::Traces)?),
        };
        let around = Surroundings {
            control_plane: control_plane.grpc_addr().to_string(),
            identities: folder.made("sidecars")?,
            logs: folder.made("logs")?,
            target: target_folder(),
            traces: match &receiver {
                Some(receiver) => telemetry::Endpoint::Fixed(format!("http://{}", receiver.address)),
                None => telemetry::Endpoint::FromEnv,
            },
        };
        let mut sidecars = Vec::with_capacity(plan.workloads.len());
        for workload in &plan.workloads {
            sidecars.push(Sidecar::start(workload, &around, &mut operator).await?);
        }
        let source = match (&receiver, &exported_to) {
            (Some(receiver), _) => Source::Kept(receiver.traces.clone()),
            (None, endpoint) => Source::Elsewhere(endpoint.clone().unwrap_or_default()),
        };
        let door = Door::open(source).await.map_err(MeshError::Traces)?;
        let mut mesh = Self {
            sidecars,
            control_plane,
            exported_to,
            _receiver: receiver,
            door,
            published: None,
            folder,
        };
        mesh.wait_until_ready(&mut operator).await?;
        mesh.publish(plan);
        Ok(mesh)
    }

    /// Waits until the control plane calls every workload ready, and gives up at once when an application has ended.
    async fn wait_until_ready(&mut self, operator: &mut Operator) -> Result<(), MeshError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let status = operator
                .status(StatusRequest {})
                .await
                .map_err(refused)?
                .into_inner();
            let waiting: Vec<String> = self
                .sidecars
                .iter()
                .filter_map(|sidecar| missing(sidecar, &status.proxies))
                .collect();
            if waiting.is_empty() {
                return Ok(());
            }
            if let Some(ended) = self.ended().into_iter().next() {
                return Err(MeshError::Ended(ended));
            }
            if Instant::now() >= deadline {
                return Err(MeshError::NotReady {
                    waiting: waiting.join("; "),
                });
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// Lets `weft` in other terminals find this mesh. Without it they need flags, which is no reason to stop.
    fn publish(&mut self, plan: &Plan) {
        let pointer = Pointer {
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            name: plan.name.clone(),
            data: self.folder.control_plane(),
            traces: self.door.address,
            key: self.door.key.clone(),
        };
        match pointer::publish(&pointer, |name| std::env::var_os(name)) {
            Ok(published) => self.published = Some(published),
            Err(error) => {
                let data = pointer.data.display();
                eprintln!("`weft` in another terminal needs --data {data}: {error}");
            }
        }
    }

    /// Where a workload's application would send its calls.
    pub(crate) fn outbound_of(&self, id: &WorkloadId) -> Option<SocketAddr> {
        self.sidecars
            .iter()
            .find(|sidecar| sidecar.id == *id)
            .map(Sidecar::outbound)
    }

    pub(crate) fn stats(&self) -> Vec<proxy::Stats> {
        self.sidecars.iter().map(Sidecar::stats).collect()
    }

    pub(crate) fn certificates(&self) -> Vec<Certificate> {
        self.sidecars.iter().map(Sidecar::certificate).collect()
    }

    /// What to say about applications that ended by themselves.
    pub(crate) fn ended(&mut self) -> Vec<String> {
        self.sidecars
            .iter_mut()
            .filter_map(|sidecar| sidecar.ended().map(str::to_owned))
            .collect()
    }

    pub(crate) fn traces_hint(&self, weft: &str) -> String {
        match &self.exported_to {
            Some(endpoint) => {
                format!("exported to {endpoint}; Jaeger's page is on port 16686 of that machine")
            }
            None => format!("{weft} traces --last 1"),
        }
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    /// Ends in order: nobody new finds it, sidecars finish what they have, applications, control plane.
    pub(crate) async fn stop(self) {
        drop(self.published);
        join_all(self.sidecars.into_iter().map(Sidecar::stop)).await;
        self.control_plane.shutdown().await;
    }
}

/// Configuration that the control plane refused would only show as workloads that are never called.
async fn check_sources(operator: &mut Operator) -> Result<(), MeshError> {
    let status = operator
        .status(StatusRequest {})
        .await
        .map_err(refused)?
        .into_inner();
    let shown = status.source_errors.iter().map(|error| {
        let text = std::fs::read_to_string(&error.file).ok();
        diagnostic::render(error, text.as_deref(), false)
    });
    match shown.collect::<Vec<_>>() {
        errors if errors.is_empty() => Ok(()),
        errors => Err(MeshError::Sources(errors.join("\n"))),
    }
}

/// What a workload still lacks; `None` where it can be called.
fn missing(sidecar: &Sidecar, proxies: &[ProxyStatus]) -> Option<String> {
    let id = sidecar.id.as_str();
    let Some(status) = proxies
        .iter()
        .find(|proxy| proxy.workload_id == id && proxy.connected)
    else {
        return Some(format!("{id} is not connected"));
    };
    if !status.ready {
        return Some(format!("the application of {id} does not accept connections"));
    }
    if sidecar.has_app && status.serves.is_empty() {
        return Some(format!("no Service selects the labels of {id}"));
    }
    None
}

fn otlp_from(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    OTLP_VARIABLES
        .into_iter()
        .filter_map(variable)
        .find(|endpoint| !endpoint.is_empty())
}

async fn start_control_plane(plan: &Plan, folder: &Folder) -> Result<Running, MeshError> {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let settings = Settings {
        config: Some(plan.config.clone()),
        data: folder.made("control-plane")?,
        listen: free,
        admin: free,
        ..Settings::default()
    };
    ControlPlane::start(settings)
        .await
        .map_err(MeshError::ControlPlane)
}

impl Folder {
    fn open(kept: Option<&Path>) -> Result<Self, MeshError> {
        let Some(path) = kept else {
            let made = tempfile::Builder::new().prefix("weft-up-").tempdir();
            let failed = |source| MeshError::Folder {
                path: std::env::temp_dir(),
                source,
            };
            return Ok(Self::Passing(made.map_err(failed)?));
        };
        let failed = |source| MeshError::Folder {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(failed)?;
        // Other terminals have other current folders.
        Ok(Self::Kept(std::path::absolute(path).map_err(failed)?))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Passing(made) => made.path(),
        }
    }

    fn control_plane(&self) -> PathBuf {
        self.path().join("control-plane")
    }

    /// A folder inside, made if it is not there.
    fn made(&self, name: &str) -> Result<PathBuf, MeshError> {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).map_err(|source| MeshError::Folder {
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_for_traces_wins_over_the_one_for_everything_and_empty_is_unset() {
        let both = |name: &str| {
            Some(
                if name.contains("TRACES") {
                    "http://t"
                } else {
                    "http://all"
                }
                .to_owned(),
            )
        };
        assert_eq!(otlp_from(both).as_deref(), Some("http://t"));
        assert_eq!(otlp_from(|_| Some(String::new())), None);
        let traces_empty =
            |name: &str| Some(if name.contains("TRACES") { "" } else { "http://all" }.to_owned());
        assert_eq!(otlp_from(traces_empty).as_deref(), Some("http://all"));
    }

    #[test]
    fn a_passing_folder_goes_away_and_a_kept_one_stays() {
        let outer = tempfile::tempdir().expect("a folder");
        let kept = outer.path().join("kept");
        drop(
            Folder::open(Some(&kept))
                .expect("made")
                .made("logs")
                .expect("made"),
        );
        assert!(kept.join("logs").is_dir());
        let passing = Folder::open(None).expect("made");
        let path = passing.path().to_owned();
        assert!(path.is_dir());
        drop(passing);
        assert!(!path.exists());
    }
}
