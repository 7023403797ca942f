//! Who this sidecar is: it joins with a token, keeps its certificate on disk if told to, and renews it in
//! time.
//!
//! The private key is made here and leaves the process only for the identity file. Start at
//! [`IdentityKeeper`].

mod backoff;
mod channel;
mod exchange;
mod file;
mod keeper;
mod status;
mod token;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use model::{Label, WorkloadId};

pub use backoff::{Backoff, Dice};
pub use channel::{
    ALPN, AddressError, ChannelError, ChannelSettings, ControlPlaneAddress, connect, describe, printable,
};
pub use file::FileError;
pub use keeper::{IdentityError, IdentityKeeper};
pub use status::{IdentityStatus, RenewalError};
pub use token::{JoinToken, TokenError};

/// What the identity room must know.
#[derive(Debug, Clone)]
pub struct IdentitySettings {
    pub control_plane: ControlPlaneAddress,
    /// For the first certificate, and for a new one where the last has expired.
    pub token: Option<JoinToken>,
    /// Folder that keeps the identity across restarts, made where it is missing; nothing is kept where it is
    /// `None`.
    pub data: Option<PathBuf>,
    /// The namespace that the identity must be in: a token of another one is refused.
    pub namespace: Label,
    /// The service account that the identity must name; `None` takes whatever the token is for.
    pub service_account: Option<Label>,
    /// Which workload this is, told with every renewal for `weft status`.
    pub workload_id: Option<WorkloadId>,
    pub channel: ChannelSettings,
    /// Between attempts while the control plane cannot be reached.
    pub backoff: Backoff,
    /// The shortest time between two renewals, whatever dates the certificates have; default 1 s.
    pub min_renewal_interval: Duration,
    pub dice: Dice,
}

impl IdentitySettings {
    /// Settings with every default, without a token and without a folder.
    pub fn new(control_plane: ControlPlaneAddress, namespace: Label) -> Self {
        Self {
            control_plane,
            token: None,
            data: None,
            namespace,
            service_account: None,
            workload_id: None,
            channel: ChannelSettings::default(),
            backoff: Backoff::default(),
            min_renewal_interval: Duration::from_secs(1),
            dice: Dice::random(),
        }
    }
}
