//! What operators are answered: the mesh in the words of the wire. Pure.

use std::collections::BTreeMap;

use model::{Generation, WorkloadId};
use proto::v1;
use proto::v1::applied_object::Change as WireChange;
use tonic::Status;

use crate::mesh::{Change, Upsert};
use crate::sources::{DEFAULT_NAMESPACE, Diagnostic, Kind, Object, ObjectKey};
use crate::stream::ProxyRecord;
use crate::tokens::unix_wire;
use crate::view::{self, MeshState, StoredObject};

/// What applying would come to; conditions as they would be then.
pub(super) fn foreseen(state: &MeshState, keys: &[ObjectKey], upserts: Vec<Upsert>) -> v1::ApplyResponse {
    let mut next = state.clone();
    let mut changes = Vec::with_capacity(upserts.len());
    for Upsert { object, .. } in upserts {
        let known = state.objects.get(&object.key());
        changes.push(match known {
            None => Change::Created,
            Some(known) if known.object == object => Change::Unchanged,
            Some(_) => Change::Configured,
        });
        let created = known.map_or(state.generation.0.saturating_add(1), |known| known.created);
        next.objects
            .insert(object.key(), StoredObject { object, created });
    }
    applied(&next, state.generation, keys, &changes)
}

pub(super) fn applied(
    state: &MeshState,
    generation: Generation,
    keys: &[ObjectKey],
    changes: &[Change],
) -> v1::ApplyResponse {
    let applied = keys.iter().zip(changes).map(|(key, change)| v1::AppliedObject {
        name: Some(name_to_wire(key)),
        change: change_to_wire(*change).into(),
        conditions: conditions(state, key),
    });
    v1::ApplyResponse {
        generation: generation.0,
        errors: Vec::new(),
        applied: applied.collect(),
    }
}

/// The text with its conditions below, as comments: the door takes no status, and what is shown can be applied.
pub(super) fn with_status(text: &str, conditions: &[v1::Condition]) -> String {
    let mut yaml = text.trim_end().to_owned();
    yaml.push('\n');
    if conditions.is_empty() {
        return yaml;
    }
    yaml += "# status:\n#   conditions:\n";
    for condition in conditions {
        let status = if condition.status { "True" } else { "False" };
        let (r#type, reason) = (&condition.r#type, &condition.reason);
        yaml += &format!(
            "#   - {{type: {}, status: {status:?}, reason: {reason}, message: {:?}}}\n",
            r#type, condition.message
        );
    }
    yaml
}

/// Every workload that is connected or expected back.
pub(super) fn proxies(
    state: &MeshState,
    records: &BTreeMap<WorkloadId, ProxyRecord>,
) -> Vec<v1::ProxyStatus> {
    let status = |(id, workload): (&WorkloadId, &model::workload::Workload)| {
        let record = records.get(id);
        v1::ProxyStatus {
            workload_id: id.to_string(),
            spiffe_id: workload.identity.to_string(),
            labels: workload
                .labels
                .iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            inbound: workload
                .inbound
                .map(|address| address.to_string())
                .unwrap_or_default(),
            connected: record.is_some(),
            ready: workload.ready,
            generation: record.map_or(0, |record| record.in_use.0),
            in_sync: record.is_some_and(|record| record.is_in_sync(state.generation)),
            refusal: record.and_then(|record| record.refusal.clone()),
            connected_since: record.map_or(0, |record| unix_wire(record.connected_since)),
            certificate_not_before: record.map_or(0, |record| unix_wire(record.certificate.0)),
            certificate_not_after: record.map_or(0, |record| unix_wire(record.certificate.1)),
            proxy_version: record
                .map(|record| record.proxy_version.clone())
                .unwrap_or_default(),
            serves: view::served_by(state, id)
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    };
    state.workloads.iter().map(status).collect()
}

/// What routes in shadow would have done, and the routes.
pub(super) fn shadow(state: &MeshState, records: &BTreeMap<WorkloadId, ProxyRecord>) -> v1::ShadowResponse {
    let compared = records
        .iter()
        .filter(|(_, record)| !record.shadow.destinations.is_empty());
    let callers = compared.filter_map(|(id, record)| {
        let workload = state.workloads.get(id)?;
        Some(v1::ShadowCaller {
            workload_id: id.to_string(),
            spiffe_id: workload.identity.to_string(),
            is_gateway: workload.gateway.is_some(),
            report: Some(v1::ShadowReport::clone(&record.shadow)),
        })
    });
    let routes = state.objects.values().filter_map(|stored| match &stored.object {
        Object::Route(route) if route.shadow.is_some() => Some(route.key.to_string()),
        _ => None,
    });
    v1::ShadowResponse {
        callers: callers.collect(),
        routes: routes.collect(),
    }
}

pub(super) fn conditions(state: &MeshState, key: &ObjectKey) -> Vec<v1::Condition> {
    let wire = |condition: view::Condition| v1::Condition {
        r#type: condition.type_.to_owned(),
        status: condition.status,
        reason: condition.reason.to_owned(),
        message: condition.message,
    };
    view::conditions(state, key).into_iter().map(wire).collect()
}

pub(super) fn name_to_wire(key: &ObjectKey) -> v1::ObjectName {
    v1::ObjectName {
        kind: key.kind.to_string(),
        namespace: match key.kind.is_namespaced() {
            true => key.namespace.to_string(),
            false => String::new(),
        },
        name: key.name.to_string(),
    }
}

pub(super) fn name_from_wire(name: &v1::ObjectName) -> Result<ObjectKey, Status> {
    let namespace = match name.namespace.as_str() {
        "" => DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    let refused = |error: model::FieldError| Status::invalid_argument(error.to_string());
    let kind: Kind = name.kind.parse().map_err(refused)?;
    let text = match kind.is_namespaced() {
        true => format!("{kind}/{namespace}/{}", name.name),
        false => format!("{kind}/{}", name.name),
    };
    text.parse().map_err(refused)
}

fn change_to_wire(change: Change) -> WireChange {
    match change {
        Change::Created => WireChange::Created,
        Change::Configured => WireChange::Configured,
        Change::Unchanged => WireChange::Unchanged,
    }
}

impl From<&Diagnostic> for v1::Diagnostic {
    fn from(diagnostic: &Diagnostic) -> Self {
        Self {
            file: diagnostic.file.clone(),
            line: diagnostic.line,
            column: diagnostic.column,
            field: diagnostic.field.clone(),
            message: diagnostic.message.clone(),
        }
    }
}
