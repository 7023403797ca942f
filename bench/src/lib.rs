//! What is measured inside one process: a client, sidecars and an application on one thread.

pub mod in_process;
