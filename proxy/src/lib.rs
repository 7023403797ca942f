//! The sidecar: carries the calls of one application to other services and theirs to it, over mTLS.
//!
//! A request enters at [`listener`], is told apart in [`connection`], and takes the steps of [`http::outbound`]
//! or [`http::inbound`]; [`forward`] makes the attempts and [`upstream`] the connections. What the proxy knows
//! comes through [`config`], who it is through [`identity`]. At the edge of the mesh it is a [`gateway`], whose requests
//! enter elsewhere and take the same steps. [`Proxy::start`] puts it together; [`standalone`] does
//! without what only a whole process needs.

mod admin;
mod budget;
pub mod config;
mod connection;
mod destinations;
mod doorkeeper;
mod downstream;
pub mod flags;
mod forward;
mod gateway;
mod hedge;
mod hello;
mod http;
pub mod identity;
mod leg;
mod lineage;
mod listener;
mod outside;
mod presence;
pub mod settings;
mod shadow;
mod socket;
pub mod standalone;
mod start;
pub mod stats;
mod tcp;
mod telemetry;
mod threads;
mod tls;
mod upstream;
mod worker;

pub use settings::{Limits, LocalPort, Settings};
pub use start::{Proxy, ProxyError, Running};
pub use stats::Stats;
