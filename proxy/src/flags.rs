//! The flags of `weft-proxy`, which `weft run` has too, and how they become [`Settings`].

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use model::workload::AppPort;
use model::{Label, Labels, OutsideHosts, ServiceName, WorkloadId};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::identity::{JoinToken, TokenError};
use crate::settings::{Limits, LocalPort, Settings};

/// A sidecar of the Weft service mesh, or the proxy of one of its gateways.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "weft-proxy", version)]
pub struct Flags {
    #[command(flatten)]
    pub sidecar: SidecarFlags,
    /// How the log on standard error is written.
    #[arg(long, env = "WEFT_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// What a sidecar must be told.
#[derive(Debug, Clone, Args)]
pub struct SidecarFlags {
    /// Names the workload: its label `app`, its service account and the `service.name` of its traces. A gateway has its
    /// own name.
    #[arg(long, env = "WEFT_SERVICE", required_unless_present = "gateway")]
    pub service: Option<Label>,
    /// Serves the Gateway of this name at the edge of the mesh, and is no sidecar: there is no application, and ports are
    /// those of the Gateway's listeners.
    #[arg(long, env = "WEFT_GATEWAY", conflicts_with_all = ["app", "advertise"])]
    pub gateway: Option<Label>,
    /// Namespace of the workload.
    #[arg(long, env = "WEFT_NAMESPACE", default_value = "default")]
    pub namespace: Label,
    /// Service account, where it is not the name of the service, or of the gateway.
    #[arg(long, env = "WEFT_SERVICE_ACCOUNT")]
    pub service_account: Option<Label>,
    /// Unique name of this workload; made from the service and a random number where it is not given.
    #[arg(long, env = "WEFT_WORKLOAD_ID")]
    pub workload_id: Option<WorkloadId>,
    /// A label, as a Pod has them; repeatable. `app` is the service's name unless given.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Where the application listens; repeatable with the names that Services use as targetPort.
    #[arg(long = "app", value_name = "[NAME=]IP:PORT", value_parser = app_port)]
    pub app: Vec<AppPort>,
    /// The control plane.
    #[arg(long, env = "WEFT_CONTROL_PLANE", default_value = "127.0.0.1:15012")]
    pub control_plane: String,
    /// A join token, as printed by `weft token create`.
    #[arg(
        long,
        env = "WEFT_TOKEN",
        hide_env_values = true,
        conflicts_with = "token_file"
    )]
    pub token: Option<String>,
    /// A file that holds the join token.
    #[arg(long, env = "WEFT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Folder that keeps the identity across restarts.
    #[arg(long, env = "WEFT_PROXY_DATA")]
    pub data: Option<PathBuf>,
    /// Listener for the application's calls.
    #[arg(long, env = "WEFT_OUTBOUND", default_value = "127.0.0.1:15001")]
    pub outbound: SocketAddr,
    /// Listener for mTLS from other sidecars.
    #[arg(long, env = "WEFT_INBOUND", default_value = "0.0.0.0:15008")]
    pub inbound: SocketAddr,
    /// How other sidecars reach the inbound listener, where that is not its own address.
    #[arg(long, env = "WEFT_ADVERTISE")]
    pub advertise: Option<SocketAddr>,
    /// A local port that stands for one service; repeatable.
    #[arg(long = "local", value_name = "[NAMESPACE/]SERVICE:PORT=IP:PORT", value_parser = local_port)]
    pub locals: Vec<(Option<Label>, Label, u16, SocketAddr)>,
    /// Admin pages; loopback only.
    #[arg(long, env = "WEFT_ADMIN", default_value = "127.0.0.1:15000")]
    pub admin: SocketAddr,
    /// OpenMetrics and readiness.
    #[arg(long, env = "WEFT_METRICS", default_value = "127.0.0.1:15020")]
    pub metrics: SocketAddr,
    /// Whether calls to hosts that are no service of the mesh are passed on: allow or deny. Deny holds whether it stands
    /// here or at the control plane, which is followed where nothing is given.
    #[arg(long, env = "WEFT_OUTSIDE", conflicts_with = "gateway")]
    pub outside: Option<OutsideHosts>,
    /// Data-plane threads; 1 for a sidecar, one per core for a gateway, unless given.
    #[arg(long, env = "WEFT_WORKERS")]
    pub workers: Option<usize>,
    /// One JSON line per request on standard output.
    #[arg(long, env = "WEFT_ACCESS_LOG")]
    pub access_log: bool,
    /// For a request's head, from its first byte to its last; then 408.
    #[arg(long, env = "WEFT_HEADER_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub header_timeout: std::time::Duration,
    /// For a connection to an endpoint, TLS included.
    #[arg(long, env = "WEFT_CONNECT_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub connect_timeout: std::time::Duration,
    /// For a TLS handshake of whoever connects.
    #[arg(long, env = "WEFT_HANDSHAKE_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub handshake_timeout: std::time::Duration,
    /// A connection without a request, or a tunnel without a byte, is closed after it.
    #[arg(long, env = "WEFT_IDLE_TIMEOUT", default_value = "1h", value_parser = humantime::parse_duration)]
    pub idle_timeout: std::time::Duration,
    /// An HTTP/2 connection to an endpoint is pinged this often while it is in use.
    #[arg(long, env = "WEFT_KEEPALIVE_INTERVAL", default_value = "20s", value_parser = humantime::parse_duration)]
    pub keepalive_interval: std::time::Duration,
    /// A ping that is not answered by then ends its connection.
    #[arg(long, env = "WEFT_KEEPALIVE_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub keepalive_timeout: std::time::Duration,
    /// A client of a gateway's UDP port is forgotten after it.
    #[arg(long, env = "WEFT_UDP_IDLE_TIMEOUT", default_value = "60s", value_parser = humantime::parse_duration)]
    pub udp_idle_timeout: std::time::Duration,
    /// Clients of one UDP port of a gateway; datagrams of others are dropped.
    #[arg(long, env = "WEFT_UDP_SESSIONS", default_value_t = 4096)]
    pub udp_sessions: usize,
    /// How long a stopping sidecar lets requests finish.
    #[arg(long, env = "WEFT_DRAIN_TIMEOUT", default_value = "20s", value_parser = humantime::parse_duration)]
    pub drain_timeout: std::time::Duration,
    /// Open connections per listener and source address.
    #[arg(long, env = "WEFT_CONNECTIONS_PER_SOURCE", default_value_t = 10_000)]
    pub connections_per_source: usize,
}

/// Why flags are no settings.
#[derive(Debug, thiserror::Error)]
pub enum FlagsError {
    #[error("the join token in {}: {source}", path.display())]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("the join token: {0}")]
    Token(#[from] TokenError),
    #[error("--service or --gateway is needed")]
    Nameless,
    #[error("--label {0}")]
    Labels(#[from] model::FieldError),
}

impl Flags {
    pub fn log_format(&self) -> telemetry::LogFormat {
        match self.log_format {
            LogFormat::Text => telemetry::LogFormat::Text,
            LogFormat::Json => telemetry::LogFormat::Json,
        }
    }

    pub fn into_settings(self) -> Result<Settings, FlagsError> {
        self.sidecar.into_settings()
    }
}

impl SidecarFlags {
    /// What the workload is called.
    pub fn name(&self) -> Option<&Label> {
        self.service.as_ref().or(self.gateway.as_ref())
    }

    /// Reads the token and fills in what was not given.
    pub fn into_settings(self) -> Result<Settings, FlagsError> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => {
                Some(
                    std::fs::read_to_string(path).map_err(|source| FlagsError::TokenFile {
                        path: path.clone(),
                        source,
                    })?,
                )
            }
            (None, None) => None,
        };
        let service = self.name().ok_or(FlagsError::Nameless)?.clone();
        let workers = self.workers.unwrap_or_else(|| match &self.gateway {
            Some(_) => std::thread::available_parallelism().map_or(1, usize::from),
            None => 1,
        });
        let token = token.map(|token| JoinToken::parse(token.trim())).transpose()?;
        let mut labels: BTreeMap<String, String> = self.labels.into_iter().collect();
        labels
            .entry("app".to_owned())
            .or_insert_with(|| service.to_string());
        let workload_id = match self.workload_id {
            Some(id) => id,
            None => format!("{service}-{:08x}", rand::random::<u32>()).parse()?,
        };
        let locals = self.locals.into_iter().map(|(namespace, name, port, listen)| {
            let namespace = namespace.unwrap_or_else(|| self.namespace.clone());
            LocalPort {
                service: ServiceName { namespace, name },
                port,
                listen,
            }
        });
        Ok(Settings {
            workload_id,
            locals: locals.collect(),
            service: service.to_string(),
            // Only this account is let in as the Gateway's proxy.
            service_account: self.service_account.or(self.gateway.clone()).or(Some(service)),
            namespace: self.namespace,
            gateway: self.gateway,
            labels: Labels::new(labels)?,
            app: self.app,
            control_plane: self.control_plane,
            token,
            data: self.data,
            outbound: self.outbound,
            inbound: self.inbound,
            advertise: self.advertise,
            admin: self.admin,
            metrics: self.metrics,
            outside: self.outside,
            workers,
            traces: telemetry::Endpoint::FromEnv,
            access_log: self.access_log,
            limits: Limits {
                header_timeout: self.header_timeout,
                connect_timeout: self.connect_timeout,
                handshake_timeout: self.handshake_timeout,
                idle_timeout: self.idle_timeout,
                keepalive_interval: self.keepalive_interval,
                keepalive_timeout: self.keepalive_timeout,
                drain_timeout: self.drain_timeout,
                udp_idle_timeout: self.udp_idle_timeout,
                udp_sessions: self.udp_sessions,
                connections_per_source: self.connections_per_source,
                ..Limits::default()
            },
        })
    }
}

/// SIGTERM and SIGINT.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of them.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("is not KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn app_port(text: &str) -> Result<AppPort, String> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) => (Some(name.to_owned()), address),
        None => (None, text),
    };
    let address = address
        .parse()
        .map_err(|_| format!("{address:?} is not IP:PORT"))?;
    Ok(AppPort { name, address })
}

fn local_port(text: &str) -> Result<(Option<Label>, Label, u16, SocketAddr), String> {
    let bad = || format!("{text:?} is not [NAMESPACE/]SERVICE:PORT=IP:PORT");
    let (service, listen) = text.split_once('=').ok_or_else(bad)?;
    let (name, port) = service.rsplit_once(':').ok_or_else(bad)?;
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.parse().map_err(|_| bad())?), name),
        None => (None, name),
    };
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
    Ok((
        namespace,
        name.parse().map_err(|_| bad())?,
        port,
        listen.parse().map_err(|_| bad())?,
    ))
}
