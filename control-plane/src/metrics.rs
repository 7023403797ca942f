//! What the control plane counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// All counts of a control plane.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) proxies_connected: Gauge,
    pub(crate) generation: Gauge,
    pub(crate) updates_sent: Counter,
    pub(crate) updates_acknowledged: Counter,
    pub(crate) updates_refused: Counter,
    pub(crate) certificates_issued: Counter,
    pub(crate) joins_refused: Counter,
    pub(crate) handshakes_failed: Counter,
    pub(crate) connections_refused: Counter,
}

impl Metrics {
    /// A registry that shows these counts.
    pub(crate) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("weft_control_plane");
        for (name, help, gauge) in [
            (
                "proxies_connected",
                "Config streams that are open",
                &self.proxies_connected,
            ),
            ("generation", "The mesh's generation", &self.generation),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, counter) in [
            ("updates_sent", "Updates sent to proxies", &self.updates_sent),
            (
                "updates_acknowledged",
                "Updates that proxies use",
                &self.updates_acknowledged,
            ),
            (
                "updates_refused",
                "Updates that proxies refused",
                &self.updates_refused,
            ),
            (
                "certificates_issued",
                "Certificates issued to workloads",
                &self.certificates_issued,
            ),
            ("joins_refused", "Join calls refused", &self.joins_refused),
            (
                "handshakes_failed",
                "Connections closed in their TLS handshake",
                &self.handshakes_failed,
            ),
            (
                "connections_refused",
                "Connections refused at the limit",
                &self.connections_refused,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry
    }
}
