//! One workload of the mesh: its sidecar inside this process, and its application as a process of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::workload::AppPort;
use model::{FieldError, ServicePort, WorkloadId};
use proto::v1::CreateTokenRequest;
use proxy::identity::{JoinToken, TokenError};
use proxy::{Limits, LocalPort, Proxy, ProxyError};

use super::plan::Workload;
use super::substitution;
use super::view::{Certificate, Identity};
use crate::connection::{ConnectionError, Operator, refused};
use crate::process::{self, Invocation, Process};
use crate::table::age;

/// After SIGTERM an application has this long before SIGKILL.
const APP_GRACE: Duration = Duration::from_secs(3);
/// A stopping sidecar lets requests finish for this long; somebody waits at the terminal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How many last lines of a log are shown when its application ends.
const SHOWN_LINES: usize = 12;
/// On loopback, on whatever port is free.
const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What every workload of one mesh has in common.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub control_plane: String,
    /// Where sidecars keep their identities, each in a folder of its own.
    pub identities: PathBuf,
    pub logs: PathBuf,
    /// Cargo's target folder.
    pub target: String,
    pub traces: telemetry::Endpoint,
}

/// A running workload.
pub(crate) struct Sidecar {
    pub id: WorkloadId,
    pub has_app: bool,
    proxy: proxy::Running,
    app: Option<Process>,
    log: PathBuf,
    /// How the application ended, though nobody had asked it to.
    ended: Option<String>,
}

/// Why a workload does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkloadError {
    #[error("no join token for {id}")]
    Token { id: WorkloadId, source: ConnectionError },
    #[error("the control plane made a token that is none")]
    StrangeToken(#[source] TokenError),
    #[error("the sidecar of {id} does not start")]
    Sidecar { id: WorkloadId, source: Box<ProxyError> },
    #[error("no free port for {id}")]
    Port { id: WorkloadId, source: io::Error },
    #[error("{id} does not start: {program}")]
    App {
        id: WorkloadId,
        program: String,
        source: io::Error,
    },
    #[error("{id}: {source}")]
    Command { id: WorkloadId, source: FieldError },
}

impl Sidecar {
    /// Starts the sidecar first, because the application is told its address; it notices when the application accepts.
    pub(crate) async fn start(
        plan: &Workload,
        around: &Surroundings,
        operator: &mut Operator,
    ) -> Result<Self, WorkloadError> {
        let id = plan.id.clone();
        let request = CreateTokenRequest {
            namespace: plan.namespace.to_string(),
            service_account: plan.service_account.to_string(),
            ttl_seconds: 0,
        };
        let token = operator
            .create_token(request)
            .await
            .map_err(|status| WorkloadError::Token {
                id: id.clone(),
                source: refused(status),
            })?;
        let token = token
            .into_inner()
            .token
            .parse()
            .map_err(WorkloadError::StrangeToken)?;
        let has_app = !plan.command.is_empty();
        let app_address = match has_app {
            true => Some(free_port().map_err(|source| WorkloadError::Port {
                id: id.clone(),
                source,
            })?),
            false => None,
        };
        let settings = settings(plan, around, token, app_address);
        let proxy = Proxy::start(settings)
            .await
            .map_err(|error| WorkloadError::Sidecar {
                id: id.clone(),
                source: error.into(),
            })?;
        let log = around.logs.join(format!("{id}.log"));
        let mut sidecar = Self {
            id: id.clone(),
            has_app,
            proxy,
            app: None,
            log,
            ended: None,
        };
        if let Some(app) = app_address {
            let invocation =
                sidecar
                    .invocation(plan, around, app)
                    .map_err(|source| WorkloadError::Command {
                        id: id.clone(),
                        source,
                    })?;
            let process =
                Process::start_logged(&invocation, &sidecar.log).map_err(|source| WorkloadError::App {
                    id,
                    program: invocation.program,
                    source,
                })?;
            sidecar.app = Some(process);
        }
        Ok(sidecar)
    }

    fn invocation(
        &self,
        plan: &Workload,
        around: &Surroundings,
        app: SocketAddr,
    ) -> Result<Invocation, FieldError> {
        let locals: BTreeMap<&str, SocketAddr> = plan
            .local
            .iter()
            .filter_map(|(text, port)| Some((text.as_str(), self.local(port)?)))
            .collect();
        let value = |name: &str| match name {
            "APP" => Some(app.to_string()),
            "OUTBOUND" => Some(self.outbound().to_string()),
            "TARGET" => Some(around.target.clone()),
            name => locals.get(name.strip_prefix("LOCAL:")?).map(ToString::to_string),
        };
        let mut words = plan.command.iter().map(|word| substitution::expand(word, value));
        let program = words.next().transpose()?.unwrap_or_default();
        let arguments = words.collect::<Result<_, _>>()?;
        let env = plan
            .env
            .iter()
            .map(|(name, text)| Ok((name.clone(), substitution::expand(text, value)?)));
        Ok(Invocation {
            program,
            arguments,
            env: env.collect::<Result<_, _>>()?,
        })
    }

    /// Where the application, or a visitor, sends its calls.
    pub(crate) fn outbound(&self) -> SocketAddr {
        self.proxy.outbound.unwrap_or(FREE)
    }

    /// The sidecar's own port for one service.
    fn local(&self, port: &ServicePort) -> Option<SocketAddr> {
        let stands_for = |local: &&LocalPort| local.service == port.service && local.port == port.port;
        self.proxy
            .locals
            .iter()
            .find(stands_for)
            .map(|local| local.listen)
    }

    pub(crate) fn stats(&self) -> proxy::Stats {
        self.proxy.stats()
    }

    pub(crate) fn certificate(&self) -> Certificate {
        let now = std::time::SystemTime::now();
        let identity = self.stats().certificate.map(|certificate| Identity {
            spiffe_id: certificate.spiffe_id,
            age: age(certificate.not_before, now),
            expires_in: certificate.not_after.duration_since(now).unwrap_or_default(),
        });
        Certificate {
            workload: self.id.to_string(),
            identity,
        }
    }

    /// How the application ended, with the last it printed, if it ended.
    pub(crate) fn ended(&mut self) -> Option<&str> {
        if let Some(app) = &mut self.app
            && let Some(status) = app.status()
        {
            let mut text = format!("the application of {} {}", self.id, process::how(status));
            for line in process::last_lines(&self.log, SHOWN_LINES) {
                text += &format!("\n    {}", line.replace(char::is_control, " "));
            }
            self.ended = Some(text);
            self.app = None;
        }
        self.ended.as_deref()
    }

    /// The sidecar tells its peers and finishes what it has; then the application ends.
    pub(crate) async fn stop(self) {
        self.proxy.stop().await;
        if let Some(app) = self.app {
            app.stop(APP_GRACE).await;
        }
    }
}

fn settings(
    plan: &Workload,
    around: &Surroundings,
    token: JoinToken,
    app: Option<SocketAddr>,
) -> proxy::Settings {
    let locals = plan.local.values().map(|port| LocalPort {
        service: port.service.clone(),
        port: port.port,
        listen: FREE,
    });
    proxy::Settings {
        workload_id: plan.id.clone(),
        namespace: plan.namespace.clone(),
        gateway: None,
        service: plan.service.clone(),
        service_account: Some(plan.service_account.clone()),
        labels: plan.labels.clone(),
        app: app
            .map(|address| AppPort { name: None, address })
            .into_iter()
            .collect(),
        control_plane: around.control_plane.clone(),
        token: Some(token),
        data: Some(around.identities.join(plan.id.as_str())),
        outbound: FREE,
        inbound: FREE,
        advertise: None,
        locals: locals.collect(),
        admin: FREE,
        metrics: FREE,
        outside: None,
        workers: 1,
        traces: around.traces.clone(),
        access_log: false,
        limits: Limits {
            drain_timeout: DRAIN_TIMEOUT,
            ..Limits::default()
        },
    }
}

/// A port that was free a moment ago. An application cannot be handed a listener, so the moment between is accepted.
fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind(FREE)?.local_addr()
}

/// Cargo's target folder, as cargo itself finds it.
pub(crate) fn target_folder() -> String {
    let from_env = std::env::var("CARGO_TARGET_DIR")
        .ok()
        .filter(|folder| !folder.is_empty());
    let folder = from_env.unwrap_or_else(|| "target".to_owned());
    // A program is looked for by its path, whatever folder it will run in.
    std::path::absolute(Path::new(&folder)).map_or(folder, |path| path.to_string_lossy().into_owned())
}
