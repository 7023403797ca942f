//! `weft`, the operator's command: changes a mesh, asks what it does, and runs one on a laptop.

mod apply;
mod connection;
mod delete;
mod diagnostic;
mod diff;
mod explain;
mod files;
mod get;
mod live;
mod paint;
mod pointer;
mod process;
mod rehearse;
mod route;
mod run;
mod status;
mod table;
mod token;
mod trace;
mod traces;
mod up;
mod validate;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How a command ends: its exit status, or an error that is printed and becomes status 1.
type Outcome = Result<ExitCode, Box<dyn Error + Send + Sync>>;

/// Operates a Weft service mesh.
#[derive(Debug, Parser)]
#[command(name = "weft", version, about, disable_help_subcommand = true)]
struct Weft {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends configuration to the control plane: everything in it is applied, or nothing.
    Apply(apply::Apply),
    /// Takes an object out of the configuration.
    Delete(delete::Delete),
    /// Says what is wrong with configuration files, without a mesh.
    Validate(validate::Validate),
    /// Tells what becomes of a request, and why: in files, or in the mesh.
    Explain(explain::Explain),
    /// Tests of routes, without a mesh.
    Route(route::Route),
    /// Shows what applying files would change in the mesh, and which requests it would move; with --live, what routes and
    /// policies in shadow would do to live requests.
    Diff(diff::Diff),
    /// Shows configuration and what became of it.
    Get(get::Get),
    /// Shows every sidecar: who it is, what it serves, and whether it uses the newest configuration.
    Status(status::Status),
    /// Makes join tokens.
    Token(token::Token),
    /// Shows the newest traces of the running `weft up`, or one of them as a tree.
    Traces(traces::Traces),
    /// Runs a command with a sidecar beside it.
    Run(Box<run::Run>),
    /// Runs a whole mesh from one folder: control plane, services, sidecars and traffic.
    Up(up::Up),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Weft::parse().command {
        Command::Apply(command) => command.run().await,
        Command::Delete(command) => command.run().await,
        Command::Validate(command) => command.run().await,
        Command::Explain(command) => command.run().await,
        Command::Route(command) => command.run().await,
        Command::Diff(command) => command.run().await,
        Command::Get(command) => command.run().await,
        Command::Status(command) => command.run().await,
        Command::Token(command) => command.run().await,
        Command::Traces(command) => command.run().await,
        Command::Run(command) => Box::pin(command.run()).await,
        Command::Up(command) => Box::pin(command.run()).await,
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("weft: {}", sentence(error.as_ref()));
        ExitCode::FAILURE
    })
}

/// How a command ends in trouble whose status 1 means something else: with 2, as diff(1) has it.
fn trouble(error: Box<dyn Error + Send + Sync>) -> ExitCode {
    eprintln!("weft: {}", sentence(error.as_ref()));
    ExitCode::from(2)
}

/// An error and what caused it, in one line; causes that the text already names are not said twice.
fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        <Weft as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_wait_without_a_time_is_thirty_seconds() {
        let parse = |args: &[&str]| match Weft::try_parse_from(args).expect("parses").command {
            Command::Apply(apply) => apply.wait,
            _ => None,
        };
        let seconds = |n| Some(std::time::Duration::from_secs(n));
        assert_eq!(parse(&["weft", "apply", "-f", "a.yaml"]), None);
        assert_eq!(parse(&["weft", "apply", "-f", "a.yaml", "--wait"]), seconds(30));
        assert_eq!(parse(&["weft", "apply", "--wait=5s", "-f", "a.yaml"]), seconds(5));
        assert!(Weft::try_parse_from(["weft", "apply", "-f", "a.yaml", "--wait=11m"]).is_err());
    }

    #[test]
    fn causes_are_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the bundle")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("no such file"));
        assert_eq!(sentence(&error), "cannot read the bundle: no such file");
    }
}
