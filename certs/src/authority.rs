//! The self-made certificate authority: a root, and an intermediate that issues identities.

use std::fmt;
use std::time::{Duration, SystemTime};

use model::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;

use crate::bundle::{CERTIFICATE_TAG, certificate_hash, certificates_pem};
use crate::identity::PRIVATE_KEY_TAG;
use crate::provider::provider;
use crate::svid::SigningCertificate;
use crate::validity::{Validity, date};
use crate::{CertError, PrivateKey, TrustBundle, request};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a root lasts, 10 years.
pub const ROOT_LIFETIME: Duration = DAY.saturating_mul(3653);
/// How long an issuing intermediate lasts, 1 year.
pub const INTERMEDIATE_LIFETIME: Duration = DAY.saturating_mul(365);

/// A trust domain's authority: a root and its key, and the intermediate that issues identities.
pub struct Authority {
    root: Signer,
    intermediate: Signer,
    /// The root alone, with its trust domain.
    bundle: TrustBundle,
}

struct Signer {
    certificate: CertificateDer<'static>,
    validity: Validity,
    issuer: Issuer<'static, KeyPair>,
}

/// An issued certificate: the leaf, then the intermediate.
#[derive(Debug, Clone)]
pub struct IssuedChain {
    pub chain: Vec<CertificateDer<'static>>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Authority {
    /// A new root of [`ROOT_LIFETIME`] with an intermediate of [`INTERMEDIATE_LIFETIME`].
    pub fn generate(trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, CertError> {
        let validity = Validity::starting(now, ROOT_LIFETIME, None)?;
        let params = signing_params(trust_domain, "Weft root", 1, &validity)?;
        let key = PrivateKey::generate()?.into_pair();
        let certificate = params.self_signed(&key)?.into();
        let root = Signer {
            certificate,
            validity,
            issuer: Issuer::new(params, key),
        };
        let intermediate = root.intermediate(trust_domain, now)?;
        let bundle = TrustBundle::from_der(trust_domain.clone(), vec![root.certificate.clone()])?;
        Ok(Self {
            root,
            intermediate,
            bundle,
        })
    }

    /// Replaces the intermediate by a new one, for when half of its time is over. Chains issued before stay
    /// valid.
    ///
    /// # Errors
    /// [`CertError::AuthorityNotValid`] outside the root's own time.
    pub fn renew_intermediate(&mut self, now: SystemTime) -> Result<(), CertError> {
        self.intermediate = self.root.intermediate(self.trust_domain(), now)?;
        Ok(())
    }

    /// Issues an identity for the key of a PKCS#10 request; nothing else in the request is heeded.
    ///
    /// Valid from [`crate::CLOCK_SKEW`] before `now` for `lifetime` after it, but no longer than the
    /// intermediate.
    ///
    /// # Errors
    /// [`CertError::Request`] for a request that is unreadable, not signed by its own key, or for a key other
    /// than ECDSA P-256; [`CertError::WrongTrustDomain`] for an identity of another realm;
    /// [`CertError::NoLifetime`]; [`CertError::AuthorityNotValid`] outside the intermediate's time.
    pub fn issue(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<IssuedChain, CertError> {
        let public_key = request::public_key(csr_der)?;
        if id.trust_domain != *self.trust_domain() {
            let (found, expected) = (id.trust_domain.clone(), self.trust_domain().clone());
            return Err(CertError::WrongTrustDomain { found, expected });
        }
        if lifetime.is_zero() {
            return Err(CertError::NoLifetime);
        }
        let validity = Validity::starting(now, lifetime, Some(&self.intermediate.validity))?;
        let leaf = leaf_params(id, &validity)?.signed_by(&public_key, &self.intermediate.issuer)?;
        Ok(IssuedChain {
            chain: vec![leaf.into(), self.intermediate.certificate.clone()],
            not_before: validity.not_before,
            not_after: validity.not_after,
        })
    }

    /// The trust bundle that has this authority's root alone.
    pub fn bundle(&self) -> TrustBundle {
        self.bundle.clone()
    }

    /// SHA-256 of the root certificate's DER, as join tokens carry it.
    pub fn root_hash(&self) -> [u8; 32] {
        certificate_hash(&self.root.certificate)
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// From when the issuing intermediate counts.
    pub fn not_before(&self) -> SystemTime {
        self.intermediate.validity.not_before
    }

    /// When the issuing intermediate ends, and with it everything it issued.
    pub fn not_after(&self) -> SystemTime {
        self.intermediate.validity.not_after
    }

    /// Root certificate and key, intermediate certificate and key. Whoever reads this text is the authority.
    pub fn to_pem(&self) -> String {
        let signers = [&self.root, &self.intermediate];
        signers
            .map(|signer| {
                let certificate = certificates_pem(std::slice::from_ref(&signer.certificate));
                certificate + &signer.issuer.key().serialize_pem()
            })
            .concat()
    }

    /// Reads what [`Authority::to_pem`] writes.
    ///
    /// # Errors
    /// Where the text is no PEM or has other contents, a key is not its certificate's, the root names no
    /// trust domain, or the intermediate is not the root's. An authority that has expired is read; it does
    /// not issue.
    pub fn from_pem(pem: &str) -> Result<Self, CertError> {
        let blocks = pem::parse_many(pem)?;
        let [root, root_key, intermediate, intermediate_key] = blocks.as_slice() else {
            return Err(CertError::PemContent(
                "is not an authority's two certificates and two keys",
            ));
        };
        let root = Signer::read(root, root_key)?;
        let intermediate = Signer::read(intermediate, intermediate_key)?;
        let bundle = TrustBundle::naming_itself(vec![root.certificate.clone()])?;
        let authority = Self {
            root,
            intermediate,
            bundle,
        };
        authority.check()?;
        Ok(authority)
    }

    /// A leaf that differs from what [`Authority::issue`] makes, to see it refused.
    #[cfg(test)]
    pub(crate) fn issue_altered(
        &self,
        key: &PrivateKey,
        id: &SpiffeId,
        alter: impl FnOnce(&mut CertificateParams),
    ) -> Vec<CertificateDer<'static>> {
        let validity = Validity::starting(SystemTime::now(), DAY, None).unwrap();
        let mut params = leaf_params(id, &validity).unwrap();
        alter(&mut params);
        let public_key = request::public_key(&key.csr().unwrap()).unwrap();
        let leaf = params.signed_by(&public_key, &self.intermediate.issuer).unwrap();
        vec![leaf.into(), self.intermediate.certificate.clone()]
    }

    /// Issues to itself and verifies: root, intermediate and keys fit if and only if that works.
    fn check(&self) -> Result<(), CertError> {
        let (key, now) = (PrivateKey::generate()?, self.not_after() - Duration::from_secs(1));
        let issued = self.issue(
            &key.csr()?,
            &SpiffeId::control_plane(self.trust_domain()),
            DAY,
            now,
        )?;
        crate::Identity::new(key, issued.chain, &self.bundle, now).map(drop)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.trust_domain())
    }
}

impl Signer {
    fn intermediate(&self, trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, CertError> {
        let validity = Validity::starting(now, INTERMEDIATE_LIFETIME, Some(&self.validity))?;
        let params = signing_params(trust_domain, "Weft issuer", 0, &validity)?;
        let key = PrivateKey::generate()?.into_pair();
        let certificate = params.signed_by(&key, &self.issuer)?.into();
        Ok(Self {
            certificate,
            validity,
            issuer: Issuer::new(params, key),
        })
    }

    fn read(certificate: &pem::Pem, key: &pem::Pem) -> Result<Self, CertError> {
        if certificate.tag() != CERTIFICATE_TAG || key.tag() != PRIVATE_KEY_TAG {
            return Err(CertError::PemContent(
                "is not an authority's two certificates and two keys",
            ));
        }
        let certificate = CertificateDer::from(certificate.contents().to_vec());
        let key = PrivateKey::from_pkcs8(key.contents())?.into_pair();
        let parsed = webpki::EndEntityCert::try_from(&certificate).map_err(CertError::Untrusted)?;
        if parsed.subject_public_key_info().as_ref() != key.subject_public_key_info() {
            return Err(CertError::KeyMismatch);
        }
        let validity = SigningCertificate::read(&certificate)?.validity;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self {
            certificate,
            validity,
            issuer,
        })
    }
}

/// A signing certificate carries its trust domain as a SPIFFE ID without a path (SPIFFE X509-SVID section
/// 3.2).
fn signing_params(
    trust_domain: &TrustDomain,
    name: &str,
    path_length: u8,
    validity: &Validity,
) -> Result<CertificateParams, CertError> {
    let mut params = params(format!("spiffe://{trust_domain}"), validity)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The subject stays empty, which makes the SPIFFE ID critical (RFC 5280 section 4.2.1.6): nobody can
/// overlook it.
fn leaf_params(id: &SpiffeId, validity: &Validity) -> Result<CertificateParams, CertError> {
    let mut params = params(id.to_string(), validity)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

fn params(uri: String, validity: &Validity) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    params.serial_number = Some(random_serial()?);
    // Every authority's names are alike; this tells them apart.
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 126 random bits, positive and without a leading zero byte (RFC 5280 section 4.1.2.2).
fn random_serial() -> Result<SerialNumber, CertError> {
    let mut serial = [0; 16];
    provider()
        .secure_random
        .fill(&mut serial)
        .map_err(rustls::Error::from)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}
