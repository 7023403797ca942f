//! What a leaf certificate says about itself, if it has the form of an X.509-SVID (SPIFFE X509-SVID sections
//! 2 to 5).

use model::{SpiffeId, TrustDomain};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::CertError;
use crate::validity::Validity;

/// The contents of one leaf, not yet believed: see [`crate::chain::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Svid {
    pub(crate) id: SpiffeId,
    pub(crate) validity: Validity,
}

impl Svid {
    pub(crate) fn read(der: &[u8]) -> Result<Self, CertError> {
        let certificate = parse(der)?;
        refuse_authority(&certificate)?;
        let uri = spiffe_uri(&certificate)?.ok_or(CertError::NotAnSvid("it has no URI name"))?;
        let id = uri
            .parse()
            .map_err(|_| CertError::NotAnSvid("its URI is no SPIFFE ID of a mesh"))?;
        Ok(Self {
            id,
            validity: Validity::read(certificate.validity())?,
        })
    }
}

/// What an authority's certificate says about itself.
pub(crate) struct SigningCertificate {
    /// Its SPIFFE ID without a path, where it has one.
    pub(crate) trust_domain: Option<TrustDomain>,
    pub(crate) validity: Validity,
}

impl SigningCertificate {
    pub(crate) fn read(der: &[u8]) -> Result<Self, CertError> {
        let certificate = parse(der)?;
        let unreadable = |_| CertError::Malformed("its extensions do not parse");
        let constraints = certificate.basic_constraints().map_err(unreadable)?;
        if !constraints.is_some_and(|extension| extension.value.ca) {
            return Err(CertError::Bundle("a certificate in it is no authority's"));
        }
        let trust_domain = match spiffe_uri(&certificate)? {
            Some(uri) => {
                let name = uri
                    .strip_prefix("spiffe://")
                    .ok_or(CertError::Bundle("an authority's URI is no SPIFFE ID"))?;
                Some(
                    name.parse()
                        .map_err(|_| CertError::Bundle("an authority's URI is no trust domain"))?,
                )
            }
            None => None,
        };
        Ok(Self {
            trust_domain,
            validity: Validity::read(certificate.validity())?,
        })
    }
}

/// The period of any certificate.
pub(crate) fn validity(der: &[u8]) -> Result<Validity, CertError> {
    Validity::read(parse(der)?.validity())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertError> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| CertError::Malformed("it is not X.509 in DER"))?;
    if !rest.is_empty() {
        return Err(CertError::Malformed("something follows it"));
    }
    Ok(certificate)
}

/// A leaf may sign handshakes and nothing else (section 4.3), or whoever holds it could issue identities.
fn refuse_authority(certificate: &X509Certificate<'_>) -> Result<(), CertError> {
    let unreadable = |_| CertError::Malformed("its extensions do not parse");
    if certificate
        .basic_constraints()
        .map_err(unreadable)?
        .is_some_and(|extension| extension.value.ca)
    {
        return Err(CertError::NotAnSvid("it is an authority's certificate"));
    }
    let usage = certificate
        .key_usage()
        .map_err(unreadable)?
        .ok_or(CertError::NotAnSvid("it has no key usage"))?
        .value;
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(CertError::NotAnSvid(
            "its key may sign certificates or revocations",
        ));
    }
    if !usage.digital_signature() {
        return Err(CertError::NotAnSvid("its key may not sign handshakes"));
    }
    Ok(())
}

/// The only URI among the certificate's names; other kinds of names say nothing in a mesh (section 2).
fn spiffe_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<Option<&'a str>, CertError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| CertError::Malformed("its names do not parse, or stand there twice"))?;
    let mut found = None;
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::URI(_) if found.is_some() => {
                return Err(CertError::NotAnSvid("it has several URI names"));
            }
            GeneralName::URI(uri) => found = Some(*uri),
            GeneralName::Invalid(..) => return Err(CertError::Malformed("one of its names does not parse")),
            _ => {}
        }
    }
    Ok(found)
}
