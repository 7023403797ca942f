//! What this sidecar must know, kept up to date by one stream from the control plane.
//!
//! Workers hold a [`ConfigHandle`]; the [`ConfigTask`] behind it runs on the control thread. An update is
//! understood as a whole before any of it is used, then swapped in atomically and acknowledged; or refused,
//! naming the field.

mod handle;
mod interest;
mod readiness;
mod status;
mod stream;
mod task;
#[cfg(test)]
mod tests;
mod update;

use std::time::Duration;

use model::workload::AppPort;
use model::{Label, Labels, WorkloadId};

pub use handle::{ConfigHandle, Learned};
pub use interest::{InterestCounts, InterestLimits};
pub use readiness::{AppReadiness, ReadinessSettings};
pub use status::{ConfigStatus, PortFailure, PortReport, RefusedUpdate};
pub use task::{ConfigTask, Follow};
pub use update::{MAX_VERSION_BYTES, Refusal, ResourceLimits};

use crate::identity::{Backoff, ChannelSettings, ControlPlaneAddress, Dice};

/// What the config room must know.
#[derive(Debug, Clone)]
pub struct ConfigSettings {
    pub control_plane: ControlPlaneAddress,
    pub workload_id: WorkloadId,
    pub labels: Labels,
    /// How other sidecars reach this one's inbound mTLS listener; `None` for a gateway only.
    pub inbound: Option<std::net::SocketAddr>,
    /// The Gateway whose proxy this is, in the namespace of its identity.
    pub gateway: Option<Label>,
    pub app_ports: Vec<AppPort>,
    /// Software version, for `weft status`.
    pub proxy_version: String,
    pub channel: ChannelSettings,
    /// Between attempts while there is no config stream; begins anew after a stream that lasted
    /// `stable_after`.
    pub backoff: Backoff,
    /// Default 10 s.
    pub stable_after: Duration,
    /// Largest message that is read, in bytes; default 16 MiB.
    pub max_message_bytes: usize,
    /// A control plane that does not take a message within this is given up; default 10 s.
    pub send_timeout: Duration,
    /// How long [`ConfigHandle::leave`] waits for the control plane's confirmation at most; default 2 s.
    pub leave_timeout: Duration,
    pub interest: InterestLimits,
    pub resources: ResourceLimits,
    pub dice: Dice,
}

impl ConfigSettings {
    /// Settings with every default: no labels, no application, and nowhere that others could reach.
    pub fn new(control_plane: ControlPlaneAddress, workload_id: WorkloadId) -> Self {
        Self {
            control_plane,
            workload_id,
            labels: Labels::default(),
            inbound: None,
            gateway: None,
            app_ports: Vec::new(),
            proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
            channel: ChannelSettings::default(),
            backoff: Backoff::default(),
            stable_after: Duration::from_secs(10),
            max_message_bytes: 16 * 1024 * 1024,
            send_timeout: Duration::from_secs(10),
            leave_timeout: Duration::from_secs(2),
            interest: InterestLimits::default(),
            resources: ResourceLimits::default(),
            dice: Dice::random(),
        }
    }
}
