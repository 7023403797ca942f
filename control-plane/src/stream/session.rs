//! One config stream from its Hello to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use certs::VerifiedPeer;
use model::workload::Workload;
use model::{Generation, ResourceName, ServiceName, WorkloadId};
use proto::v1;
use proto::v1::proxy_message::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};

use super::Shared;
use super::held::{Held, Next, Step};
use crate::mesh::ProxyRecord;
use crate::tokens::unix;
use crate::view;

/// Longest text that is taken over from a proxy into its record.
const MAX_TEXT: usize = 1000;

/// What the control plane knows of one proxy while its stream lives.
pub(super) struct Session<'s> {
    shared: &'s Shared,
    id: WorkloadId,
    session: u64,
    held: Held,
    updates: &'s mpsc::Sender<Result<v1::Update, Status>>,
    /// When the update that is out must have been answered.
    answer_by: Option<Instant>,
}

/// How a stream ended without a fault.
enum End {
    /// The proxy is gone.
    Gone,
    /// The proxy said goodbye, and must be told that it was heard.
    Left,
    /// A newer stream of the same workload, which keeps it.
    Replaced,
    /// The control plane stops; the workload is remembered.
    Stopping,
}

impl<'s> Session<'s> {
    pub(super) async fn run(
        shared: &'s Shared,
        peer: VerifiedPeer,
        mut messages: Streaming<v1::ProxyMessage>,
        updates: &'s mpsc::Sender<Result<v1::Update, Status>>,
    ) -> Result<(), Status> {
        let hello = first_message(&mut messages, shared).await?;
        let workload = proto::convert::workload_from_wire(&hello, peer.id()).map_err(refuse_field)?;
        let held = held_by(&hello, shared.limits.subscriptions)?;
        let id = workload.id.clone();
        let session = shared.next_session();
        enter(shared, session, workload, &hello, &peer).await?;
        let mut this = Self {
            shared,
            id,
            session,
            held,
            updates,
            answer_by: None,
        };
        let ended = this.serve(&mut messages).await;
        this.leave(&ended).await;
        ended.map(drop)
    }

    async fn serve(&mut self, messages: &mut Streaming<v1::ProxyMessage>) -> Result<End, Status> {
        let mut states = self.shared.mesh.states();
        let mut progress = self.shared.mesh.progress();
        loop {
            states.borrow_and_update();
            self.bring_up_to_date().await?;
            let late = self
                .answer_by
                .unwrap_or_else(|| Instant::now() + self.shared.limits.acknowledge_timeout);
            tokio::select! {
                message = messages.message() => match message? {
                    None => return Ok(End::Gone),
                    Some(message) => if let Some(end) = self.heard(message).await? {
                        return Ok(end);
                    },
                },
                changed = states.changed() => if changed.is_err() {
                    return Ok(End::Stopping);
                },
                replaced = replaced(self.shared, &self.id, self.session, &mut progress) => if replaced {
                    return Ok(End::Replaced);
                },
                () = sleep_until(late), if self.answer_by.is_some() => {
                    return Err(Status::deadline_exceeded("an update was neither acknowledged nor refused"));
                }
                () = self.updates.closed() => return Ok(End::Gone),
                () = self.shared.stopping.cancelled() => return Ok(End::Stopping),
            }
        }
    }

    async fn heard(&mut self, message: v1::ProxyMessage) -> Result<Option<End>, Status> {
        let content = message
            .message
            .ok_or_else(|| Status::invalid_argument("a message without content"))?;
        match content {
            Message::Hello(_) => return Err(Status::invalid_argument("Hello comes first, and only first")),
            Message::Subscribe(subscribe) => {
                self.held.forget(services(&subscribe.forget)?);
                self.held.subscribe(services(&subscribe.destinations)?);
                if self.held.subscriptions.len() > self.shared.limits.subscriptions {
                    let most = self.shared.limits.subscriptions;
                    return Err(Status::resource_exhausted(format!(
                        "more than {most} subscriptions"
                    )));
                }
            }
            Message::Ack(ack) => {
                if let Some(generation) = self.held.acknowledged(ack.nonce) {
                    self.answer_by = None;
                    self.shared.metrics.updates_acknowledged.inc();
                    self.note(|record| {
                        record.generation = Generation(generation);
                        record.refusal = None;
                    });
                }
            }
            Message::Refuse(refuse) => {
                if let Some(generation) = self.held.refused(refuse.nonce) {
                    self.answer_by = None;
                    self.shared.metrics.updates_refused.inc();
                    let refusal = v1::Refusal {
                        generation,
                        resource: shortened(&refuse.resource),
                        field: shortened(&refuse.field),
                        why: shortened(&refuse.why),
                    };
                    let (resource, field, why) = (&refusal.resource, &refusal.field, &refusal.why);
                    tracing::warn!(proxy = %self.id, generation, resource, field, why, "an update was refused");
                    self.note(|record| record.refusal = Some(refusal.clone()));
                }
            }
            Message::Readiness(readiness) => {
                self.shared
                    .mesh
                    .set_ready(&self.id, readiness.ready)
                    .await
                    .map_err(fault)?;
            }
            Message::Leaving(_) => return Ok(Some(End::Left)),
        }
        Ok(None)
    }

    /// Sends what the proxy lacks, unless it has yet to answer the last update.
    async fn bring_up_to_date(&mut self) -> Result<(), Status> {
        let state = self.shared.mesh.state();
        let resources = view::resources_for(&state, &self.id, &self.held.subscriptions);
        let encode = |(name, resource): (&ResourceName, &Option<model::Resource>)| {
            let resource = resource.as_ref();
            let encoded = resource.map(|resource| self.shared.encoder.encode(name, resource, &self.id));
            (name.clone(), encoded)
        };
        let encoded: BTreeMap<_, _> = resources.iter().map(encode).collect();
        let version = |(name, encoded): (&ResourceName, &Option<std::sync::Arc<super::encode::Encoded>>)| {
            (
                name.clone(),
                encoded.as_ref().map(|encoded| encoded.version.clone()),
            )
        };
        let wanted = encoded.iter().map(version).collect();
        match self.held.next(&wanted, state.generation.0) {
            Step::Wait => {
                self.note(|record| record.in_sync = false);
                Ok(())
            }
            Step::InSync => {
                self.note(|record| {
                    record.generation = state.generation;
                    record.in_sync = true;
                    record.refusal = None;
                });
                Ok(())
            }
            Step::Send(next) => {
                self.note(|record| record.in_sync = false);
                let Next {
                    nonce,
                    changed,
                    removed,
                } = next;
                let resource = |name: ResourceName| {
                    let encoded = encoded.get(&name)?.as_ref()?;
                    Some(v1::VersionedResource {
                        name: name.to_string(),
                        version: encoded.version.clone(),
                        resource: Some(encoded.resource.clone()),
                    })
                };
                let update = v1::Update {
                    nonce,
                    generation: state.generation.0,
                    changed: changed.into_iter().filter_map(resource).collect(),
                    removed: removed.iter().map(ToString::to_string).collect(),
                };
                self.answer_by = Some(Instant::now() + self.shared.limits.acknowledge_timeout);
                self.shared.metrics.updates_sent.inc();
                // Nothing else is in the queue, so this does not wait.
                self.updates
                    .send(Ok(update))
                    .await
                    .map_err(|_| Status::cancelled("the proxy is gone"))
            }
        }
    }

    /// Changes this proxy's record, and tells those who wait only if it differs.
    fn note(&self, change: impl FnOnce(&mut ProxyRecord)) {
        self.shared.mesh.note_proxy(&self.id, self.session, change);
    }

    async fn leave(&self, ended: &Result<End, Status>) {
        let keeps_workload = matches!(ended, Ok(End::Replaced | End::Stopping));
        if matches!(ended, Ok(End::Replaced)) || self.shared.is_replaced(&self.id, self.session) {
            return;
        }
        self.shared.metrics.proxies_connected.dec();
        self.shared.mesh.with_proxies(|proxies| proxies.remove(&self.id));
        tracing::info!(proxy = %self.id, "a proxy disconnected");
        if !keeps_workload
            && let Err(error) = self
                .shared
                .mesh
                .remove_workloads(std::slice::from_ref(&self.id))
                .await
        {
            tracing::error!(proxy = %self.id, %error, "a workload was not removed");
        }
    }
}

/// Takes the workload up, in place of an earlier stream of the same one.
async fn enter(
    shared: &Shared,
    session: u64,
    workload: Workload,
    hello: &v1::Hello,
    peer: &VerifiedPeer,
) -> Result<(), Status> {
    let id = workload.id.clone();
    let state = shared.mesh.state();
    if let Some(known) = state.workloads.get(&id)
        && known.identity != workload.identity
    {
        return Err(Status::already_exists(format!(
            "workload {id} is {}",
            known.identity
        )));
    }
    let record = ProxyRecord {
        session,
        connected_since: SystemTime::now(),
        generation: Generation(hello.generation),
        in_sync: false,
        refusal: None,
        certificate: (unix(peer.not_before()), unix(peer.not_after())),
        proxy_version: shortened(&hello.proxy_version),
    };
    let before = shared
        .mesh
        .with_proxies(|proxies| proxies.insert(id.clone(), record));
    if before.is_none() {
        shared.metrics.proxies_connected.inc();
    }
    tracing::info!(proxy = %id, identity = %workload.identity, "a proxy connected");
    shared
        .mesh
        .put_workload(workload, hello)
        .await
        .map(drop)
        .map_err(fault)
}

async fn first_message(
    messages: &mut Streaming<v1::ProxyMessage>,
    shared: &Shared,
) -> Result<v1::Hello, Status> {
    let first = timeout(shared.limits.hello_timeout, messages.message());
    match first.await.map_err(|_| Status::deadline_exceeded("no Hello"))?? {
        Some(v1::ProxyMessage {
            message: Some(Message::Hello(hello)),
        }) => Ok(hello),
        _ => Err(Status::invalid_argument("the first message must be Hello")),
    }
}

fn held_by(hello: &v1::Hello, most: usize) -> Result<Held, Status> {
    let subscriptions: BTreeSet<ServiceName> = services(&hello.subscriptions)?.into_iter().collect();
    if subscriptions.len() > most || hello.versions.len() > most.saturating_mul(4) {
        return Err(Status::resource_exhausted(format!(
            "more than {most} subscriptions"
        )));
    }
    let mut in_use = BTreeMap::new();
    for (name, version) in &hello.versions {
        let name: ResourceName = name.parse().map_err(refuse_field)?;
        in_use.insert(name, version.clone());
    }
    Ok(Held::new(subscriptions, in_use))
}

/// Waits until a newer stream has taken over.
async fn replaced(
    shared: &Shared,
    id: &WorkloadId,
    session: u64,
    progress: &mut tokio::sync::watch::Receiver<()>,
) -> bool {
    loop {
        if shared.is_replaced(id, session) {
            return true;
        }
        if progress.changed().await.is_err() {
            return false;
        }
    }
}

fn services(names: &[String]) -> Result<Vec<ServiceName>, Status> {
    names
        .iter()
        .map(|name| name.parse().map_err(refuse_field))
        .collect()
}

fn refuse_field(error: model::FieldError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn fault(error: crate::store::StoreError) -> Status {
    tracing::error!(%error, "the store failed");
    Status::internal("the store failed")
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
