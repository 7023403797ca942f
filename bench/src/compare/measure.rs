//! One measurement of one contender: a load, and what its processes used meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::cpu::{Usage, own_cpu};
use super::load::h2load::H2load;
use super::load::open_loop::OpenLoop;
use super::load::wrk::Wrk;
use super::load::{Load, LoadError, handshakes, tcp};
use super::peers::{Door, Pair, Plain};
use super::plan::{Case, MESH_RATE, Metric, PLAIN_RATE};
use super::tls::Sessions;

/// Connections of wrk for small answers, and for large ones.
pub(crate) const CONNECTIONS: u32 = 64;
const BULK_CONNECTIONS: u32 = 16;
/// h2load's connections, and streams of each.
const H2_CONNECTIONS: u32 = 10;
const H2_STREAMS: u32 = 10;
/// Kept connections of the open loop.
const OPEN_LOOP_CONNECTIONS: usize = 16;
/// Of the largest answer.
const BULK_BYTES: u64 = 1 << 20;
/// More failures than this share of all, and the figures mean something else.
const FAILURES: f64 = 0.001;

/// The figures of one measurement.
pub(crate) type Sample = BTreeMap<Metric, f64>;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{failures} of {all} requests failed")]
    Failures { failures: u64, all: u64 },
    #[error("no answer at all")]
    Nothing,
    #[error("no session was resumed: {full} full handshakes")]
    NotResumed { full: u64 },
}

/// What every measurement needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bench<'a> {
    pub(crate) seconds: u64,
    /// For h2load's log.
    pub(crate) log: &'a Path,
    /// A gRPC message to be posted.
    pub(crate) message: &'a Path,
}

impl Bench<'_> {
    /// The cases of one plain hop.
    pub(crate) fn plain(&self, case: Case, plain: &Plain) -> Result<Sample, MeasureError> {
        let usage = Usage::of([&plain.hop]);
        match case {
            Case::BulkPlain => self.bulk(&usage, &plain.door),
            Case::NewPlain => measured(&usage, || self.wrk("/100", CONNECTIONS, true).run(&plain.door)),
            Case::OpenPlain => measured(&usage, || self.open_loop(PLAIN_RATE).run(&plain.door)),
            Case::Plain(size) => measured(&usage, || {
                self.wrk(size.path(), CONNECTIONS, false).run(&plain.door)
            }),
            _ => measured(&usage, || self.wrk("/100", CONNECTIONS, false).run(&plain.door)),
        }
    }

    /// The cases of two hops; `http` is the door for HTTP/1.1, which may be one of two.
    pub(crate) fn pair(&self, case: Case, pair: &Pair, http: &Door) -> Result<Sample, MeasureError> {
        let both = Usage::of([&pair.caller, &pair.callee]);
        match case {
            Case::Mesh(size) => measured(&both, || self.wrk(size.path(), CONNECTIONS, false).run(http)),
            Case::BulkMesh => self.bulk(&both, http),
            Case::H2c => measured(&both, || self.h2load("/100", None).run(&pair.h2c)),
            Case::Grpc => measured(&both, || {
                self.h2load("/bench.Echo/Call", Some(self.message))
                    .run(&pair.grpc)
            }),
            Case::Handshake(kind) => {
                let callee = Usage::of([&pair.callee]);
                self.handshakes(&callee, kind.sessions(), pair)
            }
            _ => measured(&both, || self.open_loop(MESH_RATE).run(http)),
        }
    }

    /// Opaque TCP through the proxies that `usage` is of; none for a direct connection.
    pub(crate) fn tcp(&self, case: Case, usage: &Usage, way: &tcp::Way) -> Result<Sample, MeasureError> {
        let time = Duration::from_secs(self.seconds);
        if case == Case::TcpPing {
            return measured(usage, || tcp::ping(way, time));
        }
        let (cpu, own) = (usage.cpu(), own_cpu());
        let load = tcp::bulk(way, time)?;
        let cpu = usage.cpu().saturating_sub(cpu);
        let all = cpu + own_cpu().saturating_sub(own);
        checked(&load)?;
        let megabytes = megabytes(load.bytes);
        let mut sample = Sample::from([
            (Metric::MbPerCpuOfAll, megabytes / all.as_secs_f64()),
            (Metric::MbPerSecond, megabytes / load.time.as_secs_f64()),
        ]);
        if !cpu.is_zero() {
            sample.insert(Metric::MbPerCpu, megabytes / cpu.as_secs_f64());
        }
        Ok(sample)
    }

    fn bulk(&self, usage: &Usage, door: &Door) -> Result<Sample, MeasureError> {
        let before = usage.cpu();
        let load = self.wrk("/1m", BULK_CONNECTIONS, false).run(door)?;
        let cpu = usage.cpu().saturating_sub(before);
        checked(&load)?;
        let megabytes = megabytes(load.answers * BULK_BYTES);
        Ok(Sample::from([
            (Metric::MbPerCpu, megabytes / cpu.as_secs_f64()),
            (Metric::MbPerSecond, megabytes / load.time.as_secs_f64()),
        ]))
    }

    fn handshakes(&self, callee: &Usage, sessions: Sessions, pair: &Pair) -> Result<Sample, MeasureError> {
        let time = Duration::from_secs(self.seconds);
        let mut resumed = 0;
        let sample = measured(callee, || {
            let load = handshakes::run(&pair.tls, sessions, time)?;
            resumed = load.resumed.unwrap_or_default();
            Ok(load)
        })?;
        match (sessions, resumed) {
            (Sessions::Resumed, 0) => Err(MeasureError::NotResumed {
                full: rounded(sample.get(&Metric::PerSecond).copied().unwrap_or_default()),
            }),
            _ => Ok(sample),
        }
    }

    fn wrk<'p>(&self, path: &'p str, connections: u32, closes: bool) -> Wrk<'p> {
        Wrk {
            path,
            connections,
            seconds: self.seconds,
            closes,
        }
    }

    fn h2load<'p>(&'p self, path: &'p str, grpc: Option<&'p Path>) -> H2load<'p> {
        H2load {
            path,
            connections: H2_CONNECTIONS,
            streams: H2_STREAMS,
            seconds: self.seconds,
            grpc,
            log: self.log,
        }
    }

    fn open_loop(&self, rate: u32) -> OpenLoop<'static> {
        OpenLoop {
            path: "/100",
            rate,
            connections: OPEN_LOOP_CONNECTIONS,
            time: Duration::from_secs(self.seconds),
        }
    }
}

/// A load of requests, and what one of them cost.
fn measured(usage: &Usage, run: impl FnOnce() -> Result<Load, LoadError>) -> Result<Sample, MeasureError> {
    let before = usage.cpu();
    let load = run()?;
    let cpu = usage.cpu().saturating_sub(before);
    checked(&load)?;
    let answers = as_f64(load.answers);
    let mut sample = Sample::from([
        (Metric::CpuMicros, cpu.as_secs_f64() * 1e6 / answers),
        (Metric::PerSecond, answers / load.time.as_secs_f64()),
        (Metric::Requests, answers),
    ]);
    let percentiles = [
        (Metric::P50, load.p50),
        (Metric::P99, load.p99),
        (Metric::P999, load.p999),
    ];
    for (metric, latency) in percentiles {
        sample.extend(latency.map(|latency| (metric, latency.as_secs_f64() * 1e3)));
    }
    sample.extend(
        load.resumed
            .map(|resumed| (Metric::ResumedPercent, 100.0 * as_f64(resumed) / answers)),
    );
    Ok(sample)
}

fn checked(load: &Load) -> Result<(), MeasureError> {
    let all = load.answers + load.failures;
    if load.answers == 0 {
        Err(MeasureError::Nothing)
    } else if as_f64(load.failures) > as_f64(all) * FAILURES {
        Err(MeasureError::Failures {
            failures: load.failures,
            all,
        })
    } else {
        Ok(())
    }
}

fn megabytes(bytes: u64) -> f64 {
    as_f64(bytes) / 1e6
}

/// Counts here are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are small and not negative"
)]
fn rounded(number: f64) -> u64 {
    number.round() as u64
}
