//! The judgement whether a presented chain proves an identity to someone who trusts a bundle.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use webpki::{EndEntityCert, KeyUsage};

use crate::provider::provider;
use crate::svid::Svid;
use crate::{CertError, TrustBundle};

/// Most certificates that a peer may present after its leaf.
pub const MAX_INTERMEDIATES: usize = 8;

/// The side of a handshake on which the certificate stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Usage {
    Server,
    Client,
}

/// Believes the leaf if it is an SVID, leads to a root of the bundle, is of the bundle's trust domain, may be
/// used on that side, and is valid now. Who it is remains for the caller to judge.
pub(crate) fn verify(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    usage: Usage,
    now: SystemTime,
) -> Result<Svid, CertError> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(CertError::NotAnSvid("its chain is too long"));
    }
    let svid = Svid::read(leaf)?;
    let usage = match usage {
        Usage::Server => KeyUsage::server_auth(),
        Usage::Client => KeyUsage::client_auth(),
    };
    // The path is judged at a moment inside the leaf's validity; `Validity::check` knows the clock skew.
    EndEntityCert::try_from(leaf)
        .and_then(|leaf| {
            let algorithms = provider().signature_verification_algorithms.all;
            let moment = svid.validity.nearest(now);
            leaf.verify_for_usage(
                algorithms,
                bundle.anchors(),
                intermediates,
                moment,
                usage,
                None,
                None,
            )
            .map(drop)
        })
        .map_err(CertError::Untrusted)?;
    svid.validity.check(now)?;
    if svid.id.trust_domain != *bundle.trust_domain() {
        return Err(CertError::WrongTrustDomain {
            found: svid.id.trust_domain,
            expected: bundle.trust_domain().clone(),
        });
    }
    Ok(svid)
}
