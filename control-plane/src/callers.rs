//! Who calls, and what they may: the certificate of the connection decides, nothing that is said in a message.

use certs::VerifiedPeer;
use model::SpiffeId;
use model::spiffe::SYSTEM_NAMESPACE;
use tonic::{Request, Status};

/// Joining is how one gets a certificate, so it needs none.
const JOIN: &str = "/weft.v1.Identity/Join";
/// Prefix of the calls that only operators may make.
const OPERATOR: &str = "/weft.v1.Operator/";

/// The other side of a connection; `None` where it presented no certificate.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) peer: Option<VerifiedPeer>,
}

/// Judges a call by its path, before anything of its message is read. Every call that is not known here is one of
/// workloads.
pub(crate) fn authorize(path: &str, caller: &Caller) -> Result<(), Status> {
    let id = caller.peer.as_ref().map(VerifiedPeer::id);
    judge(path, id)
}

fn judge(path: &str, id: Option<&SpiffeId>) -> Result<(), Status> {
    if path == JOIN {
        return Ok(());
    }
    let id = id.ok_or_else(|| Status::unauthenticated("this call needs a client certificate"))?;
    if path.starts_with(OPERATOR) {
        if *id != SpiffeId::operator(&id.trust_domain) {
            return Err(Status::permission_denied(format!("{id} is not an operator")));
        }
    } else if id.namespace.as_str() == SYSTEM_NAMESPACE {
        return Err(Status::permission_denied(format!("{id} is not a workload")));
    }
    Ok(())
}

/// The workload that calls. [`authorize`] let it in.
pub(crate) fn workload<T>(request: &Request<T>) -> Result<VerifiedPeer, Status> {
    let caller = request.extensions().get::<Caller>();
    caller
        .and_then(|caller| caller.peer.clone())
        .ok_or_else(|| Status::unauthenticated("this call needs a client certificate"))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn who_may_call_what() {
        let workload: SpiffeId = "spiffe://mesh.test/ns/shop/sa/cart".parse().unwrap();
        let namesake: SpiffeId = "spiffe://mesh.test/ns/shop/sa/operator".parse().unwrap();
        let operator = SpiffeId::operator(&workload.trust_domain);
        let control_plane = SpiffeId::control_plane(&workload.trust_domain);
        let verdict = |path: &str, id: Option<&SpiffeId>| judge(path, id).map_err(|status| status.code());
        let (renew, stream) = ("/weft.v1.Identity/Renew", "/weft.v1.Configuration/Stream");
        let apply = "/weft.v1.Operator/Apply";
        for id in [None, Some(&workload), Some(&operator)] {
            assert_eq!(verdict(JOIN, id), Ok(()));
        }
        for path in [renew, stream, "/weft.v1.Whatever/Comes"] {
            assert_eq!(verdict(path, None), Err(Code::Unauthenticated));
            assert_eq!(verdict(path, Some(&workload)), Ok(()));
            assert_eq!(verdict(path, Some(&operator)), Err(Code::PermissionDenied));
            assert_eq!(verdict(path, Some(&control_plane)), Err(Code::PermissionDenied));
        }
        assert_eq!(verdict(apply, None), Err(Code::Unauthenticated));
        assert_eq!(verdict(apply, Some(&operator)), Ok(()));
        for id in [&workload, &namesake, &control_plane] {
            assert_eq!(verdict(apply, Some(id)), Err(Code::PermissionDenied));
        }
    }
}
