//! Measures what Weft costs, on the machine it runs on: whole proxies beside others. What the judgements of one
//! request cost is measured by `cargo bench -p bench`.

mod compare;

use std::process::ExitCode;

use clap::Parser;

/// Measures what Weft costs, on the machine it runs on.
#[derive(Debug, Parser)]
#[command(name = "bench")]
enum Bench {
    /// Weft beside nginx, HAProxy, Envoy and Traefik: CPU, latency and memory of whole proxies.
    Compare(compare::Args),
}

fn main() -> ExitCode {
    match Bench::parse() {
        Bench::Compare(args) => compare::run(&args),
    }
}
