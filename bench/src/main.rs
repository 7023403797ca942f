//! Measures what Weft costs, on the machine it runs on: its judgements alone, and whole proxies beside others.

mod compare;
mod decision;

use std::process::ExitCode;

use clap::Parser;

/// Measures what Weft costs, on the machine it runs on.
#[derive(Debug, Parser)]
#[command(name = "bench")]
enum Bench {
    /// Nanoseconds of the judgements that a request needs.
    Decision,
    /// Weft beside nginx, HAProxy, Envoy and Traefik: CPU, latency and memory of whole proxies.
    Compare(compare::Args),
}

fn main() -> ExitCode {
    match Bench::parse() {
        Bench::Decision => decision::run(),
        Bench::Compare(args) => compare::run(&args),
    }
}
