//! The watched folder: what changes in its files changes the mesh; a file that is wrong changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::mesh::{ConfigChange, Delete, Mesh, Upsert};
use crate::sources::{
    DEBOUNCE, Diagnostic, MAX_DIAGNOSTICS, ObjectKey, WatchError, Watcher, parse_whole_documents, read_folder,
};
use crate::store::ObjectRecord;
use crate::tasks::Tasks;
use crate::view::Judge;

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

    /// Takes every change until the control plane stops.
    pub(crate) async fn follow(&self, mut watcher: Watcher, mesh: &Mesh, tasks: &Tasks) {
        loop {
            tokio::select! {
                changed = watcher.changed() => if changed.is_none() { return },
                () = tasks.stopping() => return,
            }
            self.take(mesh).await;
        }
    }

    /// Takes what the folder says now. A file whose content is known already changes nothing, so that what an
    /// operator applied since stays; a file with a problem keeps what was last taken from it.
    pub(crate) async fn take(&self, mesh: &Mesh) {
        let Some(path) = self.path.clone() else {
            return;
        };
        let (known, records) = (mesh.files(), mesh.read_written(|_, records| records.clone()));
        let place = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || match read_folder(&path) {
            Ok(files) => changes_of(&files, &known, &records),
            Err(problems) => (ConfigChange::default(), problems),
        });
        let (change, mut problems) = match read.await {
            Ok(read) => read,
            Err(_) => {
                let problem = Diagnostic::of_file(&place, "reading the folder was cut off");
                (ConfigChange::default(), vec![problem])
            }
        };
        let taken: Vec<(String, ObjectKey)> = change
            .upserts
            .iter()
            .map(|upsert| (upsert.file.clone().unwrap_or_default(), upsert.object.key()))
            .collect();
        match mesh.configure(change).await {
            Ok((generation, _)) => {
                tracing::info!(%generation, folder = place, "read the configuration folder");
                warn(mesh, &taken);
            }
            Err(error) => problems.push(Diagnostic::of_file(&place, error.to_string())),
        }
        for problem in &problems {
            tracing::error!("{problem}");
        }
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }
}

/// Says what of the objects that were taken is hardly meant.
fn warn(mesh: &Mesh, taken: &[(String, ObjectKey)]) {
    let warnings: Vec<String> = mesh.read(|state| {
        let judge = Judge::of_configuration(state);
        let of_object = |(file, key): &(String, ObjectKey)| -> Vec<String> {
            let warnings = judge.warnings(key).into_iter();
            let told =
                warnings.map(|warning| format!("{file}: {key}: {}: {}", warning.path, warning.message));
            told.collect()
        };
        taken.iter().flat_map(of_object).take(MAX_DIAGNOSTICS).collect()
    });
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// What a folder's files change, compared with what was taken from them before. Pure.
fn changes_of(
    files: &[(String, String)],
    known: &BTreeMap<String, String>,
    records: &BTreeMap<ObjectKey, ObjectRecord>,
) -> (ConfigChange, Vec<Diagnostic>) {
    let (mut change, mut problems) = (ConfigChange::default(), Vec::new());
    let mut given: BTreeMap<ObjectKey, &str> = BTreeMap::new();
    // Files of which nothing is taken now, but from which something may have been taken.
    let mut kept: BTreeSet<&str> = BTreeSet::new();
    for (path, text) in files {
        let name = file_name(path);
        let documents = match parse_whole_documents(path, text) {
            Ok(documents) => documents,
            Err(found) => {
                problems.extend(found);
                kept.insert(name);
                continue;
            }
        };
        let twice = documents.iter().filter_map(|document| {
            let key = document.object.key();
            let why = format!("{key} is already given in {}", given.get(&key)?);
            Some(Diagnostic {
                line: document.line,
                column: 1,
                ..Diagnostic::of_file(path, why)
            })
        });
        let twice: Vec<Diagnostic> = twice.collect();
        if !twice.is_empty() {
            problems.extend(twice);
            kept.insert(name);
            continue;
        }
        given.extend(
            documents
                .iter()
                .map(|document| (document.object.key(), path.as_str())),
        );
        let hash = hex::encode(Sha256::digest(text));
        if known.get(name) == Some(&hash) {
            kept.insert(name);
            continue;
        }
        change
            .upserts
            .extend(documents.into_iter().map(|document| Upsert {
                object: document.object,
                text: document.text,
                file: Some(name.to_owned()),
            }));
        change.files.push((name.to_owned(), Some(hash)));
    }
    let gone = records.iter().filter_map(|(key, record)| {
        let file = record.file.as_deref()?;
        let is_gone = !kept.contains(file) && !given.contains_key(key);
        is_gone.then(|| Delete {
            key: key.clone(),
            only_from: Some(file.to_owned()),
        })
    });
    change.deletes.extend(gone);
    let names: BTreeSet<&str> = files.iter().map(|(path, _)| file_name(path)).collect();
    let forgotten = known.keys().filter(|file| !names.contains(file.as_str()));
    change.files.extend(forgotten.map(|file| (file.clone(), None)));
    (change, problems)
}

/// A file is known by its name, so that the folder can be named in another way, or moved.
fn file_name(path: &str) -> &str {
    Path::new(path)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was taken so far.
    #[derive(Default)]
    struct Taken {
        files: BTreeMap<String, String>,
        records: BTreeMap<ObjectKey, ObjectRecord>,
    }

    impl Taken {
        /// Takes a folder. Returns what is wrong with it.
        fn take(&mut self, files: &[(&str, String)]) -> Vec<String> {
            let files: Vec<_> = files
                .iter()
                .map(|(name, text)| ((*name).to_owned(), text.clone()))
                .collect();
            let (change, problems) = changes_of(&files, &self.files, &self.records);
            for delete in change.deletes {
                self.records.remove(&delete.key);
            }
            for Upsert { object, text, file } in change.upserts {
                self.records.insert(object.key(), record(text, file));
            }
            for (file, hash) in change.files {
                match hash {
                    Some(hash) => self.files.insert(file, hash),
                    None => self.files.remove(&file),
                };
            }
            problems.iter().map(ToString::to_string).collect()
        }

        /// An operator applies a Service.
        fn apply(&mut self, name: &str) {
            let text = service(name, 9);
            self.records.insert(key(name), record(text, None));
        }

        /// `name:port from` of every Service.
        fn services(&self) -> Vec<String> {
            let line = |(key, record): (&ObjectKey, &ObjectRecord)| {
                let port = record.text.rsplit("port: ").next().unwrap_or_default();
                let port: String = port.chars().take_while(char::is_ascii_digit).collect();
                format!("{}:{port} {}", key.name, record.source())
            };
            self.records.iter().map(line).collect()
        }
    }

    fn record(text: String, file: Option<String>) -> ObjectRecord {
        ObjectRecord {
            text,
            file,
            created: 1,
            generation: 1,
            created_at: 0,
            changed_at: 0,
        }
    }

    fn key(name: &str) -> ObjectKey {
        format!("Service/default/{name}").parse().unwrap()
    }

    fn service(name: &str, port: u16) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{selector: {{app: {name}}}, ports: [{{port: {port}}}]}}\n---\n"
        )
    }

    #[test]
    fn what_is_gone_from_its_file_or_with_it_is_gone() {
        let mut taken = Taken::default();
        let both = service("cart", 1) + &service("shop", 1);
        assert!(
            taken
                .take(&[("a.yaml", both), ("b.yaml", service("pay", 1))])
                .is_empty()
        );
        assert_eq!(
            taken.services(),
            ["cart:1 a.yaml", "pay:1 b.yaml", "shop:1 a.yaml"]
        );
        // Named in another way, it is the same folder.
        taken.take(&[
            ("mesh/a.yaml", service("cart", 2)),
            ("mesh/b.yaml", service("pay", 1)),
        ]);
        assert_eq!(taken.services(), ["cart:2 a.yaml", "pay:1 b.yaml"]);
        taken.take(&[("a.yaml", service("pay", 3) + &service("cart", 2))]);
        assert_eq!(
            taken.services(),
            ["cart:2 a.yaml", "pay:3 a.yaml"],
            "moved to another file"
        );
        taken.take(&[]);
        assert!(taken.services().is_empty() && taken.files.is_empty());
    }

    #[test]
    fn a_bad_file_keeps_what_was_last_taken_from_it() {
        let mut taken = Taken::default();
        taken.take(&[("a.yaml", service("cart", 1))]);
        let problems = taken.take(&[("a.yaml", "kind: [".to_owned()), ("b.yaml", service("pay", 1))]);
        assert!(problems[0].starts_with("a.yaml:"), "{problems:?}");
        assert_eq!(taken.services(), ["cart:1 a.yaml", "pay:1 b.yaml"]);
        let twice = taken.take(&[
            ("a.yaml", service("cart", 1)),
            ("b.yaml", "\n".to_owned() + &service("cart", 2)),
        ]);
        assert_eq!(
            twice,
            ["b.yaml:2:1: Service/default/cart is already given in a.yaml"]
        );
        assert_eq!(taken.services(), ["cart:1 a.yaml", "pay:1 b.yaml"]);
    }

    #[test]
    fn what_an_operator_applied_stays_until_the_file_changes() {
        let mut taken = Taken::default();
        taken.take(&[("a.yaml", service("cart", 1))]);
        taken.apply("cart");
        taken.apply("own");
        taken.take(&[("a.yaml", service("cart", 1))]);
        assert_eq!(taken.services(), ["cart:9 apply", "own:9 apply"]);
        taken.take(&[("a.yaml", service("cart", 1) + "# touched\n")]);
        assert_eq!(taken.services(), ["cart:1 a.yaml", "own:9 apply"]);
        taken.apply("cart");
        taken.take(&[("a.yaml", String::new())]);
        assert_eq!(
            taken.services(),
            ["cart:9 apply", "own:9 apply"],
            "no longer the file's"
        );
    }
}
