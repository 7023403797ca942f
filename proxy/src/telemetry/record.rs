//! The decision record: what was decided about one request, and how it ended.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use decision::Reason;
use decision::traffic::grpc;
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use http_body::Frame;
use model::{Generation, ServicePort, SpiffeId};
use opentelemetry_sdk::trace::SdkTracer;

use super::spans::{AttemptSpan, RequestSpan};
use crate::downstream::Downstream;
use crate::lineage::Answering;
use crate::shadow::Tried;
use crate::stats::{Cells, Direction, Registry, Series};
use crate::tcp::Passed;
use crate::upstream::{Permit, Place};

/// What one worker needs to keep records.
pub(crate) struct Recorder {
    registry: Arc<Registry>,
    labels: RefCell<HashMap<LabelsKey, Rc<Labels>>>,
    others: RefCell<HashMap<Direction, Arc<Cells>>>,
    outside: OnceCell<Rc<Labels>>,
    pub(super) tracer: SdkTracer,
    /// Whether spans are exported at all.
    pub(super) exporting: bool,
    access_log: bool,
}

type LabelsKey = (
    Direction,
    Option<ServicePort>,
    Option<ServicePort>,
    Option<Arc<str>>,
);

/// What a request is counted and described by, as far as it is known; with the counts themselves.
pub(crate) struct Labels {
    pub(super) destination: Option<Called>,
    pub(super) backend: Option<ServicePort>,
    pub(super) route: Option<Arc<str>>,
    cells: Arc<Cells>,
}

/// What was called.
#[derive(Debug, Clone)]
pub(super) enum Called {
    Service(ServicePort),
    /// A host that is no service of the mesh.
    Outside,
}

impl fmt::Display for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => service.fmt(f),
            Self::Outside => f.write_str("outside"),
        }
    }
}

/// One request, from its head to the end of its answer. Leaves its traces when it is dropped.
pub(crate) struct Record {
    recorder: Rc<Recorder>,
    direction: Direction,
    started: Instant,
    span: Option<RequestSpan>,
    /// For the log line; kept only when it is wanted.
    line: Option<Box<Line>>,
    pub(crate) labels: Option<Rc<Labels>>,
    pub(crate) generation: Generation,
    pub(crate) peer: Option<SpiffeId>,
    /// Of a request that the application answers, where it belongs to a trace.
    pub(crate) answering: Option<Answering>,
    is_grpc: bool,
    attempts: u8,
    status: Option<StatusCode>,
    grpc_status: Option<u8>,
    reason: Option<Reason>,
    response_bytes: u64,
    /// What the client sent through a tunnel.
    tunnelled_bytes: Option<u64>,
    /// A tunnel is counted when it opens, by the time that took.
    counted: bool,
    ended: bool,
    /// What is kept until the end.
    held: Option<Held>,
}

enum Held {
    /// A circuit breaker counts it.
    Counted(Permit),
    /// Held against policies in shadow, whether it is counted or not.
    Tried(Box<Tried>, Option<Permit>),
}

struct Line {
    at: SystemTime,
    method: Method,
    uri: Uri,
    client: SocketAddr,
}

/// One attempt of a request; ends by [`AttemptRecord::responded`] or [`AttemptRecord::failed`].
pub(crate) struct AttemptRecord {
    span: Option<AttemptSpan>,
}

impl Recorder {
    pub(crate) fn new(
        registry: Arc<Registry>,
        tracer: SdkTracer,
        exporting: bool,
        access_log: bool,
    ) -> Rc<Self> {
        Rc::new(Self {
            registry,
            labels: RefCell::default(),
            others: RefCell::default(),
            outside: OnceCell::new(),
            tracer,
            exporting,
            access_log,
        })
    }

    /// The labels of requests that go this way. To be kept where many of them do.
    pub(crate) fn labels(
        &self,
        direction: Direction,
        destination: Option<&ServicePort>,
        backend: Option<&ServicePort>,
        route: Option<&Arc<str>>,
    ) -> Rc<Labels> {
        let key = (direction, destination.cloned(), backend.cloned(), route.cloned());
        let mut known = self.labels.borrow_mut();
        if let Some(labels) = known.get(&key) {
            return labels.clone();
        }
        let text = |port: Option<&ServicePort>| port.map(ToString::to_string).unwrap_or_default();
        let series = Series {
            direction,
            destination: text(destination),
            backend: text(backend),
            route: route.map(ToString::to_string).unwrap_or_default(),
        };
        let cells = self.registry.cells(series);
        let is_counted_apart = cells.is_some();
        let labels = Rc::new(Labels {
            destination: key.1.clone().map(Called::Service),
            backend: key.2.clone(),
            route: key.3.clone(),
            cells: cells.unwrap_or_else(|| self.other(direction)),
        });
        if is_counted_apart {
            known.insert(key, labels.clone());
        }
        labels
    }

    /// The labels of requests to hosts outside the mesh: the same for all of them, for there is no end of hosts.
    pub(crate) fn outside(&self) -> Rc<Labels> {
        let new = || {
            let direction = Direction::Outbound;
            let series = Series {
                direction,
                destination: Called::Outside.to_string(),
                backend: String::new(),
                route: String::new(),
            };
            let cells = self.registry.cells(series);
            Rc::new(Labels {
                destination: Some(Called::Outside),
                backend: None,
                route: None,
                cells: cells.unwrap_or_else(|| self.other(direction)),
            })
        };
        self.outside.get_or_init(new).clone()
    }

    /// The cells of all that is not counted apart.
    fn other(&self, direction: Direction) -> Arc<Cells> {
        let mut others = self.others.borrow_mut();
        others
            .entry(direction)
            .or_insert_with(|| self.registry.other(direction))
            .clone()
    }
}

impl Record {
    /// Opens the record of a request, and its span: SERVER inbound, CLIENT outbound.
    pub(crate) fn open(downstream: &Downstream, direction: Direction, parts: &http::request::Parts) -> Self {
        let (recorder, client) = (&downstream.worker.recorder, downstream.client);
        let is_grpc = grpc::is_grpc(&parts.headers);
        let line = recorder.access_log.then(|| {
            Box::new(Line {
                at: SystemTime::now(),
                method: parts.method.clone(),
                uri: parts.uri.clone(),
                client,
            })
        });
        Self {
            span: RequestSpan::open(downstream, direction, parts, is_grpc),
            recorder: recorder.clone(),
            direction,
            started: Instant::now(),
            line,
            labels: None,
            generation: Generation::default(),
            peer: None,
            answering: None,
            is_grpc,
            attempts: 0,
            status: None,
            grpc_status: None,
            reason: None,
            response_bytes: 0,
            tunnelled_bytes: None,
            counted: false,
            ended: false,
            held: None,
        }
    }

    /// Whether a call that was made for this request failed for good.
    pub(crate) fn gave_up(&self) -> bool {
        self.answering.as_ref().is_some_and(Answering::gave_up)
    }

    pub(crate) fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Keeps a permit until the end.
    pub(crate) fn hold(&mut self, permit: Option<Permit>) {
        match &mut self.held {
            Some(Held::Tried(_, held)) => *held = permit,
            held => *held = permit.map(Held::Counted),
        }
    }

    /// Tells what policies in shadow would have done to the request, at its end.
    pub(crate) fn try_out(&mut self, tried: Box<Tried>) {
        self.held = Some(Held::Tried(tried, None));
    }

    /// How many attempts were begun.
    pub(crate) fn attempts(&self) -> u8 {
        self.attempts
    }

    /// Makes what is sent upstream a child of this request's span.
    pub(crate) fn propagate(&self, headers: &mut HeaderMap) {
        if let Some(span) = &self.span {
            span.inject(headers);
        }
    }

    /// Begins an attempt: what is sent upstream becomes a child of the attempt's span.
    pub(crate) fn attempt(&mut self, endpoint: &Place, headers: &mut HeaderMap) -> AttemptRecord {
        self.attempts = self.attempts.saturating_add(1);
        let span = self
            .span
            .as_ref()
            .and_then(|span| span.attempt(&self.recorder, self.attempts, endpoint));
        match &span {
            Some(attempt) => attempt.inject(headers),
            // Not sampled: that is still passed on.
            None => self.propagate(headers),
        }
        AttemptRecord { span }
    }

    /// Counts an attempt.
    pub(crate) fn attempted(&mut self, failed: bool, mtls: bool) {
        self.labels().cells.attempted(failed, mtls);
    }

    /// The upstream's head is passed on.
    pub(crate) fn responded(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        self.note_grpc_status(headers);
    }

    /// The proxy answers by itself.
    pub(crate) fn refused(&mut self, reason: Reason) {
        self.reason = Some(reason);
        self.status = Some(reason.status());
        if self.is_grpc {
            self.grpc_status = Some(reason.grpc_status());
        }
    }

    /// A part of the body is passed on.
    pub(crate) fn passed(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.response_bytes += data.len() as u64;
        } else if let Some(trailers) = frame.trailers_ref() {
            self.note_grpc_status(trailers);
        }
    }

    pub(crate) fn body_ended(&mut self) {
        self.close();
    }

    /// What follows is another protocol. The permit is kept for [`release`](Self::release).
    pub(crate) fn switched(&mut self) {
        let permit = match &mut self.held {
            Some(Held::Tried(_, permit)) => permit.take(),
            _ => self.release(),
        };
        self.close();
        self.held = permit.map(Held::Counted);
    }

    /// The proxy answers that a tunnel is open. It is counted now; its record is left at its end.
    pub(crate) fn opened(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.count(self.started.elapsed());
        self.counted = true;
    }

    /// The tunnel has ended; what is known of the bytes in it.
    pub(crate) fn tunnelled(&mut self, passed: Result<Passed, Reason>) {
        match passed {
            Ok(Passed {
                from_client,
                to_client,
            }) => {
                self.response_bytes = to_client;
                self.tunnelled_bytes = Some(from_client);
            }
            Err(reason) => self.reason = Some(reason),
        }
        self.close();
    }

    /// Gives the permit to whoever goes on.
    pub(crate) fn release(&mut self) -> Option<Permit> {
        match self.held.take()? {
            Held::Counted(permit) => Some(permit),
            Held::Tried(_, permit) => permit,
        }
    }

    pub(crate) fn body_failed(&mut self, reason: Reason) {
        self.reason = Some(reason);
        self.close();
    }

    fn note_grpc_status(&mut self, headers: &HeaderMap) {
        if self.is_grpc
            && let Some(status) = grpc::status(headers)
        {
            self.grpc_status = Some(status);
        }
    }

    fn labels(&mut self) -> &Labels {
        let (recorder, direction) = (&self.recorder, self.direction);
        self.labels
            .get_or_insert_with(|| recorder.labels(direction, None, None, None))
    }

    fn is_success(&self) -> bool {
        let status = self.status.is_some_and(|status| !status.is_server_error());
        // gRPC: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS are the server's.
        let grpc = !matches!(self.grpc_status, Some(2 | 4 | 12..=15));
        status
            && grpc
            && self
                .reason
                .is_none_or(|reason| !reason.status().is_server_error())
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let held = self.held.take();
        let took = self.started.elapsed();
        match held {
            Some(Held::Tried(tried, _counted)) => tried.ended(took, self.reason, self.attempts),
            counted => drop(counted),
        }
        if !self.counted {
            self.count(took);
        }
        if let Some(span) = self.span.take() {
            span.close(self);
        }
        if let Some(line) = self.line.take() {
            self.write_line(&line, took);
        }
    }

    fn count(&mut self, took: Duration) {
        let (success, mtls) = (self.is_success(), self.peer.is_some());
        self.labels().cells.finished(took, success, mtls);
    }

    fn write_line(&self, line: &Line, took: Duration) {
        let outcome = self.outcome();
        let mut text = serde_json::json!({
            "time": humantime::format_rfc3339_millis(line.at).to_string(),
            "direction": self.direction.as_str(),
            "client": line.client.to_string(),
            "peer": self.peer.as_ref().map(ToString::to_string),
            "method": line.method.as_str(),
            "uri": line.uri.to_string(),
            "destination": outcome.destination.map(ToString::to_string),
            "backend": outcome.backend.map(ToString::to_string),
            "route": outcome.route,
            "generation": self.generation.0,
            "attempts": self.attempts,
            "status": self.status.map(|status| status.as_u16()),
            "grpc_status": self.grpc_status,
            "reason": self.reason.map(Reason::detail),
            "bytes": self.response_bytes,
            "duration_ms": took.as_secs_f64() * 1000.0,
        });
        if let Some(bytes) = self.tunnelled_bytes {
            text["bytes_received"] = bytes.into();
        }
        // A closed standard output is not the request's problem.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    pub(super) fn outcome(&self) -> Outcome<'_> {
        let labels = self.labels.as_deref();
        Outcome {
            direction: self.direction,
            destination: labels.and_then(|labels| labels.destination.as_ref()),
            backend: labels.and_then(|labels| labels.backend.as_ref()),
            route: labels.and_then(|labels| labels.route.as_deref()),
            generation: self.generation,
            peer: self.peer.as_ref(),
            attempts: self.attempts,
            status: self.status,
            grpc_status: self.grpc_status,
            reason: self.reason,
        }
    }
}

/// What a record's span is told at its end.
pub(super) struct Outcome<'r> {
    pub(super) direction: Direction,
    pub(super) destination: Option<&'r Called>,
    pub(super) backend: Option<&'r ServicePort>,
    pub(super) route: Option<&'r str>,
    pub(super) generation: Generation,
    pub(super) peer: Option<&'r SpiffeId>,
    pub(super) attempts: u8,
    pub(super) status: Option<StatusCode>,
    pub(super) grpc_status: Option<u8>,
    pub(super) reason: Option<Reason>,
}

impl Drop for Record {
    /// The client went away before the end.
    fn drop(&mut self) {
        if !self.ended {
            if self.reason.is_none() && self.status.is_none() {
                self.reason = Some(Reason::RequestAborted);
            }
            self.close();
        }
    }
}

impl AttemptRecord {
    /// The attempt got a response's head; `retried` where it is thrown away for another attempt.
    pub(crate) fn responded(mut self, status: StatusCode, grpc_status: Option<u8>, retried: bool) {
        if let Some(span) = self.span.take() {
            span.responded(status, grpc_status, retried);
        }
    }

    pub(crate) fn failed(mut self, reason: Reason, retried: bool) {
        if let Some(span) = self.span.take() {
            span.failed(reason, retried);
        }
    }
}

/// `network.protocol.version` of a request.
pub(super) fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
