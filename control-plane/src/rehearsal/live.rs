//! A mesh that runs, as its control plane describes it to operators.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use model::{Generation, ServiceName};
use proto::v1;

use super::Configuration;
use crate::sources::{Diagnostic, ObjectKey, parse_documents};
use crate::view::{MeshState, StoredObject};

/// What a control plane has in force.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Its objects. Workloads are in `serving`, as far as operators are told of them.
    pub state: MeshState,
    pub serving: Serving,
    /// The file that an object comes from, by its name.
    files: BTreeMap<ObjectKey, String>,
}

/// The workloads that serve each Service now.
#[derive(Debug, Clone, Default)]
pub struct Serving(BTreeMap<ServiceName, Vec<String>>);

impl Serving {
    /// Ids of workloads, in their order.
    pub(super) fn of(&self, service: &ServiceName) -> Vec<String> {
        self.0.get(service).cloned().unwrap_or_default()
    }
}

/// Why what a control plane said is not understood.
#[derive(Debug, thiserror::Error)]
#[error("the control plane has an object that this program does not understand: {0}")]
pub struct LiveError(Diagnostic);

impl Live {
    /// Reads what a control plane answers to `Get`, of all objects, and to `Status`.
    ///
    /// # Errors
    /// An object of a kind, or with a field, that only a newer version knows.
    pub fn read(objects: &v1::GetResponse, status: &v1::StatusResponse) -> Result<Self, LiveError> {
        let mut live = Self::default();
        live.state.generation = Generation(objects.generation);
        for object in &objects.objects {
            let name = object.name.clone().unwrap_or_default();
            let place = format!("{}/{}/{}", name.kind, name.namespace, name.name);
            let documents = parse_documents(&place, &object.yaml).map_err(|mut problems| {
                let first = (!problems.is_empty()).then(|| problems.remove(0));
                LiveError(first.unwrap_or_else(|| Diagnostic::of_file(&place, "is not YAML")))
            })?;
            for document in documents {
                let key = document.object.key();
                if object.from_file {
                    live.files.insert(key.clone(), object.source.clone());
                }
                let stored = StoredObject {
                    object: document.object,
                    created: object.created,
                };
                live.state.objects.insert(key, stored);
            }
        }
        for proxy in status.proxies.iter().filter(|proxy| proxy.ready) {
            for service in proxy.serves.iter().filter_map(|service| service.parse().ok()) {
                let serving = live.serving.0.entry(service).or_default();
                serving.push(proxy.workload_id.clone());
            }
        }
        Ok(live)
    }

    /// The mesh after these files are applied. What once came from a file of the same name and is no longer in it is
    /// gone, as a control plane has it that watches the file's folder; with `whole`, everything that is in no file.
    pub fn with(&self, configuration: &Configuration, whole: bool) -> MeshState {
        let mut next = self.state.clone();
        let next_generation = self.state.generation.0.saturating_add(1);
        next.generation = Generation(next_generation);
        let given: BTreeSet<&str> = configuration.files.iter().map(|file| file_name(file)).collect();
        let written: BTreeSet<ObjectKey> = configuration.objects().map(|object| object.key()).collect();
        next.objects.retain(|key, _| {
            let from = self.files.get(key);
            let is_gone = whole || from.is_some_and(|file| given.contains(file.as_str()));
            written.contains(key) || !is_gone
        });
        for object in configuration.objects() {
            let known = self.state.objects.get(&object.key());
            let stored = StoredObject {
                object: object.clone(),
                created: known.map_or(next_generation, |known| known.created),
            };
            next.objects.insert(object.key(), stored);
        }
        next
    }
}

fn file_name(path: &str) -> &str {
    let name = Path::new(path).file_name();
    name.and_then(|name| name.to_str()).unwrap_or(path)
}
