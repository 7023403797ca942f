//! The pages of a proxy: readiness, metrics, and what an operator on this machine may look at.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, StatusCode};
use prometheus_client::registry::Registry as OpenMetrics;
use telemetry::pages::{self, Page};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::ConfigHandle;
use crate::identity::IdentityStatus;
use crate::stats::{Registry, Stats, StatsCollector};

/// Which pages a listener shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// All, on loopback only.
    Admin,
    /// `/metrics` and the readiness pages.
    Metrics,
}

/// What the pages are made from.
pub(crate) struct Admin {
    workload: String,
    is_gateway: bool,
    config: ConfigHandle,
    identity: watch::Receiver<IdentityStatus>,
    metrics: OpenMetrics,
}

impl Admin {
    pub(crate) fn new(
        workload: String,
        is_gateway: bool,
        config: ConfigHandle,
        identity: watch::Receiver<IdentityStatus>,
        registry: Arc<Registry>,
        stats: Arc<dyn Fn() -> Stats + Send + Sync>,
    ) -> Arc<Self> {
        let mut metrics = OpenMetrics::default();
        metrics.register_collector(Box::new(StatsCollector {
            registry,
            complete: stats,
        }));
        Arc::new(Self {
            workload,
            is_gateway,
            config,
            identity,
            metrics,
        })
    }

    fn page(&self, pages: Pages, method: &Method, path: &str) -> Page {
        if method != Method::GET && method != Method::HEAD {
            return pages::text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match path {
            "/healthz" => pages::text(StatusCode::OK, "ok\n"),
            "/readyz" | "/healthz/ready" => self.readiness(),
            "/metrics" => pages::metrics(&self.metrics),
            "/" if pages == Pages::Admin => {
                pages::text(StatusCode::OK, "/readyz\n/metrics\n/certs\n/config\n")
            }
            "/certs" if pages == Pages::Admin => pages::json(format!("{:#}\n", self.certificates())),
            "/config" if pages == Pages::Admin => self.configuration(),
            _ => pages::text(StatusCode::NOT_FOUND, "no such page\n"),
        }
    }

    /// Ready: there is a certificate that has not ended, and a first configuration; at a gateway, all its ports are open.
    fn readiness(&self) -> Page {
        let certified = self.identity.borrow().not_after > SystemTime::now();
        let configured = self.config.status().updates > 0;
        match (certified, configured) {
            (true, true) if self.is_gateway && !self.config.is_ready() => {
                pages::text(StatusCode::SERVICE_UNAVAILABLE, "not all ports are open\n")
            }
            (true, true) => pages::text(StatusCode::OK, "ready\n"),
            (false, _) => pages::text(StatusCode::SERVICE_UNAVAILABLE, "the certificate has ended\n"),
            (_, false) => pages::text(StatusCode::SERVICE_UNAVAILABLE, "no configuration yet\n"),
        }
    }

    fn certificates(&self) -> serde_json::Value {
        let identity = self.identity.borrow();
        let time = |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string();
        serde_json::json!({
            "spiffe_id": identity.spiffe_id.to_string(),
            "not_before": time(identity.not_before),
            "not_after": time(identity.not_after),
        })
    }

    fn configuration(&self) -> Page {
        let status = self.config.status();
        let snapshot = self.config.snapshot();
        pages::text(
            StatusCode::OK,
            format!("workload {}\n{status:#?}\n{snapshot:#?}\n", self.workload),
        )
    }
}

/// Serves pages until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, pages: Pages, admin: Arc<Admin>) {
    let show = move |method: &Method, path: &str| admin.page(pages, method, path);
    pages::serve(listener, Arc::new(show)).await;
}

/// Binds an admin listener; refuses any address but loopback, because its pages tell everything.
pub(crate) async fn bind_loopback(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        let why = format!("the admin pages are for loopback only, not {address}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    TcpListener::bind(address).await
}
