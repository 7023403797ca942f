//! One run: rounds over all cases and contenders, then memory, then system calls.

use super::contender::{Contender, Variant};
use super::cpu::Usage;
use super::guard_rails::{self, Scale};
use super::load::tcp::Way;
use super::measure::{Bench, Sample};
use super::peers::{Peer as _, Setting, Weft};
use super::plan::{Case, Effort, Metric};
use super::results::Results;
use super::tls::{Credential, Sessions, TlsError};
use super::{memory, syscalls};

/// Rows without a proxy, in workload I.
const DIRECT_TLS: &str = "direct TLS";
const DIRECT_PLAIN: &str = "direct, no TLS";

/// One run, as it goes on.
pub(super) struct Session<'a> {
    pub(super) effort: Effort,
    pub(super) setting: &'a Setting,
    pub(super) bench: Bench<'a>,
    pub(super) weft: Option<&'a Weft>,
    pub(super) results: Results,
    /// Rows in the order of the report: the contenders', then the others as they come.
    pub(super) labels: Vec<String>,
    pub(super) scale: Option<Result<Scale, String>>,
}

impl Session<'_> {
    /// Rounds of every case, then of memory.
    pub(super) fn all(&mut self, cases: &[Case], contenders: &mut [Contender<'_>]) -> Result<(), TlsError> {
        for round in 0..self.effort.rounds {
            self.round(round, cases, contenders)?;
        }
        for round in 0..self.effort.memory_rounds {
            self.memory(round, cases, contenders);
        }
        Ok(())
    }

    fn round(
        &mut self,
        round: usize,
        cases: &[Case],
        contenders: &mut [Contender<'_>],
    ) -> Result<(), TlsError> {
        for case in cases {
            eprintln!(
                "round {} of {}: {} {}",
                round + 1,
                self.effort.rounds,
                case.workload(),
                case.title()
            );
            match case {
                Case::Ready | Case::IdlePlain | Case::IdleTls | Case::PerService => {}
                Case::Scale => self.scale(),
                // Processes that are started for it hardly vary.
                Case::Crowd if round > 0 => {}
                Case::Crowd => self.crowd(),
                Case::Churn => self.churn(),
                _ => self.everybody(round, *case, contenders)?,
            }
        }
        Ok(())
    }

    fn everybody(
        &mut self,
        round: usize,
        case: Case,
        contenders: &mut [Contender<'_>],
    ) -> Result<(), TlsError> {
        let count = contenders.len().max(1);
        for turn in 0..count {
            let Some(contender) = contenders.get_mut((turn + round) % count) else {
                continue;
            };
            for variant in contender.variants(case, self.setting) {
                let sample = contender.measure(case, variant, self.setting, &self.bench);
                let label = contender.label(variant);
                self.note(case, &label, sample.map_err(|error| error.to_string()));
            }
        }
        match case {
            Case::TcpBulk | Case::TcpPing => self.direct(case),
            _ => Ok(()),
        }
    }

    /// Without any proxy.
    fn direct(&mut self, case: Case) -> Result<(), TlsError> {
        let client = Credential::client(&self.setting.certificates)?.client_config(Sessions::Full)?;
        let tls = Way {
            address: self.setting.apps.tls,
            tls: Some(client),
        };
        let plain = Way {
            address: self.setting.apps.tcp,
            tls: None,
        };
        for (label, way) in [(DIRECT_TLS, tls), (DIRECT_PLAIN, plain)] {
            let mut sample = self.bench.tcp(case, &Usage::of([]), &way);
            if let Ok(sample) = &mut sample {
                // There is no proxy whose CPU it could be.
                sample.remove(&Metric::CpuMicros);
            }
            self.note(case, label, sample.map_err(|error| error.to_string()));
        }
        Ok(())
    }

    fn memory(&mut self, round: usize, cases: &[Case], contenders: &[Contender<'_>]) {
        let idle = self.effort.idle_connections;
        let wants = |case| cases.contains(&case);
        if wants(Case::Ready) {
            eprintln!("memory, round {} of {}", round + 1, self.effort.memory_rounds);
        } else {
            return;
        }
        for contender in contenders {
            let label = contender.label(Variant::Natural);
            match memory::plain(contender.peer, self.setting, idle) {
                Ok((ready, per_connection)) => {
                    self.note(Case::Ready, &label, Ok(ready));
                    self.note(Case::IdlePlain, &label, Ok(per_connection));
                }
                Err(error) => {
                    self.note(Case::Ready, &label, Err(error.to_string()));
                    self.note(Case::IdlePlain, &label, Err(error.to_string()));
                }
            }
            let tls = memory::tls(contender.peer, self.setting, idle);
            self.note(Case::IdleTls, &label, tls.map_err(|error| error.to_string()));
        }
        if let Some(weft) = self.weft {
            let services = memory::services(weft, self.setting);
            self.note(
                Case::PerService,
                weft.name(),
                services.map_err(|error| error.to_string()),
            );
        }
    }

    fn scale(&mut self) {
        let Some(weft) = self.weft else { return };
        let setting = self.setting;
        let scale = self
            .scale
            .get_or_insert_with(|| Scale::start(weft, setting).map_err(|error| error.to_string()));
        match scale {
            Ok(scale) => {
                for (label, sample) in scale.measure(&self.bench) {
                    self.note(Case::Scale, label, sample.map_err(|error| error.to_string()));
                }
            }
            Err(why) => {
                let why = why.clone();
                self.note(Case::Scale, weft.name(), Err(why));
            }
        }
    }

    fn crowd(&mut self) {
        let Some(weft) = self.weft else { return };
        match guard_rails::crowd(weft, self.setting) {
            Ok(rows) => {
                for (label, sample) in rows {
                    self.note(Case::Crowd, label, Ok(sample));
                }
            }
            Err(error) => self.note(Case::Crowd, weft.name(), Err(error.to_string())),
        }
    }

    fn churn(&mut self) {
        let Some(weft) = self.weft else { return };
        match guard_rails::churn(weft, self.setting, &self.bench) {
            Ok(rows) => {
                for (label, sample) in rows {
                    self.note(Case::Churn, label, sample.map_err(|error| error.to_string()));
                }
            }
            Err(error) => self.note(Case::Churn, weft.name(), Err(error.to_string())),
        }
    }

    /// Once more, with system calls counted: counting costs CPU, so it is not done in the rounds.
    pub(super) fn syscalls(&mut self, cases: &[Case], contenders: &mut [Contender<'_>]) {
        for case in cases {
            if !matches!(case, Case::Plain(_) | Case::Mesh(_) | Case::H2c | Case::Grpc) {
                continue;
            }
            for contender in contenders.iter_mut() {
                let Some(usage) = contender.usage(*case) else {
                    continue;
                };
                for variant in contender.variants(*case, self.setting) {
                    let label = contender.label(variant);
                    let counted = syscalls::count(&usage, &self.setting.folder, || {
                        let sample = contender.measure(*case, variant, self.setting, &self.bench);
                        sample.map_err(|error| error.to_string())
                    });
                    match counted {
                        Ok(sample) => self.note(*case, &label, Ok(sample)),
                        Err(error) => eprintln!("NOT COUNTED: system calls of {label}: {error}"),
                    }
                }
            }
        }
    }

    fn note(&mut self, case: Case, label: &str, sample: Result<Sample, String>) {
        if !self.labels.iter().any(|known| known == label) {
            self.labels.push(label.to_owned());
        }
        if let Err(problem) = &sample {
            eprintln!("  {label}: {problem}");
        }
        self.results.note(case, label, sample);
    }
}
