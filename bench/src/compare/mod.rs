//! `bench compare`: Weft and the peers found on this machine, through the same workloads.
//!
//! Everybody gets one worker, kept connections to the same upstream, no access log, certificates of the same shape
//! and TLS 1.3 verified on both sides. Rounds are interleaved: in each, every case is measured for every contender,
//! in an order that rotates. What is reported is the median, with the least and the most.

mod certificates;
mod contender;
mod cpu;
mod grpc;
mod guard_rails;
mod load;
mod measure;
mod memory;
mod mesh;
mod operator;
mod peers;
mod plan;
mod ports;
mod process;
mod report;
mod results;
mod session;
mod syscalls;
mod tls;
mod upstream;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use certificates::{Certificates, CertificatesError};
use contender::Contender;
use measure::Bench;
use peers::{Peer, PeerError, Setting, Weft};
use plan::{Case, Effort, Workload};
use report::Machine;
use results::Results;
use session::Session;
use tls::TlsError;
use upstream::{Upstream, UpstreamError};

/// Exit status after an interrupt, as shells have it for SIGINT.
const INTERRUPTED: i32 = 130;

/// What `bench compare` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Measures less often, shorter and with fewer sizes: under 3 minutes for everything.
    #[arg(long)]
    quick: bool,
    /// Workloads, such as A,G; all but the guard rails unless given.
    #[arg(long, value_delimiter = ',', value_enum, value_name = "LETTERS")]
    only: Vec<Workload>,
    /// Rounds; 5 unless given, 1 with --quick.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds of one measurement; 3 unless given, 1 with --quick.
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// Who takes part.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        default_value = "weft,nginx,haproxy,envoy,traefik"
    )]
    peers: Vec<String>,
    /// A linkerd2-proxy.
    #[arg(long, value_name = "PATH")]
    linkerd: Option<PathBuf>,
    /// Counts system calls per request too, with `perf`; needs its tracepoints.
    #[arg(long)]
    syscalls: bool,
    /// Where Weft's release binaries are; beside this program unless given.
    #[arg(long, value_name = "DIR")]
    weft_bin: Option<PathBuf>,
    /// Writes all figures of all rounds.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws CPU per request as a chart.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
enum CompareError {
    #[error("{0}")]
    NoWeft(String),
    #[error("{program} is needed: install {package}")]
    Missing {
        program: &'static str,
        package: &'static str,
    },
    #[error("nobody takes part: --peers knows weft, nginx, haproxy, envoy and traefik")]
    Nobody,
    #[error("a temporary folder: {0}")]
    Folder(#[source] io::Error),
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("Weft: {0}")]
    Weft(#[source] PeerError),
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs the comparison. Everything that it started has ended when this returns, and on an interrupt.
pub(crate) fn run(args: &Args) -> ExitCode {
    let result = tempfile::Builder::new()
        .prefix("weft-bench-")
        .tempdir()
        .map_err(CompareError::Folder)
        .and_then(|folder| {
            stop_on_interrupt(folder.path().to_owned())?;
            compare(args, folder.path())
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args, folder: &Path) -> Result<(), CompareError> {
    needed("wrk", "Debian's package wrk")?;
    needed("h2load", "Debian's package nghttp2-client")?;
    needed(
        "nginx",
        "Debian's package nginx: it is the application behind every proxy",
    )?;
    let effort = effort(args);
    many_files();
    let certificates = Certificates::make(folder)?;
    let upstream = Upstream::start(folder, tls::server_config(&certificates)?)?;
    let setting = Setting {
        folder: folder.to_owned(),
        certificates,
        apps: upstream.apps,
    };
    let message = folder.join("message");
    std::fs::write(&message, grpc::message())?;
    let bench = Bench {
        seconds: effort.seconds,
        log: &folder.join("h2load.log"),
        message: &message,
    };
    let weft = weft(args, folder)?;
    let (found, mut notes) = peers::find(&args.peers);
    notes.extend(args.linkerd.as_deref().map(peers::linkerd_not_run));
    let mut contenders: Vec<Contender<'_>> = weft
        .iter()
        .map(|weft| weft as &dyn Peer)
        .chain(found.iter().map(AsRef::as_ref))
        .map(Contender::new)
        .collect();
    if contenders.is_empty() {
        return Err(CompareError::Nobody);
    }
    for note in &notes {
        eprintln!("NOT COMPARED: {note}");
    }
    let machine = Machine::look(&contenders);
    if machine.is_busy() {
        eprintln!(
            "NOT QUIET: the load average is {}, so figures will be too high and vary",
            machine.load
        );
    }
    let mut session = Session {
        effort,
        setting: &setting,
        bench,
        weft: weft.as_ref(),
        results: Results::default(),
        labels: contenders.iter().flat_map(Contender::labels).collect(),
        scale: None,
    };
    let workloads = match args.only.is_empty() {
        true => &Workload::USUAL[..],
        false => &args.only[..],
    };
    let cases: Vec<Case> = workloads
        .iter()
        .flat_map(|workload| workload.cases(&effort))
        .collect();
    session.all(&cases, &mut contenders)?;
    if args.syscalls {
        session.syscalls(&cases, &mut contenders);
    }
    let Session {
        mut results, labels, ..
    } = session;
    results.sort(&labels);
    report(args, &machine, &effort, &results, &notes)
}

fn report(
    args: &Args,
    machine: &Machine,
    effort: &Effort,
    results: &Results,
    notes: &[String],
) -> Result<(), CompareError> {
    print!("{}", report::table::text(machine, effort, results, notes));
    let files = [
        (&args.json, report::json::text(machine, effort, results, notes)),
        (&args.svg, report::svg::text(machine, results)),
    ];
    for (path, text) in files {
        if let Some(path) = path {
            std::fs::write(path, text).map_err(|source| CompareError::Write {
                path: path.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

fn weft(args: &Args, folder: &Path) -> Result<Option<Weft>, CompareError> {
    if !args.peers.iter().any(|peer| peer == "weft") {
        return Ok(None);
    }
    let binaries = match &args.weft_bin {
        Some(folder) => folder.clone(),
        None => shipped(&std::env::current_exe()?),
    };
    match Weft::missing(&binaries) {
        Some(missing) => Err(CompareError::NoWeft(missing)),
        None => Weft::start(&binaries, folder)
            .map(Some)
            .map_err(CompareError::Weft),
    }
}

/// The binaries that are shipped, of profile `dist`; those of this very build where they were not made.
fn shipped(own: &Path) -> PathBuf {
    let folder = own.parent().unwrap_or(Path::new("."));
    let dist = folder.with_file_name("dist");
    if Weft::missing(&dist).is_none() {
        return dist;
    }
    eprintln!(
        "NOT WHAT IS SHIPPED: no binaries in {}, so those in {} are measured; first run\n\
         cargo build --profile dist -p proxy -p control-plane -p cli",
        dist.display(),
        folder.display()
    );
    folder.to_owned()
}

fn effort(args: &Args) -> Effort {
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 5 }).max(1);
    Effort {
        rounds,
        seconds: args.seconds.unwrap_or(if args.quick { 1 } else { 3 }).max(1),
        memory_rounds: if args.quick { 1 } else { rounds.min(3) },
        idle_connections: if args.quick { 1_000 } else { 5_000 },
        all_sizes: !args.quick,
    }
}

fn needed(program: &'static str, package: &'static str) -> Result<(), CompareError> {
    let mut command = Command::new(program);
    command.arg("-v").stdin(std::process::Stdio::null());
    match command.output() {
        Ok(_) => Ok(()),
        Err(_) => Err(CompareError::Missing { program, package }),
    }
}

/// Thousands of idle connections are held by this process, and taken by those that it starts.
fn many_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Too few show as connections that fail.
    let _ = setrlimit(Resource::Nofile, wanted);
}

/// On SIGINT and SIGTERM, ends what was started and then this process.
fn stop_on_interrupt(folder: PathBuf) -> io::Result<()> {
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])?;
    std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            if signals.forever().next().is_some() {
                process::stop_all(&folder, INTERRUPTED);
            }
        })?;
    Ok(())
}
