//! What can be changed, and why a change is not made.

use std::sync::Arc;

use model::workload::Workload;
use model::{Generation, SpiffeId, WorkloadId};
use tokio::sync::oneshot;

use super::SessionNumber;
use crate::sources::{Object, ObjectKey};
use crate::store::StoreError;

/// Changes to configuration, made together.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConfigChange {
    pub(crate) upserts: Vec<Upsert>,
    pub(crate) deletes: Vec<Delete>,
    /// File name to the hash of what was taken from it; `None` forgets the file.
    pub(crate) files: Vec<(String, Option<String>)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Upsert {
    pub(crate) object: Object,
    pub(crate) text: String,
    /// The file it comes from; `None` for `weft apply`.
    pub(crate) file: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Delete {
    pub(crate) key: ObjectKey,
    /// Only while the object comes from this file.
    pub(crate) only_from: Option<String>,
}

/// What became of one object of a [`ConfigChange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Created,
    Configured,
    Unchanged,
}

/// Why nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("the store failed: {0}")]
    Store(Arc<StoreError>),
    #[error("there would be more than {limit} configuration objects")]
    TooManyObjects { limit: usize },
    #[error("there are already {limit} workloads")]
    TooManyWorkloads { limit: usize },
    #[error("workload {id} belongs to {owner}")]
    IdTaken { id: WorkloadId, owner: SpiffeId },
    #[error("a newer stream of the same workload has taken over")]
    Superseded,
    #[error("the control plane is stopping")]
    Stopped,
}

impl From<ChangeError> for tonic::Status {
    fn from(error: ChangeError) -> Self {
        let text = error.to_string();
        match error {
            ChangeError::Store(error) => {
                tracing::error!(error = &*error as &dyn std::error::Error, "the store failed");
                Self::internal("the store failed; the control plane's log says why")
            }
            ChangeError::TooManyObjects { .. } | ChangeError::TooManyWorkloads { .. } => {
                Self::resource_exhausted(text)
            }
            ChangeError::IdTaken { .. } => Self::already_exists(text),
            ChangeError::Superseded => Self::aborted(text),
            ChangeError::Stopped => Self::unavailable(text),
        }
    }
}

type Answer<T> = oneshot::Sender<Result<T, ChangeError>>;

/// A change that somebody waits for.
pub(super) enum Wish {
    Configure {
        change: ConfigChange,
        answer: Answer<(Generation, Vec<Change>)>,
    },
    Join {
        workload: Box<Workload>,
        session: SessionNumber,
        answer: Answer<()>,
    },
    Ready {
        id: WorkloadId,
        session: SessionNumber,
        ready: bool,
        answer: Answer<()>,
    },
    Leave {
        id: WorkloadId,
        session: SessionNumber,
        answer: Answer<()>,
    },
    EndGrace {
        answer: Answer<usize>,
    },
}
