//! Gathers everything that is wrong with one object while it is read, each with its field.

use std::cell::RefCell;
use std::collections::BTreeMap;

use model::field::Step;
use model::{FieldError, FieldPath};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::diagnostic::Fault;
use super::kind::{DEFAULT_NAMESPACE, Kind, ObjectKey};
use super::tree::Node;

/// Runs a reader from the root of an object. What it reads counts only if it refused nothing.
pub(super) fn all<T>(
    root: &Node,
    faults: &mut Vec<Fault>,
    reader: impl FnOnce(&At<'_>) -> Option<T>,
) -> Option<T> {
    let notes = Notes::default();
    let read = reader(&At {
        notes: &notes,
        path: FieldPath::default(),
    });
    let mut errors = notes.errors.into_inner();
    // Whatever is no part of a route's rule cannot be left out alone.
    errors.extend(notes.unusable.into_inner());
    let clean = errors.is_empty();
    faults.extend(errors.into_iter().map(|FieldError { path, why }| Fault {
        place: root.place_of(&path),
        path,
        why,
    }));
    read.filter(|_| clean)
}

/// What is wrong with an object.
#[derive(Debug, Default)]
struct Notes {
    errors: RefCell<Vec<FieldError>>,
    unusable: RefCell<Vec<FieldError>>,
}

/// A field that is being read. Reading goes on after an error with whatever stands in for the value.
#[derive(Debug, Clone)]
pub(super) struct At<'e> {
    notes: &'e Notes,
    path: FieldPath,
}

impl At<'_> {
    pub(super) fn field(&self, name: &str) -> Self {
        self.step(Step::Field(name.to_owned()))
    }

    pub(super) fn item(&self, index: usize) -> Self {
        self.step(Step::Item(index))
    }

    fn step(&self, step: Step) -> Self {
        let mut next = self.clone();
        next.path.0.push(step);
        next
    }

    /// Where this field is, from the root of the object.
    pub(super) fn path(&self) -> &FieldPath {
        &self.path
    }

    /// Notes an error at this field.
    pub(super) fn refuse(&self, why: impl Into<String>) {
        self.notes.errors.borrow_mut().push(FieldError {
            path: self.path.clone(),
            why: why.into(),
        });
    }

    /// The value, or `None` after noting its error here or at the field of this one that it names.
    pub(super) fn keep<T>(&self, result: Result<T, FieldError>) -> Option<T> {
        result
            .map_err(|error| self.notes.errors.borrow_mut().push(self.placed(error)))
            .ok()
    }

    /// As [`At::keep`], for what the schema of Gateway API lets pass, and a Kubernetes API server with it, so that the object
    /// exists and its status has to tell: the rule that the field is part of cannot be followed.
    pub(super) fn usable<T>(&self, result: Result<T, FieldError>) -> Option<T> {
        result
            .map_err(|error| self.notes.unusable.borrow_mut().push(self.placed(error)))
            .ok()
    }

    /// Takes what [`At::usable`] noted in this field. What nobody takes is an error of the object.
    pub(super) fn take_unusable(&self) -> Vec<FieldError> {
        let mut noted = self.notes.unusable.borrow_mut();
        let is_within = |error: &mut FieldError| error.path.0.starts_with(&self.path.0);
        noted.extract_if(.., is_within).collect()
    }

    fn placed(&self, error: FieldError) -> FieldError {
        let path = FieldPath(self.path.0.iter().cloned().chain(error.path.0).collect());
        FieldError { path, why: error.why }
    }

    /// The items of a list, each with its field; those over `most` are refused.
    pub(super) fn items<T>(&self, list: Option<Vec<T>>, most: usize) -> Vec<(Self, T)> {
        let mut list = list.unwrap_or_default();
        if list.len() > most {
            self.refuse(format!("has {} items, which is over {most}", list.len()));
            list.truncate(most);
        }
        list.into_iter()
            .enumerate()
            .map(|(index, item)| (self.item(index), item))
            .collect()
    }

    /// A port number as Kubernetes types have it.
    pub(super) fn port(&self, number: i32) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.refuse(format!("{number} is not a port (1-65535)"));
        }
        port
    }
}

/// The object's name from its `metadata`.
pub(super) fn key(at: &At<'_>, kind: Kind, metadata: &ObjectMeta) -> Option<ObjectKey> {
    let at = at.field("metadata");
    let Some(name) = &metadata.name else {
        at.refuse("name is missing");
        return None;
    };
    let name = at.field("name").keep(name.parse());
    let namespace = metadata.namespace.as_deref().filter(|name| !name.is_empty());
    if !kind.is_namespaced() && namespace.is_some() {
        at.field("namespace")
            .refuse(format!("a {kind} is in no namespace"));
    }
    let namespace = namespace
        .filter(|_| kind.is_namespaced())
        .unwrap_or(DEFAULT_NAMESPACE);
    let namespace = at.field("namespace").keep(namespace.parse());
    Some(ObjectKey {
        kind,
        namespace: namespace?,
        name: name?,
    })
}

/// Refuses an item that says the same as an earlier one.
#[derive(Debug)]
pub(super) struct Distinct<K>(BTreeMap<K, usize>);

impl<K: Ord> Distinct<K> {
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(super) fn check(&mut self, at: &At<'_>, index: usize, key: K) {
        if let Some(first) = self.0.get(&key) {
            at.refuse(format!("is the same as item {first}"));
        } else {
            self.0.insert(key, index);
        }
    }
}
