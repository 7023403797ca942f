//! The one state of the mesh: every change is one transaction, then one generation, then everybody is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::SystemTime;

use model::workload::Workload;
use model::{Generation, SpiffeId, WorkloadId};
use proto::v1;
use tokio::sync::{Mutex, watch};

use crate::sources::{Object, ObjectKey, parse_documents};
use crate::store::{Batch, ObjectRecord, Remembered, Store, StoreError, WorkloadRecord};
use crate::view::{MeshState, StoredObject};

/// The state of the mesh, for all tasks.
pub(crate) struct Mesh {
    /// Held while a change is made and written.
    writing: Mutex<Written>,
    state: watch::Sender<Arc<MeshState>>,
    proxies: StdMutex<BTreeMap<WorkloadId, ProxyRecord>>,
    /// Bumped when any proxy's record changes.
    progress: watch::Sender<()>,
    pub(crate) store: Store,
}

/// What is kept beside the state, for the store and for operators.
#[derive(Default)]
struct Written {
    records: BTreeMap<ObjectKey, ObjectRecord>,
    files: BTreeMap<String, String>,
    workloads: BTreeMap<WorkloadId, WorkloadRecord>,
}

/// How a proxy stands, for operators.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProxyRecord {
    /// Which of a workload's streams this is; a newer one replaces an older.
    pub(crate) session: u64,
    pub(crate) connected_since: SystemTime,
    /// The mesh's generation in use, counting those that change nothing for it.
    pub(crate) generation: Generation,
    /// Nothing is unacknowledged or refused.
    pub(crate) in_sync: bool,
    pub(crate) refusal: Option<v1::Refusal>,
    /// From when and until when its certificate is valid, Unix seconds.
    pub(crate) certificate: (i64, i64),
    pub(crate) proxy_version: String,
}

/// Changes to configuration, made together.
#[derive(Debug, Default)]
pub(crate) struct ConfigChange {
    pub(crate) upserts: Vec<Upsert>,
    pub(crate) deletes: Vec<ObjectKey>,
    /// File name to the hash of what was taken from it; `None` forgets the file.
    pub(crate) files: Vec<(String, Option<String>)>,
}

#[derive(Debug)]
pub(crate) struct Upsert {
    pub(crate) object: Object,
    pub(crate) text: String,
    pub(crate) file: Option<String>,
}

/// The new state of a workload, with its record unless it keeps the one it has; `None` removes it.
type WorkloadChange = Option<(Workload, Option<WorkloadRecord>)>;

/// What became of one object of a [`ConfigChange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Created,
    Configured,
    Unchanged,
}

impl Mesh {
    /// The state as it was remembered. Objects that this version cannot read any more are left out, and said.
    pub(crate) fn new(store: Store, remembered: Remembered) -> Self {
        let mut state = MeshState {
            generation: Generation(remembered.generation),
            ..MeshState::default()
        };
        let mut written = Written {
            files: remembered.files.into_iter().collect(),
            ..Written::default()
        };
        for (key, record) in remembered.objects {
            match parse_documents(&key, &record.text).as_deref() {
                Ok([document]) => {
                    let key = document.object.key();
                    let stored = StoredObject {
                        object: document.object.clone(),
                        created: record.created,
                    };
                    state.objects.insert(key.clone(), stored);
                    written.records.insert(key, record);
                }
                Ok(_) => tracing::warn!(%key, "a remembered object is left out: not one document"),
                Err(problems) => {
                    let why = problems.first().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%key, why, "a remembered object is left out");
                }
            }
        }
        for (id, record) in remembered.workloads {
            match remembered_workload(&record) {
                Some(workload) => {
                    written.workloads.insert(workload.id.clone(), record);
                    state.workloads.insert(workload.id.clone(), workload);
                }
                None => tracing::warn!(id, "a remembered workload is left out"),
            }
        }
        Self {
            writing: Mutex::new(written),
            state: watch::Sender::new(Arc::new(state)),
            proxies: StdMutex::default(),
            progress: watch::Sender::new(()),
            store,
        }
    }

    pub(crate) fn state(&self) -> Arc<MeshState> {
        self.state.borrow().clone()
    }

    /// Tells of every new state.
    pub(crate) fn states(&self) -> watch::Receiver<Arc<MeshState>> {
        self.state.subscribe()
    }

    /// Tells of every change of a proxy's record.
    pub(crate) fn progress(&self) -> watch::Receiver<()> {
        self.progress.subscribe()
    }

    /// All proxies' records.
    pub(crate) fn proxies(&self) -> BTreeMap<WorkloadId, ProxyRecord> {
        self.proxies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes the records of proxies.
    pub(crate) fn with_proxies<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<WorkloadId, ProxyRecord>) -> T,
    ) -> T {
        let result = change(&mut self.proxies.lock().unwrap_or_else(PoisonError::into_inner));
        self.progress.send_replace(());
        result
    }

    /// Reads the records of proxies.
    pub(crate) fn with_proxies_read<T>(
        &self,
        read: impl FnOnce(&BTreeMap<WorkloadId, ProxyRecord>) -> T,
    ) -> T {
        read(&self.proxies.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes one proxy's record, if that stream is still the proxy's; tells only of what differs.
    pub(crate) fn note_proxy(&self, id: &WorkloadId, session: u64, change: impl FnOnce(&mut ProxyRecord)) {
        let differs = {
            let mut proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(record) = proxies.get_mut(id).filter(|record| record.session == session) else {
                return;
            };
            let before = record.clone();
            change(record);
            before != *record
        };
        if differs {
            self.progress.send_replace(());
        }
    }

    /// A workload has a new certificate, in Unix seconds; taken note of only where the workload is `identity`.
    pub(crate) fn certified(&self, id: &WorkloadId, identity: &SpiffeId, validity: (i64, i64)) {
        if self
            .state()
            .workloads
            .get(id)
            .is_none_or(|workload| workload.identity != *identity)
        {
            return;
        }
        self.with_proxies(|proxies| {
            if let Some(record) = proxies.get_mut(id) {
                record.certificate = validity;
            }
        });
    }

    /// What was written of an object: text and origin.
    pub(crate) async fn records(&self) -> BTreeMap<ObjectKey, ObjectRecord> {
        self.writing.lock().await.records.clone()
    }

    /// The hash of what was last taken from each file.
    pub(crate) async fn files(&self) -> BTreeMap<String, String> {
        self.writing.lock().await.files.clone()
    }

    /// Makes a change of configuration. Nothing is written, and no generation is counted, where nothing changes.
    pub(crate) async fn configure(
        &self,
        change: ConfigChange,
    ) -> Result<(Generation, Vec<Change>), StoreError> {
        let mut written = self.writing.lock().await;
        let mut state = MeshState::clone(&self.state());
        let next = state.generation.0 + 1;
        let (mut batch, mut changes) = (Batch::default(), Vec::new());
        let mut differs = false;
        for key in change.deletes {
            if state.objects.remove(&key).is_some() {
                differs = true;
                written.records.remove(&key);
                batch.objects.push((key.to_string(), None));
            }
        }
        for Upsert { object, text, file } in change.upserts {
            let key = object.key();
            let known = state.objects.get(&key);
            let outcome = match known {
                None => Change::Created,
                Some(known) if known.object == object => Change::Unchanged,
                Some(_) => Change::Configured,
            };
            let created = known.map_or(next, |known| known.created);
            let record = ObjectRecord { text, file, created };
            if written.records.get(&key) != Some(&record) {
                batch.objects.push((key.to_string(), Some(record.clone())));
                written.records.insert(key.clone(), record);
            }
            if outcome != Change::Unchanged {
                differs = true;
                state.objects.insert(key, StoredObject { object, created });
            }
            changes.push(outcome);
        }
        for (file, hash) in change.files {
            match &hash {
                Some(hash) => written.files.insert(file.clone(), hash.clone()),
                None => written.files.remove(&file),
            };
            batch.files.push((file, hash));
        }
        if differs {
            state.generation = Generation(next);
            batch.generation = Some(next);
        }
        let generation = state.generation;
        self.write(batch).await?;
        if differs {
            self.state.send_replace(Arc::new(state));
        }
        Ok((generation, changes))
    }

    /// Adds or replaces a workload.
    pub(crate) async fn put_workload(
        &self,
        workload: Workload,
        hello: &v1::Hello,
    ) -> Result<Generation, StoreError> {
        let record = WorkloadRecord::new(workload.identity.to_string(), hello);
        let id = workload.id.clone();
        self.change_workloads(vec![(id, Some((workload, Some(record))))])
            .await
    }

    /// Says whether a workload's application accepts connections.
    pub(crate) async fn set_ready(&self, id: &WorkloadId, ready: bool) -> Result<(), StoreError> {
        let Some(mut workload) = self.state().workloads.get(id).cloned() else {
            return Ok(());
        };
        workload.ready = ready;
        self.change_workloads(vec![(id.clone(), Some((workload, None)))])
            .await
            .map(drop)
    }

    pub(crate) async fn remove_workloads(&self, ids: &[WorkloadId]) -> Result<(), StoreError> {
        self.change_workloads(ids.iter().map(|id| (id.clone(), None)).collect())
            .await
            .map(drop)
    }

    /// `None` removes; a workload without a record keeps the one it has, with its new readiness.
    async fn change_workloads(
        &self,
        changes: Vec<(WorkloadId, WorkloadChange)>,
    ) -> Result<Generation, StoreError> {
        let mut written = self.writing.lock().await;
        let mut state = MeshState::clone(&self.state());
        let (mut batch, mut differs) = (Batch::default(), false);
        for (id, change) in changes {
            match change {
                None => {
                    differs |= state.workloads.remove(&id).is_some();
                    written.workloads.remove(&id);
                    batch.workloads.push((id.to_string(), None));
                }
                Some((workload, record)) => {
                    differs |= state.workloads.get(&id) != Some(&workload);
                    let known = written.workloads.get(&id);
                    // Whether it was ready is remembered across a restart: until it is back it stays an endpoint, or none.
                    let record = record.or_else(|| known?.with_ready(workload.ready).ok());
                    state.workloads.insert(id.clone(), workload);
                    if let Some(record) = record {
                        written.workloads.insert(id.clone(), record.clone());
                        batch.workloads.push((id.to_string(), Some(record)));
                    }
                }
            }
        }
        if differs {
            state.generation.0 += 1;
            batch.generation = Some(state.generation.0);
        }
        let generation = state.generation;
        self.write(batch).await?;
        if differs {
            self.state.send_replace(Arc::new(state));
        }
        Ok(generation)
    }

    async fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.commit(batch))
            .await
            .map_err(|_| StoreError::Ended)?
    }
}

/// The workload as it was last seen; `None` where the record cannot be read.
fn remembered_workload(record: &WorkloadRecord) -> Option<Workload> {
    let identity: SpiffeId = record.identity.parse().ok()?;
    let hello = record.hello().ok()?;
    proto::convert::workload_from_wire(&hello, &identity).ok()
}
