//! Certificates: the first one for a join token, every later one for the one before it.

use std::sync::Arc;

use certs::{CertError, IssuedChain};
use model::{MeshDomain, SpiffeId};
use proto::v1;
use proto::v1::identity_server::Identity;
use tonic::{Request, Response, Status};

use crate::authority::Issuer;
use crate::callers;
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::stream::Fleet;
use crate::tokens::{Offer, TokenError, unix_wire};
use crate::view::MeshState;

/// Serves sidecars that want a certificate.
#[derive(Clone)]
pub(crate) struct IdentityService {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) store: Arc<Store>,
    pub(crate) mesh: Mesh,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) mesh_domain: MeshDomain,
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::IssuedCertificate>, Status> {
        let v1::JoinRequest { token, csr } = request.into_inner();
        let this = self.clone();
        let joined = tokio::task::spawn_blocking(move || this.redeem(&token, &csr)).await;
        let joined = joined.map_err(|_| Status::internal("the store ended"))?;
        let (id, issued) = joined.inspect_err(|status| {
            self.metrics.joins_refused.inc();
            tracing::info!(why = status.message(), "a join was refused");
        })?;
        Ok(Response::new(self.answer(&id, issued)))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::IssuedCertificate>, Status> {
        let id = callers::workload(&request)?.id().clone();
        let v1::RenewRequest { csr, workload_id } = request.into_inner();
        let (issuer, for_id) = (self.issuer.clone(), id.clone());
        let issued = tokio::task::spawn_blocking(move || issuer.issue(&csr, &for_id)).await;
        let issued = issued.map_err(|_| Status::internal("the authority ended"))?;
        let issued = issued.map_err(refused_request)?;
        if let Ok(workload) = workload_id.parse() {
            let owner = |state: &MeshState| Some(state.workloads.get(&workload)?.identity.clone());
            if self.mesh.read(owner).as_ref() == Some(&id) {
                let validity = (issued.not_before, issued.not_after);
                self.fleet.certified(&workload, validity);
            }
        }
        Ok(Response::new(self.answer(&id, issued)))
    }
}

impl IdentityService {
    /// The token is used up only by a request that a certificate can be issued for; blocks on the disk.
    fn redeem(&self, token: &str, csr: &[u8]) -> Result<(SpiffeId, IssuedChain), Status> {
        let trust_domain = self.issuer.trust_domain();
        let offer = Offer::read(token, self.issuer.root_hash(), csr).map_err(refused_token)?;
        let id = offer.judge(&self.store, trust_domain).map_err(refused_token)?;
        let issued = self.issuer.issue(csr, &id).map_err(refused_request)?;
        let id = offer.redeem(&self.store, trust_domain).map_err(refused_token)?;
        Ok((id, issued))
    }

    fn answer(&self, id: &SpiffeId, issued: IssuedChain) -> v1::IssuedCertificate {
        self.metrics.certificates_issued.inc();
        tracing::info!(%id, "issued a certificate");
        let bundle = self.issuer.bundle();
        v1::IssuedCertificate {
            chain: issued
                .chain
                .iter()
                .map(|certificate| certificate.to_vec())
                .collect(),
            trust_bundle: bundle.roots().iter().map(|root| root.to_vec()).collect(),
            spiffe_id: id.to_string(),
            not_before: unix_wire(issued.not_before),
            not_after: unix_wire(issued.not_after),
            mesh_domain: self.mesh_domain.to_string(),
        }
    }
}

fn refused_token(error: TokenError) -> Status {
    match error {
        TokenError::Store(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
            Status::internal("the store failed; the control plane's log says why")
        }
        error => Status::unauthenticated(error.to_string()),
    }
}

fn refused_request(error: CertError) -> Status {
    match error {
        CertError::Request(_) => Status::invalid_argument(error.to_string()),
        error => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no certificate can be issued"
            );
            Status::unavailable(format!("no certificate can be issued now: {error}"))
        }
    }
}
