//! Who calls, and what they may: the certificate of the connection decides, nothing that is said in a message.

use certs::VerifiedPeer;
use model::SpiffeId;
use model::spiffe::SYSTEM_NAMESPACE;
use tonic::{Request, Status};

use crate::serve::Caller;

/// The workload that calls.
pub(crate) fn workload<T>(request: &Request<T>) -> Result<VerifiedPeer, Status> {
    let peer = peer(request)?;
    if peer.id().namespace.as_str() == SYSTEM_NAMESPACE {
        return Err(Status::permission_denied(format!(
            "{} is not a workload",
            peer.id()
        )));
    }
    Ok(peer)
}

/// The operator that calls.
pub(crate) fn operator<T>(request: &Request<T>) -> Result<SpiffeId, Status> {
    let peer = peer(request)?;
    let id = peer.id().clone();
    if id != SpiffeId::operator(&id.trust_domain) {
        return Err(Status::permission_denied(format!("{id} is not an operator")));
    }
    Ok(id)
}

fn peer<T>(request: &Request<T>) -> Result<VerifiedPeer, Status> {
    let caller = request.extensions().get::<Caller>();
    caller
        .and_then(|caller| caller.peer.clone())
        .ok_or_else(|| Status::unauthenticated("this call needs a client certificate"))
}
