//! Workload F: memory of processes that were started a moment ago, then with idle connections, then with services.

use std::thread;
use std::time::Duration;

use super::contender::ContenderError;
use super::cpu::{Memory, Usage};
use super::load::idle::Idle;
use super::load::{LoadError, probe};
use super::measure::{MeasureError, Sample, as_f64};
use super::mesh::Sidecar;
use super::peers::{Door, Peer, PeerError, Setting, Weft};
use super::plan::Metric;

/// Requests before memory is looked at: what is allocated once has been.
const REQUESTS: usize = 100;
/// How long a proxy may tidy up before memory is looked at.
const SETTLE: Duration = Duration::from_secs(1);
/// Services that a sidecar learns to know.
const SERVICES: u32 = 100;

/// Memory when ready, and per idle plain connection, of one hop started for it.
pub(crate) fn plain(
    peer: &dyn Peer,
    setting: &Setting,
    idle: usize,
) -> Result<(Sample, Sample), ContenderError> {
    let plain = peer.plain(setting)?;
    warm_up(&plain.door)?;
    let usage = Usage::of([&plain.hop]);
    let before = settled(&usage);
    let connections = Idle::plain(&plain.door, idle).map_err(MeasureError::Load)?;
    let after = settled(&usage);
    let ready = Sample::from([
        (Metric::PssMb, before.pss / 1024.0),
        (Metric::RssMb, before.rss / 1024.0),
    ]);
    Ok((ready, per_connection(before, after, connections.count())))
}

/// Memory per idle mTLS connection of the accepting side.
pub(crate) fn tls(peer: &dyn Peer, setting: &Setting, idle: usize) -> Result<Sample, ContenderError> {
    let pair = peer.pair(setting)?;
    warm_up(&pair.http)?;
    let usage = Usage::of([&pair.callee]);
    let before = settled(&usage);
    let connections = Idle::tls(&pair.tls, idle).map_err(MeasureError::Load)?;
    let after = settled(&usage);
    Ok(per_connection(before, after, connections.count()))
}

/// Memory per service that a sidecar has called: what it knows of it, and its connection.
pub(crate) fn services(weft: &Weft, setting: &Setting) -> Result<Sample, ContenderError> {
    let mut names = Vec::new();
    for _ in 0..=SERVICES {
        names.push(weft.outside_later(setting.apps.http));
    }
    let yaml: String = names.iter().map(|(_, yaml)| yaml.as_str()).collect();
    weft.mesh.apply(&yaml).map_err(PeerError::from)?;
    let edge = weft.edge()?;
    let usage = Usage::of([&edge.process]);
    let doors = names.into_iter().map(|(host, _)| Door {
        address: edge.outbound,
        host,
    });
    let mut before = Memory::default();
    for (known, door) in doors.enumerate() {
        let status = probe::get(&door, "/100").map_err(|source| LoadError::Io {
            what: "the first request to a service",
            source,
        });
        status.map_err(MeasureError::Load)?;
        if known == 0 {
            warm_up(&door)?;
            before = settled(&usage);
        }
    }
    let after = settled(&usage);
    let kb = (after.pss - before.pss) * 1.024 / f64::from(SERVICES);
    Ok(Sample::from([(Metric::KbPerService, kb)]))
}

/// Memory of a sidecar as it is.
pub(crate) fn ready(sidecar: &Sidecar) -> Sample {
    let memory = settled(&Usage::of([&sidecar.process]));
    Sample::from([
        (Metric::PssMb, memory.pss / 1024.0),
        (Metric::RssMb, memory.rss / 1024.0),
    ])
}

fn per_connection(before: Memory, after: Memory, count: usize) -> Sample {
    let count = as_f64(u64::try_from(count).unwrap_or(u64::MAX)).max(1.0);
    let kb = (after.pss - before.pss) * 1.024 / count;
    Sample::from([(Metric::KbPerConnection, kb)])
}

fn warm_up(door: &Door) -> Result<(), MeasureError> {
    for _ in 0..REQUESTS {
        probe::get(door, "/100").map_err(|source| LoadError::Io {
            what: "a request",
            source,
        })?;
    }
    Ok(())
}

fn settled(usage: &Usage) -> Memory {
    // Nobody says when a proxy is done tidying up.
    thread::sleep(SETTLE);
    usage.memory()
}
