//! The bounded queue that spans end in, and the thread that sends them in batches.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as threads};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::environment::{Batching, Environment, TlsFiles};
use crate::{ExportCounts, TelemetryError};

/// How much longer than asked a shutdown waits for the thread to notice that time is up.
const LAST_MOMENT: Duration = Duration::from_millis(100);
/// A shutdown is not given longer than this, whatever is asked.
const LONGEST_STOP: Duration = Duration::from_secs(3600);

/// The sending thread, as its owner sees it.
#[derive(Debug)]
pub(crate) struct Worker {
    counts: Arc<Counts>,
    /// Disconnects when the thread has ended.
    ended: Mutex<threads::Receiver<()>>,
}

impl Worker {
    /// Starts the thread, and gives the queue that feeds it.
    pub(crate) fn start(
        target: String,
        environment: Environment,
        resource: Resource,
    ) -> Result<(Self, Queue), TelemetryError> {
        let batch = environment.batch;
        let counts = Arc::new(Counts::default());
        let (spans, waiting) = mpsc::channel(batch.queue);
        let (stop, stopped) = watch::channel(None);
        let full = Arc::new(Notify::new());
        let queue = Queue {
            spans,
            full: full.clone(),
            counts: counts.clone(),
            stop,
            batch_size: batch.size,
        };

        let (ready, started) = threads::sync_channel(1);
        let (running, ended) = threads::sync_channel(0);
        let on_thread = {
            let counts = counts.clone();
            move || {
                let _spans_of_this_thread_would_make_more = Context::enter_telemetry_suppressed_scope();
                let set_up = set_up(&target, &environment, &resource);
                let (runtime, exporter) = match set_up {
                    Ok(both) => both,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let _ = ready.send(Ok(()));
                let sender = Sender {
                    target,
                    exporter,
                    waiting,
                    full,
                    stopped,
                    counts,
                    batch,
                    failing: false,
                };
                runtime.block_on(sender.run());
                // A name lookup that hangs must not keep the process.
                runtime.shutdown_background();
                drop(running);
            }
        };
        std::thread::Builder::new()
            .name("weft-spans".into())
            .spawn(on_thread)
            .map_err(TelemetryError::Thread)?;
        let gone = || TelemetryError::Thread(std::io::Error::other("it ended at once"));
        started.recv().map_err(|_| gone())??;
        Ok((
            Self {
                counts,
                ended: Mutex::new(ended),
            },
            queue,
        ))
    }

    pub(crate) fn counts(&self) -> ExportCounts {
        ExportCounts {
            exported: self.counts.exported.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
        }
    }

    /// Waits until the thread has ended, at most `within` and a moment.
    pub(crate) fn wait(&self, within: Duration) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(within.min(LONGEST_STOP) + LAST_MOMENT);
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// Ended and in no export yet, the one that the thread may hold included.
    gathered: AtomicUsize,
    exported: AtomicU64,
    dropped: AtomicU64,
}

/// tonic's channel binds to the runtime in which it is made, so both are made on the thread that uses them.
fn set_up(
    target: &str,
    environment: &Environment,
    resource: &Resource,
) -> Result<(tokio::runtime::Runtime, SpanExporter), TelemetryError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(TelemetryError::Thread)?;
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(target)
        .with_timeout(environment.timeout)
        .with_metadata(MetadataMap::from_headers(environment.headers.clone()));
    if target.starts_with("https://") {
        builder = builder.with_tls_config(tls(&environment.tls)?);
    }
    let built = {
        let _inside = runtime.enter();
        builder.build()
    };
    let mut exporter = built.map_err(|source| TelemetryError::Endpoint {
        endpoint: target.to_owned(),
        source,
    })?;
    exporter.set_resource(resource);
    Ok((runtime, exporter))
}

fn tls(files: &TlsFiles) -> Result<ClientTlsConfig, TelemetryError> {
    let read = |path: &str| {
        std::fs::read(path).map_err(|source| TelemetryError::File {
            path: path.to_owned(),
            source,
        })
    };
    let config = match &files.authority {
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    Ok(match &files.client {
        Some((certificate, key)) => config.identity(Identity::from_pem(read(certificate)?, read(key)?)),
        None => config,
    })
}

/// Where spans end. Taking one never waits: a full queue drops it, counted.
#[derive(Debug)]
pub(crate) struct Queue {
    spans: mpsc::Sender<SpanData>,
    /// Tells the thread that a batch is complete before its delay is over.
    full: Arc<Notify>,
    counts: Arc<Counts>,
    /// When all sending must be over; set once.
    stop: watch::Sender<Option<Instant>>,
    batch_size: usize,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        let gathered = self.counts.gathered.fetch_add(1, Ordering::Relaxed) + 1;
        if self.spans.try_send(span).is_err() {
            self.counts.gathered.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        } else if gathered >= self.batch_size {
            self.full.notify_one();
        }
    }

    /// Sends soon, without waiting for it.
    fn force_flush(&self) -> OTelSdkResult {
        self.full.notify_one();
        Ok(())
    }

    /// Tells the thread to finish within `timeout`, without waiting for it: the provider's drop comes here too.
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(Instant::now() + timeout.min(LONGEST_STOP));
            first
        });
        Ok(())
    }
}

/// The thread's own part.
struct Sender {
    target: String,
    exporter: SpanExporter,
    waiting: mpsc::Receiver<SpanData>,
    full: Arc<Notify>,
    stopped: watch::Receiver<Option<Instant>>,
    counts: Arc<Counts>,
    batch: Batching,
    /// Whether the last export failed, so that each outage is logged once.
    failing: bool,
}

impl Sender {
    /// Sends until told to stop; sleeps without a timer while there is nothing to send.
    async fn run(mut self) {
        let mut stopping = false;
        loop {
            let first = tokio::select! {
                span = self.waiting.recv() => span,
                () = told(&mut self.stopped), if !stopping => {
                    stopping = true;
                    self.waiting.close();
                    continue;
                }
            };
            let Some(first) = first else { return };
            if !stopping {
                tokio::select! {
                    () = tokio::time::sleep(self.batch.delay) => {}
                    () = self.full.notified() => {}
                    () = told(&mut self.stopped) => {
                        stopping = true;
                        self.waiting.close();
                    }
                }
            }
            self.send_all(first, stopping).await;
        }
    }

    /// Sends one batch, and goes on while whole batches wait or nothing more will come.
    async fn send_all(&mut self, first: SpanData, stopping: bool) {
        let mut batch = vec![first];
        loop {
            while batch.len() < self.batch.size
                && let Ok(span) = self.waiting.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            self.counts.gathered.fetch_sub(batch.len(), Ordering::Relaxed);
            self.export(std::mem::take(&mut batch)).await;
            if self.waiting.len() < self.batch.size && !stopping {
                return;
            }
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        let limit = self.batch.export_timeout;
        let result = tokio::select! {
            biased;
            () = overdue(self.stopped.clone()) => Err("stopped before the backend answered".to_owned()),
            () = tokio::time::sleep(limit) => Err(format!("no answer within {limit:?}")),
            result = self.exporter.export(batch) => result.map_err(|error| error.to_string()),
        };
        match result {
            Ok(()) => {
                self.counts.exported.fetch_add(spans, Ordering::Relaxed);
                if std::mem::take(&mut self.failing) {
                    tracing::info!(endpoint = self.target, "spans are delivered again");
                }
            }
            Err(why) => {
                self.counts.dropped.fetch_add(spans, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        endpoint = self.target,
                        why,
                        "spans cannot be delivered and are dropped"
                    );
                }
            }
        }
    }
}

/// Returns once stopping was asked for, or nobody is left who could ask.
async fn told(stopped: &mut watch::Receiver<Option<Instant>>) {
    let _ = stopped.wait_for(Option::is_some).await;
}

/// Returns once stopping was asked for and its time is up.
async fn overdue(mut stopped: watch::Receiver<Option<Instant>>) {
    let deadline = stopped
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|deadline| *deadline);
    tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)).await;
}
