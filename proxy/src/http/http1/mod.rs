//! HTTP/1.1 on both sides of the proxy, over the one reader that judges every byte ([`decision::message::http1`]).

pub(crate) mod client;
mod framing;
mod head;
mod sender;
pub(crate) mod server;
mod wire;

pub(crate) use client::UpstreamWire;
pub(crate) use server::ClientWire;
pub(crate) use wire::{Arrival, ReadFailure};
