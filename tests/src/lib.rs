//! The harness: starts the real binaries on free ports, gives them applications, and looks from outside.
//!
//! Start at [`Mesh::start`]; add workloads with [`Mesh::workload`]; call through [`Sidecar::http1`] and its
//! siblings; judge what an [`App`] got, what a caller got, and what an [`otlp::Receiver`] was told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

pub mod app;
pub mod binaries;
pub mod chain;
pub mod client;
pub mod echo;
pub mod edge;
pub mod hostile;
pub mod hostile_cases;
pub mod hostile_cases_h2;
pub mod hostile_h2;
pub mod hostile_neighbours;
pub mod hostile_pair;
pub mod load;
pub mod mesh;
pub mod network;
pub mod operator;
pub mod otlp;
pub mod peer;
pub mod process;
pub mod relay;
pub mod shadow;
pub mod sidecar;
pub mod skip;
pub mod strict;
pub mod wait;
pub mod yaml;

pub use app::{App, Recorded, text};
pub use client::{Answer, Http, Raw};
pub use load::Load;
pub use mesh::Mesh;
pub use network::Network;
pub use operator::Operator;
pub use relay::Relay;
pub use sidecar::Sidecar;
pub use wait::{DEADLINE, eventually, within};

/// Any error at all.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
