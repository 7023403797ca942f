//! A private key with the chain that proves whose it is.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use model::SpiffeId;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use crate::bundle::{certificates, certificates_pem};
use crate::chain::{self, Usage};
use crate::provider::provider;
use crate::svid::Svid;
use crate::{CertError, PrivateKey, TrustBundle};

pub(crate) const PRIVATE_KEY_TAG: &str = "PRIVATE KEY";

/// Who this process is: a private key, and the chain that proves it to everyone who trusts the same bundle.
pub struct Identity {
    key: PrivateKey,
    svid: Svid,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Joins a key with the chain that was issued for it, leaf first.
    ///
    /// # Errors
    /// [`CertError::KeyMismatch`] where the leaf is for another key; otherwise whatever a peer with this
    /// bundle would object to at `now`.
    pub fn new(
        key: PrivateKey,
        chain: Vec<CertificateDer<'static>>,
        bundle: &TrustBundle,
        now: SystemTime,
    ) -> Result<Self, CertError> {
        let (leaf, intermediates) = chain
            .split_first()
            .ok_or(CertError::NotAnSvid("its chain is empty"))?;
        chain::verify(leaf, intermediates, bundle, Usage::Client, now)?;
        let svid = chain::verify(leaf, intermediates, bundle, Usage::Server, now)?;
        let certified = certify(&key, chain)?;
        Ok(Self { key, svid, certified })
    }

    /// The same identity, presenting its root too. Only the control plane does so: who joins with nothing but
    /// the root's hash must be shown the root.
    ///
    /// # Errors
    /// [`CertError::Untrusted`] where no root of the bundle is this chain's.
    pub fn presenting_root(self, bundle: &TrustBundle) -> Result<Self, CertError> {
        let mut chain = self.certified.cert.clone();
        let (leaf, intermediates) = chain
            .split_first()
            .ok_or(CertError::NotAnSvid("its chain is empty"))?;
        let root = bundle.roots().iter().find(|&root| {
            let only = TrustBundle::from_der(bundle.trust_domain().clone(), vec![root.clone()]);
            only.is_ok_and(|only| {
                chain::verify(leaf, intermediates, &only, Usage::Server, self.not_before()).is_ok()
            })
        });
        let root = root.ok_or(CertError::Untrusted(webpki::Error::UnknownIssuer))?;
        if !chain.contains(root) {
            chain.push(root.clone());
        }
        let certified = certify(&self.key, chain)?;
        Ok(Self { certified, ..self })
    }

    /// Reads what [`Identity::to_pem`] writes.
    ///
    /// # Errors
    /// Where the text is no PEM or lacks the key, and as for [`Identity::new`]: an identity that has expired
    /// since it was written down is refused.
    pub fn from_pem(pem: &str, bundle: &TrustBundle, now: SystemTime) -> Result<Self, CertError> {
        let blocks = pem::parse_many(pem)?;
        let key = blocks
            .iter()
            .find(|block| block.tag() == PRIVATE_KEY_TAG)
            .ok_or(CertError::PemContent("has no private key (PKCS#8)"))?;
        Self::new(
            PrivateKey::from_pkcs8(key.contents())?,
            certificates(&blocks),
            bundle,
            now,
        )
    }

    /// The private key and the chain. Whoever reads this text is this identity.
    pub fn to_pem(&self) -> String {
        self.key.to_pem() + &certificates_pem(&self.certified.cert)
    }

    pub fn id(&self) -> &SpiffeId {
        &self.svid.id
    }

    pub fn not_before(&self) -> SystemTime {
        self.svid.validity.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.svid.validity.not_after
    }

    /// What is presented to peers: leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.svid.id)
    }
}

fn certify(key: &PrivateKey, chain: Vec<CertificateDer<'static>>) -> Result<Arc<CertifiedKey>, CertError> {
    match CertifiedKey::from_der(chain, key.to_der(), provider()) {
        Ok(certified) => Ok(Arc::new(certified)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CertError::KeyMismatch),
        Err(error) => Err(error.into()),
    }
}
