//! Measures what Weft costs, on the machine it runs on: whole proxies beside others, and the instructions of a
//! request. What the judgements of one request cost is measured by `cargo bench -p bench`.

mod compare;
mod instructions;

use std::process::ExitCode;

use clap::Parser;

/// As in the proxy's own binary: what is counted is what is shipped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures what Weft costs, on the machine it runs on.
#[derive(Debug, Parser)]
#[command(name = "bench")]
enum Bench {
    /// Weft beside nginx, HAProxy, Envoy and Traefik: CPU, latency and memory of whole proxies.
    Compare(compare::Args),
    /// Instructions and allocations per request of proxies in this process, counted by valgrind.
    Instructions(instructions::Args),
    /// One run of `instructions`, to be counted.
    #[command(hide = true)]
    Run(instructions::RunArgs),
}

fn main() -> ExitCode {
    match Bench::parse() {
        Bench::Compare(args) => compare::run(&args),
        Bench::Instructions(args) => instructions::run(&args),
        Bench::Run(args) => instructions::run_once(&args),
    }
}
