//! Who the other side of a finished handshake is.

use std::time::SystemTime;

use model::SpiffeId;
use rustls::pki_types::CertificateDer;
use rustls::{CommonState, HandshakeKind, ProtocolVersion};

use crate::CertError;
use crate::cell::Current;
use crate::chain::Usage;
use crate::svid::Svid;

/// The identity that the other side of a connection has proved. Made by [`verified_peer`], or for settings that
/// resume sessions by [`crate::ServerTls::verified_peer`] and [`crate::ClientTls::verified_peer`]; by nobody else.
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
/// connection of these configurations has no other certificate to show; they never resume a session, and a
/// resumed one is refused here. A connection of some other configuration proves nothing and must not be passed.
pub fn verified_peer(connection: &CommonState) -> Option<VerifiedPeer> {
    if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
        return None;
    }
    let leaf = proved_chain(connection)?.first()?;
    Svid::read(leaf).ok().map(|svid| VerifiedPeer { svid })
}

/// The peer of a finished handshake, judged as the verifier would judge it now. In a full handshake it has just
/// done so; in a resumed one nobody has: rustls shows the chain of the handshake that the session began with.
pub(crate) fn judged_peer(
    connection: &CommonState,
    current: &Current,
    usage: Usage,
    now: SystemTime,
) -> Result<VerifiedPeer, CertError> {
    let (leaf, intermediates) = proved_chain(connection)
        .and_then(<[_]>::split_first)
        .ok_or(CertError::NoPeer)?;
    let svid = current.verify(leaf, intermediates, usage, now)?;
    Ok(VerifiedPeer { svid })
}

/// The chain whose key the peer holds, or held when the session began.
fn proved_chain(connection: &CommonState) -> Option<&[CertificateDer<'static>]> {
    if connection.is_handshaking() || connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    connection.peer_certificates()
}
