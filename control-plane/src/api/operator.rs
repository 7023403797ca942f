//! What an operator does to the mesh: apply, delete, get, status, await, and join tokens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::Generation;
use proto::v1;
use proto::v1::operator_server::Operator;
use tonic::{Request, Response, Status};

use super::answers::{
    applied, conditions_to_wire, foreseen, name_from_wire, name_to_wire, proxies, reports, shadow,
};
use super::chronicle::Chronicle;
use super::shown::{observed, shown};
use crate::authority::Issuer;
use crate::callers::Caller;
use crate::folder::Folder;
use crate::mesh::{ConfigChange, Delete, Mesh, Upsert};
use crate::settings::Limits;
use crate::sources::{Diagnostic, FileDocument, Kind, ObjectKey, Unusable, parse_files};
use crate::store::{Store, StoreError};
use crate::stream::Fleet;
use crate::tasks::Tasks;
use crate::tokens::{self, Account, NewToken, TokenError, unix_wire};
use crate::view::Judge;

/// Files of one `Apply`.
const MAX_FILES: usize = 1000;

/// Serves operators.
pub(crate) struct OperatorService {
    pub(crate) mesh: Mesh,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) chronicle: Arc<Chronicle>,
    pub(crate) store: Arc<Store>,
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) folder: Arc<Folder>,
    pub(crate) limits: Limits,
    pub(crate) tasks: Tasks,
}

#[tonic::async_trait]
impl Operator for OperatorService {
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyResponse>, Status> {
        let who = caller(&request);
        let v1::ApplyRequest {
            files,
            dry_run,
            in_part,
        } = request.into_inner();
        let unusable = if in_part {
            Unusable::LeftOut
        } else {
            Unusable::Refused
        };
        let read = tokio::task::spawn_blocking(move || read(&files, unusable)).await;
        let documents = match read.map_err(|_| Status::internal("reading was cut off"))? {
            Ok(documents) => documents,
            Err(problems) => return Ok(Response::new(self.refused(&problems))),
        };
        if dry_run {
            let answer = self.mesh.read(|state| foreseen(state, &documents));
            return Ok(Response::new(answer));
        }
        let upsert = |of_file: &FileDocument| Upsert {
            object: of_file.document.object.clone(),
            text: of_file.document.text.clone(),
            file: None,
        };
        let change = ConfigChange {
            upserts: documents.iter().map(upsert).collect(),
            ..ConfigChange::default()
        };
        let (generation, changes) = self.mesh.configure(change).await?;
        tracing::info!(who, %generation, objects = documents.len(), "applied");
        let answer = self
            .mesh
            .read(|state| applied(state, generation, &documents, &changes));
        Ok(Response::new(answer))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let who = caller(&request);
        let names = request.into_inner().names;
        let keys = names.iter().map(name_from_wire).collect::<Result<Vec<_>, _>>()?;
        let (found, missing): (Vec<_>, Vec<_>) = self
            .mesh
            .read(|state| keys.into_iter().partition(|key| state.objects.contains_key(key)));
        let delete = |key: &ObjectKey| Delete {
            key: key.clone(),
            only_from: None,
        };
        let change = ConfigChange {
            deletes: found.iter().map(delete).collect(),
            ..ConfigChange::default()
        };
        let (generation, _) = self.mesh.configure(change).await?;
        tracing::info!(who, %generation, objects = found.len(), "deleted");
        Ok(Response::new(v1::DeleteResponse {
            generation: generation.0,
            deleted: found.iter().map(name_to_wire).collect(),
            not_found: missing.iter().map(name_to_wire).collect(),
        }))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let wanted = request.into_inner();
        if !wanted.kind.is_empty() {
            wanted
                .kind
                .parse::<Kind>()
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
        }
        let fits = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        let proxies = self.fleet.records();
        let now = SystemTime::now();
        let answer = self.mesh.read_written(|state, records| {
            let reports = reports(state, &proxies);
            let judge = Judge::new(state, &reports);
            let chosen = records.iter().filter(|(key, _)| {
                fits(&wanted.kind, key.kind.as_str())
                    && (!key.kind.is_namespaced() || fits(&wanted.namespace, key.namespace.as_str()))
                    && fits(&wanted.name, key.name.as_str())
            });
            let objects = chosen.map(|(key, record)| {
                let mut status = judge.status(key, &observed(record));
                if let Some(status) = &mut status {
                    self.chronicle.date(key, record.created, now, status);
                }
                v1::Object {
                    name: Some(name_to_wire(key)),
                    yaml: shown(key, record, status, wanted.secrets),
                    source: record.source().to_owned(),
                    conditions: conditions_to_wire(judge.conditions(key)),
                    created: record.created,
                    from_file: record.file.is_some(),
                }
            });
            v1::GetResponse {
                objects: objects.collect(),
                generation: state.generation.0,
            }
        });
        Ok(Response::new(answer))
    }

    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let records = self.fleet.records();
        let (generation, proxies) = self
            .mesh
            .read(|state| (state.generation, proxies(state, &records)));
        let problems = [self.folder.problems(), self.mesh.unreadable()].concat();
        Ok(Response::new(v1::StatusResponse {
            generation: generation.0,
            proxies,
            trust_domain: self.issuer.trust_domain().to_string(),
            authority_not_after: unix_wire(self.issuer.not_after()),
            source_errors: problems.iter().map(v1::Diagnostic::from).collect(),
        }))
    }

    async fn r#await(
        &self,
        request: Request<v1::AwaitRequest>,
    ) -> Result<Response<v1::AwaitResponse>, Status> {
        let v1::AwaitRequest {
            generation,
            timeout_ms,
        } = request.into_inner();
        let generation = Generation(generation);
        let newest = self.mesh.generation();
        if generation > newest {
            return Err(Status::out_of_range(format!(
                "the mesh is at generation {newest} only"
            )));
        }
        let within = Duration::from_millis(timeout_ms).min(self.limits.await_max);
        tokio::select! {
            () = self.fleet.settled(generation) => {}
            () = tokio::time::sleep(within) => {}
            () = self.tasks.stopping() => return Err(Status::unavailable("the control plane is stopping")),
        }
        let records = self.fleet.records();
        let connected = self.mesh.read(|state| proxies(state, &records));
        let connected: Vec<_> = connected.into_iter().filter(|proxy| proxy.connected).collect();
        let count = u32::try_from(connected.len()).unwrap_or(u32::MAX);
        let behind = connected
            .into_iter()
            .filter(|proxy| proxy.refusal.is_some() || proxy.generation < generation.0);
        let behind: Vec<_> = behind.collect();
        Ok(Response::new(v1::AwaitResponse {
            reached: behind.is_empty(),
            behind,
            proxies: count,
        }))
    }

    async fn shadow(
        &self,
        _request: Request<v1::ShadowRequest>,
    ) -> Result<Response<v1::ShadowResponse>, Status> {
        let records = self.fleet.records();
        let answer = self.mesh.read(|state| shadow(state, &records));
        Ok(Response::new(answer))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let who = caller(&request);
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
                "ttl_seconds: a join token lives at most {most}"
            )));
        }
        let account = Account::new(&namespace, &service_account)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (store, hash) = (self.store.clone(), *self.issuer.root_hash());
        let most = self.limits.join_tokens;
        let made =
            tokio::task::spawn_blocking(move || tokens::create(&store, &hash, &account, lifetime, most));
        let made = made.await.map_err(|_| Status::internal("the store ended"))?;
        let NewToken { text, expires } = made.map_err(not_made)?;
        tracing::info!(who, namespace, service_account, "made a join token");
        Ok(Response::new(v1::CreateTokenResponse {
            token: text,
            expires_at: unix_wire(expires),
        }))
    }
}

impl OperatorService {
    fn refused(&self, problems: &[Diagnostic]) -> v1::ApplyResponse {
        v1::ApplyResponse {
            generation: self.mesh.generation().0,
            errors: problems.iter().map(v1::Diagnostic::from).collect(),
            applied: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// For the log: who calls. That it is an operator was judged before.
fn caller<T>(request: &Request<T>) -> String {
    let caller = request.extensions().get::<Caller>();
    let peer = caller.and_then(|caller| caller.peer.as_ref());
    peer.map(|peer| peer.id().to_string()).unwrap_or_default()
}

fn not_made(error: TokenError) -> Status {
    match error {
        TokenError::Store(StoreError::TooManyTokens { .. }) => Status::resource_exhausted(error.to_string()),
        error => {
            tracing::error!(error = &error as &dyn std::error::Error, "no join token was made");
            Status::internal("the store failed; the control plane's log says why")
        }
    }
}

/// All objects of all files, or everything that is wrong with them.
fn read(files: &[v1::SourceFile], unusable: Unusable) -> Result<Vec<FileDocument>, Vec<Diagnostic>> {
    if files.len() > MAX_FILES {
        return Err(vec![Diagnostic::of_file(
            "",
            format!("more than {MAX_FILES} files"),
        )]);
    }
    parse_files(files.iter().map(|file| (&*file.name, &*file.text)), unusable)
}
