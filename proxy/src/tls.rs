//! The names of what is spoken between sidecars (ALPN).

pub(crate) const ALPN_HTTP1: &[u8] = b"http/1.1";
pub(crate) const ALPN_HTTP2: &[u8] = b"h2";
/// Opaque TCP: no framing at all after the handshake.
pub(crate) const ALPN_TCP: &[u8] = b"weft-tcp";
