//! What the proxy counts: cells that workers write without a lock, and their values as typed data or OpenMetrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Most sets of labels that are kept apart; what comes later is counted under `other`.
const MAX_SERIES: usize = 10_000;
/// Upper ends of the latency buckets, seconds.
const LATENCY_BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// All counts of one proxy at one moment.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub requests: Vec<RequestStats>,
    pub certificate: Option<CertificateStats>,
    pub spans_exported: u64,
    /// Spans given up because the queue was full or the backend down.
    pub spans_dropped: u64,
    /// Connections closed or refused because of a limit or of what the peer sent.
    pub connections_refused: u64,
    pub connections_open: u64,
    /// mTLS handshakes of other sidecars that came in and were over, in full.
    pub handshakes_full: u64,
    /// Those that resumed a session.
    pub handshakes_resumed: u64,
    pub mirrors: MirrorStats,
}

/// Copies of requests by how they ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct MirrorStats {
    pub answered: u64,
    /// Sent, perhaps, and not answered in time.
    pub failed: u64,
    /// Never sent, because of a limit or because the request's body did not end.
    pub abandoned: u64,
}

/// The certificate in use.
#[derive(Debug, Clone)]
pub struct CertificateStats {
    pub spiffe_id: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// Which way a request went through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From other sidecars to the application.
    Inbound,
    /// From the application to other services.
    Outbound,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What is counted apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Series {
    pub direction: Direction,
    /// `namespace/name:port` of the service that was called.
    pub destination: String,
    /// `namespace/name:port` of the service that a route chose.
    pub backend: String,
    /// The rule that chose it; empty where none is attached.
    pub route: String,
}

/// The counts of one series.
#[derive(Debug, Clone)]
pub struct RequestStats {
    pub series: Series,
    pub requests: u64,
    /// Requests that were answered, and with neither a 5xx nor a failing gRPC status.
    pub successes: u64,
    /// Every sending of a request to an endpoint.
    pub attempts: u64,
    pub attempt_failures: u64,
    /// Attempts over verified mTLS; the others went to the application beside the proxy, in plain.
    pub mtls_attempts: u64,
    /// Requests that came over verified mTLS.
    pub mtls_requests: u64,
}

/// The cells of one series as one worker counts it. Only that worker writes, so that a plain store is enough; anybody
/// may read.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    requests: AtomicU64,
    successes: AtomicU64,
    attempts: AtomicU64,
    attempt_failures: AtomicU64,
    mtls_attempts: AtomicU64,
    mtls_requests: AtomicU64,
    /// Requests by latency: one cell per bucket, and one for what is longer than all of them.
    buckets: [AtomicU64; LATENCY_BUCKETS.len() + 1],
    duration_nanos: AtomicU64,
}

fn add(cell: &AtomicU64, count: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
}

impl Cells {
    pub(crate) fn finished(&self, took: Duration, success: bool, mtls: bool) {
        add(&self.requests, 1);
        add(&self.successes, u64::from(success));
        add(&self.mtls_requests, u64::from(mtls));
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_BUCKETS.iter().position(|end| seconds <= *end);
        if let Some(cell) = self.buckets.get(bucket.unwrap_or(LATENCY_BUCKETS.len())) {
            add(cell, 1);
        }
        add(
            &self.duration_nanos,
            u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        );
    }

    pub(crate) fn attempted(&self, failed: bool, mtls: bool) {
        add(&self.attempts, 1);
        add(&self.attempt_failures, u64::from(failed));
        add(&self.mtls_attempts, u64::from(mtls));
    }
}

/// The latencies of one series, of all workers together.
#[derive(Debug, Default)]
struct Latencies {
    buckets: [u64; LATENCY_BUCKETS.len() + 1],
    sum: Duration,
}

impl Latencies {
    fn of(cells: &[Arc<Cells>]) -> Self {
        let mut all = Self::default();
        for cells in cells {
            for (sum, cell) in all.buckets.iter_mut().zip(&cells.buckets) {
                *sum += cell.load(Relaxed);
            }
            all.sum += Duration::from_nanos(cells.duration_nanos.load(Relaxed));
        }
        all
    }

    fn encode(&self, mut metric: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let ends = LATENCY_BUCKETS.iter().copied().chain([f64::MAX]);
        let buckets: Vec<_> = ends.zip(self.buckets).collect();
        let count = self.buckets.iter().sum();
        metric.encode_histogram::<NoLabelSet>(self.sum.as_secs_f64(), count, &buckets, None)
    }
}

/// Where all counts are; one for the proxy.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// By series, the cells of every worker that counts it.
    series: Mutex<BTreeMap<Series, Vec<Arc<Cells>>>>,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) connections_open: AtomicU64,
    pub(crate) handshakes_full: AtomicU64,
    pub(crate) handshakes_resumed: AtomicU64,
    pub(crate) mirrors: MirrorCells,
}

/// As [`MirrorStats`].
#[derive(Debug, Default)]
pub(crate) struct MirrorCells {
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) abandoned: AtomicU64,
}

impl Registry {
    /// New cells for one worker and series; `None` where no more series are kept apart. Takes a lock; the worker keeps
    /// what it got.
    pub(crate) fn cells(&self, series: Series) -> Option<Arc<Cells>> {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_SERIES && !all.contains_key(&series) {
            return None;
        }
        let cells = Arc::<Cells>::default();
        all.entry(series).or_default().push(cells.clone());
        Some(cells)
    }

    /// New cells for what one worker does not count apart.
    pub(crate) fn other(&self, direction: Direction) -> Arc<Cells> {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = Arc::<Cells>::default();
        all.entry(Series::other(direction))
            .or_default()
            .push(cells.clone());
        cells
    }

    pub(crate) fn read(&self) -> Stats {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = all.iter().map(|(series, cells)| {
            let sum =
                |cell: fn(&Cells) -> &AtomicU64| cells.iter().map(|cells| cell(cells).load(Relaxed)).sum();
            RequestStats {
                series: series.clone(),
                requests: sum(|cells| &cells.requests),
                successes: sum(|cells| &cells.successes),
                attempts: sum(|cells| &cells.attempts),
                attempt_failures: sum(|cells| &cells.attempt_failures),
                mtls_attempts: sum(|cells| &cells.mtls_attempts),
                mtls_requests: sum(|cells| &cells.mtls_requests),
            }
        });
        Stats {
            requests: requests.collect(),
            connections_refused: self.connections_refused.load(Relaxed),
            connections_open: self.connections_open.load(Relaxed),
            handshakes_full: self.handshakes_full.load(Relaxed),
            handshakes_resumed: self.handshakes_resumed.load(Relaxed),
            mirrors: MirrorStats {
                answered: self.mirrors.answered.load(Relaxed),
                failed: self.mirrors.failed.load(Relaxed),
                abandoned: self.mirrors.abandoned.load(Relaxed),
            },
            ..Stats::default()
        }
    }

    fn latencies(&self) -> Vec<(Series, Latencies)> {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .map(|(series, cells)| (series.clone(), Latencies::of(cells)))
            .collect()
    }
}

impl Series {
    fn other(direction: Direction) -> Self {
        Self {
            direction,
            destination: "other".into(),
            backend: "other".into(),
            route: "other".into(),
        }
    }

    fn labels(&self) -> [(&'static str, String); 4] {
        [
            ("direction", self.direction.as_str().to_owned()),
            ("destination", self.destination.clone()),
            ("backend", self.backend.clone()),
            ("route", self.route.clone()),
        ]
    }
}

/// Writes all counts as OpenMetrics.
pub(crate) struct StatsCollector {
    pub(crate) registry: Arc<Registry>,
    /// Adds what the registry does not know: certificate and spans.
    pub(crate) complete: Arc<dyn Fn() -> Stats + Send + Sync>,
}

impl fmt::Debug for StatsCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatsCollector")
    }
}

/// Name, help text, and which count it is.
type CounterRow = (&'static str, &'static str, fn(&RequestStats) -> u64);

const COUNTERS: [CounterRow; 6] = [
    ("weft_requests", "Requests that have ended", |stats| {
        stats.requests
    }),
    (
        "weft_requests_failed",
        "Requests that ended with a 5xx, a failing gRPC status or no answer",
        |stats| stats.requests.saturating_sub(stats.successes),
    ),
    (
        "weft_requests_mtls",
        "Requests that came over verified mTLS",
        |stats| stats.mtls_requests,
    ),
    ("weft_attempts", "Sendings of a request to an endpoint", |stats| {
        stats.attempts
    }),
    ("weft_attempts_failed", "Sendings that failed", |stats| {
        stats.attempt_failures
    }),
    ("weft_attempts_mtls", "Sendings over verified mTLS", |stats| {
        stats.mtls_attempts
    }),
];

impl Collector for StatsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let stats = (self.complete)();
        for (name, help, value) in COUNTERS {
            let counter = ConstCounter::new(0u64);
            let mut family = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            for request in &stats.requests {
                let labels = request.series.labels();
                let metric = family.encode_family(&labels)?;
                ConstCounter::new(value(request)).encode(metric)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "weft_request_duration_seconds",
            "From a request's head to the end of its answer",
            None,
            MetricType::Histogram,
        )?;
        for (series, latencies) in self.registry.latencies() {
            latencies.encode(family.encode_family(&series.labels())?)?;
        }
        for (name, help, value) in [
            (
                "weft_spans_exported",
                "Spans handed to the OTLP backend",
                stats.spans_exported,
            ),
            (
                "weft_spans_dropped",
                "Spans given up: queue full or backend down",
                stats.spans_dropped,
            ),
            (
                "weft_connections_refused",
                "Connections refused or closed by a limit",
                stats.connections_refused,
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let mut family = encoder.encode_descriptor(
            "weft_tls_handshakes",
            "mTLS handshakes of other sidecars, in full or resuming a session",
            None,
            ConstCounter::new(0u64).metric_type(),
        )?;
        for (kind, value) in [
            ("full", stats.handshakes_full),
            ("resumed", stats.handshakes_resumed),
        ] {
            ConstCounter::new(value).encode(family.encode_family(&[("kind", kind)])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "weft_mirrored_requests",
            "Copies of requests by how they ended",
            None,
            ConstCounter::new(0u64).metric_type(),
        )?;
        let mirrors = stats.mirrors;
        for (outcome, value) in [
            ("answered", mirrors.answered),
            ("failed", mirrors.failed),
            ("abandoned", mirrors.abandoned),
        ] {
            ConstCounter::new(value).encode(family.encode_family(&[("outcome", outcome)])?)?;
        }
        let until_expiry = stats.certificate.as_ref().map_or(0, |certificate| {
            let left = certificate
                .not_after
                .duration_since(SystemTime::now())
                .unwrap_or_default();
            i64::try_from(left.as_secs()).unwrap_or(i64::MAX)
        });
        for (name, help, value) in [
            (
                "weft_connections_open",
                "Connections being served",
                stats.connections_open.cast_signed(),
            ),
            (
                "weft_certificate_expires_seconds",
                "Until the certificate in use ends",
                until_expiry,
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
