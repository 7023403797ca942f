//! What comes out: tables to read, JSON to keep, a chart to show.

pub(crate) mod json;
pub(crate) mod svg;
pub(crate) mod table;

use std::fs;
use std::thread;

use super::contender::{Contender, Variant};

/// Where and with what it was measured.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Of the minute before: what else ran.
    pub(crate) load: String,
    /// Contender and version.
    pub(crate) versions: Vec<(String, String)>,
}

/// A higher load average, and figures are not to be relied on.
const QUIET: f64 = 0.5;

impl Machine {
    pub(crate) fn look(contenders: &[Contender<'_>]) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model
            .and_then(|rest| rest.split_once(": "))
            .map(|(_, model)| model);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: model.unwrap_or("unknown").trim().to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            load: load_average(),
            versions: contenders
                .iter()
                .map(|contender| (contender.label(Variant::Natural), contender.peer.version()))
                .collect(),
        }
    }

    /// A word of warning where others want the CPUs too.
    pub(crate) fn is_busy(&self) -> bool {
        self.load.parse::<f64>().is_ok_and(|load| load > QUIET)
    }

    /// One line.
    pub(crate) fn line(&self) -> String {
        let versions: Vec<String> = self
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        let Self {
            cpu, cores, kernel, ..
        } = self;
        format!("{}; {cores} cores, {cpu}, Linux {kernel}", versions.join(", "))
    }
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}
