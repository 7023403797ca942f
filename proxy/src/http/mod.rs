//! HTTP on every leg: the server side, the steps of a request in both directions, and its bodies.

pub(crate) mod activity;
pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod flood;
pub(crate) mod guard;
pub(crate) mod head;
pub(crate) mod inbound;
pub(crate) mod outbound;
pub(crate) mod replay;
pub(crate) mod server;
pub(crate) mod upgrade;
