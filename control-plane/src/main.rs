//! `weft-control-plane`: the mesh's control plane, as its own process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use control_plane::settings::Limits;
use control_plane::{ControlPlane, Settings};
use model::{MeshDomain, OutsideHosts, TrustDomain};
use telemetry::{Endpoint, LogFormat, Resource, Telemetry};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the last spans may take to be sent.
const TELEMETRY_TIMEOUT: Duration = Duration::from_secs(3);

/// The control plane of the Weft service mesh.
#[derive(Debug, Parser)]
#[command(name = "weft-control-plane", version)]
struct Flags {
    /// A watched folder of Gateway API YAML.
    #[arg(long, env = "WEFT_CONFIG")]
    config: Option<PathBuf>,
    /// Keeps the store and the operator's credential.
    #[arg(long, env = "WEFT_DATA", default_value = "weft-data")]
    data: PathBuf,
    /// gRPC with TLS.
    #[arg(long, env = "WEFT_LISTEN", default_value = "127.0.0.1:15012")]
    listen: SocketAddr,
    /// Health and metrics.
    #[arg(long, env = "WEFT_ADMIN", default_value = "127.0.0.1:15014")]
    admin: SocketAddr,
    /// Chosen at the first start, cluster.local unless given; never changed.
    #[arg(long, env = "WEFT_TRUST_DOMAIN")]
    trust_domain: Option<TrustDomain>,
    /// The DNS suffix of services' names.
    #[arg(long, env = "WEFT_MESH_DOMAIN", default_value = "cluster.local")]
    mesh_domain: MeshDomain,
    /// Whether sidecars pass calls on to hosts that are no service of the mesh: allow or deny.
    #[arg(long, env = "WEFT_OUTSIDE", default_value = "allow")]
    outside: OutsideHosts,
    /// How long a certificate is valid; it is renewed at half of it.
    #[arg(long, env = "WEFT_CERTIFICATE_LIFETIME", default_value = "24h", value_parser = humantime::parse_duration)]
    certificate_lifetime: Duration,
    /// After a restart, how long a workload stays an endpoint without having come back.
    #[arg(long, env = "WEFT_RESTART_GRACE", default_value = "60s", value_parser = humantime::parse_duration)]
    restart_grace: Duration,
    /// How the log on standard error is written: text or json.
    #[arg(long, env = "WEFT_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let resource = Resource {
        service_name: "weft-control-plane",
        service_version: env!("CARGO_PKG_VERSION"),
        ..Resource::default()
    };
    let telemetry = match Telemetry::start(resource, Endpoint::FromEnv) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("traces: {error}");
            return ExitCode::FAILURE;
        }
    };
    telemetry::logs_and_spans("info", flags.log_format, &telemetry);
    let result = run(flags);
    telemetry.shutdown(TELEMETRY_TIMEOUT);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let running = ControlPlane::start(settings(flags)).await?;
        // For whoever started this process with port 0.
        println!("grpc {}", running.grpc_addr());
        println!("admin {}", running.admin_addr());
        println!("ready");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        running.shutdown().await;
        Ok(())
    })
}

fn settings(flags: Flags) -> Settings {
    Settings {
        listen: flags.listen,
        admin: flags.admin,
        data: flags.data,
        config: flags.config,
        trust_domain: flags.trust_domain,
        mesh_domain: flags.mesh_domain,
        outside: flags.outside,
        limits: Limits {
            certificate_lifetime: flags.certificate_lifetime,
            restart_grace: flags.restart_grace,
            ..Limits::default()
        },
    }
}
