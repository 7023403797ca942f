//! One config stream from its Hello to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use certs::{CLOCK_SKEW, VerifiedPeer};
use model::workload::Workload;
use model::{Generation, Question, ResourceName, WorkloadId};
use proto::v1::proxy_message::Message;
use proto::{encoded, v1};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::gateway::{listener_report, may_serve_gateway};
use super::held::{Held, Next, Standing};
use super::{ProxyRecord, Shared, shadow};
use crate::mesh::SessionNumber;

/// Longest text that is taken over from a proxy, in characters.
const MAX_TEXT: usize = 1000;

type Updates = mpsc::Sender<Result<encoded::Update, Status>>;

/// What the control plane knows of one proxy while its stream lives.
pub(super) struct Session<'s> {
    shared: &'s Arc<Shared>,
    id: WorkloadId,
    number: SessionNumber,
    held: Held,
    updates: &'s Updates,
    /// When the proxy is told what is new; changes are gathered until then.
    tell_at: Option<Instant>,
    /// When the update that is out must have been answered.
    answer_by: Option<Instant>,
    /// The generation of the last whole difference that was acknowledged.
    in_use: Generation,
    /// From the sending of an update to its answer.
    span: tracing::Span,
}

/// How a stream ended without a fault of the proxy.
enum End {
    /// The proxy is gone, or said goodbye.
    Gone,
    /// A newer stream of the same workload, which keeps it.
    Replaced,
    /// The control plane stops; the workload is remembered.
    Stopping,
    /// Its certificate has ended; it is expected back with the next one.
    Expired,
}

/// How soon a proxy is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Haste {
    /// It waits for an answer.
    Now,
    /// More changes may follow.
    Gather,
}

impl<'s> Session<'s> {
    /// Runs a stream to its end. An error is how it ends for the proxy.
    pub(super) async fn run(
        shared: &'s Arc<Shared>,
        peer: VerifiedPeer,
        mut messages: Streaming<v1::ProxyMessage>,
        updates: &'s Updates,
    ) -> Result<(), Status> {
        let hello = tokio::select! {
            hello = first_message(&mut messages, shared) => hello?,
            () = shared.tasks.stopping() => return Err(stopping()),
        };
        let workload = proto::convert::workload_from_wire(&hello, peer.id()).map_err(refuse_field)?;
        may_serve_gateway(&workload)?;
        let held = held_by(&hello, shared.limits.subscriptions)?;
        let (id, number) = (workload.id.clone(), shared.fleet.next_number());
        let replaced = enter(shared, number, workload, &hello, &peer).await?;
        let mut this = Self {
            shared,
            id,
            number,
            held,
            updates,
            tell_at: None,
            answer_by: None,
            in_use: Generation::default(),
            span: tracing::Span::none(),
        };
        let ended = this.serve(&mut messages, &replaced, peer.not_after()).await;
        this.leave(&ended).await;
        match ended? {
            End::Gone => Ok(()),
            End::Replaced => Err(Status::aborted(
                "a newer stream of the same workload has taken over",
            )),
            End::Stopping => Err(stopping()),
            End::Expired => Err(Status::unauthenticated(
                "the certificate of this connection has expired; connect with the next one",
            )),
        }
    }

    async fn serve(
        &mut self,
        messages: &mut Streaming<v1::ProxyMessage>,
        replaced: &CancellationToken,
        not_after: SystemTime,
    ) -> Result<End, Status> {
        let mut generations = self.shared.mesh.generations();
        let valid = (not_after + CLOCK_SKEW)
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        let expired = sleep(valid);
        tokio::pin!(expired);
        generations.borrow_and_update();
        self.look(Haste::Now)?;
        loop {
            let (tell_at, answer_by) = (self.tell_at, self.answer_by);
            tokio::select! {
                message = messages.message() => match message? {
                    None => return Ok(End::Gone),
                    Some(message) => if let Some(end) = self.heard(message).await? {
                        return Ok(end);
                    },
                },
                // The sender lives in the mesh, which is shared.
                Ok(()) = generations.changed() => {
                    generations.borrow_and_update();
                    self.look(Haste::Gather)?;
                }
                () = at(tell_at), if tell_at.is_some() => self.tell()?,
                () = at(answer_by), if answer_by.is_some() => {
                    return Err(Status::deadline_exceeded("an update was neither acknowledged nor refused"));
                }
                () = self.updates.closed() => return Ok(End::Gone),
                () = replaced.cancelled() => return Ok(End::Replaced),
                () = &mut expired => return Ok(End::Expired),
                () = self.shared.tasks.stopping() => return Ok(End::Stopping),
            }
        }
    }

    async fn heard(&mut self, message: v1::ProxyMessage) -> Result<Option<End>, Status> {
        let content = message
            .message
            .ok_or_else(|| Status::invalid_argument("a message without content"))?;
        match content {
            Message::Hello(_) => return Err(Status::invalid_argument("Hello comes first, and only first")),
            Message::Subscribe(subscribe) => self.subscribe(&subscribe)?,
            Message::Ack(ack) => self.acknowledged(ack.nonce)?,
            Message::Refuse(refuse) => self.refused(&refuse)?,
            Message::Readiness(readiness) => {
                let mesh = &self.shared.mesh;
                mesh.set_ready(&self.id, self.number, readiness.ready).await?;
            }
            Message::Leaving(_) => return Ok(Some(End::Gone)),
            Message::Listeners(report) => self.reported(&report)?,
            Message::Shadow(report) => {
                let report = Arc::new(shadow::kept(report));
                self.shared.fleet.compared(&self.id, self.number, report);
            }
        }
        Ok(None)
    }

    fn reported(&self, report: &v1::ListenerReport) -> Result<(), Status> {
        let ports = listener_report(report)?;
        self.note(|record| record.ports = ports);
        Ok(())
    }

    fn subscribe(&mut self, subscribe: &v1::Subscribe) -> Result<(), Status> {
        self.held.forget(questions("forget", &subscribe.forget)?);
        self.held
            .subscribe(questions("destinations", &subscribe.destinations)?);
        within(self.held.subscriptions.len(), self.shared.limits.subscriptions)?;
        self.look(Haste::Now)
    }

    fn acknowledged(&mut self, nonce: u64) -> Result<(), Status> {
        let answered = self.held.acknowledged(nonce).ok_or_else(|| unexpected(nonce))?;
        self.answered();
        self.shared.metrics.updates_acknowledged.inc();
        if answered.is_last {
            self.in_use = answered.generation;
            self.note(|record| {
                // While something stands refused, what is used is of no one generation.
                if record.refusal.is_none() {
                    record.in_use = record.in_use.max(answered.generation);
                }
                record.judged = record.judged.max(answered.generation);
            });
        }
        self.look(Haste::Now)
    }

    fn refused(&mut self, refuse: &v1::Refuse) -> Result<(), Status> {
        let resource = shortened(&refuse.resource);
        let answered = self
            .held
            .refused(refuse.nonce, &resource)
            .ok_or_else(|| unexpected(refuse.nonce))?;
        self.answered();
        self.note_refusal(v1::Refusal {
            generation: answered.generation.0,
            resource,
            field: shortened(&refuse.field),
            why: shortened(&refuse.why),
        });
        self.look(Haste::Now)
    }

    fn answered(&mut self) {
        self.answer_by = None;
        self.span = tracing::Span::none();
    }

    fn note_refusal(&self, refusal: v1::Refusal) {
        self.shared.metrics.updates_refused.inc();
        let v1::Refusal {
            generation,
            resource,
            field,
            why,
        } = &refusal;
        tracing::warn!(proxy = %self.id, generation, resource, field, why, "an update was refused");
        self.note(|record| record.refusal = Some(refusal.clone()));
    }

    /// Finds out how the proxy stands now, and when it must be told something.
    fn look(&mut self, haste: Haste) -> Result<(), Status> {
        let mesh = &self.shared.mesh;
        let (generation, known) = mesh.resources_for(&self.id, &self.held.subscriptions);
        match self.held.standing(&known) {
            // Looked at again with its answer.
            Standing::Waiting => {}
            Standing::Behind if haste == Haste::Now => return self.tell(),
            Standing::Behind => {
                let in_a_moment = Instant::now() + self.shared.limits.coalesce;
                self.tell_at.get_or_insert(in_a_moment);
            }
            Standing::InSync => {
                self.tell_at = None;
                self.note(|record| {
                    record.in_use = generation;
                    record.judged = generation;
                    record.refusal = None;
                });
            }
            Standing::Refused => {
                self.tell_at = None;
                self.note(|record| record.judged = generation);
            }
        }
        Ok(())
    }

    /// Sends what the proxy lacks, unless it has yet to answer the last update.
    fn tell(&mut self) -> Result<(), Status> {
        self.tell_at = None;
        let mesh = &self.shared.mesh;
        let (generation, known) = mesh.resources_for(&self.id, &self.held.subscriptions);
        let max_bytes = self.shared.limits.update_bytes;
        while let Some((name, bytes)) = self.held.refuse_too_large(&known, max_bytes) {
            self.note_refusal(v1::Refusal {
                generation: generation.0,
                resource: name.to_string(),
                field: String::new(),
                why: format!("{bytes} bytes do not fit into an update of at most {max_bytes}"),
            });
        }
        match self.held.next(&known, generation, max_bytes) {
            Some(next) => self.send(next, generation),
            None => self.look(Haste::Gather),
        }
    }

    fn send(&mut self, next: Next, generation: Generation) -> Result<(), Status> {
        // A part of a larger difference brings the proxy to no new generation yet.
        let generation = if next.is_last { generation } else { self.in_use };
        let resource =
            |(name, content): (ResourceName, Arc<crate::mesh::Encoded>)| encoded::VersionedResource {
                name: name.to_string(),
                version: content.version.clone(),
                resource: content.bytes.clone(),
            };
        let update = encoded::Update {
            nonce: next.nonce,
            generation: generation.0,
            changed: next.changed.into_iter().map(resource).collect(),
            removed: next.removed.iter().map(ToString::to_string).collect(),
        };
        self.span = tracing::info_span!(
            "config update",
            proxy = %self.id,
            generation = generation.0,
            changed = update.changed.len(),
            removed = update.removed.len(),
            is_last = next.is_last,
        );
        self.answer_by = Some(Instant::now() + self.shared.limits.acknowledge_timeout);
        self.shared.metrics.updates_sent.inc();
        // The queue has room: the update before it was answered. Who answers without reading is cut off.
        self.updates
            .try_send(Ok(update))
            .map_err(|_| Status::resource_exhausted("updates are answered but not read"))
    }

    fn note(&self, change: impl FnOnce(&mut ProxyRecord)) {
        self.shared.fleet.note(&self.id, self.number, change);
    }

    async fn leave(&self, ended: &Result<End, Status>) {
        let (id, number) = (self.id.clone(), self.number);
        self.shared.fleet.leave(&id, number);
        match ended {
            Ok(End::Replaced | End::Stopping) => {}
            Ok(End::Expired) => {
                tracing::info!(proxy = %id, "a proxy's certificate has ended");
                let shared = self.shared.clone();
                self.shared.tasks.spawn(async move {
                    tokio::select! {
                        () = sleep(shared.grace()) => forget(&shared, &id, number).await,
                        () = shared.tasks.stopping() => {}
                    }
                });
            }
            // A connection that broke because of the shutdown must not take the workload with it.
            Ok(End::Gone) | Err(_) if self.shared.tasks.is_stopping() => {}
            Ok(End::Gone) | Err(_) => {
                tracing::info!(proxy = %id, "a proxy disconnected");
                forget(self.shared, &id, number).await;
            }
        }
    }
}

async fn forget(shared: &Shared, id: &WorkloadId, number: SessionNumber) {
    if let Err(error) = shared.mesh.leave(id, number).await {
        tracing::error!(proxy = %id, %error, "a workload was not removed");
    }
}

/// Takes the workload up, in place of an earlier stream of the same one.
async fn enter(
    shared: &Shared,
    number: SessionNumber,
    workload: Workload,
    hello: &v1::Hello,
    peer: &VerifiedPeer,
) -> Result<CancellationToken, Status> {
    let (id, identity) = (workload.id.clone(), workload.identity.clone());
    shared.mesh.join(workload, number).await?;
    let record = ProxyRecord {
        connected_since: SystemTime::now(),
        // What it claims; it counts once it was compared.
        in_use: Generation(hello.generation).min(shared.mesh.generation()),
        judged: Generation::default(),
        refusal: None,
        certificate: (peer.not_before(), peer.not_after()),
        proxy_version: shortened(&hello.proxy_version),
        ports: BTreeMap::new(),
        shadow: Arc::default(),
    };
    let replaced = shared.fleet.enter(&id, number, record);
    let replaced = replaced.ok_or_else(|| Status::from(crate::mesh::ChangeError::Superseded))?;
    tracing::info!(proxy = %id, %identity, "a proxy connected");
    Ok(replaced)
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
    let subscriptions: BTreeSet<Question> = questions("subscriptions", &hello.subscriptions)?
        .into_iter()
        .collect();
    within(subscriptions.len(), most)?;
    let in_use = hello.versions.iter().filter_map(|(name, version)| {
        // A kind of resource that only other versions of the control plane know is no business of this one.
        let name = name.parse::<ResourceName>().ok()?;
        Some((name, version.clone()))
    });
    Ok(Held::new(subscriptions, in_use.collect::<BTreeMap<_, _>>()))
}

fn questions(field: &str, names: &[String]) -> Result<Vec<Question>, Status> {
    let read = |(index, name): (usize, &String)| {
        name.parse()
            .map_err(|error: model::FieldError| refuse_field(error.within_item(index).within(field)))
    };
    names.iter().enumerate().map(read).collect()
}

fn within(subscriptions: usize, most: usize) -> Result<(), Status> {
    if subscriptions > most {
        return Err(Status::resource_exhausted(format!(
            "more than {most} subscriptions"
        )));
    }
    Ok(())
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn refuse_field(error: model::FieldError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn unexpected(nonce: u64) -> Status {
    Status::invalid_argument(format!("no update with nonce {nonce} waits for an answer"))
}

fn stopping() -> Status {
    Status::unavailable("the control plane is stopping")
}

pub(super) fn shortened(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(MAX_TEXT)
        .collect()
}
