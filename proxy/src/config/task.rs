//! Keeps the config stream open for as long as the proxy runs, and puts its updates to use.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::{Generation, Snapshot};
use proto::v1;
use rustls::ClientConfig;
use tokio::time::{sleep, sleep_until, timeout};

use super::ConfigSettings;
use super::handle::{ConfigHandle, Shared};
use super::interest::Interest;
use super::status::RefusedUpdate;
use super::stream::{self, ConfigStream, Event, StreamError};
use super::update::{Change, Held, Refusal};
use crate::shadow::Ledger;

/// The one task that talks to the control plane about configuration.
pub struct ConfigTask {
    settings: ConfigSettings,
    tls: Arc<ClientConfig>,
    shared: Arc<Shared>,
    held: Held,
    follow: Option<Follow>,
    /// Whether counts of routes in shadow were forgotten that were reported.
    compares_anew: bool,
}

/// Takes up a configuration before it is used and acknowledged.
pub type Follow = Box<dyn FnMut(&Arc<Snapshot>) + Send + Sync>;

/// Counts of routes in shadow are reported at most this often.
const SHADOW_INTERVAL: Duration = Duration::from_secs(1);

/// How a stream ended.
enum Ended {
    /// As [`ConfigHandle::leave`] asked; whether the control plane confirmed it.
    Left(bool),
    Lost(StreamError),
}

impl ConfigTask {
    /// The task, and the handle for everyone else. `tls` is
    /// [`crate::identity::IdentityKeeper::control_plane_tls`].
    pub fn new(settings: ConfigSettings, tls: Arc<ClientConfig>) -> (ConfigHandle, Self) {
        let (handle, shared) = ConfigHandle::new(settings.interest);
        (
            handle,
            Self {
                settings,
                tls,
                shared,
                held: Held::default(),
                follow: None,
                compares_anew: false,
            },
        )
    }

    /// Has `follow` take up every configuration.
    pub fn following(self, follow: Follow) -> Self {
        Self {
            follow: Some(follow),
            ..self
        }
    }

    /// Connects, and connects again, until [`ConfigHandle::leave`]. The last good snapshot stays in use
    /// meanwhile.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let why = match self.one_stream().await {
                Ended::Left(told) => return self.left(told),
                Ended::Lost(why) => why,
            };
            failures = if begun.elapsed() >= self.settings.stable_after {
                1
            } else {
                failures + 1
            };
            self.lost(&why, failures);
            let delay = self.settings.backoff.delay(failures, self.settings.dice.roll());
            tokio::select! {
                () = sleep(delay) => {}
                () = self.shared.asked_to_leave() => return self.left(false),
            }
        }
    }

    async fn one_stream(&mut self) -> Ended {
        let shared = self.shared.clone();
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = shared.asked_to_leave() => return Ended::Left(false),
        };
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(why) => return Ended::Lost(why),
        };
        match self.converse(&mut stream).await {
            Ok(()) => {
                let goodbye = timeout(self.settings.leave_timeout, stream.leave()).await;
                Ended::Left(goodbye.unwrap_or(false))
            }
            Err(why) => Ended::Lost(why),
        }
    }

    async fn open(&self) -> Result<ConfigStream, StreamError> {
        let states = (self.shared.ready.subscribe(), self.shared.ports.subscribe());
        let hello = self.hello();
        let stream = ConfigStream::open(&self.settings, self.tls.clone(), hello, states).await?;
        let mut progress = self.shared.progress();
        progress.streams += 1;
        progress.connected_since = Some(SystemTime::now());
        progress.last_error = None;
        tracing::info!(control_plane = %self.settings.control_plane, "the config stream is open");
        drop(progress);
        Ok(stream)
    }

    fn hello(&self) -> v1::Hello {
        let subscriptions = self.shared.take_questions(Interest::all).destinations;
        let labels = self.settings.labels.iter();
        v1::Hello {
            workload_id: self.settings.workload_id.to_string(),
            labels: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            inbound: self
                .settings
                .inbound
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            app_ports: proto::convert::app_ports_to_wire(&self.settings.app_ports),
            ready: *self.shared.ready.borrow(),
            subscriptions: subscriptions.iter().map(ToString::to_string).collect(),
            versions: self.held.versions().collect(),
            proxy_version: self.settings.proxy_version.clone(),
            generation: self.shared.snapshot.load().generation.0,
            gateway: self
                .settings
                .gateway
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        }
    }

    /// Runs one open stream until somebody asks to leave.
    async fn converse(&mut self, stream: &mut ConfigStream) -> Result<(), StreamError> {
        let shared = self.shared.clone();
        let leave = shared.asked_to_leave();
        tokio::pin!(leave);
        shared.ledger.repeat();
        let mut compared_at = None;
        loop {
            tokio::select! {
                () = &mut leave => return Ok(()),
                () = shared.questions.notified() => {
                    let questions = shared.take_questions(Interest::questions);
                    if let Some(message) = stream::subscribe(questions) {
                        stream.send(message).await?;
                    }
                }
                () = due(&shared.ledger, compared_at) => {
                    compared_at = Some(tokio::time::Instant::now());
                    stream.send(stream::shadow(shared.ledger.report())).await?;
                }
                event = stream.next() => {
                    let answer = match event? {
                        Event::Ready(ready) => stream::readiness(ready),
                        Event::Ports(reports) => stream::ports(reports),
                        Event::Update(update) => self.answer(update),
                    };
                    // What is acknowledged is open, and whoever waits for the one should know the other.
                    if let Some(reports) = stream.news_of_ports() {
                        stream.send(stream::ports(reports)).await?;
                    }
                    if std::mem::take(&mut self.compares_anew) {
                        compared_at = Some(tokio::time::Instant::now());
                        stream.send(stream::shadow(shared.ledger.report())).await?;
                    }
                    stream.send(answer).await?;
                }
            }
        }
    }

    /// Uses an update, or none of it; and says which.
    fn answer(&mut self, update: v1::Update) -> v1::proxy_message::Message {
        let (nonce, generation) = (update.nonce, Generation(update.generation));
        match self.apply(update) {
            Ok(()) => {
                tracing::debug!(%generation, "a config update is in use");
                stream::ack(nonce)
            }
            Err(refusal) => {
                tracing::warn!(%generation, resource = %refusal.resource, field = %refusal.field,
                    why = %refusal.why,
                    "a config update is refused, the configuration before it stays");
                let message = stream::refuse(nonce, &refusal);
                let at = SystemTime::now();
                self.shared.progress().refused = Some(RefusedUpdate {
                    generation,
                    refusal,
                    at,
                });
                message
            }
        }
    }

    fn apply(&mut self, update: v1::Update) -> Result<(), Refusal> {
        let mut change = Change::read(update)?;
        {
            let interest = self.shared.interest();
            change.retain(|question| interest.wants(question));
        }
        self.held.admit(&change, &self.settings.resources)?;
        self.held.note(&change);
        let (exist, absent) = change.answers();
        let next = Arc::new(change.onto(&self.shared.snapshot.load_full()));
        // Whoever uses the configuration finds there what is in shadow.
        self.compares_anew |= self.shared.ledger.follow(&next);
        if let Some(follow) = &mut self.follow {
            follow(&next);
        }
        {
            let mut progress = self.shared.progress();
            progress.updates += 1;
            progress.resources = self.held.count();
            progress.resource_bytes = self.held.bytes();
            progress.refused = None;
        }
        self.shared.publish(next);
        let has_questions = {
            let now = Instant::now();
            let mut interest = self.shared.interest();
            exist.iter().for_each(|question| interest.exists(question));
            absent
                .iter()
                .for_each(|question| interest.is_absent(question, now));
            interest.trim(now);
            interest.has_questions()
        };
        if has_questions {
            self.shared.questions.notify_one();
        }
        Ok(())
    }

    fn lost(&self, why: &StreamError, failures: u32) {
        let control_plane = &self.settings.control_plane;
        match failures {
            1 => {
                tracing::warn!(%control_plane, error = %why, "the config stream is lost; what is known stays")
            }
            _ => tracing::debug!(%control_plane, error = %why, failures, "no config stream yet"),
        }
        let mut progress = self.shared.progress();
        progress.connected_since = None;
        progress.last_error = Some(why.to_string());
    }

    fn left(&self, told: bool) {
        tracing::info!(told, "left the mesh: no new calls are to come");
        self.shared.progress().connected_since = None;
        self.shared.left.send_replace(Some(told));
    }
}

/// Ends when a report of the ledger is due, after one at `last`. No time is measured while there is nothing to tell.
async fn due(ledger: &Ledger, last: Option<tokio::time::Instant>) {
    ledger.changed().await;
    if let Some(last) = last {
        sleep_until(last + SHADOW_INTERVAL).await;
    }
}
