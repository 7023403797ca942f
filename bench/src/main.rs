//! Measures what Weft costs, on the machine it runs on. What the judgements of one request cost is measured by
//! `cargo bench -p bench`.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("usage: cargo bench -p bench");
    ExitCode::from(2)
}
