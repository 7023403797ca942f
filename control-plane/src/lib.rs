//! The control plane: gives every sidecar its identity and its instructions, and operators a view of the mesh.
//!
//! Configuration comes through [`sources`] into the store; [`view`] compiles what one workload must know; the stream
//! sends the difference from what it acknowledged. [`ControlPlane::start`] puts it together. What configuration would
//! do is told by [`rehearsal`] without any of them.

mod admin;
mod api;
mod authority;
mod callers;
mod folder;
mod mesh;
mod metrics;
pub mod rehearsal;
mod serve;
pub mod settings;
pub mod sources;
mod start;
mod store;
mod stream;
mod tasks;
#[cfg(test)]
mod tests;
mod tokens;
pub mod view;

pub use authority::AuthorityError;
pub use settings::Settings;
pub use start::{ControlPlane, Running, StartError};
pub use store::StoreError;
