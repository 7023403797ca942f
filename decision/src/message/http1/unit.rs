//! What a connection's bytes are, piece by piece.

use std::ops::Range;

use http::Version;

use crate::Reason;
use crate::message::{Body, Upgrade, response};

/// What stands at the beginning of the bytes that [`Http1Reader::read`](super::Http1Reader::read) was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// The beginning of a unit. Keep the bytes, and call again when there are more.
    Incomplete,
    /// The head of a request.
    Request(RequestAt),
    /// The head of a response.
    Response(ResponseAt),
    /// So many bytes of the body.
    Data(usize),
    /// So many bytes that say where the pieces of a chunked body end.
    Framing(usize),
    /// So many bytes of the trailer section that ends a chunked body, with the empty line.
    Trailers(usize),
    /// So many bytes of the protocol that the connection was switched to.
    Switched(usize),
    /// Nothing of this, nor of what follows, may pass. The same answer follows to every later call.
    Refused(Reason),
}

/// An accepted request head. Positions count from the first byte that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAt {
    /// The bytes of the head and of an empty line before it.
    pub bytes: usize,
    pub version: Version,
    pub method: Range<usize>,
    /// In whatever form: a path, an absolute URI or `*`.
    pub target: Range<usize>,
    /// Whom the request is for: in the target, else in Host.
    pub authority: Range<usize>,
    pub body: Body,
    /// As in [`Accepted`](crate::message::request::Accepted), like those below.
    pub upgrade: Option<Upgrade>,
    pub head: bool,
    pub expects_continue: bool,
    pub persistent: bool,
    /// It is CONNECT: what follows belongs to the tunnel.
    pub tunnel: bool,
}

/// An accepted response head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseAt {
    /// The bytes of the head.
    pub bytes: usize,
    pub version: Version,
    /// 100–599.
    pub status: u16,
    pub accepted: response::Accepted,
}
