//! Gets an identity, keeps it, and renews it for as long as the proxy runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::{CertError, IdentityCell};
use model::{MeshDomain, SpiffeId};
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::sleep;

use super::IdentitySettings;
use super::channel::{ALPN, ControlPlaneAddress};
use super::exchange::{self, ExchangeError, Grant, Request, Route};
use super::file::{self, FileError, IdentityFile};
use super::status::{IdentityStatus, RenewalError};
use super::token::JoinToken;

/// Certificates end by the wall clock, which jumps when a machine wakes up: it is read at least this often.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// Why this sidecar has no identity, and trying again would not give it one.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("there is no identity and no join token: make one with `weft token create`")]
    NoToken,
    #[error("the identity that is kept cannot be used, and there is no join token for a new one: {0}")]
    Kept(#[source] Box<FileError>),
    #[error("the data folder {folder} cannot keep an identity: {source}")]
    Data { folder: PathBuf, source: Box<FileError> },
    #[error("joining the mesh failed: {0}")]
    Join(String),
    #[error("the control plane at {address} does not hold the authority that the join token names: {why}")]
    Untrusted {
        address: ControlPlaneAddress,
        why: String,
    },
    #[error("the identity is {found}, but this sidecar is to be {wanted}")]
    WrongIdentity { found: SpiffeId, wanted: String },
    #[error("the trust bundle of the answer lacks the root that the join token names")]
    RootMissing,
    #[error("TLS cannot be set up: {0}")]
    Tls(#[source] CertError),
}

/// Holds this sidecar's identity and renews it. Obtain one, hand out its cell, then run it.
pub struct IdentityKeeper {
    settings: IdentitySettings,
    file: Option<IdentityFile>,
    cell: IdentityCell,
    tls: Arc<ClientConfig>,
    spiffe_id: SpiffeId,
    mesh_domain: MeshDomain,
    status: watch::Sender<IdentityStatus>,
}

impl IdentityKeeper {
    /// Takes the identity that the data folder keeps, else joins with the token: for as long as it takes
    /// while the control plane cannot be reached.
    ///
    /// # Errors
    /// What waiting cannot mend: no token, a token that is refused, a control plane of another authority, a
    /// folder that cannot be written.
    pub async fn obtain(settings: IdentitySettings) -> Result<Self, IdentityError> {
        let file = settings.data.as_deref().map(IdentityFile::in_folder);
        let kept = kept(file.as_ref(), &settings)?;
        let grant = match (kept, &settings.token) {
            (Some(kept), Some(token)) if !kept.bundle.contains_root(&token.root_hash()) => {
                rejoin(&settings, file.as_ref(), token, kept).await?
            }
            (Some(kept), _) => kept,
            (None, Some(token)) => first_identity(&settings, file.as_ref(), token).await?,
            (None, None) => return Err(IdentityError::NoToken),
        };
        Self::with(settings, file, grant)
    }

    fn with(
        settings: IdentitySettings,
        file: Option<IdentityFile>,
        grant: Grant,
    ) -> Result<Self, IdentityError> {
        let spiffe_id = grant.identity.id().clone();
        let mesh_domain = grant.mesh_domain.clone();
        let status = watch::Sender::new(status_of(&grant, settings.dice.roll()));
        let cell = IdentityCell::with(grant.identity, grant.bundle);
        let control_plane = SpiffeId::control_plane(&spiffe_id.trust_domain);
        let tls = certs::client_config(&cell, ALPN, &control_plane).map_err(IdentityError::Tls)?;
        tracing::info!(%spiffe_id, "this sidecar has its identity");
        Ok(Self {
            settings,
            file,
            cell,
            tls,
            spiffe_id,
            mesh_domain,
            status,
        })
    }

    /// The identity in use, always the newest. Every TLS setting of the proxy reads it.
    pub fn cell(&self) -> IdentityCell {
        self.cell.clone()
    }

    /// How to reach the control plane as this workload, and nobody else instead of it.
    pub fn control_plane_tls(&self) -> Arc<ClientConfig> {
        self.tls.clone()
    }

    /// Who this sidecar is; renewals do not change it.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The DNS suffix of this mesh's services.
    pub fn mesh_domain(&self) -> &MeshDomain {
        &self.mesh_domain
    }

    /// For the admin page; follows every renewal.
    pub fn status(&self) -> watch::Receiver<IdentityStatus> {
        self.status.subscribe()
    }

    /// Renews the certificate whenever half of its time is over, until dropped. A failure is tried again
    /// until it succeeds: connections that exist go on, and what is valid stays in use.
    pub async fn run(self) {
        loop {
            self.wait_until_due().await;
            let grant = self.next_grant().await;
            self.install(grant).await;
        }
    }

    async fn wait_until_due(&self) {
        let due = self.status.borrow().renew_at;
        sleep(self.settings.min_renewal_interval).await;
        while let Ok(left) = due.duration_since(SystemTime::now()) {
            sleep(left.min(CLOCK_CHECK)).await;
        }
    }

    async fn next_grant(&self) -> Grant {
        let mut failures = 0;
        loop {
            let error = match self.attempt().await {
                Ok(grant) => return grant,
                Err(error) => error,
            };
            failures += 1;
            let (why, at) = (error.to_string(), SystemTime::now());
            let not_after = self.status.borrow().not_after;
            let left =
                humantime::format_duration(whole_seconds(not_after.duration_since(at).unwrap_or_default()));
            match failures {
                1 => tracing::warn!(error = %why, valid_for = %left, "no new certificate yet"),
                _ => {
                    tracing::debug!(error = %why, valid_for = %left, failures, "no new certificate yet")
                }
            }
            self.status
                .send_modify(|status| status.last_error = Some(RenewalError { at, why }));
            sleep(self.settings.backoff.delay(failures, self.settings.dice.roll())).await;
        }
    }

    /// One attempt at the next certificate: by the present one while it is valid, else by the token.
    async fn attempt(&self) -> Result<Grant, ExchangeError> {
        let expired = self.status.borrow().not_after <= SystemTime::now();
        let route = route(&self.settings);
        let request = Request::new()?;
        let answer = match &self.settings.token {
            Some(token) if expired => exchange::join(&route, token, &request).await?,
            _ => {
                let workload = self.settings.workload_id.as_ref();
                let workload = workload.map(ToString::to_string).unwrap_or_default();
                exchange::renew(&route, self.tls.clone(), &request, workload).await?
            }
        };
        let grant = request.accept(answer, SystemTime::now())?;
        if *grant.identity.id() != self.spiffe_id {
            let why = format!("it is for {}, not for {}", grant.identity.id(), self.spiffe_id);
            return Err(ExchangeError::BadAnswer(why));
        }
        Ok(grant)
    }

    async fn install(&self, grant: Grant) {
        let renewals = self.status.borrow().renewals + 1;
        let status = IdentityStatus {
            renewals,
            ..status_of(&grant, self.settings.dice.roll())
        };
        if let Some(file) = &self.file {
            save(file, &grant).await;
        }
        self.cell.set(grant.identity, grant.bundle);
        tracing::info!(
            valid_until = %humantime::format_rfc3339_seconds(status.not_after),
            "the certificate is renewed"
        );
        self.status.send_replace(status);
    }
}

/// What the data folder keeps, if it can be used. Where it cannot, a token must be there for a new one.
fn kept(file: Option<&IdentityFile>, settings: &IdentitySettings) -> Result<Option<Grant>, IdentityError> {
    let Some(file) = file else { return Ok(None) };
    match file.load(SystemTime::now()) {
        Ok(Some(grant)) => check(&grant, settings).map(|()| Some(grant)),
        Ok(None) => Ok(None),
        Err(error) if settings.token.is_none() => Err(IdentityError::Kept(Box::new(error))),
        Err(error) => {
            tracing::warn!(%error, "the identity that is kept cannot be used; joining again");
            Ok(None)
        }
    }
}

/// Joins for the first time, or after the last certificate has expired.
async fn first_identity(
    settings: &IdentitySettings,
    file: Option<&IdentityFile>,
    token: &JoinToken,
) -> Result<Grant, IdentityError> {
    let request = prepare(settings, file)?;
    let mut failures = 0;
    let answer = loop {
        match exchange::join(&route(settings), token, &request).await {
            Ok(answer) => break answer,
            Err(error) if error.is_final() => return Err(final_error(settings, &error)),
            Err(error) => {
                failures += 1;
                match failures {
                    1 => tracing::warn!(%error, "joining the mesh: trying again until it succeeds"),
                    _ => tracing::debug!(%error, failures, "joining the mesh"),
                }
                sleep(settings.backoff.delay(failures, settings.dice.roll())).await;
            }
        }
    };
    accept(settings, file, token, request, answer).await
}

/// Joins because the token names another authority than the identity that is kept: the mesh was made anew, or
/// its root was replaced since the token was used. In the second case the kept identity is the good one.
async fn rejoin(
    settings: &IdentitySettings,
    file: Option<&IdentityFile>,
    token: &JoinToken,
    kept: Grant,
) -> Result<Grant, IdentityError> {
    let request = prepare(settings, file)?;
    match exchange::join(&route(settings), token, &request).await {
        Ok(answer) => accept(settings, file, token, request, answer).await,
        Err(error) => {
            tracing::warn!(%error, "the join token names another authority; the kept identity is used");
            Ok(kept)
        }
    }
}

fn prepare(settings: &IdentitySettings, file: Option<&IdentityFile>) -> Result<Request, IdentityError> {
    if let (Some(file), Some(folder)) = (file, &settings.data) {
        let data = |source| IdentityError::Data {
            folder: folder.clone(),
            source: Box::new(source),
        };
        file.prepare().map_err(data)?;
    }
    Request::new().map_err(|error| final_error(settings, &error))
}

async fn accept(
    settings: &IdentitySettings,
    file: Option<&IdentityFile>,
    token: &JoinToken,
    request: Request,
    answer: proto::v1::IssuedCertificate,
) -> Result<Grant, IdentityError> {
    let grant = request
        .accept(answer, SystemTime::now())
        .map_err(|error| final_error(settings, &error))?;
    if !grant.bundle.contains_root(&token.root_hash()) {
        return Err(IdentityError::RootMissing);
    }
    check(&grant, settings)?;
    if let Some(file) = file {
        save(file, &grant).await;
    }
    Ok(grant)
}

/// Refuses an identity that is not this sidecar's: a token or a folder that was meant for another one.
fn check(grant: &Grant, settings: &IdentitySettings) -> Result<(), IdentityError> {
    let id = grant.identity.id();
    let account = settings.service_account.as_ref().unwrap_or(&id.service_account);
    if id.namespace == settings.namespace && id.service_account == *account {
        return Ok(());
    }
    let wanted = format!("/ns/{}/sa/{account}", settings.namespace);
    Err(IdentityError::WrongIdentity {
        found: id.clone(),
        wanted,
    })
}

/// A failure to save is no reason to stop: the identity is in use, only a restart would need a new token.
async fn save(file: &IdentityFile, grant: &Grant) {
    let (file, text) = (file.clone(), file::to_text(grant));
    let saved = tokio::task::spawn_blocking(move || file.save(&text)).await;
    if let Ok(Err(error)) = saved {
        tracing::error!(%error, "the identity could not be written to the data folder");
    }
}

fn final_error(settings: &IdentitySettings, error: &ExchangeError) -> IdentityError {
    match error {
        ExchangeError::Channel(error) => IdentityError::Untrusted {
            address: settings.control_plane.clone(),
            why: error.to_string(),
        },
        error => IdentityError::Join(error.to_string()),
    }
}

fn route(settings: &IdentitySettings) -> Route<'_> {
    Route {
        address: &settings.control_plane,
        settings: &settings.channel,
    }
}

fn status_of(grant: &Grant, dice: f64) -> IdentityStatus {
    let (not_before, not_after) = (grant.identity.not_before(), grant.identity.not_after());
    IdentityStatus {
        spiffe_id: grant.identity.id().clone(),
        not_before,
        not_after,
        renew_at: certs::renew_at(not_before, not_after, dice),
        renewals: 0,
        last_error: None,
    }
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
