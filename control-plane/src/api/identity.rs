//! Certificates: the first one for a join token, every later one for the one before it.

use std::sync::Arc;

use certs::IssuedChain;
use model::{MeshDomain, SpiffeId};
use proto::v1;
use proto::v1::identity_server::Identity;
use tonic::{Request, Response, Status};

use crate::authority::Issuer;
use crate::callers;
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::tokens::{self, TokenError, unix};

/// Serves sidecars that want a certificate.
pub(crate) struct IdentityService {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) mesh: Arc<Mesh>,
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
        let (store, trust_domain) = (self.mesh.store.clone(), self.issuer.trust_domain().clone());
        let redeemed = tokio::task::spawn_blocking(move || tokens::redeem(&store, &token, &trust_domain));
        let id = match redeemed.await.map_err(|_| Status::internal("the store ended"))? {
            Ok(id) => id,
            Err(TokenError::Store(error)) => {
                tracing::error!(%error, "the store failed");
                return Err(Status::internal("the store failed"));
            }
            Err(error) => {
                self.metrics.joins_refused.inc();
                tracing::info!(%error, "a join was refused");
                return Err(Status::unauthenticated(error.to_string()));
            }
        };
        self.issue(&id, csr).await
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::IssuedCertificate>, Status> {
        let id = callers::workload(&request)?.id().clone();
        let v1::RenewRequest { csr, workload_id } = request.into_inner();
        let issued = self.issue(&id, csr).await?;
        if let Ok(workload) = workload_id.parse() {
            let v1::IssuedCertificate {
                not_before,
                not_after,
                ..
            } = issued.get_ref();
            self.mesh.certified(&workload, &id, (*not_before, *not_after));
        }
        Ok(issued)
    }
}

impl IdentityService {
    async fn issue(&self, id: &SpiffeId, csr: Vec<u8>) -> Result<Response<v1::IssuedCertificate>, Status> {
        let (issuer, for_id) = (self.issuer.clone(), id.clone());
        let issued = tokio::task::spawn_blocking(move || issuer.issue(&csr, &for_id)).await;
        let issued = issued.map_err(|_| Status::internal("the authority ended"))?;
        let IssuedChain {
            chain,
            not_before,
            not_after,
        } = issued.map_err(|error| Status::invalid_argument(format!("the signing request: {error}")))?;
        self.metrics.certificates_issued.inc();
        tracing::info!(%id, "issued a certificate");
        Ok(Response::new(v1::IssuedCertificate {
            chain: chain.iter().map(|certificate| certificate.to_vec()).collect(),
            trust_bundle: self
                .issuer
                .bundle()
                .roots()
                .iter()
                .map(|root| root.to_vec())
                .collect(),
            spiffe_id: id.to_string(),
            not_before: unix(not_before),
            not_after: unix(not_after),
            mesh_domain: self.mesh_domain.to_string(),
        }))
    }
}
