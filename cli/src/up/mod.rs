//! `weft up`: a whole mesh from one folder, through the same code and interfaces that production uses.

mod counts;
mod door;
mod interrupt;
mod measure;
mod mesh;
mod plan;
mod receiver;
mod ring;
mod sidecar;
mod substitution;
mod traffic;
mod view;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::{Outcome, process};
use counts::{History, MeshCounts};
use interrupt::Interrupts;
use measure::Recorder;
use mesh::Mesh;
use plan::Plan;
use view::{Report, Screen};

/// How often the live page is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(500);
/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// The folder with up.yaml.
    folder: PathBuf,
    /// Ends by itself after this time, with a summary; status 0 only if the mesh kept its promise.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasting: Option<Duration>,
    /// Keeps the control plane's data and all logs in this folder, and goes on from what is in it.
    #[arg(long, value_name = "DIR")]
    keep_data: Option<PathBuf>,
}

/// Why the programs of the plan could not be built.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error("cannot start {program}")]
    Start { program: String, source: io::Error },
    #[error("{program} {how}", how = process::how(*.status))]
    Failed { program: String, status: ExitStatus },
}

impl Up {
    pub(crate) async fn run(self) -> Outcome {
        let plan = Plan::read(&self.folder)?;
        let interrupts = Interrupts::watch()?;
        let outcome = {
            let running = self.run_plan(&plan, &interrupts.stop);
            tokio::select! {
                outcome = running => Some(outcome),
                () = interrupts.abort.cancelled() => None,
            }
        };
        match outcome {
            Some(outcome) => outcome,
            // All processes of the mesh have been killed by now; nothing else is waited for.
            None => std::process::exit(130),
        }
    }

    async fn run_plan(&self, plan: &Plan, stop: &CancellationToken) -> Outcome {
        let screen = Screen::new();
        // A log line would tear the live page apart.
        let quiet = if screen.is_terminal() { "error" } else { "warn" };
        telemetry::logs_to_stderr(quiet, telemetry::LogFormat::Text);
        tokio::select! {
            built = build(&plan.build) => built?,
            () = stop.cancelled() => return Ok(ExitCode::FAILURE),
        }
        eprintln!(
            "starting {}: a control plane and {} workloads",
            plan.name,
            plan.workloads.len()
        );
        let starting = Mesh::start(plan, self.keep_data.as_deref());
        let mut mesh = tokio::select! {
            mesh = Box::pin(starting) => mesh?,
            () = stop.cancelled() => return Ok(ExitCode::FAILURE),
        };
        let report = self.watch(plan, &mut mesh, screen, stop).await;
        mesh.stop().await;
        println!("{}", report.summary().trim_end());
        if let Some(kept) = &self.keep_data {
            println!("data and logs are in {}", kept.display());
        }
        Ok(match self.lasting.is_none() || report.kept_promise() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    /// Makes traffic and shows what becomes of it, until the time is up or somebody stops it.
    async fn watch(
        &self,
        plan: &Plan,
        mesh: &mut Mesh,
        mut screen: Screen,
        stop: &CancellationToken,
    ) -> Report {
        let recorder = Arc::new(Recorder::default());
        let enough = stop.child_token();
        let sending = plan.traffic.clone().and_then(|traffic| {
            let proxy = mesh.outbound_of(&traffic.from)?;
            Some(tokio::spawn(traffic::run(
                traffic,
                proxy,
                recorder.clone(),
                enough.clone(),
            )))
        });
        let began = Instant::now();
        let hints = self.hints(plan, mesh);
        let mut history = History::new(began);
        let mut report = |mesh: &mut Mesh| {
            let counts = MeshCounts::of(&mesh.stats());
            Report {
                name: plan.name.clone(),
                running_for: began.elapsed(),
                lately: recorder.lately(),
                ever: recorder.totals(),
                counts_lately: history.turn(Instant::now(), &counts),
                counts_ever: counts,
                split_of: plan
                    .traffic
                    .as_ref()
                    .and_then(|traffic| traffic.split_of.as_ref())
                    .map(ToString::to_string),
                certificates: mesh.certificates(),
                ended: mesh.ended(),
                hints: hints.clone(),
            }
        };
        if !screen.is_terminal() {
            for (word, what) in &hints {
                println!("{word:<8}{what}");
            }
        }
        let end = self.lasting.map(|lasting| tokio::time::Instant::now() + lasting);
        let mut redraw = tokio::time::interval(if screen.is_terminal() {
            DRAW_EVERY
        } else {
            LINE_EVERY
        });
        // The first tick comes at once, when there is nothing to show.
        redraw.tick().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = until(end) => break,
                _ = redraw.tick() => {
                    let report = report(mesh);
                    if screen.is_terminal() {
                        // A terminal that went away is noticed by the signal that comes with it.
                        let _ = screen.draw(&report.page());
                    } else {
                        println!("{}", report.line());
                    }
                }
            }
        }
        enough.cancel();
        if let Some(sending) = sending {
            // Only a panic ends it otherwise, and then what was counted until then is shown.
            let _ = sending.await;
        }
        report(mesh)
    }

    /// What can be typed meanwhile, in this terminal's spelling of this command.
    fn hints(&self, plan: &Plan, mesh: &Mesh) -> Vec<(&'static str, String)> {
        let weft = std::env::args().next().unwrap_or_else(|| "weft".to_owned());
        let mut hints = Vec::new();
        if let Some(traffic) = &plan.traffic
            && let Some(proxy) = mesh.outbound_of(&traffic.from)
            && let Some(request) = traffic.requests.first()
        {
            hints.push(("curl", format!("curl -x http://{proxy} {}", request.url)));
        }
        hints.push(("traces", mesh.traces_hint(&weft)));
        hints.push(("status", format!("{weft} status")));
        for file in other_yaml(&self.folder) {
            hints.push(("change", format!("{weft} apply -f {} --wait", file.display())));
        }
        hints.push(("logs", mesh.logs().display().to_string()));
        hints
    }
}

async fn until(end: Option<tokio::time::Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// YAML files beside up.yaml: changes that can be tried while the mesh runs.
fn other_yaml(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter(|path| path.file_name().is_some_and(|name| name != plan::FILE))
        .collect();
    files.sort();
    files
}

/// Runs the plan's build command in the current folder; what it prints goes to standard error.
async fn build(command: &[String]) -> Result<(), BuildError> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(());
    };
    let start = |source| BuildError::Start {
        program: program.clone(),
        source,
    };
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::from(io::stderr()))
        .kill_on_drop(true)
        .status()
        .await
        .map_err(start)?;
    match status.success() {
        true => Ok(()),
        false => Err(BuildError::Failed {
            program: program.clone(),
            status,
        }),
    }
}
