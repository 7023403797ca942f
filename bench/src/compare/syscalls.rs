//! System calls per request, counted by `perf` at the kernel's tracepoint.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::cpu::Usage;
use super::measure::Sample;
use super::plan::Metric;

const EVENT: &str = "raw_syscalls:sys_enter";
/// perf does not say when it has attached.
const ATTACHED: Duration = Duration::from_millis(300);

/// Measures once more while perf counts; the number of calls per request alone.
pub(super) fn count(
    usage: &Usage,
    folder: &Path,
    measure: impl FnOnce() -> Result<Sample, String>,
) -> Result<Sample, String> {
    let report = folder.join("perf.txt");
    let mut perf = start(usage, &report)?;
    thread::sleep(ATTACHED);
    let sample = measure();
    interrupt(&perf);
    let ended = perf.wait().map_err(|error| error.to_string());
    let sample = sample?;
    ended?;
    let text = std::fs::read_to_string(&report).map_err(|error| error.to_string())?;
    let calls = read(&text).ok_or_else(|| format!("perf says: {}", text.trim()))?;
    let requests = sample
        .get(&Metric::Requests)
        .copied()
        .ok_or("no request was counted")?;
    Ok(Sample::from([(Metric::Syscalls, calls / requests)]))
}

fn start(usage: &Usage, report: &Path) -> Result<Child, String> {
    let pids: Vec<String> = usage.pids().iter().map(u32::to_string).collect();
    Command::new("perf")
        .args(["stat", "-x", ",", "-e", EVENT, "-p", &pids.join(","), "-o"])
        .arg(report)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("perf: {error}"))
}

fn interrupt(perf: &Child) {
    if let Some(pid) = Pid::from_raw(perf.id().cast_signed()) {
        // It may have ended already, because it may not count.
        let _ = kill_process(pid, Signal::INT);
    }
}

/// `123456,,raw_syscalls:sys_enter,…`
fn read(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains(EVENT))?;
    line.split(',').next()?.parse().ok()
}
