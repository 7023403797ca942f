//! The one task that changes the mesh. What is asked for while the disk is busy is written together.

use std::sync::Arc;
use std::time::SystemTime;

use model::Generation;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::change::{Change, ChangeError, Wish};
use super::draft::{Draft, Overlay};
use crate::settings::Limits;
use crate::store::{Store, StoreError};
use crate::view::{StoredObject, served_by};

/// Most changes of one transaction.
const MAX_BATCH: usize = 256;

/// Makes the changes that are asked for, until every [`super::Mesh`] is gone.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    store: Arc<Store>,
    wishes: mpsc::Receiver<Wish>,
    limits: Limits,
}

/// Tells whoever waits what became of it, once it is known whether it was stored.
type Tell = Box<dyn FnOnce(Result<Generation, &Arc<StoreError>>) + Send>;

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: Arc<Store>,
        wishes: mpsc::Receiver<Wish>,
        limits: &Limits,
    ) -> Self {
        Self {
            shared,
            store,
            wishes,
            limits: limits.clone(),
        }
    }

    pub(crate) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.wishes.recv_many(&mut batch, MAX_BATCH).await > 0 {
            self.make(std::mem::take(&mut batch)).await;
        }
    }

    async fn make(&self, batch: Vec<Wish>) {
        let (overlay, tell) = self.draft(batch);
        let stored = match overlay.is_empty() {
            true => Ok(()),
            false => self.store(&overlay).await,
        };
        let told = match stored {
            Ok(()) => Ok(self.publish(overlay)),
            Err(error) => {
                // A full disk must not take live workloads from their callers; configuration can wait.
                let error = Arc::new(error);
                tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "a change was not stored"
                );
                let overlay = overlay.without_configuration(&self.shared.contents());
                self.publish(overlay);
                Err(error)
            }
        };
        for tell in tell {
            tell(told.as_ref().map(|generation| *generation));
        }
    }

    fn draft(&self, batch: Vec<Wish>) -> (Overlay, Vec<Tell>) {
        let contents = self.shared.contents();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let mut draft = Draft::new(&contents, &self.limits, now.unwrap_or_default().as_secs());
        let tell = batch.into_iter().map(|wish| make(&mut draft, wish)).collect();
        (draft.finish(), tell)
    }

    async fn store(&self, overlay: &Overlay) -> Result<(), StoreError> {
        let (store, commit) = (self.store.clone(), overlay.commit());
        tokio::task::spawn_blocking(move || store.commit(&commit))
            .await
            .unwrap_or(Err(StoreError::Ended))
    }

    /// Makes the overlay the state. Returns its generation.
    fn publish(&self, overlay: Overlay) -> Generation {
        let mut contents = self.shared.contents();
        let before = contents.state.generation;
        contents.state.generation = overlay.generation;
        if overlay.generation != before && !overlay.objects.is_empty() {
            contents.catalogue.forget_all();
        }
        for (key, change) in overlay.objects {
            match change {
                Some((object, record)) => {
                    let created = record.created;
                    contents.records.insert(key.clone(), record);
                    contents
                        .state
                        .objects
                        .insert(key, StoredObject { object, created });
                }
                None => {
                    contents.records.remove(&key);
                    contents.state.objects.remove(&key);
                }
            }
        }
        for (file, hash) in overlay.files {
            match hash {
                Some(hash) => contents.files.insert(file, hash),
                None => contents.files.remove(&file),
            };
        }
        contents.owners.extend(overlay.owners);
        for (id, change) in overlay.workloads {
            // The endpoints of exactly these services differ.
            let mut affected = served_by(&contents.state, &id);
            match change {
                Some(workload) => drop(contents.state.workloads.insert(id.clone(), workload)),
                None => {
                    contents.owners.remove(&id);
                    contents.state.workloads.remove(&id);
                }
            }
            affected.extend(served_by(&contents.state, &id));
            contents.catalogue.forget_workload(&id, &affected);
        }
        drop(contents);
        if overlay.generation != before {
            self.shared.generation.send_replace(overlay.generation);
        }
        overlay.generation
    }
}

/// Puts one wish into the draft.
fn make(draft: &mut Draft<'_>, wish: Wish) -> Tell {
    match wish {
        Wish::Configure { change, answer } => {
            let made = draft.configure(&change);
            Box::new(move |stored| {
                let outcome = made.and_then(|changes: Vec<Change>| match stored {
                    Ok(generation) => Ok((generation, changes)),
                    Err(error) => Err(ChangeError::Store(error.clone())),
                });
                let _ = answer.send(outcome);
            })
        }
        Wish::Join {
            workload,
            session,
            answer,
        } => regardless(draft.join(&workload, session), answer),
        Wish::Ready {
            id,
            session,
            ready,
            answer,
        } => regardless(draft.ready(&id, session, ready), answer),
        Wish::Leave { id, session, answer } => {
            draft.leave(&id, session);
            regardless(Ok(()), answer)
        }
        Wish::EndGrace { answer } => regardless(Ok(draft.end_grace()), answer),
    }
}

/// Changes of workloads are made whether or not they could be stored.
fn regardless<T: Send + 'static>(
    made: Result<T, ChangeError>,
    answer: oneshot::Sender<Result<T, ChangeError>>,
) -> Tell {
    Box::new(move |_| {
        // Whoever asked may be gone; the change is made all the same.
        let _ = answer.send(made);
    })
}
