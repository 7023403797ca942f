//! What arrives on a socket: is it one unambiguous message, and whom is it for?
//!
//! [`request::validate`] and [`response::validate`] are the only judges of heads, for HTTP/1 and HTTP/2 alike.
//! [`http1::Http1Reader`] holds the bytes of an HTTP/1 connection back until those judges have seen them, so that
//! no lenient parser behind it can repair what should have been refused. [`flood::FrameMeter`] does the same
//! service to HTTP/2 frames. Nothing here performs I/O, and memory is bounded by [`MessageLimits`].

pub mod detect;
pub mod fields;
pub mod flood;
pub mod framing;
pub mod host;
pub mod hpack;
pub mod http1;
pub mod request;
pub mod response;
mod syntax;

pub use framing::Body;
pub use syntax::{Field, FieldLines, MalformedField};

/// How large a message's head may be. Every leg of every connection has these limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// Bytes of a head, from the first of the start line to the end of the empty line; of a trailer section too.
    /// Default 64 KiB. Over it: 431, or 502 for a response.
    pub head_bytes: usize,
    /// Fields of a head or of a trailer section. Default 100. Over it: 431, or 502 for a response.
    pub head_fields: usize,
    /// Bytes of a request target, whatever its form. Default 16 KiB. Over it: 414.
    pub target_bytes: usize,
    /// Interim (1xx) responses before the final one. Default 8. Over it: 502.
    pub interim_responses: u32,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            head_fields: 100,
            target_bytes: 16 * 1024,
            interim_responses: 8,
        }
    }
}

/// A protocol to which a proxied HTTP/1.1 connection can be switched (RFC 9110 section 7.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Upgrade {
    /// RFC 6455.
    WebSocket,
}

impl Upgrade {
    /// The protocol's name as `Upgrade` carries it, lower-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
        }
    }
}
