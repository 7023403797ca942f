//! Runs this program under valgrind's callgrind, and reads what it wrote.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The function that is counted, as valgrind names it.
const COUNTED: &str = "bench::instructions::counted";
/// What Rust's allocations end in; allocations of libraries in C are calls of the last three.
const ALLOCATIONS: [&str; 9] = [
    "mi_malloc",
    "mi_zalloc",
    "mi_realloc",
    "mi_malloc_aligned",
    "mi_zalloc_aligned",
    "mi_realloc_aligned",
    "malloc",
    "calloc",
    "realloc",
];

/// What one run did.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Profile {
    /// Inside [`COUNTED`], by function, without what it calls.
    pub(super) instructions: HashMap<String, u64>,
    /// From the start of the process, by the function that allocates.
    pub(super) allocations: HashMap<String, u64>,
}

/// Why a run was not counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallgrindError {
    #[error("needs valgrind (Debian: apt-get install valgrind)")]
    Missing(#[source] io::Error),
    #[error("this program does not find itself")]
    Itself(#[source] io::Error),
    #[error("the run failed:\n{0}")]
    Run(String),
    #[error("{path} cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{0} is not what callgrind writes, or names no {COUNTED}")]
    Format(PathBuf),
}

/// `valgrind-3.19.0`
pub(super) fn version() -> Result<String, CallgrindError> {
    let output = Command::new("valgrind")
        .arg("--version")
        .output()
        .map_err(CallgrindError::Missing)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs this program with these arguments; what callgrind writes stays at `path`.
pub(super) fn count(arguments: &[OsString], path: &Path) -> Result<Profile, CallgrindError> {
    let program = std::env::current_exe().map_err(CallgrindError::Itself)?;
    let mut out_file = OsString::from("--callgrind-out-file=");
    out_file.push(path);
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--compress-strings=no",
            "--compress-pos=no",
            "--collect-atstart=no",
        ])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(out_file)
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(CallgrindError::Missing)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(CallgrindError::Run(said));
    }
    let text = std::fs::read_to_string(path).map_err(|source| CallgrindError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text)
        .filter(|profile| !profile.instructions.is_empty())
        .ok_or_else(|| CallgrindError::Format(path.to_owned()))
}

/// Reads callgrind's format, version 1, with neither names nor positions compressed.
fn parse(text: &str) -> Option<Profile> {
    let mut profile = Profile::default();
    let (mut function, mut callee) = ("", "");
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = name;
        } else if let Some(name) = line.strip_prefix("cfn=") {
            callee = name;
        } else if let Some(calls) = line.strip_prefix("calls=") {
            if is_allocation(function, callee) {
                let count: u64 = calls.split(' ').next()?.parse().ok()?;
                *profile.allocations.entry(function.to_owned()).or_default() += count;
            }
            // What the calls cost, which the called function's own lines say too.
            lines.next()?;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let (_, cost) = line.split_once(' ')?;
            *profile.instructions.entry(function.to_owned()).or_default() += cost.parse::<u64>().ok()?;
        }
    }
    Some(profile)
}

/// Whether a call asks for memory, and not only passes such a call on.
fn is_allocation(caller: &str, callee: &str) -> bool {
    let is_rusts = |name: &str| name.contains("__rust_alloc") || name.contains("__rust_realloc");
    let is_allocator = |name: &str| is_rusts(name) || name.starts_with("mi_") || name.starts_with("_mi_");
    (is_rusts(callee) || ALLOCATIONS.contains(&callee)) && !is_allocator(caller)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# callgrind format
version: 1
creator: callgrind-3.19.0
positions: line
events: Ir
summary: 60

ob=/bench
fl=steps.rs
fn=proxy::steps
10 20
11 5
cfi=alloc.rs
cfn=__rustc::__rust_alloc
calls=3 4
11 30
fi=inlined.rs
12 1
cfn=proxy::send
calls=7 9
12 4

fn=__rustc::__rust_alloc
4 12
cob=/mimalloc
cfn=mi_malloc_aligned
calls=3 8
4 18

fn=aws_lc_0_47_0_OPENSSL_malloc
5 0
cfn=malloc
calls=2 4
5 0

totals: 60
";

    #[test]
    fn a_function_costs_what_it_does_itself_and_allocates_where_it_asks() {
        let profile = parse(TEXT).unwrap();
        let own = |name: &str| profile.instructions.get(name).copied();
        assert_eq!(own("proxy::steps"), Some(26));
        assert_eq!(own("__rustc::__rust_alloc"), Some(12));
        let expected = [("proxy::steps", 3), ("aws_lc_0_47_0_OPENSSL_malloc", 2)];
        let expected = expected.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(profile.allocations, HashMap::from(expected));
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        assert_eq!(parse("fn=proxy::steps\ncfn=malloc\ncalls=3 4"), None);
        assert_eq!(parse("fn=proxy::steps\n10 many"), None);
    }
}
