//! The proxy as a gateway: listeners at the edge of the mesh, which follow the configuration while it runs.
//!
//! [`ports`] binds what the Gateway says, and [`plan`] is what is served there, compiled once per configuration. A
//! connection enters at [`connection`]; what is HTTP goes on as everywhere ([`crate::http`]), what is not is carried by
//! [`streams`] and [`udp`].

pub(crate) mod connection;
pub(crate) mod plan;
pub(crate) mod ports;
mod streams;
pub(crate) mod termination;
#[cfg(test)]
mod tests;
pub(crate) mod udp;
