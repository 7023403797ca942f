//! One contender: a peer whose processes are started when they are first needed, and then stay.

use super::cpu::Usage;
use super::load::tcp::Way;
use super::load::wrk::Wrk;
use super::measure::{Bench, CONNECTIONS, MeasureError, Sample};
use super::peers::{Door, Pair, Peer, PeerError, Plain, Setting};
use super::plan::Case;

/// Why a contender has no figures in a case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContenderError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// It failed before.
    #[error("{0}")]
    Before(String),
    #[error("this build of it cannot do that")]
    CannotDo,
}

pub(crate) struct Contender<'a> {
    pub(crate) peer: &'a dyn Peer,
    plain: Started<Plain>,
    pair: Started<Pair>,
}

/// What was started once.
enum Started<T> {
    NotYet,
    Running(T),
    Failed(String),
}

/// One row of a table: which way of a contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    Natural,
    OverH2,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(peer: &'a dyn Peer) -> Self {
        Self {
            peer,
            plain: Started::NotYet,
            pair: Started::NotYet,
        }
    }

    /// What the row is called.
    pub(crate) fn label(&self, variant: Variant) -> String {
        match variant {
            Variant::Natural => self.peer.name().to_owned(),
            Variant::OverH2 => format!("{} over h2", self.peer.name()),
        }
    }

    /// What all its rows are called, in order.
    pub(crate) fn labels(&self) -> [String; 2] {
        [Variant::Natural, Variant::OverH2].map(|variant| self.label(variant))
    }

    /// The rows that it has in a case.
    pub(crate) fn variants(&mut self, case: Case, setting: &Setting) -> Vec<Variant> {
        let has_http2 = match case {
            Case::Mesh(_) | Case::BulkMesh | Case::OpenMesh => {
                let pair = self.pair.get(|| pair(self.peer, setting));
                pair.is_ok_and(|pair| pair.http_over_h2.is_some())
            }
            _ => false,
        };
        match has_http2 {
            true => vec![Variant::Natural, Variant::OverH2],
            false => vec![Variant::Natural],
        }
    }

    pub(crate) fn measure(
        &mut self,
        case: Case,
        variant: Variant,
        setting: &Setting,
        bench: &Bench<'_>,
    ) -> Result<Sample, ContenderError> {
        match case {
            Case::Plain(_) | Case::BulkPlain | Case::NewPlain | Case::OpenPlain => {
                let plain = self.plain.get(|| plain(self.peer, setting))?;
                Ok(bench.plain(case, plain)?)
            }
            Case::TcpBulk | Case::TcpPing => {
                let pair = self.pair.get(|| pair(self.peer, setting))?;
                let address = pair.tcp.ok_or(ContenderError::CannotDo)?;
                let usage = Usage::of([&pair.caller, &pair.callee]);
                Ok(bench.tcp(case, &usage, &Way { address, tls: None })?)
            }
            _ => {
                let pair = self.pair.get(|| pair(self.peer, setting))?;
                let http = match (variant, &pair.http_over_h2) {
                    (Variant::OverH2, Some(door)) => door,
                    _ => &pair.http,
                };
                Ok(bench.pair(case, pair, http)?)
            }
        }
    }

    /// The processes whose system calls are counted in a case.
    pub(crate) fn usage(&self, case: Case) -> Option<Usage> {
        match (case, &self.plain, &self.pair) {
            (Case::Plain(_), Started::Running(plain), _) => Some(Usage::of([&plain.hop])),
            (Case::Plain(_), ..) => None,
            (_, _, Started::Running(pair)) => Some(Usage::of([&pair.caller, &pair.callee])),
            _ => None,
        }
    }
}

/// One hop that has its connections to the application.
fn plain(peer: &dyn Peer, setting: &Setting) -> Result<Plain, ContenderError> {
    let plain = peer.plain(setting)?;
    warm_up(&plain.door)?;
    Ok(plain)
}

/// Two hops that have their connections to each other.
fn pair(peer: &dyn Peer, setting: &Setting) -> Result<Pair, ContenderError> {
    let pair = peer.pair(setting)?;
    for door in [Some(&pair.http), pair.http_over_h2.as_ref()]
        .into_iter()
        .flatten()
    {
        warm_up(door)?;
    }
    Ok(pair)
}

/// What is made once and then kept is not what a request costs.
fn warm_up(door: &Door) -> Result<(), MeasureError> {
    let load = Wrk {
        path: "/100",
        connections: CONNECTIONS,
        seconds: 1,
        closes: false,
    };
    load.run(door)?;
    Ok(())
}

impl<T> Started<T> {
    fn get(&mut self, start: impl FnOnce() -> Result<T, ContenderError>) -> Result<&T, ContenderError> {
        if let Self::NotYet = self {
            *self = match start() {
                Ok(running) => Self::Running(running),
                Err(error) => Self::Failed(error.to_string()),
            };
        }
        match self {
            Self::Running(running) => Ok(running),
            Self::Failed(why) => Err(ContenderError::Before(why.clone())),
            Self::NotYet => Err(ContenderError::Before(String::new())),
        }
    }
}
