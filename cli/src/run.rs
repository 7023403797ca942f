//! `weft run`: a command with a sidecar beside it, for as long as the command runs.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{ExitCode, ExitStatus};

use model::workload::AppPort;
use proto::v1::CreateTokenRequest;
use proxy::flags::SidecarFlags;
use proxy::{Proxy, Running};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::Outcome;
use crate::connection::{self, ConnectionArgs, ConnectionError, refused};
use crate::process::{Invocation, Process};

/// After SIGTERM the command has this long before SIGKILL.
const COMMAND_GRACE: std::time::Duration = std::time::Duration::from_secs(10);
/// Where weft-proxy looks for a control plane unless it is told.
const USUAL_CONTROL_PLANE: &str = "127.0.0.1:15012";
/// Calls to these do not go through the sidecar.
const NOT_PROXIED: &str = "localhost,127.0.0.1,::1";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without a token, one is made with the operator's credential, where WEFT_DATA or a running \
    `weft up` has it. Without --advertise, only sidecars on this machine can reach this one."
)]
pub(crate) struct Run {
    #[command(flatten)]
    sidecar: SidecarFlags,
    /// The port on 127.0.0.1 where the command will listen; short for --app.
    #[arg(long, value_name = "PORT", conflicts_with = "app")]
    app_port: Option<u16>,
    /// The command and its arguments. It is told of the sidecar by `http_proxy`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Run {
    pub(crate) async fn run(mut self) -> Outcome {
        telemetry::logs_to_stderr("warn", telemetry::LogFormat::Text);
        if self.sidecar.gateway.is_some() {
            return Err("a gateway stands beside no command: start it with weft-proxy --gateway".into());
        }
        if let Some(port) = self.app_port {
            self.sidecar.app.push(AppPort {
                name: None,
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            });
        }
        if self.sidecar.inbound.ip().is_unspecified() && self.sidecar.advertise.is_none() {
            self.sidecar.inbound.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        if self.sidecar.token.is_none() && self.sidecar.token_file.is_none() {
            introduce(&mut self.sidecar).await?;
        }
        let mut signals = Signals::listen()?;
        let sidecar = tokio::select! {
            sidecar = Proxy::start(self.sidecar.into_settings()?) => sidecar?,
            _ = signals.next() => return Ok(ExitCode::FAILURE),
        };
        let command = Process::start_attached(&invocation(&self.command, &sidecar))
            .map_err(|source| format!("cannot start {}: {source}", self.command.join(" ")))?;
        beside(sidecar, command, signals).await
    }
}

/// Makes the sidecar's join token, where this user is an operator of a mesh that can be found.
async fn introduce(sidecar: &mut SidecarFlags) -> Result<(), ConnectionError> {
    let target = match ConnectionArgs::default().target() {
        Ok(target) => target,
        // Its data folder may hold an identity; if not, the sidecar itself says what is missing.
        Err(ConnectionError::Nowhere | ConnectionError::Incomplete { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut operator = connection::connect(&target).await?;
    let Some(account) = sidecar.service_account.as_ref().or(sidecar.name()) else {
        return Ok(());
    };
    let request = CreateTokenRequest {
        namespace: sidecar.namespace.to_string(),
        service_account: account.to_string(),
        ttl_seconds: 0,
    };
    sidecar.token = Some(
        operator
            .create_token(request)
            .await
            .map_err(refused)?
            .into_inner()
            .token,
    );
    if sidecar.control_plane == USUAL_CONTROL_PLANE {
        sidecar.control_plane = target.address()?;
    }
    Ok(())
}

/// Waits for the command's end and passes on signals until then.
async fn beside(sidecar: Running, mut command: Process, mut signals: Signals) -> Outcome {
    loop {
        tokio::select! {
            status = command.ended() => {
                sidecar.stop().await;
                return Ok(exit_code(status?));
            }
            received = signals.next() => match received {
                Signal::TERM => return stop(sidecar, command, signals).await,
                // A Ctrl-C in the terminal has reached the command, too.
                Signal::INT if std::io::stdin().is_terminal() => {}
                received => command.signal(received),
            }
        }
    }
}

/// The sidecar tells its peers and finishes what it has, then the command ends; a second signal ends both at once.
async fn stop(sidecar: Running, command: Process, mut signals: Signals) -> Outcome {
    let orderly = async {
        sidecar.stop().await;
        command.stop(COMMAND_GRACE).await
    };
    let status = tokio::select! {
        status = orderly => status,
        // What is dropped is killed.
        _ = signals.next() => None,
    };
    Ok(status.map_or(ExitCode::FAILURE, exit_code))
}

fn invocation(command: &[String], sidecar: &Running) -> Invocation {
    let mut words = command.iter().cloned();
    let proxy = sidecar.outbound.map(|outbound| format!("http://{outbound}"));
    let proxy = proxy.unwrap_or_default();
    let env = [
        ("http_proxy", proxy.clone()),
        ("HTTP_PROXY", proxy),
        ("no_proxy", NOT_PROXIED.to_owned()),
        ("NO_PROXY", NOT_PROXIED.to_owned()),
    ];
    Invocation {
        program: words.next().unwrap_or_default(),
        arguments: words.collect(),
        env: env
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }
}

/// The command's status as this command's own; 128 + n for signal n, as shells have it.
fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or_else(|| Some(128 + status.signal()?))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The signals that the command should get.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}
