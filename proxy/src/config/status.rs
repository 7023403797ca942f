//! How the config stream stands, for the admin page.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use model::Generation;

use super::interest::InterestCounts;
use super::update::Refusal;

/// A full table is reported at most this often.
const FULL_REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// What an operator wants to know about a proxy's configuration.
#[derive(Debug, Clone, Default)]
pub struct ConfigStatus {
    /// Since when the config stream is open; `None` while it is not.
    pub connected_since: Option<SystemTime>,
    /// The mesh's generation in use.
    pub generation: Generation,
    /// Updates that were put to use since the start.
    pub updates: u64,
    /// Streams that were opened since the start.
    pub streams: u64,
    /// Resources in use, and their size on the wire in bytes.
    pub resources: usize,
    pub resource_bytes: usize,
    pub interest: InterestCounts,
    /// The newest update, where it was refused.
    pub refused: Option<RefusedUpdate>,
    /// Why the stream is not open, or why it last ended.
    pub last_error: Option<String>,
}

/// An update of which nothing is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedUpdate {
    pub generation: Generation,
    pub refusal: Refusal,
    pub at: SystemTime,
}

/// How one port of a gateway stands, for the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortReport {
    pub port: u16,
    /// As bound.
    pub addresses: Vec<SocketAddr>,
    /// Why it is not bound everywhere; `None` where it is.
    pub failure: Option<PortFailure>,
}

/// Why a port is not bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFailure {
    pub why: String,
    /// This machine has not the address.
    pub no_address: bool,
}

/// The part of the status that only events change.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) connected_since: Option<SystemTime>,
    pub(super) updates: u64,
    pub(super) streams: u64,
    pub(super) resources: usize,
    pub(super) resource_bytes: usize,
    pub(super) refused: Option<RefusedUpdate>,
    pub(super) last_error: Option<String>,
    full_reported: Option<Instant>,
}

impl Progress {
    /// Whether a full table should be reported again at `now`.
    pub(super) fn note_full(&mut self, now: Instant) -> bool {
        let due = self
            .full_reported
            .is_none_or(|last| now.duration_since(last) >= FULL_REPORT_INTERVAL);
        if due {
            self.full_reported = Some(now);
        }
        due
    }

    pub(super) fn status(&self, generation: Generation, interest: InterestCounts) -> ConfigStatus {
        ConfigStatus {
            connected_since: self.connected_since,
            generation,
            updates: self.updates,
            streams: self.streams,
            resources: self.resources,
            resource_bytes: self.resource_bytes,
            interest,
            refused: self.refused.clone(),
            last_error: self.last_error.clone(),
        }
    }
}
