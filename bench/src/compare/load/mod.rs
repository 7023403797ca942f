//! The load generators: wrk and h2load, and small ones of our own for what these cannot do.

pub(crate) mod h2load;
pub(crate) mod handshakes;
pub(crate) mod idle;
mod latency;
pub(crate) mod open_loop;
pub(crate) mod probe;
pub(crate) mod tcp;
pub(crate) mod wrk;

use std::io;
use std::time::Duration;

use super::process::ProcessError;
use super::tls::TlsError;

/// What a load generator saw.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    /// Good answers, or connections with one.
    pub(crate) answers: u64,
    /// Anything else.
    pub(crate) failures: u64,
    /// Bytes of bodies.
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
    pub(crate) p999: Option<Duration>,
    /// Of TLS connections, how many took up an earlier session.
    pub(crate) resumed: Option<u64>,
}

/// Why there was no load.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{program} printed nothing that can be read:\n{text}")]
    Unreadable { program: &'static str, text: String },
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl LoadError {
    /// For `map_err`.
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
