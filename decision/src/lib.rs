//! Every judgement of the mesh as a synchronous function of its arguments, with time and dice among them.
//!
//! [`message`] judges what arrives on a socket; [`traffic`] judges where it goes, when it is tried again and
//! when it is given up. [`reason`] is the one list of why a proxy answers by itself.

pub mod message;
pub mod reason;
pub mod traffic;

pub use reason::Reason;
