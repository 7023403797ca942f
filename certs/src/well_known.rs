//! The mesh's own identities in a trust domain.

use model::{SpiffeId, TrustDomain};

/// `spiffe://<trust domain>/ns/weft-system/sa/control-plane`
pub fn control_plane(trust_domain: &TrustDomain) -> SpiffeId {
    SpiffeId::control_plane(trust_domain)
}

/// `spiffe://<trust domain>/ns/weft-system/sa/operator`
pub fn operator(trust_domain: &TrustDomain) -> SpiffeId {
    SpiffeId::operator(trust_domain)
}
