//! The certificate authority at work: loaded or made once, issues, and renews what the control plane itself uses.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use certs::{Authority, CertError, Identity, IdentityCell, IssuedChain, PrivateKey, TrustBundle, well_known};
use model::{SpiffeId, TrustDomain};

use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

/// The trust domain of a mesh that was given none.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// How long a failed renewal of the control plane's own certificates waits.
const RETRY: Duration = Duration::from_secs(5);

/// Issues certificates, for all tasks.
pub(crate) struct Issuer {
    authority: RwLock<Authority>,
    trust_domain: TrustDomain,
    root_hash: [u8; 32],
    lifetime: Duration,
    store: Arc<Store>,
    /// What the control plane shows to its callers.
    pub(crate) cell: IdentityCell,
    data: PathBuf,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(
        "the trust domain is {stored} since the first start of this data folder, and cannot become {asked}"
    )]
    OtherTrustDomain { stored: String, asked: String },
    #[error("the trust domain: {0}")]
    TrustDomain(#[from] model::FieldError),
    #[error(transparent)]
    Certificate(#[from] CertError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Issuer {
    /// Takes the authority from the store, or makes one at the first start.
    pub(crate) fn open(
        store: &Arc<Store>,
        asked: Option<&TrustDomain>,
        lifetime: Duration,
        data: &Path,
    ) -> Result<Arc<Self>, AuthorityError> {
        let authority = match store.authority()? {
            Some((stored, _)) if asked.is_some_and(|asked| asked.as_str() != stored) => {
                let asked = asked.map(ToString::to_string).unwrap_or_default();
                return Err(AuthorityError::OtherTrustDomain { stored, asked });
            }
            Some((_, pem)) => Authority::from_pem(&pem)?,
            None => {
                let trust_domain = match asked {
                    Some(asked) => asked.clone(),
                    None => DEFAULT_TRUST_DOMAIN.parse()?,
                };
                let authority = Authority::generate(&trust_domain, SystemTime::now())?;
                store.set_authority(trust_domain.as_str(), &authority.to_pem())?;
                tracing::info!(%trust_domain, "made a new authority");
                authority
            }
        };
        let issuer = Self {
            trust_domain: authority.trust_domain().clone(),
            root_hash: authority.root_hash(),
            authority: RwLock::new(authority),
            lifetime,
            store: store.clone(),
            cell: IdentityCell::new(),
            data: data.to_owned(),
        };
        issuer.renew_own()?;
        Ok(Arc::new(issuer))
    }

    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub(crate) fn root_hash(&self) -> &[u8; 32] {
        &self.root_hash
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        self.authority
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .bundle()
    }

    /// When the issuing certificate ends.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.authority
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .not_after()
    }

    /// Issues a certificate for the key of a signing request.
    pub(crate) fn issue(&self, request: &[u8], id: &SpiffeId) -> Result<IssuedChain, CertError> {
        let authority = self.authority.read().unwrap_or_else(PoisonError::into_inner);
        authority.issue(request, id, self.lifetime, SystemTime::now())
    }

    /// Renews the control plane's own certificate, the operator's credential and the issuing certificate at half
    /// of their time, until stopped.
    pub(crate) async fn keep_fresh(self: Arc<Self>, tasks: Tasks) {
        loop {
            let due = self.cell.current().map(|current| {
                let (from, to) = (current.identity.not_before(), current.identity.not_after());
                certs::renew_at(from, to, rand::random())
            });
            let wait = due
                .and_then(|due| due.duration_since(SystemTime::now()).ok())
                .unwrap_or(RETRY);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = tasks.stopping() => return,
            }
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.renew_own()).await {
                Ok(Ok(())) => tracing::info!("renewed the control plane's certificates"),
                Ok(Err(error)) => {
                    tracing::error!(%error, "the control plane's certificates were not renewed")
                }
                Err(_) => return,
            }
        }
    }

    fn renew_own(&self) -> Result<(), AuthorityError> {
        self.renew_issuing()?;
        let bundle = self.bundle();
        let own = self.identity(&well_known::control_plane(&self.trust_domain))?;
        self.cell.set(own.presenting_root(&bundle)?, bundle.clone());
        let operator = self.identity(&well_known::operator(&self.trust_domain))?;
        self.write("operator.pem", &operator.to_pem())?;
        self.write("bundle.pem", &bundle.to_pem())
    }

    fn renew_issuing(&self) -> Result<(), AuthorityError> {
        let mut authority = self.authority.write().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        if certs::needs_renewal(authority.not_before(), authority.not_after(), now, 0.5) {
            authority.renew_intermediate(now)?;
            self.store
                .set_authority(self.trust_domain.as_str(), &authority.to_pem())?;
            tracing::info!("renewed the issuing certificate");
        }
        Ok(())
    }

    fn identity(&self, id: &SpiffeId) -> Result<Identity, CertError> {
        let key = PrivateKey::generate()?;
        let issued = self.issue(&key.csr()?, id)?;
        Identity::new(key, issued.chain, &self.bundle(), SystemTime::now())
    }

    /// Writes a file of the data folder that only its owner can read, whole or not at all.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), AuthorityError> {
        let path = self.data.join(name);
        write_private(&path, text).map_err(|source| AuthorityError::Write { path, source })
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    // What an interrupted write left behind may have other permissions.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(fresh, path)
}
