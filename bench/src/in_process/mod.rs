//! A client, the sidecars on its way and an application, on one thread over loopback sockets.
//!
//! One client keeps one connection and sends the same requests in lockstep, so that a run does the same work each
//! time. Client and application send bytes that were written down before and look only for the end of what comes:
//! they allocate nothing for a request, and cost little beside a proxy.

mod frames;
mod http1;
mod http2;
mod message;
mod sidecars;

use std::io;
use std::rc::Rc;

use proxy::standalone::{Spans, Standalone};
use tokio::net::TcpStream;

/// What a request passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// HTTP/1.1 through one sidecar to an address outside the mesh, by a rule of a route.
    Plain,
    /// The same, in a proxy that exports spans, with a sampler that takes none.
    PlainUnsampled,
    /// HTTP/1.1 to a sidecar, by mTLS to another one, HTTP/1.1 to the application.
    Mesh,
    /// HTTP/2 all the way through both sidecars, with [`STREAMS`] requests at a time.
    MeshH2c,
    /// Nothing: the HTTP/1.1 client and the application alone.
    DirectHttp1,
    /// Nothing: the HTTP/2 client and the application alone.
    DirectHttp2,
}

/// Concurrent requests of the HTTP/2 client.
pub const STREAMS: u64 = 8;

/// The client's one connection, with everything that it leads to.
pub struct Client {
    connection: Connection,
    /// Those on the way, the client's first. They live as long as the client.
    sidecars: Vec<Rc<Standalone>>,
    sent: u64,
}

enum Connection {
    Http1(http1::Client),
    Http2(http2::Client),
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("a socket failed")]
    Io(#[from] io::Error),
    #[error("the mesh's configuration is not valid")]
    Configuration(#[from] model::FieldError),
    #[error("the mesh's certificates could not be made")]
    Certificates(#[from] certs::CertError),
    #[error("a request was answered with {0:?}")]
    Answer(String),
    #[error("the other side ended the connection or a stream")]
    Ended,
    #[error("of {sent} requests, a sidecar counts {counted} that were answered well at the first attempt")]
    Counts { sent: u64, counted: u64 },
}

impl Scenario {
    pub const ALL: [Self; 6] = [
        Self::Plain,
        Self::PlainUnsampled,
        Self::Mesh,
        Self::MeshH2c,
        Self::DirectHttp1,
        Self::DirectHttp2,
    ];

    /// The same client and application without a proxy; `None` where there is none anyway.
    pub fn without_proxy(self) -> Option<Self> {
        match self {
            Self::Plain | Self::PlainUnsampled | Self::Mesh => Some(Self::DirectHttp1),
            Self::MeshH2c => Some(Self::DirectHttp2),
            Self::DirectHttp1 | Self::DirectHttp2 => None,
        }
    }

    /// Sidecars that a request passes.
    pub fn hops(self) -> u64 {
        match self {
            Self::Plain | Self::PlainUnsampled => 1,
            Self::Mesh | Self::MeshH2c => 2,
            Self::DirectHttp1 | Self::DirectHttp2 => 0,
        }
    }

    /// Requests that the client sends together.
    pub fn at_a_time(self) -> u64 {
        if self.is_http2() { STREAMS } else { 1 }
    }

    fn is_http2(self) -> bool {
        matches!(self, Self::MeshH2c | Self::DirectHttp2)
    }
}

impl Client {
    /// Starts everything and connects the client. Must be called in a [`tokio::task::LocalSet`].
    pub async fn start(scenario: Scenario) -> Result<Self, RunError> {
        let app = if scenario.is_http2() {
            http2::app().await?
        } else {
            http1::app().await?
        };
        let (door, sidecars) = match scenario {
            Scenario::Plain => sidecars::plain(app, Spans::Off).await?,
            Scenario::PlainUnsampled => sidecars::plain(app, Spans::Unsampled).await?,
            Scenario::Mesh => sidecars::mesh(app, model::AppProtocol::Http).await?,
            Scenario::MeshH2c => sidecars::mesh(app, model::AppProtocol::Http2).await?,
            Scenario::DirectHttp1 | Scenario::DirectHttp2 => (app, Vec::new()),
        };
        let stream = TcpStream::connect(door).await?;
        stream.set_nodelay(true)?;
        let connection = if scenario.is_http2() {
            Connection::Http2(http2::Client::start(stream).await?)
        } else {
            Connection::Http1(http1::Client::new(stream))
        };
        Ok(Self {
            connection,
            sidecars,
            sent: 0,
        })
    }

    /// Sends [`Scenario::at_a_time`] requests and waits for all answers.
    pub async fn round(&mut self) -> Result<(), RunError> {
        match &mut self.connection {
            Connection::Http1(client) => {
                client.exchange().await?;
                self.sent += 1;
            }
            Connection::Http2(client) => {
                client.round().await?;
                self.sent += STREAMS;
            }
        }
        Ok(())
    }

    /// Rounds, one after another.
    pub async fn rounds(&mut self, count: u64) -> Result<(), RunError> {
        for _ in 0..count {
            self.round().await?;
        }
        Ok(())
    }

    /// Ends, after a look at what the sidecars counted: every request was answered well, at the first attempt.
    pub async fn finish(self) -> Result<(), RunError> {
        drop(self.connection);
        // A record is closed after the last byte of its answer was written.
        tokio::task::yield_now().await;
        for sidecar in &self.sidecars {
            let stats = sidecar.stats().requests;
            let counted =
                |count: fn(&proxy::stats::RequestStats) -> u64| stats.iter().map(count).sum::<u64>();
            let successes = counted(|stats| stats.successes);
            let attempts = counted(|stats| stats.attempts);
            if successes != self.sent || attempts != self.sent {
                return Err(RunError::Counts {
                    sent: self.sent,
                    counted: successes.min(attempts),
                });
            }
        }
        Ok(())
    }
}
