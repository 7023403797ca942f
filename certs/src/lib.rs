//! Who a workload is, proved: SPIFFE X.509-SVIDs, the authority that issues them and the TLS that checks
//! them.
//!
//! An [`Authority`] answers a key's signing request with an [`IssuedChain`]; key and chain are an
//! [`Identity`], which lives in an [`IdentityCell`]. [`server_config`] and [`client_config`] read that cell
//! at every handshake, so a renewed certificate or a new root is in use from the next connection on. After a
//! handshake [`verified_peer`] says who the other side is. [`ServerTls`] and [`ClientTls`] do the same for
//! connections that may resume a session, and judge the other side at each of them. The crate opens no socket, starts no task and
//! reads no clock but the one TLS itself needs.

mod authority;
mod bundle;
mod cell;
mod chain;
mod error;
mod first_contact;
mod identity;
mod key;
mod peer;
mod provider;
mod recent;
mod request;
mod resumption;
mod rotation;
mod svid;
#[cfg(test)]
mod tests;
mod tls;
mod validity;
mod verdicts;
mod verify;
pub mod well_known;

pub use authority::{Authority, INTERMEDIATE_LIFETIME, IssuedChain, ROOT_LIFETIME};
pub use bundle::{MAX_ROOTS, TrustBundle};
pub use cell::{Current, IdentityCell};
pub use chain::MAX_INTERMEDIATES;
pub use error::CertError;
pub use first_contact::first_contact_config;
pub use identity::Identity;
pub use key::PrivateKey;
pub use peer::{VerifiedPeer, verified_peer};
pub use request::MAX_REQUEST_BYTES;
pub use resumption::{CLIENT_SESSIONS, ClientTls, MAX_SESSION_BYTES, ServerTls};
pub use rotation::{needs_renewal, renew_at};
pub use rustls::pki_types::CertificateDer;
pub use tls::{ClientAuth, client_config, server_config};
pub use validity::CLOCK_SKEW;
