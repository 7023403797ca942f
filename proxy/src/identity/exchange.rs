//! One call to the control plane's Identity service, and the judgement of what came back.

use std::sync::Arc;
use std::time::SystemTime;

use certs::{CertError, CertificateDer, Identity, PrivateKey, TrustBundle};
use model::{MeshDomain, SpiffeId};
use proto::v1;
use proto::v1::identity_client::IdentityClient;
use rustls::ClientConfig;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::channel::{ChannelError, ChannelSettings, ControlPlaneAddress, connect, describe, printable};
use super::token::JoinToken;

/// Largest answer that is read, in bytes: a chain and 16 roots take a tenth of it.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// An identity, whom it trusts, and the mesh it is for.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) identity: Identity,
    pub(super) bundle: TrustBundle,
    pub(super) mesh_domain: MeshDomain,
}

/// Why an exchange brought no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the control plane cannot answer now: {0}")]
    NotNow(String),
    #[error("the control plane refused: {0}")]
    Refused(String),
    #[error("the control plane's answer is not usable: {0}")]
    BadAnswer(String),
    #[error("no key could be made: {0}")]
    Key(CertError),
}

impl ExchangeError {
    /// Whether another attempt with the same token would end the same way.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Channel(error) => error.is_untrusted(),
            Self::NotNow(_) => false,
            Self::Refused(_) | Self::BadAnswer(_) | Self::Key(_) => true,
        }
    }
}

/// How to reach the control plane.
pub(super) struct Route<'a> {
    pub(super) address: &'a ControlPlaneAddress,
    pub(super) settings: &'a ChannelSettings,
}

/// A key and its signing request, kept together over all attempts to join: a control plane that answered an
/// earlier attempt can recognise the key, should that answer have been lost.
pub(super) struct Request {
    key: PrivateKey,
    csr: Vec<u8>,
}

impl Request {
    pub(super) fn new() -> Result<Self, ExchangeError> {
        let key = PrivateKey::generate().map_err(ExchangeError::Key)?;
        let csr = key.csr().map_err(ExchangeError::Key)?;
        Ok(Self { key, csr })
    }

    /// Joins the key with its answer: the chain must fit the key and be valid under the answered bundle at
    /// `now`.
    pub(super) fn accept(
        self,
        answer: v1::IssuedCertificate,
        now: SystemTime,
    ) -> Result<Grant, ExchangeError> {
        let bad = |error: &dyn std::fmt::Display| ExchangeError::BadAnswer(printable(&error.to_string()));
        let der = |list: Vec<Vec<u8>>| list.into_iter().map(CertificateDer::from).collect();
        let id: SpiffeId = answer.spiffe_id.parse().map_err(|error| bad(&error))?;
        let mesh_domain = answer.mesh_domain.parse().map_err(|error| bad(&error))?;
        let bundle = TrustBundle::from_der(id.trust_domain.clone(), der(answer.trust_bundle))
            .map_err(|error| bad(&error))?;
        let identity =
            Identity::new(self.key, der(answer.chain), &bundle, now).map_err(|error| bad(&error))?;
        if *identity.id() != id {
            return Err(bad(&format_args!(
                "the certificate is for {}, not {id}",
                identity.id()
            )));
        }
        Ok(Grant {
            identity,
            bundle,
            mesh_domain,
        })
    }
}

/// Hands in the token on a connection that trusts nothing but the root it names.
pub(super) async fn join(
    route: &Route<'_>,
    token: &JoinToken,
    request: &Request,
) -> Result<v1::IssuedCertificate, ExchangeError> {
    let tls = certs::first_contact_config(token.root_hash()).map_err(ExchangeError::Key)?;
    let mut client = open(route, tls).await?;
    let message = v1::JoinRequest {
        token: token.secret_text().to_owned(),
        csr: request.csr.clone(),
    };
    answered(route, client.join(message)).await
}

/// Asks for the next certificate as the holder of the present one.
pub(super) async fn renew(
    route: &Route<'_>,
    tls: Arc<ClientConfig>,
    request: &Request,
    workload_id: String,
) -> Result<v1::IssuedCertificate, ExchangeError> {
    let mut client = open(route, tls).await?;
    let csr = request.csr.clone();
    answered(route, client.renew(v1::RenewRequest { csr, workload_id })).await
}

async fn open(
    route: &Route<'_>,
    tls: Arc<ClientConfig>,
) -> Result<IdentityClient<tonic::transport::Channel>, ExchangeError> {
    let channel = connect(route.address, tls, route.settings).await?;
    Ok(IdentityClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
}

async fn answered(
    route: &Route<'_>,
    call: impl Future<Output = Result<tonic::Response<v1::IssuedCertificate>, Status>>,
) -> Result<v1::IssuedCertificate, ExchangeError> {
    let within = route.settings.call_timeout;
    let answer = timeout(within, call).await.map_err(|_| ChannelError::Timeout {
        address: route.address.clone(),
        within,
    })?;
    match answer {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) if is_refusal(status.code()) => Err(ExchangeError::Refused(describe(&status))),
        Err(status) => Err(ExchangeError::NotNow(describe(&status))),
    }
}

/// Codes by which a control plane says no, rather than not now.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated
    )
}
