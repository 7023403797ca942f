//! What a batch of changes comes to, before it is stored: an overlay over the state. Pure.

use std::collections::{BTreeMap, HashMap};

use model::workload::Workload;
use model::{Generation, WorkloadId};
use serde_json::Value;

use super::change::{Change, ChangeError, ConfigChange, Upsert};
use super::{Contents, SessionNumber};
use crate::settings::Limits;
use crate::sources::{Object, ObjectKey, value_of};
use crate::store::{Commit, ObjectRecord, WorkloadRecord};

/// Changes on top of the contents; `None` takes something away.
pub(super) struct Draft<'a> {
    contents: &'a Contents,
    limits: &'a Limits,
    /// Unix seconds.
    now: u64,
    overlay: Overlay,
}

/// The changes alone.
#[derive(Default)]
pub(super) struct Overlay {
    /// The generation with these changes; the present one where no proxy could tell a difference.
    pub(super) generation: Generation,
    pub(super) objects: BTreeMap<ObjectKey, Option<(Object, ObjectRecord)>>,
    pub(super) files: BTreeMap<String, Option<String>>,
    pub(super) workloads: BTreeMap<WorkloadId, Option<Workload>>,
    pub(super) owners: HashMap<WorkloadId, SessionNumber>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(contents: &'a Contents, limits: &'a Limits, now: u64) -> Self {
        let overlay = Overlay {
            generation: contents.state.generation,
            ..Overlay::default()
        };
        Self {
            contents,
            limits,
            now,
            overlay,
        }
    }

    pub(super) fn finish(self) -> Overlay {
        self.overlay
    }

    /// Changes configuration as a whole, or not at all.
    pub(super) fn configure(&mut self, change: &ConfigChange) -> Result<Vec<Change>, ChangeError> {
        let new = change
            .upserts
            .iter()
            .filter(|upsert| self.object(&upsert.object.key()).is_none());
        let limit = self.limits.objects;
        if self.object_count().saturating_add(new.count()) > limit {
            return Err(ChangeError::TooManyObjects { limit });
        }
        for delete in &change.deletes {
            let from = self.object(&delete.key).map(|(_, record)| record.file.as_deref());
            let Some(from) = from else { continue };
            if delete.only_from.is_none() || delete.only_from.as_deref() == from {
                self.overlay.objects.insert(delete.key.clone(), None);
                self.differs();
            }
        }
        let changes = change.upserts.iter().map(|upsert| self.upsert(upsert)).collect();
        for (file, hash) in &change.files {
            self.overlay.files.insert(file.clone(), hash.clone());
        }
        Ok(changes)
    }

    fn upsert(&mut self, upsert: &Upsert) -> Change {
        let key = upsert.object.key();
        let record = ObjectRecord {
            text: upsert.text.clone(),
            file: upsert.file.clone(),
            created: self.next().0,
            generation: 1,
            created_at: self.now,
            changed_at: self.now,
        };
        let (change, record) = match self.object(&key) {
            None => (Change::Created, record),
            Some((known, before)) if *known == upsert.object && is_same(&before.text, &upsert.text) => {
                // What was applied over a file as it stands stays the file's.
                if upsert.file.is_none() {
                    return Change::Unchanged;
                }
                let record = ObjectRecord {
                    text: record.text,
                    file: record.file,
                    ..before.clone()
                };
                (Change::Unchanged, record)
            }
            Some((_, before)) => {
                let record = ObjectRecord {
                    created: before.created,
                    created_at: before.created_at,
                    generation: before.generation.saturating_add(1),
                    ..record
                };
                (Change::Configured, record)
            }
        };
        self.overlay
            .objects
            .insert(key, Some((upsert.object.clone(), record)));
        if change != Change::Unchanged {
            self.differs();
        }
        change
    }

    /// Gives a workload to a stream.
    pub(super) fn join(&mut self, workload: &Workload, session: SessionNumber) -> Result<(), ChangeError> {
        let id = &workload.id;
        match self.workload(id) {
            Some(known) if known.identity != workload.identity => {
                return Err(ChangeError::IdTaken {
                    id: id.clone(),
                    owner: known.identity.clone(),
                });
            }
            Some(_) if self.owner(id) > session => return Err(ChangeError::Superseded),
            Some(known) if known == workload => {}
            known => {
                let limit = self.limits.workloads;
                if known.is_none() && self.workload_count() >= limit {
                    return Err(ChangeError::TooManyWorkloads { limit });
                }
                self.overlay.workloads.insert(id.clone(), Some(workload.clone()));
                self.differs();
            }
        }
        self.overlay.owners.insert(id.clone(), session);
        Ok(())
    }

    pub(super) fn ready(
        &mut self,
        id: &WorkloadId,
        session: SessionNumber,
        ready: bool,
    ) -> Result<(), ChangeError> {
        if self.owner(id) != session {
            return Err(ChangeError::Superseded);
        }
        if let Some(known) = self.workload(id).filter(|known| known.ready != ready) {
            let workload = Workload {
                ready,
                ..known.clone()
            };
            self.overlay.workloads.insert(id.clone(), Some(workload));
            self.differs();
        }
        Ok(())
    }

    /// Takes a workload from a stream, if it is still that stream's.
    pub(super) fn leave(&mut self, id: &WorkloadId, session: SessionNumber) {
        if self.owner(id) == session && self.workload(id).is_some() {
            self.overlay.workloads.insert(id.clone(), None);
            self.differs();
        }
    }

    /// Takes away what nobody has claimed since the restart. Returns how many those are.
    pub(super) fn end_grace(&mut self) -> usize {
        let known = self.contents.state.workloads.keys();
        let forgotten: Vec<WorkloadId> = known
            .filter(|id| self.owner(id) == 0 && self.workload(id).is_some())
            .cloned()
            .collect();
        for id in &forgotten {
            self.leave(id, 0);
        }
        forgotten.len()
    }

    fn object(&self, key: &ObjectKey) -> Option<(&Object, &ObjectRecord)> {
        match self.overlay.objects.get(key) {
            Some(changed) => changed.as_ref().map(|(object, record)| (object, record)),
            None => {
                let stored = self.contents.state.objects.get(key)?;
                Some((&stored.object, self.contents.records.get(key)?))
            }
        }
    }

    fn workload(&self, id: &WorkloadId) -> Option<&Workload> {
        match self.overlay.workloads.get(id) {
            Some(changed) => changed.as_ref(),
            None => self.contents.state.workloads.get(id),
        }
    }

    fn owner(&self, id: &WorkloadId) -> SessionNumber {
        let owners = [&self.overlay.owners, &self.contents.owners];
        owners
            .iter()
            .find_map(|owners| owners.get(id))
            .copied()
            .unwrap_or_default()
    }

    fn object_count(&self) -> usize {
        counted(&self.overlay.objects, |key| {
            self.contents.state.objects.contains_key(key)
        })
        .saturating_add_signed(self.contents.state.objects.len())
    }

    fn workload_count(&self) -> usize {
        counted(&self.overlay.workloads, |id| {
            self.contents.state.workloads.contains_key(id)
        })
        .saturating_add_signed(self.contents.state.workloads.len())
    }

    fn next(&self) -> Generation {
        Generation(self.contents.state.generation.0.saturating_add(1))
    }

    /// Some proxy may be able to tell the difference.
    fn differs(&mut self) {
        self.overlay.generation = self.next();
    }
}

/// Whether two texts of one object say the same. Comments are no difference, nor is what only the control plane writes;
/// fields that mean nothing to the mesh are.
fn is_same(one: &str, other: &str) -> bool {
    one == other || said(one).is_some_and(|one| Some(one) == said(other))
}

/// What an object's owner says of it.
fn said(text: &str) -> Option<Value> {
    let mut value = value_of(text)?;
    let object = value.as_object_mut()?;
    object.remove("status");
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        // The namespace is part of its name, which is the same, and need not be written.
        for field in [
            "namespace",
            "generation",
            "creationTimestamp",
            "resourceVersion",
            "uid",
            "managedFields",
        ] {
            metadata.remove(field);
        }
    }
    Some(value)
}

/// How many more there are with an overlay than without.
fn counted<K, V>(overlay: &BTreeMap<K, Option<V>>, known: impl Fn(&K) -> bool) -> Surplus {
    let added = overlay
        .iter()
        .filter(|(key, value)| value.is_some() && !known(key));
    let removed = overlay
        .iter()
        .filter(|(key, value)| value.is_none() && known(key));
    Surplus {
        added: added.count(),
        removed: removed.count(),
    }
}

struct Surplus {
    added: usize,
    removed: usize,
}

impl Surplus {
    fn saturating_add_signed(self, base: usize) -> usize {
        base.saturating_add(self.added).saturating_sub(self.removed)
    }
}

impl Overlay {
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.files.is_empty() && self.workloads.is_empty()
    }

    /// Lets go of the changes to configuration, as when they could not be stored.
    pub(super) fn without_configuration(mut self, contents: &Contents) -> Self {
        self.objects.clear();
        self.files.clear();
        if self.workloads.is_empty() {
            self.generation = contents.state.generation;
        }
        self
    }

    /// As the store takes it.
    pub(super) fn commit(&self) -> Commit {
        let objects = self.objects.iter().map(|(key, change)| {
            let record = change.as_ref().map(|(_, record)| record.clone());
            (key.to_string(), record)
        });
        let workloads = self
            .workloads
            .iter()
            .map(|(id, change)| (id.to_string(), change.as_ref().map(WorkloadRecord::from)));
        Commit {
            generation: self.generation.0,
            objects: objects.collect(),
            files: self
                .files
                .iter()
                .map(|(file, hash)| (file.clone(), hash.clone()))
                .collect(),
            workloads: workloads.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Remembered;

    fn contents() -> Contents {
        Contents::remembered(Remembered {
            generation: 7,
            workloads: vec![(
                "old-1".to_owned(),
                WorkloadRecord::from(&workload("old-1", "old")),
            )],
            ..Remembered::default()
        })
    }

    fn workload(id: &str, account: &str) -> Workload {
        Workload {
            id: id.parse().unwrap(),
            identity: format!("spiffe://mesh.test/ns/shop/sa/{account}")
                .parse()
                .unwrap(),
            labels: model::Labels::default(),
            inbound: Some("10.0.0.1:15008".parse().unwrap()),
            gateway: None,
            app_ports: Vec::new(),
            ready: true,
        }
    }

    #[test]
    fn only_the_stream_that_has_a_workload_can_take_it_away() {
        let (contents, limits) = (contents(), Limits::default());
        let mut draft = Draft::new(&contents, &limits, 1_000);
        let (cart, id) = (workload("cart-1", "cart"), "cart-1".parse().unwrap());
        draft.join(&cart, 1).unwrap();
        draft.join(&cart, 2).unwrap();
        draft.leave(&id, 1);
        assert!(matches!(draft.ready(&id, 1, false), Err(ChangeError::Superseded)));
        assert!(matches!(draft.join(&cart, 1), Err(ChangeError::Superseded)));
        assert_eq!(draft.workload(&id), Some(&cart));
        let thief = draft.join(&workload("cart-1", "thief"), 3);
        assert!(matches!(thief, Err(ChangeError::IdTaken { .. })));
        draft.leave(&id, 2);
        assert_eq!(draft.workload(&id), None);
    }

    #[test]
    fn what_came_back_outlives_the_grace() {
        let (contents, limits) = (contents(), Limits::default());
        let mut draft = Draft::new(&contents, &limits, 1_000);
        draft.join(&workload("old-1", "old"), 1).unwrap();
        assert_eq!(
            draft.finish().generation,
            Generation(7),
            "nobody can tell a difference"
        );
        let mut draft = Draft::new(&contents, &limits, 1_000);
        assert_eq!(draft.end_grace(), 1);
        assert_eq!(draft.end_grace(), 0);
        assert_eq!(draft.finish().generation, Generation(8));
        let mut draft = Draft::new(&contents, &limits, 1_000);
        draft.join(&workload("old-1", "old"), 1).unwrap();
        assert_eq!(draft.end_grace(), 0);
    }

    #[test]
    fn what_was_not_stored_is_no_configuration_but_lets_workloads_live() {
        let (contents, limits) = (contents(), Limits::default());
        let document = crate::sources::parse_documents(
            "cart.yaml",
            "{apiVersion: v1, kind: Service, metadata: {name: cart}, spec: {ports: [{port: 80}]}}",
        );
        let document = document.unwrap().remove(0);
        let change = ConfigChange {
            upserts: vec![Upsert {
                object: document.object,
                text: document.text,
                file: None,
            }],
            ..ConfigChange::default()
        };
        let mut draft = Draft::new(&contents, &limits, 1_000);
        assert_eq!(draft.configure(&change).unwrap(), [Change::Created]);
        let alone = draft.finish().without_configuration(&contents);
        assert!(alone.is_empty() && alone.generation == Generation(7));

        let mut draft = Draft::new(&contents, &limits, 1_000);
        draft.configure(&change).unwrap();
        draft.join(&workload("cart-1", "cart"), 1).unwrap();
        let overlay = draft.finish().without_configuration(&contents);
        assert!(overlay.objects.is_empty() && overlay.workloads.len() == 1);
        assert_eq!(overlay.generation, Generation(8));
    }
}
