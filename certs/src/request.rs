//! The authority's reading of a signing request: the public key, if the requester proves that the private one
//! is theirs.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::FromDer;

use crate::CertError;

/// Longest signing request that is read, in bytes. A plain P-256 one has under 300.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// The public key of a PKCS#10 request. Everything else it asks for is ignored.
///
/// # Errors
/// [`CertError::Request`] for what is no request, is not signed by its own key, or holds another key than
/// P-256.
pub(crate) fn public_key(der: &[u8]) -> Result<SubjectPublicKeyInfo, CertError> {
    if der.len() > MAX_REQUEST_BYTES {
        return Err(CertError::Request("it is longer than 16 KiB"));
    }
    let (rest, request) = X509CertificationRequest::from_der(der)
        .map_err(|_| CertError::Request("it is not PKCS#10 in DER"))?;
    if !rest.is_empty() {
        return Err(CertError::Request("something follows it"));
    }
    let key = &request.certification_request_info.subject_pki;
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|curve| curve.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(CertError::Request("its key is not ECDSA P-256"));
    }
    request
        .verify_signature()
        .map_err(|_| CertError::Request("it is not signed by the key that it holds"))?;
    Ok(SubjectPublicKeyInfo::from_der(key.raw)?)
}
