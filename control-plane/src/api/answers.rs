//! What operators are answered: the mesh in the words of the wire. Pure.

use std::cell::LazyCell;
use std::collections::BTreeMap;

use model::{Generation, WorkloadId};
use proto::v1;
use proto::v1::applied_object::Change as WireChange;
use tonic::Status;

use crate::mesh::Change;
use crate::sources::{DEFAULT_NAMESPACE, Diagnostic, FileDocument, Kind, MAX_DIAGNOSTICS, Object, ObjectKey};
use crate::stream::ProxyRecord;
use crate::tokens::unix_wire;
use crate::view::{self, Judge, MeshState, ProxyReport, Reports, StoredObject};

/// Warnings of one answer; what is beyond them is left out.
const MAX_WARNINGS: usize = MAX_DIAGNOSTICS;

/// What applying would come to; conditions as they would be then.
pub(super) fn foreseen(state: &MeshState, documents: &[FileDocument]) -> v1::ApplyResponse {
    let mut next = state.clone();
    let mut changes = Vec::with_capacity(documents.len());
    for object in documents.iter().map(|of_file| &of_file.document.object) {
        let known = state.objects.get(&object.key());
        changes.push(match known {
            None => Change::Created,
            Some(known) if known.object == *object => Change::Unchanged,
            Some(_) => Change::Configured,
        });
        let stored = StoredObject {
            object: object.clone(),
            created: known.map_or(state.generation.0.saturating_add(1), |known| known.created),
        };
        next.objects.insert(object.key(), stored);
    }
    applied(&next, state.generation, documents, &changes)
}

pub(super) fn applied(
    state: &MeshState,
    generation: Generation,
    documents: &[FileDocument],
    changes: &[Change],
) -> v1::ApplyResponse {
    let judge = Judge::of_configuration(state);
    let keys = documents.iter().map(|of_file| of_file.document.object.key());
    let applied = keys.zip(changes).map(|(key, change)| v1::AppliedObject {
        name: Some(name_to_wire(&key)),
        change: change_to_wire(*change).into(),
        conditions: conditions_to_wire(judge.conditions(&key)),
    });
    let applied = applied.collect();
    let warnings = documents.iter().flat_map(|of_file| warnings(&judge, of_file));
    v1::ApplyResponse {
        generation: generation.0,
        errors: Vec::new(),
        applied,
        warnings: warnings.take(MAX_WARNINGS).collect(),
    }
}

/// With their places in the file.
fn warnings(judge: &Judge<'_>, of_file: &FileDocument) -> Vec<v1::Diagnostic> {
    let FileDocument { file, document } = of_file;
    let warnings = judge.warnings(&document.object.key()).into_iter();
    // Most documents have nothing to warn of.
    let places = LazyCell::new(|| document.places());
    let placed = warnings.map(|warning| {
        let (line, column) = places.of(&warning.path);
        v1::Diagnostic {
            file: file.clone(),
            line,
            column,
            field: warning.path.to_string(),
            message: warning.message,
        }
    });
    placed.collect()
}

/// What the connected proxies of each Gateway say of their ports.
pub(super) fn reports(state: &MeshState, records: &BTreeMap<WorkloadId, ProxyRecord>) -> Reports {
    let mut reports = Reports::new();
    for (id, record) in records {
        let Some(gateway) = state.workloads.get(id).and_then(view::served_gateway) else {
            continue;
        };
        let refusal = record.refusal.as_ref().map(|refusal| {
            let of_field = match refusal.field.as_str() {
                "" => String::new(),
                field => format!(" (field {field})"),
            };
            format!("{}{of_field}", refusal.why)
        });
        let report = ProxyReport {
            ports: record.ports.clone(),
            refusal,
        };
        reports.entry(gateway).or_default().insert(id.clone(), report);
    }
    reports
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

/// What is in shadow, and what it would have done.
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
    let policies = state.objects.values().filter_map(|stored| match &stored.object {
        Object::TrafficPolicy(policy) if policy.shadow.is_some() => Some(policy.key.to_string()),
        Object::FaultPolicy(policy) if policy.shadow.is_some() => Some(policy.key.to_string()),
        _ => None,
    });
    v1::ShadowResponse {
        callers: callers.collect(),
        routes: routes.collect(),
        policies: policies.collect(),
    }
}

pub(super) fn conditions_to_wire(conditions: Vec<view::Condition>) -> Vec<v1::Condition> {
    let wire = |condition: view::Condition| v1::Condition {
        r#type: condition.type_.to_owned(),
        status: condition.status,
        reason: condition.reason.to_owned(),
        message: condition.message,
    };
    conditions.into_iter().map(wire).collect()
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
