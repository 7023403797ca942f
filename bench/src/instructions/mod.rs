//! `bench instructions`: what a request costs in instructions and allocations, counted and not timed.
//!
//! Fixed runs of `in_process` are counted by valgrind's callgrind, which gives the same figure again to a fraction
//! of a percent on any machine, however busy it is. Instructions are not time: what the kernel does, and what
//! waits for memory, is not in them. `compare` measures that.

mod baseline;
mod callgrind;
mod cost;
mod table;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bench::in_process::{Client, RunError, Scenario};
use clap::ValueEnum as _;

use baseline::{Baseline, BaselineError, MadeBy};
use callgrind::{CallgrindError, Profile};
use cost::Cost;

/// Requests before anything is counted, so that pools, tables and buffers are there.
const WARM_UP: u64 = 256;
/// Requests of the shorter of two runs.
const SHORT_RUN: u64 = 256;

/// What `bench instructions` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fails where a run costs over 3 % more than the baseline says; says where one costs over 3 % less.
    #[arg(long, conflicts_with = "write_baseline")]
    check: bool,
    /// Makes these figures the baseline.
    #[arg(long, conflicts_with = "only")]
    write_baseline: bool,
    /// The baseline; `bench/baseline.json` of this tree unless given.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json"), hide_default_value = true)]
    baseline: PathBuf,
    /// Runs, such as plain,mesh; all unless given.
    #[arg(long, value_delimiter = ',', value_enum, value_name = "RUNS")]
    only: Vec<Scenario>,
    /// Requests that are counted, in steps of 8.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(8..=1_000_000))]
    requests: u64,
    /// Also shows the functions that cost and that allocate most, so many of each.
    #[arg(long, value_name = "N", default_value_t = 0)]
    top: usize,
    /// Keeps what callgrind writes, for `callgrind_annotate` or KCachegrind, as FOLDER/RUN-REQUESTS.out.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

/// One run, to be counted.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    scenario: Scenario,
    requests: u64,
}

#[derive(Debug, thiserror::Error)]
enum InstructionsError {
    #[error("only an optimised build is worth counting: cargo run --release -p bench -- instructions")]
    NotOptimised,
    #[error("a folder for what callgrind writes")]
    Folder(#[source] io::Error),
    #[error(transparent)]
    Callgrind(#[from] CallgrindError),
    #[error(transparent)]
    Baseline(#[from] BaselineError),
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match count_and_compare(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprint!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprint!(": {cause}");
        source = cause.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

/// Whether the figures can stay: there is no baseline asked about, or none is over it.
fn count_and_compare(args: &Args) -> Result<bool, InstructionsError> {
    if cfg!(debug_assertions) {
        return Err(InstructionsError::NotOptimised);
    }
    let made_by = MadeBy {
        rustc: env!("RUSTC_VERSION").to_owned(),
        profile: profile(),
        valgrind: callgrind::version()?,
    };
    let baseline = args.check.then(|| Baseline::read(&args.baseline)).transpose()?;
    let measured = measure(args)?;
    println!("{}, {}, {}", made_by.rustc, made_by.profile, made_by.valgrind);
    print!("{}", table::text(&measured, baseline.as_ref()));
    if args.write_baseline {
        let runs = measured.iter().map(|run| (run.name(), run.proxy)).collect();
        Baseline { made_by, runs }.write(&args.baseline)?;
        println!("written to {}", args.baseline.display());
        return Ok(true);
    }
    let Some(baseline) = baseline else { return Ok(true) };
    if baseline.made_by != made_by {
        println!("\n{}", table::other_build(&baseline.made_by, &made_by));
    }
    let (verdict, good) = table::verdict(&measured, &baseline);
    println!("\n{verdict}");
    Ok(good)
}

/// Cargo's profile, which is the name of the folder that it builds into.
fn profile() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.parent().and_then(Path::file_name).unwrap_or_default();
    let incremental = if env!("INCREMENTAL").starts_with('1') {
        ", incremental"
    } else {
        ""
    };
    format!("{}{incremental}", folder.to_string_lossy())
}

/// One scenario's figures, per request.
struct Measured {
    scenario: Scenario,
    proxy: Cost,
    client_and_app: Cost,
    costliest: Vec<cost::Share>,
    allocating: Vec<cost::Share>,
}

impl Measured {
    fn name(&self) -> String {
        name(self.scenario)
    }
}

fn name(scenario: Scenario) -> String {
    scenario
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

fn measure(args: &Args) -> Result<Vec<Measured>, InstructionsError> {
    let temporary = tempfile::tempdir().map_err(InstructionsError::Folder)?;
    let folder = args.keep.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(folder).map_err(InstructionsError::Folder)?;
    let requests = args.requests.next_multiple_of(8);
    let mut direct = BTreeMap::new();
    let mut measured = Vec::new();
    for scenario in Scenario::ALL {
        let Some(without_proxy) = scenario.without_proxy() else {
            continue;
        };
        if !args.only.is_empty() && !args.only.contains(&scenario) {
            continue;
        }
        let client_and_app = match direct.get(&name(without_proxy)) {
            Some(cost) => *cost,
            None => {
                let [short, long] = count_pair(without_proxy, requests, folder)?;
                let cost = Cost::between(&short, &long, requests);
                direct.insert(name(without_proxy), cost);
                cost
            }
        };
        let [short, long] = count_pair(scenario, requests, folder)?;
        let top = |short, long| cost::top(short, long, requests, args.top);
        measured.push(Measured {
            scenario,
            proxy: Cost::between(&short, &long, requests).without(client_and_app),
            client_and_app,
            costliest: top(&short.instructions, &long.instructions),
            allocating: top(&short.allocations, &long.allocations),
        });
    }
    Ok(measured)
}

/// A short run, and one with so many more requests.
fn count_pair(scenario: Scenario, requests: u64, folder: &Path) -> Result<[Profile; 2], CallgrindError> {
    let count = |requests: u64| {
        let path = folder.join(format!("{}-{requests}.out", name(scenario)));
        let arguments = ["run".to_owned(), name(scenario), requests.to_string()];
        callgrind::count(&arguments.map(Into::into), &path)
    };
    Ok([count(SHORT_RUN)?, count(SHORT_RUN + requests)?])
}

/// Does one run, in this process. Everything is open and warm before [`counted`] is entered, whose instructions alone
/// are counted: what a key and a handshake take is a matter of chance.
pub(crate) fn run_once(args: &RunArgs) -> ExitCode {
    match in_this_process(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn in_this_process(args: &RunArgs) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let rounds = |requests| requests / args.scenario.at_a_time();
    let mut client = local.block_on(&runtime, async {
        let mut client = Client::start(args.scenario).await?;
        client.rounds(rounds(WARM_UP)).await?;
        Ok::<_, RunError>(client)
    })?;
    counted(&runtime, &local, &mut client, rounds(args.requests))?;
    local.block_on(&runtime, client.finish())
}

/// Callgrind counts from the entry of this function to its end.
#[inline(never)]
fn counted(
    runtime: &tokio::runtime::Runtime,
    local: &tokio::task::LocalSet,
    client: &mut Client,
    rounds: u64,
) -> Result<(), RunError> {
    local.block_on(runtime, client.rounds(rounds))
}
