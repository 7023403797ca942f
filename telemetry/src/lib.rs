//! What a Weft process says about itself: logs on stderr, and one pipeline of OTLP spans per workload.
//!
//! Nothing here is global except the process's log subscriber, so one process can speak for many workloads.
//! Start at [`Telemetry`]; [`w3c`] carries trace contexts over HTTP headers; [`logs_to_stderr`] prints.

mod environment;
mod export;
mod logs;
pub mod pages;
pub mod w3c;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use opentelemetry_semantic_conventions::attribute as semconv;

use environment::Environment;
use export::Worker;
pub use logs::{LogFormat, logs_and_spans, logs_to_stderr, tracing_layer};

/// Who the spans are about, in the words of OpenTelemetry's semantic conventions. An empty field is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resource<'a> {
    /// `service.name`. It wins over `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, which speak of a whole
    /// process while a process may hold many workloads; those two count where this is empty.
    pub service_name: &'a str,
    /// `service.namespace`.
    pub service_namespace: &'a str,
    /// `service.instance.id`.
    pub service_instance_id: &'a str,
    /// `service.version`.
    pub service_version: &'a str,
}

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, else `OTEL_EXPORTER_OTLP_ENDPOINT`; with neither set nothing is traced.
    FromEnv,
    /// This OTLP/gRPC address, such as `http://127.0.0.1:4317`, whatever the environment says.
    Fixed(String),
}

/// How many spans reached the backend and how many did not, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportCounts {
    /// Spans that the backend took.
    pub exported: u64,
    /// Spans given up: the queue was full, the backend refused them or was away, or shutdown came first.
    pub dropped: u64,
}

/// Why tracing could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("spans are sent over OTLP/gRPC only: {variable} asks for {value:?}")]
    Protocol { variable: String, value: String },
    #[error("spans cannot be sent to {endpoint}")]
    Endpoint {
        endpoint: String,
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    #[error("{path} for TLS to the spans' backend cannot be read")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the thread that sends spans does not start")]
    Thread(#[source] std::io::Error),
}

/// The span pipeline of one workload. Clones share it.
///
/// Spans wait in a bounded queue and are sent in batches from a thread of their own; ending a span never waits.
/// These variables are honoured, empty ones counting as unset and unusable ones as a warning and the default:
/// `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER` (`otlp`, `none`), `OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT`,
/// `_HEADERS`, `_TIMEOUT`, `_PROTOCOL` (`grpc`), `_INSECURE`, `_CERTIFICATE`, `_CLIENT_CERTIFICATE`, `_CLIENT_KEY`,
/// `OTEL_TRACES_SAMPLER` and `_ARG`,
/// `OTEL_BSP_SCHEDULE_DELAY`, `_EXPORT_TIMEOUT`, `_MAX_QUEUE_SIZE`, `_MAX_EXPORT_BATCH_SIZE`,
/// `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`, and, by the SDK, `OTEL_SPAN_*_LIMIT`.
#[derive(Debug, Clone)]
pub struct Telemetry {
    provider: SdkTracerProvider,
    worker: Option<Arc<Worker>>,
    warnings: Arc<[String]>,
}

impl Telemetry {
    /// Starts the pipeline, settings taken from the process's environment. Never waits for the backend.
    pub fn start(resource: Resource<'_>, endpoint: Endpoint) -> Result<Self, TelemetryError> {
        Self::start_with(resource, endpoint, &|name| std::env::var(name).ok())
    }

    /// [`Telemetry::start`] with `OTEL_*` variables looked up by the caller.
    pub fn start_with(
        resource: Resource<'_>,
        endpoint: Endpoint,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, TelemetryError> {
        let mut environment = Environment::read(variable)?;
        let warnings: Arc<[String]> = std::mem::take(&mut environment.warnings).into();
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let target = match endpoint {
            Endpoint::Fixed(url) => Some(url),
            Endpoint::FromEnv => environment.endpoint.clone(),
        };
        let Some(target) = target.filter(|_| !environment.disabled) else {
            return Ok(Self {
                provider: silent(),
                worker: None,
                warnings,
            });
        };
        let resource = attributes_of(resource, &environment);
        let sampler = environment.sampler.clone();
        let (worker, queue) = Worker::start(target, environment, resource.clone())?;
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampler)
            .with_resource(resource)
            .with_span_processor(queue)
            .build();
        Ok(Self {
            provider,
            worker: Some(Arc::new(worker)),
            warnings,
        })
    }

    /// Makes this workload's spans. While [`Telemetry::enabled`] is false its spans are not recorded, and their
    /// contexts must not be passed on: leave a request's own `traceparent` as it is.
    pub fn tracer(&self) -> SdkTracer {
        let scope = InstrumentationScope::builder("weft")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        self.provider.tracer_with_scope(scope)
    }

    /// Whether there is anywhere to send spans to.
    pub fn enabled(&self) -> bool {
        self.worker.is_some()
    }

    /// What became of the spans so far.
    pub fn counts(&self) -> ExportCounts {
        self.worker
            .as_ref()
            .map(|worker| worker.counts())
            .unwrap_or_default()
    }

    /// Sends what is queued and stops, giving up after `within`. Blocks the calling thread for at most about that
    /// long. Spans that end later are lost, so call it last.
    pub fn shutdown(&self, within: Duration) {
        // Tells the queue, which tells the worker; a second call finds it told already.
        let _ = self.provider.shutdown_with_timeout(within);
        if let Some(worker) = &self.worker {
            worker.wait(within);
        }
    }

    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// A provider that records nothing.
fn silent() -> SdkTracerProvider {
    SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOff)
        .with_resource(opentelemetry_sdk::Resource::builder_empty().build())
        .build()
}

fn attributes_of(resource: Resource<'_>, environment: &Environment) -> opentelemetry_sdk::Resource {
    let own = [
        (semconv::SERVICE_NAME, resource.service_name),
        (semconv::SERVICE_NAMESPACE, resource.service_namespace),
        (semconv::SERVICE_INSTANCE_ID, resource.service_instance_id),
        (semconv::SERVICE_VERSION, resource.service_version),
    ];
    // Later attributes replace earlier ones of the same name.
    opentelemetry_sdk::Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attribute(KeyValue::new(semconv::SERVICE_NAME, "unknown_service"))
        .with_attributes(
            environment
                .resource
                .iter()
                .map(|(k, v)| KeyValue::new(k.clone(), v.clone())),
        )
        .with_attributes(
            environment
                .service_name
                .iter()
                .map(|n| KeyValue::new(semconv::SERVICE_NAME, n.clone())),
        )
        .with_attributes(
            own.iter()
                .filter(|(_, v)| !v.is_empty())
                .map(|(k, v)| KeyValue::new(*k, v.to_string())),
        )
        .build()
}
