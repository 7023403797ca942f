//! The spans of a request, by OpenTelemetry's HTTP and RPC semantic conventions.

use std::time::SystemTime;

use decision::Reason;
use http::{HeaderMap, StatusCode};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;
use opentelemetry_semantic_conventions::attribute as semconv;

use super::record::{Outcome, Record, Recorder, version_text};
use crate::downstream::Downstream;
use crate::stats::Direction;
use crate::upstream::Place;

/// The span of a whole request: SERVER at the inbound sidecar, CLIENT at the outbound one.
pub(super) struct RequestSpan {
    context: Context,
    span: Span,
}

/// The span of one attempt, a child of the request's.
pub(super) struct AttemptSpan {
    span: Span,
}

impl RequestSpan {
    /// `None` where spans go nowhere: the caller's trace context is then passed on untouched.
    pub(super) fn open(
        downstream: &Downstream,
        direction: Direction,
        parts: &http::request::Parts,
        is_grpc: bool,
    ) -> Option<Self> {
        let recorder = &downstream.worker.recorder;
        if !recorder.exporting {
            return None;
        }
        let parent = telemetry::w3c::parent_context(&parts.headers);
        let kind = match direction {
            Direction::Inbound => SpanKind::Server,
            Direction::Outbound => SpanKind::Client,
        };
        let name = if is_grpc {
            parts.uri.path().trim_start_matches('/').to_owned()
        } else {
            parts.method.as_str().to_owned()
        };
        let builder = SpanBuilder::from_name(name).with_kind(kind);
        let mut span = recorder.tracer.build_with_context(builder, &parent);
        if span.is_recording() {
            describe(&mut span, downstream, direction, parts, is_grpc);
        }
        let context = Context::new().with_remote_span_context(span.span_context().clone());
        Some(Self { context, span })
    }

    pub(super) fn inject(&self, headers: &mut HeaderMap) {
        telemetry::w3c::inject(self.span.span_context(), headers);
    }

    /// `None` where the request is not sampled: what follows from it is not either.
    pub(super) fn attempt(&self, recorder: &Recorder, number: u8, endpoint: &Place) -> Option<AttemptSpan> {
        if !self.span.is_recording() {
            return None;
        }
        let builder = SpanBuilder::from_name("attempt").with_kind(SpanKind::Client);
        let mut span = recorder.tracer.build_with_context(builder, &self.context);
        if span.is_recording() {
            let address = endpoint.address();
            span.set_attribute(KeyValue::new("weft.attempt", i64::from(number)));
            span.set_attribute(KeyValue::new("weft.endpoint", endpoint.to_string()));
            span.set_attribute(KeyValue::new(
                semconv::NETWORK_PEER_ADDRESS,
                address.ip().to_string(),
            ));
            span.set_attribute(KeyValue::new(
                semconv::NETWORK_PEER_PORT,
                i64::from(address.port()),
            ));
            if number > 1 {
                span.set_attribute(KeyValue::new(
                    semconv::HTTP_REQUEST_RESEND_COUNT,
                    i64::from(number) - 1,
                ));
            }
        }
        Some(AttemptSpan { span })
    }

    /// Ends the span with what the record says.
    pub(super) fn close(mut self, record: &Record) {
        if self.span.is_recording() {
            conclude(&mut self.span, &record.outcome());
        }
        self.span.end_with_timestamp(SystemTime::now());
    }
}

impl AttemptSpan {
    pub(super) fn inject(&self, headers: &mut HeaderMap) {
        telemetry::w3c::inject(self.span.span_context(), headers);
    }

    pub(super) fn responded(mut self, status: StatusCode, grpc_status: Option<u8>, retried: bool) {
        if self.span.is_recording() {
            note_status(&mut self.span, Direction::Outbound, Some(status), grpc_status);
            self.note_retry(retried, || {
                grpc_status.map_or(status.as_u16().to_string(), grpc_name)
            });
        }
        self.span.end();
    }

    pub(super) fn failed(mut self, reason: Reason, retried: bool) {
        if self.span.is_recording() {
            self.span
                .set_attribute(KeyValue::new(semconv::ERROR_TYPE, reason.detail()));
            self.span.set_status(Status::error(reason.detail()));
            self.note_retry(retried, || reason.detail().to_owned());
        }
        self.span.end();
    }

    fn note_retry(&mut self, retried: bool, why: impl FnOnce() -> String) {
        self.span.set_attribute(KeyValue::new("weft.retried", retried));
        if retried {
            self.span.set_attribute(KeyValue::new("weft.retry.reason", why()));
        }
    }
}

fn describe(
    span: &mut Span,
    downstream: &Downstream,
    direction: Direction,
    parts: &http::request::Parts,
    is_grpc: bool,
) {
    let host = parts.uri.host().or_else(|| {
        let host = parts.headers.get(http::header::HOST)?.to_str().ok()?;
        Some(host.rsplit_once(':').map_or(host, |(name, _)| name))
    });
    let mut set =
        |key: &'static str, value: opentelemetry::Value| span.set_attribute(KeyValue::new(key, value));
    set(
        semconv::HTTP_REQUEST_METHOD,
        parts.method.as_str().to_owned().into(),
    );
    set(
        semconv::NETWORK_PROTOCOL_VERSION,
        version_text(parts.version).into(),
    );
    if let Some(host) = host {
        set(semconv::SERVER_ADDRESS, host.to_owned().into());
    }
    if let Some(port) = downstream.front.port {
        set(semconv::SERVER_PORT, i64::from(port).into());
    }
    match direction {
        Direction::Inbound => {
            set(semconv::URL_SCHEME, "http".into());
            set(semconv::URL_PATH, parts.uri.path().to_owned().into());
            if let Some(query) = parts.uri.query() {
                set(semconv::URL_QUERY, query.to_owned().into());
            }
            set(semconv::CLIENT_ADDRESS, downstream.client.ip().to_string().into());
        }
        Direction::Outbound => {
            let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
            set(
                semconv::URL_FULL,
                format!(
                    "{}://{}{target}",
                    downstream.front.scheme(),
                    host.unwrap_or_default()
                )
                .into(),
            );
        }
    }
    if is_grpc {
        let method = parts.uri.path().trim_start_matches('/');
        set("rpc.system", "grpc".into());
        set("rpc.method", method.to_owned().into());
        if let Some((service, _)) = method.rsplit_once('/') {
            set("rpc.service", service.to_owned().into());
        }
    }
}

fn conclude(span: &mut Span, outcome: &Outcome<'_>) {
    let mut set = |key: &'static str, value: String| span.set_attribute(KeyValue::new(key, value));
    if let Some(destination) = outcome.destination {
        set("weft.destination", destination.to_string());
    }
    if let Some(backend) = outcome.backend {
        set("weft.backend", backend.to_string());
    }
    if let Some(route) = outcome.route {
        set("weft.route", route.to_owned());
    }
    if let Some(peer) = outcome.peer {
        set("weft.peer.identity", peer.to_string());
    }
    if let Some(reason) = outcome.reason {
        set("weft.reason", reason.detail().to_owned());
        set(semconv::ERROR_TYPE, reason.detail().to_owned());
    }
    span.set_attribute(KeyValue::new(
        "weft.generation",
        outcome.generation.0.cast_signed(),
    ));
    if outcome.direction == Direction::Outbound {
        span.set_attribute(KeyValue::new("weft.attempts", i64::from(outcome.attempts)));
    }
    note_status(span, outcome.direction, outcome.status, outcome.grpc_status);
    if let Some(reason) = outcome.reason {
        span.set_status(Status::error(reason.detail()));
    }
}

/// Status of the span: for a client every status from 400 is an error, for a server those from 500; for gRPC
/// every status but OK, and at the server only those that are its own fault.
fn note_status(span: &mut Span, direction: Direction, status: Option<StatusCode>, grpc_status: Option<u8>) {
    let Some(status) = status else { return };
    span.set_attribute(KeyValue::new(
        semconv::HTTP_RESPONSE_STATUS_CODE,
        i64::from(status.as_u16()),
    ));
    if let Some(grpc) = grpc_status {
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(grpc)));
        span.set_attribute(KeyValue::new("rpc.response.status_code", grpc_name(grpc)));
        let servers_fault = matches!(grpc, 2 | 4 | 12..=15);
        if grpc != 0 && (servers_fault || direction == Direction::Outbound) {
            span.set_attribute(KeyValue::new(semconv::ERROR_TYPE, grpc_name(grpc)));
            span.set_status(Status::error(grpc_name(grpc)));
        }
    } else if status.is_server_error() || (status.is_client_error() && direction == Direction::Outbound) {
        span.set_attribute(KeyValue::new(semconv::ERROR_TYPE, status.as_str().to_owned()));
        span.set_status(Status::error(status.to_string()));
    }
}

/// The name of a gRPC status code, as the RPC conventions write it.
fn grpc_name(code: u8) -> String {
    decision::traffic::grpc::status_name(code).map_or_else(|| code.to_string(), str::to_owned)
}
