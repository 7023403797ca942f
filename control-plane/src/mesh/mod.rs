//! The one state of the mesh: every change is one transaction, then one generation, then everybody is told.
//!
//! Readers take a lock for as long as they look. Changes of configuration and of workloads alike go through one
//! [`Writer`], so that a caller who gives up half-way leaves nothing half-done.

mod catalogue;
mod change;
mod draft;
mod writer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::workload::Workload;
use model::{Generation, OutsideHosts, Question, WorkloadId};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use catalogue::{Encoded, Known};
pub(crate) use change::{Change, ChangeError, ConfigChange, Delete, Upsert};
pub(crate) use writer::Writer;

use self::catalogue::Catalogue;
use self::change::Wish;
use crate::settings::Limits;
use crate::sources::{Diagnostic, ObjectKey, parse_documents};
use crate::store::{ObjectRecord, Remembered, Store};
use crate::view::{MeshState, StoredObject};

/// Counts the streams of proxies; a higher one is newer. 0 is a workload that is remembered from before a restart.
pub(crate) type SessionNumber = u64;

/// The state of the mesh, for all tasks. Clones share it.
#[derive(Clone)]
pub(crate) struct Mesh {
    shared: Arc<Shared>,
    wishes: mpsc::Sender<Wish>,
}

struct Shared {
    contents: Mutex<Contents>,
    generation: watch::Sender<Generation>,
}

/// Everything behind the lock.
struct Contents {
    state: MeshState,
    /// The text and origin of every object.
    records: BTreeMap<ObjectKey, ObjectRecord>,
    /// The hash of what was last taken from each file.
    files: BTreeMap<String, String>,
    /// Which stream keeps a workload: only that one can take it away.
    owners: HashMap<WorkloadId, SessionNumber>,
    catalogue: Catalogue,
    /// Remembered objects that this version cannot read any more.
    unreadable: Vec<Diagnostic>,
}

impl Mesh {
    /// The state as it was remembered, and the writer that must run for it to change. What this version cannot
    /// read any more is left out, and said.
    pub(crate) fn new(
        store: Arc<Store>,
        remembered: Remembered,
        outside: OutsideHosts,
        limits: &Limits,
    ) -> (Self, Writer) {
        let mut contents = Contents::remembered(remembered);
        contents.state.outside = outside;
        let (wishes, received) = mpsc::channel(limits.queued_changes);
        let shared = Arc::new(Shared {
            generation: watch::Sender::new(contents.state.generation),
            contents: Mutex::new(contents),
        });
        let writer = Writer::new(shared.clone(), store, received, limits);
        (Self { shared, wishes }, writer)
    }

    /// Looks at the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&MeshState) -> T) -> T {
        look(&self.shared.contents().state)
    }

    /// Looks at the state and at what was written of its objects.
    pub(crate) fn read_written<T>(
        &self,
        look: impl FnOnce(&MeshState, &BTreeMap<ObjectKey, ObjectRecord>) -> T,
    ) -> T {
        let contents = self.shared.contents();
        look(&contents.state, &contents.records)
    }

    /// What a workload must be told, at which generation.
    pub(crate) fn resources_for(
        &self,
        workload: &WorkloadId,
        subscriptions: &BTreeSet<Question>,
    ) -> (Generation, Known) {
        let mut contents = self.shared.contents();
        let Contents { state, catalogue, .. } = &mut *contents;
        let known = catalogue.resources_for(state, workload, subscriptions);
        (state.generation, known)
    }

    /// Tells of every new generation.
    pub(crate) fn generations(&self) -> watch::Receiver<Generation> {
        self.shared.generation.subscribe()
    }

    pub(crate) fn generation(&self) -> Generation {
        *self.shared.generation.borrow()
    }

    /// The hash of what was last taken from each file.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        self.shared.contents().files.clone()
    }

    /// Remembered objects that this version cannot read any more.
    pub(crate) fn unreadable(&self) -> Vec<Diagnostic> {
        self.shared.contents().unreadable.clone()
    }

    /// Makes a change of configuration, all of it or nothing. No generation is counted where nothing differs.
    pub(crate) async fn configure(
        &self,
        change: ConfigChange,
    ) -> Result<(Generation, Vec<Change>), ChangeError> {
        let (answer, answered) = oneshot::channel();
        self.wish(Wish::Configure { change, answer }, answered).await
    }

    /// Adds or replaces a workload, which belongs to this stream from now on.
    pub(crate) async fn join(&self, workload: Workload, session: SessionNumber) -> Result<(), ChangeError> {
        let (answer, answered) = oneshot::channel();
        let wish = Wish::Join {
            workload: Box::new(workload),
            session,
            answer,
        };
        self.wish(wish, answered).await
    }

    /// Says whether the application of this stream's workload accepts connections.
    pub(crate) async fn set_ready(
        &self,
        id: &WorkloadId,
        session: SessionNumber,
        ready: bool,
    ) -> Result<(), ChangeError> {
        let (answer, answered) = oneshot::channel();
        let wish = Wish::Ready {
            id: id.clone(),
            session,
            ready,
            answer,
        };
        self.wish(wish, answered).await
    }

    /// Takes a workload away, unless another stream has it by now.
    pub(crate) async fn leave(&self, id: &WorkloadId, session: SessionNumber) -> Result<(), ChangeError> {
        let (answer, answered) = oneshot::channel();
        let wish = Wish::Leave {
            id: id.clone(),
            session,
            answer,
        };
        self.wish(wish, answered).await
    }

    /// Takes all workloads away that are only remembered. Returns how many.
    pub(crate) async fn end_grace(&self) -> Result<usize, ChangeError> {
        let (answer, answered) = oneshot::channel();
        self.wish(Wish::EndGrace { answer }, answered).await
    }

    async fn wish<T>(
        &self,
        wish: Wish,
        answered: oneshot::Receiver<Result<T, ChangeError>>,
    ) -> Result<T, ChangeError> {
        self.wishes.send(wish).await.map_err(|_| ChangeError::Stopped)?;
        answered.await.map_err(|_| ChangeError::Stopped)?
    }
}

impl Shared {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn remembered(remembered: Remembered) -> Self {
        let mut contents = Self {
            state: MeshState {
                generation: Generation(remembered.generation),
                ..MeshState::default()
            },
            records: BTreeMap::new(),
            files: remembered.files.into_iter().collect(),
            owners: HashMap::new(),
            catalogue: Catalogue::default(),
            unreadable: Vec::new(),
        };
        for (name, record) in remembered.objects {
            contents.remember_object(&name, record);
        }
        for (id, record) in remembered.workloads {
            match record.read(&id) {
                Ok(workload) => drop(contents.state.workloads.insert(workload.id.clone(), workload)),
                Err(error) => tracing::warn!(id, %error, "a remembered workload is left out"),
            }
        }
        contents
    }

    fn remember_object(&mut self, name: &str, record: ObjectRecord) {
        let file = format!("{name} (remembered, from {})", record.source());
        match parse_documents(&file, &record.text).as_deref() {
            Ok([document]) => {
                let key = document.object.key();
                let stored = StoredObject {
                    object: document.object.clone(),
                    created: record.created,
                };
                self.state.objects.insert(key.clone(), stored);
                self.records.insert(key, record);
            }
            Ok(_) => {
                let problem = Diagnostic::of_file(&file, "is not one document, and is left out");
                self.unreadable.push(problem);
            }
            Err(problems) => self.unreadable.extend_from_slice(problems),
        }
    }
}
