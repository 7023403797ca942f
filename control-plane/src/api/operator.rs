//! What an operator does to the mesh: apply, delete, get, status, await, and join tokens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::WorkloadId;
use proto::v1;
use proto::v1::applied_object::Change as WireChange;
use proto::v1::operator_server::Operator;
use tonic::{Request, Response, Status};

use crate::authority::Issuer;
use crate::callers;
use crate::folder::Folder;
use crate::mesh::{Change, ConfigChange, Mesh, ProxyRecord, Upsert};
use crate::settings::Limits;
use crate::sources::{Diagnostic, Kind, Object, ObjectKey, parse_documents};
use crate::tokens::{self, TokenError, unix};
use crate::view::{self, MeshState};

/// Files of one `Apply`.
const MAX_FILES: usize = 1000;

/// Serves operators.
pub(crate) struct OperatorService {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) folder: Arc<Folder>,
    pub(crate) limits: Limits,
}

#[tonic::async_trait]
impl Operator for OperatorService {
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let operator = callers::operator(&request)?;
        let v1::ApplyRequest { files, dry_run } = request.into_inner();
        let upserts = match read(&files) {
            Ok(upserts) => upserts,
            Err(problems) => return Ok(Response::new(self.refused(&problems))),
        };
        let keys: Vec<ObjectKey> = upserts.iter().map(|upsert| upsert.object.key()).collect();
        let (generation, changes) = if dry_run {
            let state = self.mesh.state();
            let change = |upsert: &Upsert| foreseen(&state, &upsert.object);
            (state.generation, upserts.iter().map(change).collect())
        } else {
            let change = ConfigChange {
                upserts,
                ..ConfigChange::default()
            };
            self.mesh.configure(change).await.map_err(fault)?
        };
        if !dry_run {
            tracing::info!(%operator, %generation, objects = keys.len(), "applied");
        }
        let state = self.mesh.state();
        let applied = keys.iter().zip(changes).map(|(key, change)| v1::AppliedObject {
            name: Some(name_to_wire(key)),
            change: change_to_wire(change).into(),
            conditions: conditions(&state, key),
        });
        Ok(Response::new(v1::ApplyResponse {
            generation: generation.0,
            errors: Vec::new(),
            applied: applied.collect(),
        }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let operator = callers::operator(&request)?;
        let state = self.mesh.state();
        let (mut deletes, mut deleted, mut not_found) = (Vec::new(), Vec::new(), Vec::new());
        for name in request.into_inner().names {
            let key = name_from_wire(&name)?;
            if state.objects.contains_key(&key) {
                deleted.push(name);
                deletes.push(key);
            } else {
                not_found.push(name);
            }
        }
        tracing::info!(%operator, objects = deletes.len(), "deleted");
        let change = ConfigChange {
            deletes,
            ..ConfigChange::default()
        };
        let (generation, _) = self.mesh.configure(change).await.map_err(fault)?;
        Ok(Response::new(v1::DeleteResponse {
            generation: generation.0,
            deleted,
            not_found,
        }))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        callers::operator(&request)?;
        let wanted = request.into_inner();
        if !wanted.kind.is_empty() {
            wanted
                .kind
                .parse::<Kind>()
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
        }
        let fits = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        let state = self.mesh.state();
        let records = self.mesh.records().await;
        let chosen = records.iter().filter(|(key, _)| {
            fits(&wanted.kind, key.kind.as_str())
                && fits(&wanted.namespace, key.namespace.as_str())
                && fits(&wanted.name, key.name.as_str())
        });
        let objects = chosen.map(|(key, record)| v1::Object {
            name: Some(name_to_wire(key)),
            yaml: record.text.clone(),
            source: record.file.clone().unwrap_or_else(|| "apply".to_owned()),
            conditions: conditions(&state, key),
        });
        Ok(Response::new(v1::GetResponse {
            objects: objects.collect(),
            generation: state.generation.0,
        }))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        callers::operator(&request)?;
        let state = self.mesh.state();
        Ok(Response::new(v1::StatusResponse {
            generation: state.generation.0,
            proxies: proxies(&state, &self.mesh.proxies()),
            trust_domain: self.issuer.trust_domain().to_string(),
            authority_not_after: unix(self.issuer.not_after()),
            source_errors: self.folder.problems().iter().map(diagnostic_to_wire).collect(),
        }))
    }

    async fn r#await(
        &self,
        request: Request<v1::AwaitRequest>,
    ) -> Result<Response<v1::AwaitResponse>, Status> {
        callers::operator(&request)?;
        let v1::AwaitRequest {
            generation,
            timeout_ms,
        } = request.into_inner();
        let within = Duration::from_millis(timeout_ms).min(self.limits.await_max);
        let mut progress = self.mesh.progress();
        let settled = async {
            loop {
                progress.borrow_and_update();
                let proxies = self.mesh.proxies();
                let all_use = proxies.values().all(|record| record.generation.0 >= generation);
                let refused = proxies.values().any(|record| {
                    record
                        .refusal
                        .as_ref()
                        .is_some_and(|refusal| refusal.generation >= generation)
                });
                if all_use || refused || progress.changed().await.is_err() {
                    return;
                }
            }
        };
        // Whether it was reached is looked up either way.
        let _ = tokio::time::timeout(within, settled).await;
        let all = proxies(&self.mesh.state(), &self.mesh.proxies());
        let connected: Vec<_> = all.into_iter().filter(|proxy| proxy.connected).collect();
        let count = u32::try_from(connected.len()).unwrap_or(u32::MAX);
        let behind: Vec<_> = connected
            .into_iter()
            .filter(|proxy| proxy.generation < generation)
            .collect();
        Ok(Response::new(v1::AwaitResponse {
            reached: behind.is_empty(),
            behind,
            proxies: count,
        }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let operator = callers::operator(&request)?;
        let v1::CreateTokenRequest {
            namespace,
            service_account,
            ttl_seconds,
        } = request.into_inner();
        let lifetime = match ttl_seconds {
            0 => self.limits.token_lifetime,
            seconds => Duration::from_secs(seconds.into()),
        };
        if lifetime > self.limits.token_lifetime_max {
            let most = humantime::format_duration(self.limits.token_lifetime_max);
            return Err(Status::invalid_argument(format!(
                "a join token lives at most {most}"
            )));
        }
        let (store, hash, most) = (
            self.mesh.store.clone(),
            *self.issuer.root_hash(),
            self.limits.join_tokens,
        );
        let (for_namespace, account) = (namespace.clone(), service_account.clone());
        let created = tokio::task::spawn_blocking(move || {
            tokens::create(&store, &hash, &for_namespace, &account, lifetime, most)
        });
        let (token, expires) = created
            .await
            .map_err(|_| Status::internal("the store ended"))?
            .map_err(|error| match error {
                TokenError::Field(_) => Status::invalid_argument(error.to_string()),
                TokenError::TooMany => Status::resource_exhausted(error.to_string()),
                TokenError::NotValid | TokenError::Store(_) => Status::internal(error.to_string()),
            })?;
        tracing::info!(%operator, namespace, service_account, "made a join token");
        Ok(Response::new(v1::CreateTokenResponse {
            token,
            expires_at: unix(expires),
        }))
    }
}

impl OperatorService {
    fn refused(&self, problems: &[Diagnostic]) -> v1::ApplyResponse {
        v1::ApplyResponse {
            generation: self.mesh.state().generation.0,
            errors: problems.iter().map(diagnostic_to_wire).collect(),
            applied: Vec::new(),
        }
    }
}

/// All objects of all files, or everything that is wrong with them.
fn read(files: &[v1::SourceFile]) -> Result<Vec<Upsert>, Vec<Diagnostic>> {
    if files.len() > MAX_FILES {
        return Err(vec![Diagnostic::of_file(
            "",
            format!("more than {MAX_FILES} files"),
        )]);
    }
    let (mut upserts, mut problems) = (Vec::new(), Vec::new());
    let mut seen: BTreeMap<ObjectKey, &str> = BTreeMap::new();
    for file in files {
        match parse_documents(&file.name, &file.text) {
            Err(found) => problems.extend(found),
            Ok(documents) => {
                for document in documents {
                    let key = document.object.key();
                    if let Some(other) = seen.insert(key.clone(), &file.name) {
                        let why = format!("{key} is already given in {other}");
                        let place = Diagnostic::of_file(&file.name, why);
                        problems.push(Diagnostic {
                            line: document.line,
                            column: 1,
                            ..place
                        });
                    }
                    upserts.push(Upsert {
                        object: document.object,
                        text: document.text,
                        file: None,
                    });
                }
            }
        }
    }
    if problems.is_empty() {
        Ok(upserts)
    } else {
        Err(problems)
    }
}

fn foreseen(state: &MeshState, object: &Object) -> Change {
    match state.objects.get(&object.key()) {
        None => Change::Created,
        Some(known) if known.object == *object => Change::Unchanged,
        Some(_) => Change::Configured,
    }
}

/// Every workload that is connected or expected back.
fn proxies(state: &MeshState, records: &BTreeMap<WorkloadId, ProxyRecord>) -> Vec<v1::ProxyStatus> {
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
            inbound: workload.inbound.to_string(),
            connected: record.is_some(),
            ready: workload.ready,
            generation: record.map_or(0, |record| record.generation.0),
            in_sync: record.is_some_and(|record| record.in_sync && record.generation == state.generation),
            refusal: record.and_then(|record| record.refusal.clone()),
            connected_since: record.map_or(0, |record| unix(record.connected_since)),
            certificate_not_before: record.map_or(0, |record| record.certificate.0),
            certificate_not_after: record.map_or(0, |record| record.certificate.1),
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

fn conditions(state: &MeshState, key: &ObjectKey) -> Vec<v1::Condition> {
    let wire = |condition: view::Condition| v1::Condition {
        r#type: condition.type_.to_owned(),
        status: condition.status,
        reason: condition.reason.to_owned(),
        message: condition.message,
    };
    view::conditions(state, key).into_iter().map(wire).collect()
}

fn name_to_wire(key: &ObjectKey) -> v1::ObjectName {
    v1::ObjectName {
        kind: key.kind.to_string(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
    }
}

fn name_from_wire(name: &v1::ObjectName) -> Result<ObjectKey, Status> {
    let text = format!("{}/{}/{}", name.kind, name.namespace, name.name);
    text.parse()
        .map_err(|error: model::FieldError| Status::invalid_argument(error.to_string()))
}

fn change_to_wire(change: Change) -> WireChange {
    match change {
        Change::Created => WireChange::Created,
        Change::Configured => WireChange::Configured,
        Change::Unchanged => WireChange::Unchanged,
    }
}

fn diagnostic_to_wire(diagnostic: &Diagnostic) -> v1::Diagnostic {
    v1::Diagnostic {
        file: diagnostic.file.clone(),
        line: diagnostic.line,
        column: diagnostic.column,
        field: diagnostic.field.clone(),
        message: diagnostic.message.clone(),
    }
}

fn fault(error: crate::store::StoreError) -> Status {
    tracing::error!(%error, "the store failed");
    Status::internal("the store failed")
}
