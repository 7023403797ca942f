//! Who called, and what arrived from there.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use certs::VerifiedPeer;
use decision::Reason;
use http::Request;
use hyper::body::Incoming;
use model::ServicePort;

use crate::http::guard::GuardState;
use crate::stats::Direction;
use crate::worker::Worker;

/// Who is at the other end of a connection, and what for.
pub(crate) struct Downstream {
    pub(crate) worker: Rc<Worker>,
    pub(crate) client: SocketAddr,
    pub(crate) direction: Direction,
    /// Only over mTLS.
    pub(crate) peer: Option<VerifiedPeer>,
    /// The service that the connection itself names: by SNI, or by the local port.
    pub(crate) service: Option<ServicePort>,
}

/// A request as it reaches the steps, with what only its connection knows.
pub(crate) struct Arrived {
    pub(crate) request: Request<Incoming>,
    /// The guard refused the head; what `request` holds is the placeholder.
    pub(crate) refused: Option<Reason>,
    /// HTTP/1 only: tells the guard how an upgrade was answered.
    pub(crate) guard: Option<Arc<GuardState>>,
}
