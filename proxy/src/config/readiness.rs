//! Whether the application beside this sidecar accepts connections yet.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::ConfigHandle;

/// How often the application is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadinessSettings {
    /// Between the first attempts while it is not ready; default 50 ms. It doubles with each attempt.
    pub first_interval: Duration,
    /// The longest time between attempts while it is not ready; default 1 s.
    pub most_interval: Duration,
    /// Between checks while it is ready; default 5 s.
    pub steady_interval: Duration,
    /// An attempt counts as failed after this; default 1 s.
    pub connect_timeout: Duration,
    /// Failures in a row that make a ready application unready; default 2.
    pub failures: u32,
}

impl Default for ReadinessSettings {
    fn default() -> Self {
        Self {
            first_interval: Duration::from_millis(50),
            most_interval: Duration::from_secs(1),
            steady_interval: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            failures: 2,
        }
    }
}

/// Connects to the application again and again, and reports when that begins or ceases to work.
pub struct AppReadiness {
    addresses: Vec<SocketAddr>,
    config: ConfigHandle,
    settings: ReadinessSettings,
}

impl AppReadiness {
    /// Ready means that every one of `addresses` accepts; a workload without any is ready at once.
    pub fn new(addresses: Vec<SocketAddr>, config: ConfigHandle, settings: ReadinessSettings) -> Self {
        Self {
            addresses,
            config,
            settings,
        }
    }

    /// Runs until it is dropped; ends at once where there is nothing to watch.
    pub async fn run(self) {
        if self.addresses.is_empty() {
            self.config.set_ready(true);
            return;
        }
        let mut failures = 0;
        loop {
            let closed = self.closed().await;
            match closed {
                None => {
                    failures = 0;
                    if !self.config.is_ready() {
                        tracing::info!("the application accepts connections");
                    }
                    self.config.set_ready(true);
                }
                Some(address) => {
                    failures += 1;
                    if self.config.is_ready() && failures >= self.settings.failures {
                        tracing::warn!(%address, "the application does not accept connections any more");
                        self.config.set_ready(false);
                    }
                }
            }
            sleep(self.settings.pause(failures)).await;
        }
    }

    /// The first address that does not accept.
    async fn closed(&self) -> Option<SocketAddr> {
        let attempts = self.addresses.iter().map(|address| async move {
            let connected = timeout(self.settings.connect_timeout, TcpStream::connect(address)).await;
            (!matches!(connected, Ok(Ok(_)))).then_some(*address)
        });
        join_all(attempts).await.into_iter().flatten().next()
    }
}

impl ReadinessSettings {
    fn pause(&self, failures: u32) -> Duration {
        match failures {
            0 => self.steady_interval,
            failures => {
                let doublings = (failures - 1).min(31);
                self.first_interval
                    .saturating_mul(1 << doublings)
                    .min(self.most_interval)
            }
        }
    }
}
