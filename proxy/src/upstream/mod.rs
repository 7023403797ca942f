//! Where requests are sent: the endpoints of a service with their live state, and the connections to each.
//!
//! All of it belongs to one worker; nothing here is shared between threads. Live state is kept by endpoint,
//! not by configuration, so that a new snapshot changes who is there and forgets nothing about who stays.

mod checks;
mod cluster;
mod dial;
mod governed;
mod joint;
mod member;
mod outside;
mod pool;
mod terms;
mod watch;

pub(crate) use cluster::{Cluster, Shown, Surroundings, Wanted};
pub(crate) use dial::{Route, Spoken};
pub(crate) use joint::{ConnectionPermit, Counted, Joint, Joints, Permit};
pub(crate) use member::{Picked, Place};
pub(crate) use pool::{Forwarded, Lease, SendFailure, Upstream};
pub(crate) use terms::Age;
