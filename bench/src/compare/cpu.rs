//! What processes have used: CPU time to the nanosecond, and memory.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::process::Process;

/// Processes together with all their children, such as nginx's workers.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    roots: Vec<u32>,
}

/// Memory in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Proportional: pages that are shared count by share.
    pub(crate) pss: f64,
    pub(crate) rss: f64,
}

impl Usage {
    pub(crate) fn of<'p>(processes: impl IntoIterator<Item = &'p Process>) -> Self {
        Self {
            roots: processes.into_iter().map(Process::pid).collect(),
        }
    }

    /// CPU time so far, of every task that lives. Threads that ended are missing, so look before and after while the
    /// same ones live.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = self.pids().into_iter().flat_map(|pid| tasks(&pid));
        Duration::from_nanos(tasks.filter_map(|path| schedstat(&path)).sum())
    }

    pub(crate) fn memory(&self) -> Memory {
        let mut sum = Memory::default();
        for pid in self.pids() {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            sum.pss += kib(&text, "Pss:");
            sum.rss += kib(&text, "Rss:");
        }
        sum
    }

    /// Every process id, as text for tools that take a list.
    pub(crate) fn pids(&self) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut open = self.roots.clone();
        while let Some(pid) = open.pop() {
            if found.insert(pid) {
                let children = tasks(&pid).map(|task| fs::read_to_string(format!("{task}/children")));
                for text in children.map_while(Result::ok) {
                    open.extend(
                        text.split_whitespace()
                            .filter_map(|word| word.parse::<u32>().ok()),
                    );
                }
            }
        }
        found
    }
}

/// CPU time of this process, threads that ended included.
pub(crate) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

fn tasks(pid: &u32) -> impl Iterator<Item = String> + use<> {
    let folder = format!("/proc/{pid}/task");
    let names = fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
    names.map(move |entry| format!("{folder}/{}", entry.file_name().to_string_lossy()))
}

/// Nanoseconds on a CPU.
fn schedstat(task: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("{task}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn kib(text: &str, field: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}
