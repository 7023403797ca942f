//! Tests that need something this machine may not have say so, loudly, where `.ci/run` counts them.

use std::io::Write;

/// Says that the running test did not happen, and why.
pub fn skipped(what: &str) {
    eprintln!("SKIPPED: needs {what}");
    let path = crate::binaries::target_dir().join("skipped.txt");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    if let Ok(mut file) = file {
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        let _ = writeln!(file, "{test}: needs {what}");
    }
}

/// Ends the test here: it needs what the argument says, and that is not here.
#[macro_export]
macro_rules! skip {
    ($what:expr) => {{
        $crate::skip::skipped($what);
        return;
    }};
}
