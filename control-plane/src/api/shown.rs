//! An object as operators are shown it: what was written, and what the control plane knows of it. Pure.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::sources::{Kind, ObjectKey, value_of, yaml_of};
use crate::store::ObjectRecord;
use crate::view::Observed;

/// What stands for a value of a Secret. It is no base64, so that it cannot be applied by mistake.
const LEFT_OUT: &str = "(left out; --show-secrets shows it)";

/// The object as YAML, with `generation` and `creationTimestamp` in its metadata, and its status.
pub(super) fn shown(
    key: &ObjectKey,
    record: &ObjectRecord,
    status: Option<Value>,
    with_secrets: bool,
) -> String {
    let Some(Value::Object(mut object)) = value_of(&record.text) else {
        // It was read once, and so can be again; else it is shown as it is.
        return record.text.clone();
    };
    if key.kind == Kind::Secret && !with_secrets {
        leave_out_secrets(&mut object);
    }
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        if key.kind.is_namespaced() {
            metadata.insert("namespace".to_owned(), key.namespace.to_string().into());
        }
        metadata.insert("generation".to_owned(), record.generation.into());
        match record.created_at {
            0 => metadata.remove("creationTimestamp"),
            seconds => metadata.insert("creationTimestamp".to_owned(), time(seconds).into()),
        };
    }
    object.remove("status");
    if let Some(status) = status {
        object.insert("status".to_owned(), status);
    }
    yaml_of(&Value::Object(object))
}

/// Which version of an object its status is about, and when that came.
pub(super) fn observed(record: &ObjectRecord) -> Observed {
    Observed {
        generation: record.generation,
        since: time(record.changed_at),
    }
}

fn leave_out_secrets(secret: &mut Map<String, Value>) {
    let mut names = Vec::new();
    for field in ["data", "stringData"] {
        if let Some(Value::Object(values)) = secret.remove(field) {
            names.extend(values.into_iter().map(|(name, _)| name));
        }
    }
    let data = names.into_iter().map(|name| (name, LEFT_OUT.into()));
    secret.insert("data".to_owned(), Value::Object(data.collect()));
}

/// RFC 3339, of seconds since 1970.
pub(super) fn time(seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let time = time.unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_seconds(time).to_string()
}
