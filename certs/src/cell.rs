//! The identity in use, replaced as a whole while connections go on.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, SignatureScheme};

use crate::chain::Usage;
use crate::svid::Svid;
use crate::verdicts::Verdicts;
use crate::{CertError, Identity, TrustBundle};

/// Where one process keeps who it is and whom it trusts. Clones share the contents.
#[derive(Debug, Clone, Default)]
pub struct IdentityCell(Arc<ArcSwapOption<Current>>);

/// An identity together with the bundle that came with it: always used as a pair.
#[derive(Debug)]
pub struct Current {
    pub identity: Identity,
    pub bundle: TrustBundle,
    /// Of this bundle: with another one, nothing is known yet.
    verdicts: Verdicts,
}

impl Current {
    /// What [`crate::chain::verify`] says about a chain under this bundle.
    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        now: SystemTime,
    ) -> Result<Svid, CertError> {
        self.verdicts
            .verify(leaf, intermediates, &self.bundle, usage, now)
    }
}

impl IdentityCell {
    /// An empty cell: every handshake is refused until [`IdentityCell::set`].
    pub fn new() -> Self {
        Self::default()
    }

    /// A cell with its first contents.
    pub fn with(identity: Identity, bundle: TrustBundle) -> Self {
        let cell = Self::new();
        cell.set(identity, bundle);
        cell
    }

    /// Replaces the contents. Handshakes that start afterwards use them; connections that exist are left
    /// alone.
    pub fn set(&self, identity: Identity, bundle: TrustBundle) {
        self.0.store(Some(Arc::new(Current {
            identity,
            bundle,
            verdicts: Verdicts::default(),
        })));
    }

    /// What is in use now.
    pub fn current(&self) -> Option<Arc<Current>> {
        self.0.load_full()
    }

    /// A cell that holds this for ever.
    pub(crate) fn fixed(current: Arc<Current>) -> Self {
        Self(Arc::new(ArcSwapOption::new(Some(current))))
    }

    pub(crate) fn known(&self) -> Result<Arc<Current>, CertError> {
        self.current().ok_or(CertError::NoIdentity)
    }

    /// What a verifier goes by, or the reason to refuse everyone.
    pub(crate) fn require(&self) -> Result<Arc<Current>, Error> {
        self.current()
            .ok_or_else(|| Error::General("this process has no identity yet".to_owned()))
    }
}

impl ResolvesServerCert for IdentityCell {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current().map(|current| current.identity.certified().clone())
    }
}

impl ResolvesClientCert for IdentityCell {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current().map(|current| current.identity.certified().clone())
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}
