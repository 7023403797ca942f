//! Who called, and what arrived from there.

use std::net::SocketAddr;
use std::rc::Rc;

use certs::VerifiedPeer;
use decision::Reason;
use http::Request;
use model::ServicePort;

use crate::gateway::plan::Admits;
use crate::http::body::RequestBody;
use crate::stats::Direction;
use crate::telemetry::Labels;
use crate::worker::Worker;

/// Who is at the other end of a connection, and what for.
pub(crate) struct Downstream {
    pub(crate) worker: Rc<Worker>,
    pub(crate) client: SocketAddr,
    pub(crate) front: Front,
    /// How it got in, where its TLS ended at a gateway.
    pub(crate) entry: Option<Rc<Entry>>,
    pub(crate) direction: Direction,
    /// Only over mTLS.
    pub(crate) peer: Option<VerifiedPeer>,
    /// The service that the connection itself names: by SNI, or by the local port.
    pub(crate) service: Option<ServicePort>,
    /// The address of the one endpoint that is called, past the routes of its service; it is one of `service`.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Of every request, where the connection decides that.
    pub(crate) labels: Option<Rc<Labels>>,
}

/// How a client was let in by TLS that ends at a gateway.
pub(crate) struct Entry {
    /// What it named in its handshake, in lower case; empty where it named nothing.
    pub(crate) sni: Box<str>,
    /// Whose clients were let in then.
    pub(crate) admits: Admits,
}

impl Downstream {
    /// What the client named in its handshake with a gateway; `None` without TLS.
    pub(crate) fn sni(&self) -> Option<&str> {
        self.entry.as_deref().map(|entry| &*entry.sni)
    }
}

/// What a client sees in front of it: redirects are written with it, and records say it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Front {
    /// The client speaks TLS, as a client of the mesh knows it: a sidecar's mTLS is not of its application's making.
    pub(crate) is_tls: bool,
    /// Of the gateway's listener; `None` at a sidecar, whose clients mean a port of a Service.
    pub(crate) port: Option<u16>,
}

impl Front {
    /// The scheme of the URLs that lead here.
    pub(crate) fn scheme(self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }
}

/// A request as it reaches the steps, with what only its connection knows.
pub(crate) struct Arrived {
    pub(crate) request: Request<RequestBody>,
    /// Why the head was not accepted; `request` then only stands for the one that came.
    pub(crate) refused: Option<Reason>,
}
