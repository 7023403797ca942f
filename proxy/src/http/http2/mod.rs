//! HTTP/2 on both sides of the proxy: the h2 crate, behind the meter that counts its frames.

mod bytes;
pub(crate) mod client;
mod flood;
mod incoming;
mod outgoing;
pub(crate) mod server;

pub(crate) use bytes::StreamBytes;
pub(crate) use incoming::Incoming;
