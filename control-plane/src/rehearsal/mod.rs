//! What a mesh would do, told from configuration alone: nothing is started, stored or sent.
//!
//! [`Configuration`] is read from files, and [`Live`] from what a control plane answers; [`review`] says what is wrong
//! with one, [`explain`] what becomes of a request in it, and [`diff`] what is different in the other. All of them ask
//! [`crate::view`] what sidecars would be told, and [`decision`] what those would do.

mod call;
mod called;
mod diff;
mod explain;
mod explanation;
mod live;
mod outcome;
mod policies;
mod review;
#[cfg(test)]
mod tests;
mod words;

use model::{Generation, MeshDomain};

use crate::sources::{Diagnostic, FileDocument, Object, Unusable, parse_files};
use crate::view::{MeshState, StoredObject};

pub use call::{Call, Caller};
pub use diff::{Change, Difference, Moved, ObjectChange, RuleChange, UseChange, diff};
pub use explain::explain;
pub use explanation::{
    Asked, Candidate, Chosen, Destination, Explanation, Governing, HeaderChange, Listening, Outcome, Retry,
    Share, Timeouts, Verdict,
};
pub use live::{Live, LiveError, Serving};
pub use review::{Finding, Severity, review};

/// Objects of files, all of the same age, as if they were applied together.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    /// Their names, also of those without an object.
    files: Vec<String>,
    documents: Vec<FileDocument>,
}

impl Configuration {
    /// Reads files, given as name and text.
    ///
    /// # Errors
    /// Everything that `weft apply` would refuse.
    pub fn read<'t>(files: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<Self, Vec<Diagnostic>> {
        let files: Vec<(&str, &str)> = files.into_iter().collect();
        let documents = parse_files(files.iter().copied(), Unusable::Refused)?;
        Ok(Self {
            files: files.into_iter().map(|(name, _)| name.to_owned()).collect(),
            documents,
        })
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// The mesh that has these objects and no other.
    pub fn state(&self) -> MeshState {
        let first = Generation(1);
        let stored = self.objects().map(|object| {
            let stored = StoredObject {
                object: object.clone(),
                created: first.0,
            };
            (object.key(), stored)
        });
        MeshState {
            generation: first,
            objects: stored.collect(),
            ..MeshState::default()
        }
    }

    fn objects(&self) -> impl Iterator<Item = &Object> {
        self.documents.iter().map(|of_file| &of_file.document.object)
    }
}

/// A mesh that is asked.
#[derive(Debug, Clone, Copy)]
pub struct Rehearsed<'a> {
    pub state: &'a MeshState,
    /// The suffix of service names, which each sidecar is told by a flag.
    pub domain: &'a MeshDomain,
    /// Which workloads serve what; `None` where that is not known, as for files alone.
    pub serving: Option<&'a Serving>,
}
