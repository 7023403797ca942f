//! What a backend sees of a workload's spans, and what a workload notices of its backend.
#![allow(clippy::expect_used)] // Here a failed expectation is a failed test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::trace::{Span as _, SpanKind, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use telemetry::{Endpoint, ExportCounts, Resource, Telemetry, TelemetryError};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;

/// Longest that anything here may take before the test is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// An OTLP/gRPC backend. It answers an export once `open` has a permit.
struct Backend {
    address: SocketAddr,
    open: Arc<Semaphore>,
    requests: mpsc::UnboundedReceiver<(MetadataMap, ExportTraceServiceRequest)>,
}

struct Receiver(
    Arc<Semaphore>,
    mpsc::UnboundedSender<(MetadataMap, ExportTraceServiceRequest)>,
);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let (metadata, _, request) = request.into_parts();
        self.1.send((metadata, request)).expect("the test listens");
        self.0.acquire().await.expect("never closed").forget();
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Backend {
    async fn start(open: usize) -> Self {
        Self::start_on(open, tonic::transport::Server::builder()).await
    }

    async fn start_on(open: usize, mut server: tonic::transport::Server) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("bound");
        let open = Arc::new(Semaphore::new(open));
        let (sender, requests) = mpsc::unbounded_channel();
        let service = TraceServiceServer::new(Receiver(open.clone(), sender));
        let server = server.add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self {
            address,
            open,
            requests,
        }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Fixed(format!("http://{}", self.address))
    }

    async fn next(&mut self) -> (MetadataMap, ExportTraceServiceRequest) {
        let next = tokio::time::timeout(PATIENCE, self.requests.recv()).await;
        next.expect("an export in time").expect("the backend runs")
    }
}

fn start(endpoint: Endpoint, variables: &[(&str, &str)]) -> Result<Telemetry, TelemetryError> {
    let resource = Resource {
        service_name: "checkout",
        service_namespace: "shop",
        ..Resource::default()
    };
    let lookup = |name: &str| {
        variables
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v.to_string())
    };
    Telemetry::start_with(resource, endpoint, &lookup)
}

/// Shuts down off the test's runtime, which the backend runs on.
async fn shut_down(telemetry: &Telemetry, within: Duration) {
    let telemetry = telemetry.clone();
    tokio::task::spawn_blocking(move || telemetry.shutdown(within))
        .await
        .expect("no panic");
}

fn end_spans(telemetry: &Telemetry, how_many: usize) {
    let tracer = telemetry.tracer();
    (0..how_many).for_each(|_| tracer.start_with_context("request", &Context::new()).end());
}

fn span_names(request: &ExportTraceServiceRequest) -> Vec<&str> {
    let scopes = request
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans);
    scopes
        .flat_map(|scope| &scope.spans)
        .map(|span| span.name.as_str())
        .collect()
}

#[tokio::test]
async fn spans_arrive_with_their_resource_parents_and_headers() {
    let mut backend = Backend::start(1).await;
    let variables = [
        ("OTEL_SERVICE_NAME", "the-process"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=other,deployment.environment.name=test",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=a%20b"),
    ];
    let telemetry = start(backend.endpoint(), &variables).expect("starts");
    let tracer = telemetry.tracer();
    let parent = tracer
        .span_builder("server")
        .with_kind(SpanKind::Server)
        .start_with_context(&tracer, &Context::new());
    let parent = Context::new().with_span(parent);
    let mut attempt = tracer.start_with_context("attempt", &parent);
    attempt.set_attribute(KeyValue::new("http.request.resend_count", 1));
    attempt.end();
    parent.span().end();
    shut_down(&telemetry, PATIENCE).await;

    let (metadata, request) = backend.next().await;
    assert_eq!(metadata.get("x-token").map(|v| v.as_bytes()), Some(&b"a b"[..]));
    assert_eq!(span_names(&request), ["attempt", "server"]);
    let sent = &request.resource_spans[0];
    let attribute = |name: &str| {
        let all = sent.resource.iter().flat_map(|resource| &resource.attributes);
        let found: Vec<_> = all
            .filter(|a| a.key == name)
            .map(|a| format!("{:?}", a.value))
            .collect();
        found.concat()
    };
    assert!(
        attribute("service.name").contains("\"checkout\""),
        "{}",
        attribute("service.name")
    );
    assert!(attribute("service.namespace").contains("\"shop\""));
    assert!(attribute("deployment.environment.name").contains("\"test\""));
    assert_eq!(attribute("service.version"), "", "an empty field is left out");
    let spans = &sent.scope_spans[0].spans;
    assert_eq!(spans[0].parent_span_id, spans[1].span_id);
    assert_eq!(
        telemetry.counts(),
        ExportCounts {
            exported: 2,
            dropped: 0
        }
    );
}

#[tokio::test]
async fn a_full_batch_does_not_wait_for_the_delay() {
    let mut backend = Backend::start(10).await;
    let variables = [
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3"),
    ];
    let telemetry = start(backend.endpoint(), &variables).expect("starts");
    end_spans(&telemetry, 3);
    assert_eq!(span_names(&backend.next().await.1).len(), 3);
}

#[tokio::test]
async fn a_slow_backend_costs_spans_and_never_time() {
    let mut backend = Backend::start(0).await;
    let variables = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
    ];
    let telemetry = start(backend.endpoint(), &variables).expect("starts");
    end_spans(&telemetry, 4);
    backend.next().await; // Four are on their way and stay there; eight can wait.
    let began = Instant::now();
    end_spans(&telemetry, 1000);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "ending spans waited for the backend"
    );
    assert_eq!(
        telemetry.counts(),
        ExportCounts {
            exported: 0,
            dropped: 992
        }
    );

    backend.open.add_permits(100);
    shut_down(&telemetry, PATIENCE).await;
    assert_eq!(
        telemetry.counts(),
        ExportCounts {
            exported: 12,
            dropped: 992
        }
    );
}

#[tokio::test]
async fn without_a_backend_everything_is_dropped_and_counted_and_stopping_is_prompt() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound");
    let telemetry = start(Endpoint::Fixed(format!("http://{nobody}")), &[]).expect("starts all the same");
    end_spans(&telemetry, 100);
    let began = Instant::now();
    shut_down(&telemetry, Duration::from_millis(200)).await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "shutdown took {:?}",
        began.elapsed()
    );
    assert_eq!(
        telemetry.counts(),
        ExportCounts {
            exported: 0,
            dropped: 100
        }
    );
}

#[tokio::test]
async fn stopping_does_not_wait_longer_than_told_for_a_silent_backend() {
    let mut backend = Backend::start(0).await;
    let telemetry = start(backend.endpoint(), &[]).expect("starts");
    end_spans(&telemetry, 1);
    let stopping = tokio::spawn({
        let telemetry = telemetry.clone();
        async move { shut_down(&telemetry, Duration::from_millis(300)).await }
    });
    backend.next().await;
    tokio::time::timeout(Duration::from_secs(10), stopping)
        .await
        .expect("bounded")
        .expect("no panic");
    assert_eq!(
        telemetry.counts(),
        ExportCounts {
            exported: 0,
            dropped: 1
        }
    );
}

#[tokio::test]
async fn the_sampler_follows_its_variables_and_the_caller() {
    let mut backend = Backend::start(10).await;
    let variables = [("OTEL_TRACES_SAMPLER", "parentbased_always_off")];
    let telemetry = start(backend.endpoint(), &variables).expect("starts");
    let tracer = telemetry.tracer();
    tracer.start_with_context("nobody asked", &Context::new()).end();
    let mut headers = http::HeaderMap::new();
    let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        .parse()
        .expect("a value");
    headers.insert(telemetry::w3c::TRACEPARENT, sampled);
    tracer
        .start_with_context("the caller asked", &telemetry::w3c::parent_context(&headers))
        .end();
    shut_down(&telemetry, PATIENCE).await;
    let (_, request) = backend.next().await;
    assert_eq!(span_names(&request), ["the caller asked"]);
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
}

#[test]
fn with_nothing_set_or_disabled_there_is_no_pipeline() {
    let endpoint = Endpoint::Fixed("http://127.0.0.1:1".into());
    for (endpoint, variables) in [
        (Endpoint::FromEnv, &[][..]),
        (endpoint.clone(), &[("OTEL_SDK_DISABLED", "true")][..]),
        (endpoint, &[("OTEL_TRACES_EXPORTER", "none")][..]),
    ] {
        let telemetry = start(endpoint, variables).expect("starts");
        assert!(!telemetry.enabled());
        assert!(!telemetry.tracer().start("request").is_recording());
        telemetry.shutdown(PATIENCE);
        assert_eq!(telemetry.counts(), ExportCounts::default());
    }
}

#[tokio::test]
async fn an_https_backend_must_be_one_that_the_given_authority_vouches_for() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let identity = tonic::transport::Identity::from_pem(own.cert.pem(), own.signing_key.serialize_pem());
    let tls = tonic::transport::ServerTlsConfig::new().identity(identity);
    let server = tonic::transport::Server::builder()
        .tls_config(tls)
        .expect("valid");
    let backend = Backend::start_on(10, server).await;
    let endpoint = Endpoint::Fixed(format!("https://localhost:{}", backend.address.port()));
    for (certificate, expected) in [
        (
            own.cert.pem(),
            ExportCounts {
                exported: 1,
                dropped: 0,
            },
        ),
        (
            other.cert.pem(),
            ExportCounts {
                exported: 0,
                dropped: 1,
            },
        ),
    ] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), certificate).expect("written");
        let path = file.path().to_str().expect("text");
        let telemetry = start(endpoint.clone(), &[("OTEL_EXPORTER_OTLP_CERTIFICATE", path)]).expect("starts");
        end_spans(&telemetry, 1);
        shut_down(&telemetry, PATIENCE).await;
        assert_eq!(telemetry.counts(), expected);
    }
    let missing =
        start(endpoint, &[("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem")]).expect_err("no file");
    assert!(missing.to_string().contains("/nowhere.pem"));
}

#[test]
fn an_endpoint_that_is_no_address_is_refused() {
    let refused = start(Endpoint::Fixed("http://not an address".into()), &[]).expect_err("no address");
    assert!(matches!(refused, TelemetryError::Endpoint { .. }), "{refused:?}");
}

#[tokio::test]
async fn own_operations_become_spans_and_others_do_not() {
    use tracing_subscriber::layer::SubscriberExt as _;
    let mut backend = Backend::start(1).await;
    let telemetry = start(backend.endpoint(), &[]).expect("starts");
    let subscriber = tracing_subscriber::registry().with(telemetry::tracing_layer(&telemetry));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info_span!(target: "control_plane::store", "apply").in_scope(|| {
            tracing::debug_span!(target: "control_plane::store", "detail").in_scope(|| ());
            tracing::info_span!(target: "h2::codec", "frame").in_scope(|| ());
        });
    });
    shut_down(&telemetry, PATIENCE).await;
    assert_eq!(span_names(&backend.next().await.1), ["apply"]);
}
