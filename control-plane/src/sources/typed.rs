//! From a tree to the Kubernetes type of its kind, strictly: a field nobody knows is an error, as is one of
//! another type, and each is found with its place.

use model::FieldPath;
use model::field::Step;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::MAX_DIAGNOSTICS;
use super::diagnostic::Fault;
use super::kind::Kind;
use super::tree::{Content, Node};

/// After so many values of the wrong type the rest of an object is not looked at any more.
const MAX_TYPE_FAULTS: usize = 20;

/// Which kind of object a document is.
pub(super) fn kind(root: &Node, faults: &mut Vec<Fault>) -> Option<Kind> {
    if !matches!(root.content, Content::Map(_)) {
        let why = "a document is a mapping with apiVersion, kind, metadata and spec".to_owned();
        faults.push(Fault {
            place: root.place,
            path: FieldPath::default(),
            why,
        });
        return None;
    }
    let name = text(root, "kind", faults);
    let version = text(root, "apiVersion", faults);
    let (name, version) = (name?, version?);
    let fault = |field: &str, why| {
        let path = FieldPath(vec![Step::Field(field.to_owned())]);
        Fault {
            place: root.place_of(&path),
            path,
            why,
        }
    };
    let kind = match name.parse::<Kind>() {
        Ok(kind) => kind,
        Err(error) => {
            faults.push(fault("kind", error.why));
            return None;
        }
    };
    let known: Vec<String> = kind.row().api_versions().collect();
    if !known.iter().any(|known| known == version) {
        let why = format!(
            "{version:?} is not the apiVersion of {kind} ({})",
            known.join(", ")
        );
        faults.push(fault("apiVersion", why));
        return None;
    }
    Some(kind)
}

fn text<'n>(root: &'n Node, field: &str, faults: &mut Vec<Fault>) -> Option<&'n str> {
    let entry = root.entry(field);
    let why = match entry.map(|entry| &entry.value.content) {
        Some(Content::Scalar(Value::String(text))) => return Some(text),
        Some(_) => format!("{field} is a text"),
        None => format!("{field} is missing"),
    };
    let path = FieldPath(entry.map(|_| Step::Field(field.to_owned())).into_iter().collect());
    faults.push(Fault {
        place: root.place_of(&path),
        path,
        why,
    });
    None
}

/// Reads the whole object. `None` where something in it has the wrong type.
///
/// A deserializer stops at its first error; here what it stopped at is left out and it is asked again, so that
/// all errors are told at once.
pub(super) fn read<T: DeserializeOwned>(root: &Node, faults: &mut Vec<Fault>) -> Option<T> {
    let mut value = root.to_json();
    if let Value::Object(fields) = &mut value {
        // Told already by `kind`; the types of gateway-api do not have them as fields.
        fields.remove("apiVersion");
        fields.remove("kind");
        // Written by the control plane alone: what was shown can be applied again.
        fields.remove("status");
    }
    let mut told: Vec<FieldPath> = Vec::new();
    let mut left_out: Vec<FieldPath> = Vec::new();
    loop {
        let mut unknown = Vec::new();
        let result = {
            let mut note = |path: serde_ignored::Path<'_>| {
                if unknown.len() < MAX_DIAGNOSTICS {
                    unknown.push(ignored_path(&path));
                }
            };
            let strict = serde_ignored::Deserializer::new(&value, &mut note);
            serde_path_to_error::deserialize::<_, T>(strict)
        };
        for path in unknown {
            if !told.contains(&path) {
                let why = "no such field".to_owned();
                faults.push(Fault {
                    place: root.key_place_of(&path),
                    path: path.clone(),
                    why,
                });
                told.push(path);
            }
        }
        let error = match result {
            Ok(object) => return left_out.is_empty().then_some(object),
            Err(error) => error,
        };
        let path = error_path(error.path());
        // A field is missing because it was left out: then what it was part of is left out as well.
        let caused = left_out
            .iter()
            .any(|left| left.0.len() > path.0.len() && left.0.starts_with(&path.0));
        if !caused {
            let why = why(&error.into_inner());
            faults.push(Fault {
                place: root.place_of(&path),
                path: path.clone(),
                why,
            });
        }
        if left_out.len() >= MAX_TYPE_FAULTS {
            return None;
        }
        let removed = remove(&mut value, &path.0)?;
        left_out.push(removed);
    }
}

/// Takes a value out by the nearest field that leads to it, since taking an item out of a list would move the
/// others. `None` where nothing is left to take out.
fn remove(value: &mut Value, path: &[Step]) -> Option<FieldPath> {
    let (last, parents) = path.split_last()?;
    let parent = parents.iter().try_fold(&mut *value, |value, step| match step {
        Step::Field(name) => value.get_mut(name),
        Step::Item(index) => value.get_mut(index),
    });
    if let (Step::Field(name), Some(Value::Object(fields))) = (last, parent)
        && fields.remove(name).is_some()
    {
        return Some(FieldPath(path.to_vec()));
    }
    remove(value, parents)
}

fn why(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let wants_text = text.ends_with("expected a string");
    let unquoted = ["integer", "boolean", "floating point"]
        .iter()
        .any(|kind| text.contains(kind));
    if wants_text && unquoted {
        format!("{text} (put it in quotes)")
    } else {
        text
    }
}

fn error_path(path: &serde_path_to_error::Path) -> FieldPath {
    use serde_path_to_error::Segment;
    let steps = path.iter().filter_map(|segment| match segment {
        Segment::Map { key } => Some(Step::Field(key.clone())),
        Segment::Seq { index } => Some(Step::Item(*index)),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    FieldPath(steps.collect())
}

fn ignored_path(path: &serde_ignored::Path<'_>) -> FieldPath {
    use serde_ignored::Path;
    let mut steps = Vec::new();
    let mut here = path;
    loop {
        here = match here {
            Path::Root => break,
            Path::Seq { parent, index } => {
                steps.push(Step::Item(*index));
                parent
            }
            Path::Map { parent, key } => {
                steps.push(Step::Field(key.clone()));
                parent
            }
            Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
                parent
            }
        };
    }
    steps.reverse();
    FieldPath(steps)
}
