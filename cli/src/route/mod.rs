//! `weft route test`: requests and where they must go, written down and tried without a mesh.

mod file;
mod judge;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use control_plane::rehearsal::{self, Rehearsed};
use model::MeshDomain;
use proto::v1::SourceFile;

use self::file::{Suite, Test};
use crate::paint::Paint;
use crate::{Outcome, files, trouble};

#[derive(Debug, clap::Args)]
pub(crate) struct Route {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tries every test of the files: where does this request go?
    Test(RouteTest),
}

/// Exits with 0 where every test passes, with 1 where one fails, and with 2 where they cannot be tried.
#[derive(Debug, clap::Args)]
pub(crate) struct RouteTest {
    /// A file of tests (docs/route-tests.md); or configuration that they are tried on besides what they name: a YAML
    /// file of objects, or a folder of them. May be repeated.
    #[arg(short, long = "filename", value_name = "FILE|DIR", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Tries only tests whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// The suffix of service names, as the sidecars have it.
    #[arg(long, value_name = "DOMAIN", default_value_t = MeshDomain::default())]
    domain: MeshDomain,
}

/// Why no test is tried.
#[derive(Debug, thiserror::Error)]
enum RouteTestError {
    #[error("no file of tests is given; -f takes both tests and configuration")]
    NoTests,
    #[error("{} names no configuration, and none is given with -f", .0.display())]
    NoConfiguration(PathBuf),
    /// With file, line, column and the line itself.
    #[error("{0}")]
    Unreadable(String),
}

impl Route {
    pub(crate) async fn run(self) -> Outcome {
        let Command::Test(test) = self.command;
        Ok(test.run().unwrap_or_else(trouble))
    }
}

impl RouteTest {
    fn run(self) -> Outcome {
        let (mut suites, mut given) = (Vec::new(), Vec::new());
        for path in &self.files {
            match suite(path)? {
                Some(suite) => suites.push((path, suite)),
                None => given.push(path.clone()),
            }
        }
        if suites.is_empty() {
            return Err(RouteTestError::NoTests.into());
        }
        let paint = Paint::stdout();
        let (mut passed, mut failed) = (0, 0);
        for (path, suite) in suites {
            let configured: Vec<PathBuf> = given.iter().cloned().chain(suite.config).collect();
            if configured.is_empty() {
                return Err(RouteTestError::NoConfiguration(path.clone()).into());
            }
            let state = files::configuration(&configured, "the configuration is not valid")?.state();
            let mesh = Rehearsed {
                state: &state,
                domain: &self.domain,
                serving: None,
            };
            for test in suite.tests.iter().filter(|test| self.wants(test)) {
                let explanation = rehearsal::explain(&mesh, &test.call);
                let faults = judge::faults(&test.expect, &explanation);
                if faults.is_empty() {
                    passed += 1;
                    println!("{} {}", paint.good("PASS"), test.name);
                    continue;
                }
                failed += 1;
                println!("{} {}", paint.bad("FAIL"), test.name);
                println!("     {}:{}: {}", path.display(), test.line, test.call);
                for fault in faults {
                    println!("     {}: expected {}", fault.what, fault.expected);
                    println!(
                        "     {:width$}  got      {}",
                        "",
                        fault.got,
                        width = fault.what.len()
                    );
                }
            }
        }
        println!("{passed} passed, {failed} failed");
        Ok(if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn wants(&self, test: &Test) -> bool {
        self.only.as_ref().is_none_or(|text| test.name.contains(text))
    }
}

/// The tests of a file; `None` for a folder, and for a file of objects.
fn suite(path: &Path) -> Result<Option<Suite>, Box<dyn std::error::Error + Send + Sync>> {
    if path.is_dir() {
        return Ok(None);
    }
    let read = files::read_all(&[path.to_owned()])?;
    let Some(SourceFile { text, .. }) = read.first() else {
        return Ok(None);
    };
    // Objects say so in their first lines; whatever else it is, it should be tests, and is told where it is not.
    if text.lines().any(|line| line.starts_with("apiVersion:")) {
        return Ok(None);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(Some(
        Suite::read(path, text, folder).map_err(RouteTestError::Unreadable)?,
    ))
}
