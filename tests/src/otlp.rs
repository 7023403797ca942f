//! A trace backend inside the test: OTLP over gRPC in, spans out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::wait::within;

/// Takes every span it is sent.
pub struct Receiver {
    pub address: SocketAddr,
    spans: watch::Receiver<Vec<Span>>,
    _task: JoinSet<()>,
}

/// A span, with what its resource says.
#[derive(Debug, Clone)]
pub struct Span {
    /// `service.name`.
    pub service: String,
    pub resource: BTreeMap<String, String>,
    pub name: String,
    pub kind: SpanKind,
    /// Hex.
    pub trace_id: String,
    pub id: String,
    /// Empty where it is the root.
    pub parent: String,
    pub trace_state: String,
    pub attributes: BTreeMap<String, String>,
    /// 0 unset, 1 ok, 2 error.
    pub status: i32,
    pub start_unix_nano: u64,
    pub end_unix_nano: u64,
}

impl Span {
    /// An attribute as text; empty where there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (note, spans) = watch::channel(Vec::new());
        let service = TraceServiceServer::new(Inbox { note: Arc::new(note) });
        let mut task = JoinSet::new();
        task.spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Self {
            address,
            spans,
            _task: task,
        }
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.borrow().clone()
    }

    /// Waits until `is_complete` likes the spans of the trace, and returns them, earliest first.
    pub async fn trace(&self, trace_id: &str, is_complete: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let mut spans = self.spans.clone();
        let of_trace = |all: &[Span]| {
            let mut spans: Vec<Span> = all
                .iter()
                .filter(|span| span.trace_id == trace_id)
                .cloned()
                .collect();
            spans.sort_by_key(|span| span.start_unix_nano);
            spans
        };
        let wait = spans.wait_for(|all| is_complete(&of_trace(all)));
        match tokio::time::timeout(crate::DEADLINE, wait).await {
            Ok(all) => of_trace(&all.expect("the receiver lives")),
            Err(_) => panic!(
                "the trace {trace_id} is not complete; got {:#?}",
                of_trace(&self.spans())
            ),
        }
    }

    /// Waits until `pick` finds something among all spans.
    pub async fn wait<T>(&self, what: &str, pick: impl Fn(&[Span]) -> Option<T>) -> T {
        let mut spans = self.spans.clone();
        let all = within(what, spans.wait_for(|all| pick(all).is_some()))
            .await
            .expect("the receiver lives");
        pick(&all).expect("found a moment ago")
    }
}

struct Inbox {
    note: Arc<watch::Sender<Vec<Span>>>,
}

#[tonic::async_trait]
impl TraceService for Inbox {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut arrived = Vec::new();
        for group in request.into_inner().resource_spans {
            let resource = attributes(
                group
                    .resource
                    .map(|resource| resource.attributes)
                    .unwrap_or_default(),
            );
            for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                arrived.push(Span {
                    service: resource.get("service.name").cloned().unwrap_or_default(),
                    resource: resource.clone(),
                    kind: span.kind(),
                    name: span.name,
                    trace_id: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    trace_state: span.trace_state,
                    attributes: attributes(span.attributes),
                    status: span.status.map_or(0, |status| status.code),
                    start_unix_nano: span.start_time_unix_nano,
                    end_unix_nano: span.end_time_unix_nano,
                });
            }
        }
        self.note.send_modify(|all| all.extend(arrived));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(list: Vec<KeyValue>) -> BTreeMap<String, String> {
    list.into_iter()
        .map(|pair| (pair.key, pair.value.map(plain).unwrap_or_default()))
        .collect()
}

fn plain(value: AnyValue) -> String {
    match value.value {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(yes)) => yes.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
