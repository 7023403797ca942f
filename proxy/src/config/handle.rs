//! What the rest of the proxy sees of its configuration: the snapshot in use, and a way to learn a
//! destination.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use model::{Question, ServiceName, Snapshot};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::interest::{Interest, InterestLimits, Questions};
use super::status::{ConfigStatus, PortReport, Progress};
use crate::shadow::Ledger;

/// The configuration in use, for any thread. Cheap to clone.
#[derive(Clone)]
pub struct ConfigHandle {
    shared: Arc<Shared>,
}

/// What [`ConfigHandle::learn`] found out.
#[derive(Debug, Clone)]
pub enum Learned {
    /// The snapshot has the destination.
    Exists(Arc<Snapshot>),
    /// The control plane says that there is no such service.
    DoesNotExist(Arc<Snapshot>),
    /// No answer within the wait; the question stands, and a later request may find the answer.
    TimedOut,
    /// Not asked: the limit of subscriptions is reached.
    TooMany {
        /// [`InterestLimits::destinations`].
        limit: usize,
    },
}

impl ConfigHandle {
    pub(super) fn new(limits: InterestLimits) -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::default(),
            changes: watch::Sender::new(()),
            interest: Mutex::new(Interest::new(limits)),
            questions: Notify::new(),
            limits,
            ready: watch::Sender::new(false),
            ports: watch::Sender::new(None),
            leave: watch::Sender::new(false),
            left: watch::Sender::new(None),
            progress: Mutex::new(Progress::default()),
            ledger: Arc::default(),
        });
        (
            Self {
                shared: shared.clone(),
            },
            shared,
        )
    }

    /// A handle without a [`super::ConfigTask`]: the snapshot stays what it is, and nobody answers
    /// [`ConfigHandle::learn`].
    pub fn fixed(snapshot: Snapshot) -> Self {
        let (handle, shared) = Self::new(InterestLimits::default());
        shared.ledger.follow(&snapshot);
        shared.publish(Arc::new(snapshot));
        handle
    }

    /// The snapshot in use; a request takes it once and keeps it to its end.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// For workers that keep an [`arc_swap::cache::Cache`] of their own.
    pub fn snapshots(&self) -> &ArcSwap<Snapshot> {
        &self.shared.snapshot
    }

    /// Finds out whether a service exists. What is known is answered at once, by one atomic load; for
    /// anything else the control plane is asked, once however many wait, for at most `wait`.
    pub async fn learn(&self, service: &ServiceName, wait: Duration) -> Learned {
        self.ask(&service.clone().into(), wait).await
    }

    /// The same for the question which workload has an address.
    pub async fn locate(&self, address: SocketAddr, wait: Duration) -> Learned {
        self.ask(&Question::Address(address), wait).await
    }

    async fn ask(&self, question: &Question, wait: Duration) -> Learned {
        if let Some(learned) = self.known(question) {
            return learned;
        }
        let mut changes = self.shared.changes.subscribe();
        if !self.prefetch(question) {
            return Learned::TooMany {
                limit: self.shared.limits.destinations,
            };
        }
        let answer = async {
            loop {
                if let Some(learned) = self.known(question) {
                    return learned;
                }
                if changes.changed().await.is_err() {
                    return Learned::TimedOut;
                }
            }
        };
        timeout(wait, answer).await.unwrap_or(Learned::TimedOut)
    }

    /// Asks for a destination that will be needed, without waiting; false where the limit is reached.
    pub fn prefetch(&self, question: &Question) -> bool {
        let wanted = self.shared.interest().want(question);
        match wanted {
            Ok(true) => self.shared.questions.notify_one(),
            Ok(false) => {}
            Err(_) => {
                if self.shared.progress().note_full(Instant::now()) {
                    let limit = self.shared.limits.destinations;
                    tracing::warn!(limit, %question, "no more destinations can be subscribed to");
                }
                return false;
            }
        }
        true
    }

    /// Waits until the control plane's first update is in use; false where `wait` passed before.
    pub async fn configured(&self, wait: Duration) -> bool {
        let mut changes = self.shared.changes.subscribe();
        let first = async {
            while self.shared.progress().updates == 0 {
                if changes.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        timeout(wait, first).await.unwrap_or(false)
    }

    /// Says whether the application accepts connections; a workload that is not ready is no endpoint.
    pub fn set_ready(&self, ready: bool) {
        self.shared
            .ready
            .send_if_modified(|now| std::mem::replace(now, ready) != ready);
    }

    pub fn is_ready(&self) -> bool {
        *self.shared.ready.borrow()
    }

    /// Fires after every change of the snapshot.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changes.subscribe()
    }

    /// Says how the ports of a gateway stand: all of them, each time.
    pub fn report_ports(&self, ports: Vec<PortReport>) {
        self.shared.ports.send_if_modified(|now| {
            let is_new = now.as_ref() != Some(&ports);
            *now = Some(ports);
            is_new
        });
    }

    /// Tells the control plane that this workload serves no more, and ends the [`super::ConfigTask`]. True
    /// when the control plane has confirmed it within `within`; the snapshot stays in use either way.
    pub async fn leave(&self, within: Duration) -> bool {
        self.shared.leave.send_replace(true);
        let mut left = self.shared.left.subscribe();
        let answer = async {
            left.wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|told| *told)
                .unwrap_or(false)
        };
        timeout(within, answer).await.unwrap_or(false)
    }

    /// Where requests are compared with what is in shadow.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }

    /// How the config stream stands, for the admin page.
    pub fn status(&self) -> ConfigStatus {
        let interest = self.shared.interest().counts();
        let generation = self.shared.snapshot.load().generation;
        self.shared.progress().status(generation, interest)
    }

    fn known(&self, question: &Question) -> Option<Learned> {
        let snapshot = self.shared.snapshot.load();
        let exists = snapshot.answer(question)?;
        let snapshot = Arc::clone(&snapshot);
        Some(if exists {
            Learned::Exists(snapshot)
        } else {
            Learned::DoesNotExist(snapshot)
        })
    }
}

/// What the handles and the task share. Only unknown names and rare events take a lock here.
pub(super) struct Shared {
    pub(super) snapshot: ArcSwap<Snapshot>,
    /// Fires after every change of `snapshot`.
    changes: watch::Sender<()>,
    interest: Mutex<Interest>,
    /// Fires when `interest` has something to tell the control plane.
    pub(super) questions: Notify,
    limits: InterestLimits,
    pub(super) ready: watch::Sender<bool>,
    /// Of a gateway, once something is known of them.
    pub(super) ports: watch::Sender<Option<Vec<PortReport>>>,
    pub(super) leave: watch::Sender<bool>,
    /// Whether the control plane was told, once the task has ended.
    pub(super) left: watch::Sender<Option<bool>>,
    progress: Mutex<Progress>,
    /// How requests compare with what is in shadow.
    pub(super) ledger: Arc<Ledger>,
}

impl Shared {
    pub(super) fn interest(&self) -> MutexGuard<'_, Interest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.store(snapshot);
        self.changes.send_replace(());
    }

    /// Takes what the control plane has to be told, and lets go of what was forgotten.
    pub(super) fn take_questions(&self, take: impl FnOnce(&mut Interest) -> Questions) -> Questions {
        let questions = take(&mut self.interest());
        let current = self.snapshot.load_full();
        let is_stale = |question: &Question| current.answer(question) == Some(false);
        if questions.forget.iter().any(is_stale) {
            let mut next = Snapshot::clone(&current);
            for question in questions.forget.iter().filter(|question| is_stale(question)) {
                next.forget(question);
            }
            self.publish(Arc::new(next));
        }
        questions
    }

    /// Ends once somebody called [`ConfigHandle::leave`].
    pub(super) async fn asked_to_leave(&self) {
        // The sender lives in `self`, so that this cannot fail while it is waited for.
        let _ = self.leave.subscribe().wait_for(|leave| *leave).await;
    }
}
