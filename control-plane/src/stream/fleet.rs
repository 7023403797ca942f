//! How every connected proxy stands, for operators and for whoever waits for a generation to arrive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use model::{Generation, WorkloadId};
use proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::mesh::SessionNumber;
use crate::view::BoundPort;

/// The proxies whose config stream is open.
#[derive(Debug)]
pub(crate) struct Fleet {
    proxies: Mutex<Proxies>,
    /// Fires when any proxy's record changes.
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Proxies {
    last_number: SessionNumber,
    connected: BTreeMap<WorkloadId, Connected>,
}

#[derive(Debug)]
struct Connected {
    number: SessionNumber,
    replaced: CancellationToken,
    record: ProxyRecord,
}

/// How a proxy stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProxyRecord {
    pub(crate) connected_since: SystemTime,
    /// The mesh's generation in use, counting those that change nothing for it.
    pub(crate) in_use: Generation,
    /// The newest generation of which it is known whether it is in use or refused.
    pub(crate) judged: Generation,
    /// Set while something that it should use stands refused.
    pub(crate) refusal: Option<v1::Refusal>,
    /// From when until when its newest certificate is valid.
    pub(crate) certificate: (SystemTime, SystemTime),
    pub(crate) proxy_version: String,
    /// As a Gateway's proxy reported them last.
    pub(crate) ports: BTreeMap<u16, BoundPort>,
    /// How its requests compare with routes in shadow, as it reported last.
    pub(crate) shadow: Arc<v1::ShadowReport>,
}

impl ProxyRecord {
    pub(crate) fn is_in_sync(&self, generation: Generation) -> bool {
        self.refusal.is_none() && self.in_use >= generation
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            proxies: Mutex::default(),
            changes: watch::Sender::new(()),
        }
    }
}

impl Fleet {
    /// The number of a new stream, higher than all before.
    pub(crate) fn next_number(&self) -> SessionNumber {
        let mut proxies = self.proxies();
        proxies.last_number += 1;
        proxies.last_number
    }

    /// A stream is open for this workload: an older one ends. The token fires when a newer one comes; `None` where
    /// it has come already.
    pub(crate) fn enter(
        &self,
        id: &WorkloadId,
        number: SessionNumber,
        record: ProxyRecord,
    ) -> Option<CancellationToken> {
        let replaced = CancellationToken::new();
        let connected = Connected {
            number,
            replaced: replaced.clone(),
            record,
        };
        {
            let mut proxies = self.proxies();
            let older = proxies.connected.get(id);
            if older.is_some_and(|older| older.number > number) {
                return None;
            }
            if let Some(older) = proxies.connected.insert(id.clone(), connected) {
                older.replaced.cancel();
            }
        }
        self.changes.send_replace(());
        Some(replaced)
    }

    /// The stream has ended; does nothing where a newer one took over.
    pub(crate) fn leave(&self, id: &WorkloadId, number: SessionNumber) {
        {
            let mut proxies = self.proxies();
            if proxies
                .connected
                .get(id)
                .is_none_or(|connected| connected.number != number)
            {
                return;
            }
            proxies.connected.remove(id);
        }
        self.changes.send_replace(());
    }

    /// Changes a proxy's record, and tells whoever waits if it differs.
    pub(crate) fn note(&self, id: &WorkloadId, number: SessionNumber, change: impl FnOnce(&mut ProxyRecord)) {
        let differs = {
            let mut proxies = self.proxies();
            let connected = proxies.connected.get_mut(id);
            let Some(connected) = connected.filter(|connected| connected.number == number) else {
                return;
            };
            let before = connected.record.clone();
            change(&mut connected.record);
            before != connected.record
        };
        if differs {
            self.changes.send_replace(());
        }
    }

    /// A workload has a new certificate, whatever its stream was opened with.
    pub(crate) fn certified(&self, id: &WorkloadId, validity: (SystemTime, SystemTime)) {
        if let Some(connected) = self.proxies().connected.get_mut(id) {
            connected.record.certificate = validity;
        }
    }

    /// A proxy compared its requests with routes in shadow. Nobody waits for that.
    pub(crate) fn compared(&self, id: &WorkloadId, number: SessionNumber, report: Arc<v1::ShadowReport>) {
        let mut proxies = self.proxies();
        let connected = proxies.connected.get_mut(id);
        if let Some(connected) = connected.filter(|connected| connected.number == number) {
            connected.record.shadow = report;
        }
    }

    /// Tells that some record has changed.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// All records.
    pub(crate) fn records(&self) -> BTreeMap<WorkloadId, ProxyRecord> {
        let proxies = self.proxies();
        let records = proxies.connected.iter();
        records
            .map(|(id, connected)| (id.clone(), connected.record.clone()))
            .collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.proxies().connected.len()
    }

    /// Waits until every connected proxy uses this generation or refused something of it.
    pub(crate) async fn settled(&self, generation: Generation) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let is_settled = {
                let proxies = self.proxies();
                proxies
                    .connected
                    .values()
                    .all(|connected| connected.record.judged >= generation)
            };
            // The sender lives in `self`.
            if is_settled || changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn proxies(&self) -> MutexGuard<'_, Proxies> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ProxyRecord {
        let now = SystemTime::now();
        ProxyRecord {
            connected_since: now,
            in_use: Generation(0),
            judged: Generation(0),
            refusal: None,
            certificate: (now, now),
            proxy_version: String::new(),
            ports: BTreeMap::new(),
            shadow: Arc::default(),
        }
    }

    #[tokio::test]
    async fn a_newer_stream_replaces_an_older_and_not_the_other_way_round() {
        let (fleet, id) = (Fleet::default(), "cart-1".parse().unwrap());
        let (first, second, third) = (fleet.next_number(), fleet.next_number(), fleet.next_number());
        let replaced = fleet.enter(&id, second, record()).unwrap();
        assert!(fleet.enter(&id, first, record()).is_none());
        assert!(!replaced.is_cancelled());
        assert!(fleet.enter(&id, third, record()).is_some());
        assert!(replaced.is_cancelled());
        fleet.leave(&id, second);
        assert_eq!(fleet.count(), 1, "it is the newer one's by now");
        fleet.leave(&id, third);
        assert_eq!(fleet.count(), 0);
    }

    #[tokio::test]
    async fn a_generation_is_settled_when_everybody_has_judged_it() {
        let (fleet, id) = (Fleet::default(), "cart-1".parse().unwrap());
        fleet.settled(Generation(9)).await;
        let number = fleet.next_number();
        fleet.enter(&id, number, record()).unwrap();
        let waiting = fleet.settled(Generation(2));
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        fleet.note(&id, number, |record| record.judged = Generation(1));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        fleet.note(&id, number, |record| record.judged = Generation(2));
        waiting.await;
    }
}
