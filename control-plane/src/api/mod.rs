//! The calls of the control plane: who a sidecar is, and what an operator does.

mod answers;
mod chronicle;
mod identity;
mod operator;
mod shown;

pub(crate) use chronicle::Chronicle;
pub(crate) use identity::IdentityService;
pub(crate) use operator::OperatorService;
