//! The roots of a trust domain.

use model::TrustDomain;
use pem::Pem;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use sha2::{Digest, Sha256};

use crate::CertError;
use crate::svid::SigningCertificate;

/// Most roots in one bundle: the one in use and those before and after it, with room to spare.
pub const MAX_ROOTS: usize = 16;

pub(crate) const CERTIFICATE_TAG: &str = "CERTIFICATE";

/// The roots of one trust domain: at least one, each readable and an authority's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl TrustBundle {
    /// The roots of `trust_domain`, DER.
    ///
    /// # Errors
    /// [`CertError::Bundle`] for none or more than [`MAX_ROOTS`], for a certificate that is no authority's,
    /// and for one that names another trust domain; [`CertError::Malformed`] for what is no certificate.
    pub fn from_der(
        trust_domain: TrustDomain,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, CertError> {
        if roots.is_empty() {
            return Err(CertError::Bundle("it has no root"));
        }
        if roots.len() > MAX_ROOTS {
            return Err(CertError::Bundle("it has more than 16 roots"));
        }
        let mut anchors = Vec::with_capacity(roots.len());
        for root in &roots {
            if SigningCertificate::read(root)?
                .trust_domain
                .is_some_and(|domain| domain != trust_domain)
            {
                return Err(CertError::Bundle("a root is of another trust domain"));
            }
            let anchor = webpki::anchor_from_trusted_cert(root)
                .map_err(|_| CertError::Malformed("a root is no certificate"))?;
            anchors.push(anchor.to_owned());
        }
        Ok(Self {
            trust_domain,
            roots,
            anchors,
        })
    }

    /// Reads what [`TrustBundle::to_pem`] writes. The trust domain is the one that the first root names in
    /// its SPIFFE ID.
    ///
    /// # Errors
    /// As for [`TrustBundle::from_der`], and where the text is no PEM or the first root names no trust
    /// domain.
    pub fn from_pem(pem: &str) -> Result<Self, CertError> {
        Self::naming_itself(certificates(&pem::parse_many(pem)?))
    }

    /// The bundle of the trust domain that the first root names.
    pub(crate) fn naming_itself(roots: Vec<CertificateDer<'static>>) -> Result<Self, CertError> {
        let first = roots.first().ok_or(CertError::Bundle("it has no root"))?;
        let trust_domain = SigningCertificate::read(first)?
            .trust_domain
            .ok_or(CertError::Bundle("its first root names no trust domain"))?;
        Self::from_der(trust_domain, roots)
    }

    /// The roots as PEM certificates, in their order.
    pub fn to_pem(&self) -> String {
        certificates_pem(&self.roots)
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots, DER.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Whether a root's DER has this SHA-256. Whoever joined with a token asks this of the bundle that came
    /// back, for the hash in the token.
    pub fn contains_root(&self, hash: &[u8; 32]) -> bool {
        self.roots.iter().any(|root| certificate_hash(root) == *hash)
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

/// SHA-256 of a certificate's DER.
pub(crate) fn certificate_hash(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate.as_ref()).into()
}

pub(crate) fn certificates_pem(certificates: &[CertificateDer<'_>]) -> String {
    let blocks: Vec<Pem> = certificates
        .iter()
        .map(|der| Pem::new(CERTIFICATE_TAG, der.as_ref()))
        .collect();
    pem::encode_many_config(
        &blocks,
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    )
}

pub(crate) fn certificates(blocks: &[Pem]) -> Vec<CertificateDer<'static>> {
    blocks
        .iter()
        .filter(|block| block.tag() == CERTIFICATE_TAG)
        .map(|block| CertificateDer::from(block.contents().to_vec()))
        .collect()
}
