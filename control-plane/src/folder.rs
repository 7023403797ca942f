//! The watched folder: what changes in its files changes the mesh; a file that is wrong changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::mesh::{ConfigChange, Mesh, Upsert};
use crate::sources::{DEBOUNCE, Diagnostic, ObjectKey, WatchError, Watcher, parse_documents, read_folder};
use crate::store::{ObjectRecord, StoreError};

/// A folder of configuration, or none.
pub(crate) struct Folder {
    path: Option<PathBuf>,
    /// What is wrong with its files now.
    problems: Mutex<Vec<Diagnostic>>,
}

impl Folder {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            problems: Mutex::default(),
        }
    }

    /// What is wrong with the files now.
    pub(crate) fn problems(&self) -> Vec<Diagnostic> {
        self.problems
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Begins to watch; `None` where there is no folder.
    pub(crate) fn watch(&self) -> Result<Option<Watcher>, WatchError> {
        self.path
            .as_deref()
            .map(|path| Watcher::start(path, DEBOUNCE))
            .transpose()
    }

    /// Takes every change until stopped.
    pub(crate) async fn follow(&self, mut watcher: Watcher, mesh: &Mesh, stopping: CancellationToken) {
        loop {
            tokio::select! {
                changed = watcher.changed() => if changed.is_none() { return },
                () = stopping.cancelled() => return,
            }
            if let Err(error) = self.take(mesh).await {
                tracing::error!(%error, "the store failed");
            }
        }
    }

    /// Takes what the folder says now. A file whose content is known already changes nothing, so that what an
    /// operator applied since stays; a file with a problem keeps what was last taken from it.
    pub(crate) async fn take(&self, mesh: &Mesh) -> Result<(), StoreError> {
        let Some(path) = self.path.clone() else {
            return Ok(());
        };
        let read = tokio::task::spawn_blocking(move || read_folder(&path)).await;
        let (change, problems) = match read.map_err(|_| StoreError::Ended)? {
            Err(problems) => (ConfigChange::default(), problems),
            Ok(files) => changes_of(&files, &mesh.files().await, &mesh.records().await),
        };
        for problem in &problems {
            tracing::error!("{problem}");
        }
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
        let (generation, _) = mesh.configure(change).await?;
        tracing::info!(%generation, "read the configuration folder");
        Ok(())
    }
}

/// What a folder's files change, compared with what was taken from them before. Pure.
fn changes_of(
    files: &[(String, String)],
    known: &BTreeMap<String, String>,
    records: &BTreeMap<ObjectKey, ObjectRecord>,
) -> (ConfigChange, Vec<Diagnostic>) {
    let (mut change, mut problems) = (ConfigChange::default(), Vec::new());
    let mut given: BTreeMap<ObjectKey, String> = BTreeMap::new();
    for (file, text) in files {
        let documents = match parse_documents(file, text) {
            Ok(documents) => documents,
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        let hash = hex::encode(Sha256::digest(text));
        let is_known = known.get(file) == Some(&hash);
        let mut now = BTreeSet::new();
        for document in documents {
            let key = document.object.key();
            if let Some(other) = given.get(&key) {
                let why = format!("{key} is already given in {other}");
                problems.push(Diagnostic {
                    line: document.line,
                    column: 1,
                    ..Diagnostic::of_file(file, why)
                });
                continue;
            }
            given.insert(key.clone(), file.clone());
            now.insert(key);
            if !is_known {
                let file = Some(file.clone());
                change.upserts.push(Upsert {
                    object: document.object,
                    text: document.text,
                    file,
                });
            }
        }
        if !is_known {
            change.deletes.extend(
                from_file(records, file)
                    .filter(|key| !now.contains(*key))
                    .cloned(),
            );
            change.files.push((file.clone(), Some(hash)));
        }
    }
    for file in known
        .keys()
        .filter(|file| !files.iter().any(|(name, _)| name == *file))
    {
        change.deletes.extend(
            from_file(records, file)
                .filter(|key| !given.contains_key(*key))
                .cloned(),
        );
        change.files.push((file.clone(), None));
    }
    (change, problems)
}

/// The objects that were last written by this file, and not by an operator since.
fn from_file<'r>(
    records: &'r BTreeMap<ObjectKey, ObjectRecord>,
    file: &'r str,
) -> impl Iterator<Item = &'r ObjectKey> {
    records
        .iter()
        .filter(move |(_, record)| record.file.as_deref() == Some(file))
        .map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CART: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: cart}\nspec: {selector: {app: cart}, ports: [{port: 80}]}\n";

    fn file(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    fn taken(name: &str, text: &str) -> (BTreeMap<String, String>, BTreeMap<ObjectKey, ObjectRecord>) {
        let (change, problems) = changes_of(&[file(name, text)], &BTreeMap::new(), &BTreeMap::new());
        assert_eq!(problems, []);
        let files = change
            .files
            .into_iter()
            .filter_map(|(file, hash)| Some((file, hash?)))
            .collect();
        let record = |upsert: Upsert| {
            (
                upsert.object.key(),
                ObjectRecord {
                    text: upsert.text,
                    file: upsert.file,
                    created: 1,
                },
            )
        };
        (files, change.upserts.into_iter().map(record).collect())
    }

    #[test]
    fn a_known_file_changes_nothing_and_a_missing_one_deletes() {
        let (files, records) = taken("a.yaml", CART);
        let (same, _) = changes_of(&[file("a.yaml", CART)], &files, &records);
        assert!(same.upserts.is_empty() && same.deletes.is_empty() && same.files.is_empty());
        let (gone, _) = changes_of(&[], &files, &records);
        assert_eq!(gone.deletes.len(), 1);
    }

    #[test]
    fn what_an_operator_applied_is_not_deleted_with_the_file() {
        let (files, mut records) = taken("a.yaml", CART);
        records.values_mut().for_each(|record| record.file = None);
        let (gone, _) = changes_of(&[], &files, &records);
        assert_eq!(gone.deletes, []);
    }

    #[test]
    fn a_bad_file_keeps_its_objects() {
        let (files, records) = taken("a.yaml", CART);
        let (change, problems) = changes_of(&[file("a.yaml", "kind: [")], &files, &records);
        assert!(!problems.is_empty());
        assert!(change.deletes.is_empty() && change.files.is_empty());
    }

    #[test]
    fn an_object_that_moves_between_files_is_not_deleted() {
        let (files, records) = taken("a.yaml", CART);
        let (change, _) = changes_of(&[file("b.yaml", CART)], &files, &records);
        assert_eq!((change.upserts.len(), change.deletes.len()), (1, 0));
    }
}
