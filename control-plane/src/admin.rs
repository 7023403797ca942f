//! Health and metrics of the control plane, in plain HTTP.

use std::sync::Arc;

use http::{Method, StatusCode};
use telemetry::pages::{self, Page};
use tokio::net::TcpListener;

use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::stream::Fleet;
use crate::tasks::Tasks;

/// Serves `/healthz`, `/readyz` and `/metrics` until stopped.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    mesh: Mesh,
    fleet: Arc<Fleet>,
    tasks: Tasks,
) {
    let registry = metrics.registry();
    let stopping = tasks.clone();
    let show = move |method: &Method, path: &str| -> Page {
        if method != Method::GET && method != Method::HEAD {
            return pages::text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match path {
            "/readyz" if stopping.is_stopping() => pages::text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/healthz" | "/readyz" => pages::text(StatusCode::OK, "ok\n"),
            "/metrics" => {
                metrics.generation.set(mesh.generation().0.cast_signed());
                metrics
                    .proxies_connected
                    .set(i64::try_from(fleet.count()).unwrap_or(i64::MAX));
                pages::metrics(&registry)
            }
            _ => pages::text(StatusCode::NOT_FOUND, "/healthz\n/readyz\n/metrics\n"),
        }
    };
    tokio::select! {
        () = pages::serve(listener, Arc::new(show)) => {}
        () = tasks.stopping() => {}
    }
}
