//! How the identity stands, for the admin page.

use std::time::SystemTime;

use model::SpiffeId;

/// The certificate in use and when the next one is due.
#[derive(Debug, Clone)]
pub struct IdentityStatus {
    pub spiffe_id: SpiffeId,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// When it will be renewed, jitter included.
    pub renew_at: SystemTime,
    /// Certificates that replaced another since the start.
    pub renewals: u64,
    /// Why the newest attempt at renewal failed; `None` after a success.
    pub last_error: Option<RenewalError>,
}

/// A renewal that failed; it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalError {
    pub at: SystemTime,
    pub why: String,
}
