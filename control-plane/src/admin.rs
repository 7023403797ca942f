//! Health and metrics of the control plane, in plain HTTP.

use std::sync::Arc;

use http::{Method, StatusCode};
use telemetry::pages::{self, Page};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::mesh::Mesh;
use crate::metrics::Metrics;

/// Serves `/healthz`, `/readyz` and `/metrics` until stopped.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    mesh: Arc<Mesh>,
    stopping: CancellationToken,
) {
    let registry = metrics.registry();
    let show = move |method: &Method, path: &str| -> Page {
        if method != Method::GET && method != Method::HEAD {
            return pages::text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match path {
            "/healthz" | "/readyz" => pages::text(StatusCode::OK, "ok\n"),
            "/metrics" => {
                metrics.generation.set(mesh.state().generation.0.cast_signed());
                pages::metrics(&registry)
            }
            _ => pages::text(StatusCode::NOT_FOUND, "/healthz\n/readyz\n/metrics\n"),
        }
    };
    tokio::select! {
        () = pages::serve(listener, Arc::new(show)) => {}
        () = stopping.cancelled() => {}
    }
}
