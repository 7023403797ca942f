//! Whole requests through proxies in this process: `cargo bench -p bench --bench hot_paths`.
//!
//! Client, sidecars and application share one thread, so that a time here is what all of them take for one request
//! after another, the kernel's part included. The direct runs, without a proxy, say how much of it is theirs.

use std::cell::RefCell;
use std::error::Error;
use std::time::Instant;

use bench::in_process::{Client, RunError, Scenario};
use clap::ValueEnum as _;
use criterion::{Criterion, SamplingMode, Throughput};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for scenario in Scenario::ALL {
        // Sidecars that are out of use would still run their timers beside the next scenario.
        let local = LocalSet::new();
        requests(&mut criterion, (&runtime, &local), scenario)?;
    }
    criterion.final_summary();
    Ok(())
}

fn requests(
    criterion: &mut Criterion,
    (runtime, local): (&Runtime, &LocalSet),
    scenario: Scenario,
) -> Result<(), RunError> {
    let client = RefCell::new(local.block_on(runtime, Client::start(scenario))?);
    let failed = RefCell::new(None);
    let name = scenario.to_possible_value();
    let mut group = criterion.benchmark_group("requests");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(scenario.at_a_time()));
    group.bench_function(name.as_ref().map_or("", |name| name.get_name()), |bencher| {
        bencher.iter_custom(|rounds| {
            let began = Instant::now();
            if let Err(error) = local.block_on(runtime, client.borrow_mut().rounds(rounds)) {
                failed.borrow_mut().get_or_insert(error);
            }
            began.elapsed()
        });
    });
    group.finish();
    match failed.into_inner() {
        Some(error) => Err(error),
        None => local.block_on(runtime, client.into_inner().finish()),
    }
}
