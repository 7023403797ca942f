//! What a request cost when somebody last looked, and how far from it a change may be.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cost::Cost;

/// How far a figure may move before it is said, as a share of the baseline's.
const TOLERANCE: f64 = 0.03;

/// The file: every figure per request, without the client and the application.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Baseline {
    #[serde(flatten)]
    pub(super) made_by: MadeBy,
    pub(super) runs: BTreeMap<String, Cost>,
}

/// What instructions depend on besides the code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct MadeBy {
    pub(super) rustc: String,
    /// Cargo's profile.
    pub(super) profile: String,
    pub(super) valgrind: String,
}

/// Why there is no baseline.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaselineError {
    #[error("{path} cannot be read; --write-baseline makes it")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} cannot be written")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is not a baseline")]
    Format {
        path: PathBuf,
        source: serde_json::Error,
    },
}

/// A figure beside its baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// Within the tolerance. All verdicts carry the change as a share of the baseline.
    Kept(f64),
    Risen(f64),
    Fallen(f64),
    /// The baseline does not know this run.
    New,
}

impl Baseline {
    pub(super) fn read(path: &Path) -> Result<Self, BaselineError> {
        let path = path.to_owned();
        match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| BaselineError::Format { path, source })
            }
            Err(source) => Err(BaselineError::Read { path, source }),
        }
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), BaselineError> {
        let text = serde_json::to_string_pretty(&self.rounded()).map_err(|source| BaselineError::Format {
            path: path.to_owned(),
            source,
        })?;
        std::fs::write(path, text + "\n").map_err(|source| BaselineError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// As a reader wants it: what is below a whole instruction is chance.
    fn rounded(&self) -> Self {
        let round = |cost: &Cost| Cost {
            instructions: cost.instructions.round(),
            allocations: (cost.allocations * 100.0).round() / 100.0,
        };
        Self {
            made_by: self.made_by.clone(),
            runs: self
                .runs
                .iter()
                .map(|(name, cost)| (name.clone(), round(cost)))
                .collect(),
        }
    }

    /// Instructions, then allocations.
    pub(super) fn judge(&self, run: &str, now: Cost) -> [Verdict; 2] {
        let Some(before) = self.runs.get(run) else {
            return [Verdict::New; 2];
        };
        [
            verdict(before.instructions, now.instructions),
            verdict(before.allocations, now.allocations),
        ]
    }
}

fn verdict(before: f64, now: f64) -> Verdict {
    let change = match now - before {
        0.0 => 0.0,
        change => change / before.abs(),
    };
    if change > TOLERANCE {
        Verdict::Risen(change)
    } else if change < -TOLERANCE {
        Verdict::Fallen(change)
    } else {
        Verdict::Kept(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        let cost = Cost {
            instructions: 50_000.4,
            allocations: 9.999,
        };
        Baseline {
            made_by: MadeBy {
                rustc: "rustc 1.95.0".to_owned(),
                profile: "release".to_owned(),
                valgrind: "valgrind-3.19.0".to_owned(),
            },
            runs: [("plain".to_owned(), cost)].into(),
        }
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baseline.json");
        baseline().write(&path).unwrap();
        let read = Baseline::read(&path).unwrap();
        assert_eq!(read, baseline().rounded());
        assert_eq!(read.runs["plain"].allocations, 10.0);
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(Baseline::read(&path), Err(BaselineError::Format { .. })));
    }

    #[test]
    fn three_percent_are_tolerated_in_both_directions() {
        let judge = |instructions, allocations| {
            baseline().rounded().judge(
                "plain",
                Cost {
                    instructions,
                    allocations,
                },
            )
        };
        assert!(matches!(
            judge(51_400.0, 9.8),
            [Verdict::Kept(_), Verdict::Kept(_)]
        ));
        assert!(matches!(
            judge(51_600.0, 11.0),
            [Verdict::Risen(_), Verdict::Risen(_)]
        ));
        assert!(matches!(
            judge(48_000.0, 9.0),
            [Verdict::Fallen(_), Verdict::Fallen(_)]
        ));
        assert_eq!(baseline().judge("mesh", Cost::default()), [Verdict::New; 2]);
    }

    #[test]
    fn the_first_allocation_is_a_rise() {
        assert!(matches!(verdict(0.0, 1.0), Verdict::Risen(_)));
        assert_eq!(verdict(0.0, 0.0), Verdict::Kept(0.0));
    }
}
