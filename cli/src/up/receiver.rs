//! A small OTLP backend: takes the sidecars' spans over gRPC on loopback and keeps the last traces.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::ring::Ring;
use crate::trace::{Kind, Span};

/// How many attributes of one span are kept.
const MAX_ATTRIBUTES: usize = 64;
/// How much of a name or a value is kept, in characters.
const MAX_TEXT: usize = 512;

/// Ring of traces, shared between who fills it and who asks.
pub(crate) type Traces = Arc<Mutex<Ring>>;

/// A running OTLP backend; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub address: SocketAddr,
    pub traces: Traces,
    server: JoinHandle<()>,
}

impl Receiver {
    /// Listens on a free loopback port.
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let traces = Traces::default();
        let service = TraceServiceServer::new(Collector {
            traces: traces.clone(),
        });
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let served = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming);
            if let Err(error) = served.await {
                tracing::warn!(%error, "the OTLP receiver ended");
            }
        });
        Ok(Self {
            address,
            traces,
            server,
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Collector {
    traces: Traces,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut ring = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.into_inner().resource_spans {
            let attributes = resource
                .resource
                .map(|resource| resource.attributes)
                .unwrap_or_default();
            let service = attributes
                .iter()
                .find(|pair| pair.key == "service.name")
                .map(value_of)
                .unwrap_or_default();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                if span.trace_id.len() == 16 && span.span_id.len() == 8 {
                    ring.add(hex::encode(&span.trace_id), read(span, &service));
                }
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn read(span: otlp::Span, service: &str) -> Span {
    use otlp::span::SpanKind;
    use otlp::status::StatusCode;
    let kind = match span.kind() {
        SpanKind::Server => Kind::Server,
        SpanKind::Client => Kind::Client,
        SpanKind::Producer => Kind::Producer,
        SpanKind::Consumer => Kind::Consumer,
        SpanKind::Internal | SpanKind::Unspecified => Kind::Internal,
    };
    let status = span.status.unwrap_or_default();
    Span {
        id: hex::encode(&span.span_id),
        parent: hex::encode(&span.parent_span_id),
        service: service.to_owned(),
        kind,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        failed: status.code() == StatusCode::Error,
        message: cut(&status.message),
        attributes: span
            .attributes
            .iter()
            .take(MAX_ATTRIBUTES)
            .map(|pair| (cut(&pair.key), value_of(pair)))
            .collect(),
        name: cut(&span.name),
    }
}

fn value_of(pair: &KeyValue) -> String {
    pair.value.as_ref().map(text_of).unwrap_or_default()
}

fn text_of(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => cut(text),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        // Sidecars write no lists, maps or bytes.
        _ => String::new(),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::ring::Found;
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
    use opentelemetry_proto::tonic::resource::v1::Resource;

    fn pair(key: &str, value: Value) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn exported_spans_can_be_found_by_trace() {
        let receiver = Receiver::start().await.expect("listens");
        let span = otlp::Span {
            trace_id: vec![0xab; 16],
            span_id: vec![1; 8],
            name: "POST".to_owned(),
            kind: otlp::span::SpanKind::Client.into(),
            start_time_unix_nano: 5,
            end_time_unix_nano: 9,
            attributes: vec![pair("weft.attempt", Value::IntValue(2))],
            status: Some(otlp::Status {
                code: otlp::status::StatusCode::Error.into(),
                message: "late".to_owned(),
            }),
            ..Default::default()
        };
        let bad = otlp::Span {
            trace_id: vec![1],
            ..span.clone()
        };
        let service = pair("service.name", Value::StringValue("checkout".to_owned()));
        let resource = Resource {
            attributes: vec![service],
            ..Default::default()
        };
        let scope = otlp::ScopeSpans {
            spans: vec![span, bad],
            ..Default::default()
        };
        let spans = otlp::ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope],
            ..Default::default()
        };
        let mut client = TraceServiceClient::connect(format!("http://{}", receiver.address))
            .await
            .expect("connects");
        client
            .export(ExportTraceServiceRequest {
                resource_spans: vec![spans],
            })
            .await
            .expect("taken");

        let ring = receiver.traces.lock().expect("not poisoned");
        let Found::One(trace) = ring.find("abab") else {
            panic!("one trace")
        };
        let [span] = trace.spans.as_slice() else {
            panic!("one span")
        };
        assert_eq!(
            (span.service.as_str(), span.name.as_str(), span.kind),
            ("checkout", "POST", Kind::Client)
        );
        assert_eq!(span.attributes["weft.attempt"], "2");
        assert!(span.failed && span.parent.is_empty());
        assert_eq!(ring.newest(10).len(), 1);
    }
}
