//! Who the other side of a finished handshake is.

use std::time::SystemTime;

use model::SpiffeId;
use rustls::{CommonState, ProtocolVersion};

use crate::svid::Svid;

/// The identity that the other side of a connection has proved. Only [`verified_peer`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    svid: Svid,
}

impl VerifiedPeer {
    pub fn id(&self) -> &SpiffeId {
        &self.svid.id
    }

    pub fn not_before(&self) -> SystemTime {
        self.svid.validity.not_before
    }

    /// When the certificate that was presented ends; the connection should not live much longer.
    pub fn not_after(&self) -> SystemTime {
        self.svid.validity.not_after
    }
}

/// The peer of a connection made with [`crate::server_config`], [`crate::client_config`] or
/// [`crate::first_contact_config`]; `None` while the handshake lasts, and where the client presented no
/// certificate.
///
/// It reads once more the leaf that the verifier of that configuration accepted. rustls shows a peer's
/// certificates only after the verifier took the chain and the peer proved to hold the leaf's key, so a
/// connection of these configurations has no other certificate to show; they never resume a session. A
/// connection of some other configuration proves nothing and must not be passed.
pub fn verified_peer(connection: &CommonState) -> Option<VerifiedPeer> {
    if connection.is_handshaking() || connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    let leaf = connection.peer_certificates()?.first()?;
    Svid::read(leaf).ok().map(|svid| VerifiedPeer { svid })
}
