//! Where the binaries under test are: `WEFT_BIN_DIR`, or built by cargo, once per test run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};

/// The path of `weft-proxy`, `weft-control-plane` or `weft`.
pub fn binary(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.exists(), "{} is missing", path.display());
    path
}

/// Cargo's target folder, in which this test was built.
pub fn target_dir() -> PathBuf {
    // <target>/<profile>/deps/<test>
    let test = std::env::current_exe().expect("the test's own path");
    let target = test.ancestors().nth(3).expect("a target folder");
    target.to_owned()
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| match std::env::var_os("WEFT_BIN_DIR") {
        Some(folder) => folder.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    let target = target_dir();
    let folder = target.join("debug");
    let lock = File::create(target.join("weft-binaries.lock")).expect("a lock file");
    flock(&lock, FlockOperation::LockExclusive).expect("a lock");
    // nextest runs every test in a process of its own; one of them builds for all.
    let built = std::env::var("NEXTEST_RUN_ID")
        .ok()
        .map(|run| (target.join("weft-binaries.run"), run));
    if let Some((path, run)) = &built
        && std::fs::read_to_string(path).is_ok_and(|last| last == *run)
    {
        return folder;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--bins",
        "-p",
        "proxy",
        "-p",
        "control-plane",
        "-p",
        "cli",
        "--target-dir",
    ]);
    command
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null());
    let output = command.output().expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the binaries do not build:\n{errors}");
    if let Some((path, run)) = &built {
        std::fs::write(path, run).expect("the target folder can be written");
    }
    folder
}
