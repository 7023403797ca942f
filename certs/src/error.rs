//! What can be wrong with a key, a certificate or a chain, and which TLS alert says so to the peer.

use std::sync::Arc;

use model::{SpiffeId, TrustDomain};
use rustls::{CertificateError, OtherError};

/// Why a key, a certificate, a chain or a signing request is not used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CertError {
    #[error("the PEM text is not readable")]
    Pem(#[source] Arc<pem::PemError>),
    #[error("the PEM text {0}")]
    PemContent(&'static str),
    #[error("the certificate is not readable: {0}")]
    Malformed(&'static str),
    #[error("the certificate is no SPIFFE X.509-SVID: {0}")]
    NotAnSvid(&'static str),
    #[error("the certificate does not lead to a trusted root")]
    Untrusted(#[source] webpki::Error),
    #[error("the certificate is not valid yet")]
    NotYetValid,
    #[error("the certificate has expired")]
    Expired,
    #[error("the identity is of trust domain {found}, not {expected}")]
    WrongTrustDomain {
        found: TrustDomain,
        expected: TrustDomain,
    },
    #[error("the identity is {found}, not {expected}")]
    WrongIdentity { found: SpiffeId, expected: SpiffeId },
    #[error("the presented chain lacks the root that the join token names")]
    RootNotPresented,
    #[error("this process has no identity yet")]
    NoIdentity,
    #[error("the peer has proved no identity")]
    NoPeer,
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    #[error("the signing request is refused: {0}")]
    Request(&'static str),
    #[error("the trust bundle is refused: {0}")]
    Bundle(&'static str),
    #[error("the lifetime is zero")]
    NoLifetime,
    #[error("the issuing certificate is not valid now")]
    AuthorityNotValid,
    #[error("a key or certificate could not be made or read")]
    Making(#[from] rcgen::Error),
    #[error("the TLS library refused")]
    Tls(#[from] rustls::Error),
}

impl From<pem::PemError> for CertError {
    fn from(error: pem::PemError) -> Self {
        Self::Pem(Arc::new(error))
    }
}

/// The alert follows from the error (RFC 8446 section 6.2): `unknown_ca`, `certificate_expired`,
/// `access_denied` for somebody else's identity, `bad_certificate` for what cannot be read,
/// `certificate_unknown` for the rest.
impl From<CertError> for rustls::Error {
    fn from(error: CertError) -> Self {
        Self::InvalidCertificate(match error {
            CertError::Tls(error) => return error,
            CertError::NotYetValid => CertificateError::NotValidYet,
            CertError::Expired => CertificateError::Expired,
            CertError::WrongTrustDomain { .. } | CertError::WrongIdentity { .. } => {
                CertificateError::ApplicationVerificationFailure
            }
            CertError::RootNotPresented => CertificateError::UnknownIssuer,
            CertError::Malformed(_) => CertificateError::BadEncoding,
            CertError::Untrusted(error) => untrusted(error),
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    }
}

fn untrusted(error: webpki::Error) -> CertificateError {
    use webpki::Error;
    match error {
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => CertificateError::BadEncoding,
        // Another authority of the same name looks like a broken signature.
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => CertificateError::UnknownIssuer,
        Error::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Error::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        Error::CaUsedAsEndEntity | Error::EndEntityUsedAsCa | Error::RequiredEkuNotFoundContext(_) => {
            CertificateError::InvalidPurpose
        }
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}
