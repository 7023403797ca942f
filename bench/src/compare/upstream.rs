//! The applications behind every proxy: one nginx worker for HTTP, and small servers of our own for gRPC and TCP.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::load::{probe, tcp};
use super::peers::{Door, nginx};
use super::ports;
use super::process::{Process, ProcessError};

/// For the application to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no application.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("the application behind every proxy is an nginx: {0}")]
    Process(#[from] ProcessError),
    #[error("the application does not answer: {0}")]
    Silent(String),
    #[error("the application: {0}")]
    Io(#[from] io::Error),
}

/// Where the applications listen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Apps {
    pub(crate) http: SocketAddr,
    pub(crate) h2c: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) tcp: SocketAddr,
    /// The same as `tcp`, over TLS with a client certificate.
    pub(crate) tls: SocketAddr,
}

/// The running applications.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) apps: Apps,
    nginx: Process,
}

/// Where the HTTP application listens, at one port of each: 127.0.0.1 and its neighbours.
pub(crate) fn addresses() -> [IpAddr; 10] {
    std::array::from_fn(|at| {
        let last = u8::try_from(at + 1).unwrap_or(u8::MAX);
        Ipv4Addr::new(127, 0, 0, last).into()
    })
}

impl Upstream {
    pub(crate) fn start(folder: &Path, tls: Arc<ServerConfig>) -> Result<Self, UpstreamError> {
        let (http, h2c) = (ports::free()?, ports::free()?);
        let nginx = nginx(folder, http, h2c)?;
        let apps = Apps {
            http,
            h2c,
            grpc: super::grpc::serve()?,
            tcp: tcp::serve(None)?,
            tls: tcp::serve(Some(tls))?,
        };
        let mut upstream = Self { apps, nginx };
        upstream.wait()?;
        Ok(upstream)
    }

    fn wait(&mut self) -> Result<(), UpstreamError> {
        let end = Instant::now() + READY_TIMEOUT;
        let door = Door::any(self.apps.http);
        loop {
            self.nginx.check()?;
            match probe::get(&door, "/1m") {
                Ok(200) => return Ok(()),
                last if Instant::now() > end => return Err(UpstreamError::Silent(format!("{last:?}"))),
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// An nginx that answers 100 B and 4 KiB from memory and 1 MiB from a cached file.
fn nginx(folder: &Path, http: SocketAddr, h2c: SocketAddr) -> Result<Process, UpstreamError> {
    let files = folder.join("files");
    fs::create_dir_all(&files)?;
    fs::write(files.join("1m"), vec![b'x'; 1 << 20])?;
    let (hundred, kib) = ("x".repeat(100), "x".repeat(1024));
    // nginx reads no word of more than 4 KiB.
    let locations = format!(
        "default_type text/plain; root {};
         location = /100 {{ return 200 {hundred}; }}
         location = /4k {{ set $k {kib}; return 200 $k$k$k$k; }}",
        files.display()
    );
    let listens: String = addresses()
        .iter()
        .map(|ip| format!("listen {ip}:{}; ", http.port()))
        .collect();
    let servers = format!(
        "open_file_cache max=10 inactive=1h; open_file_cache_valid 1h; http2_max_concurrent_streams 1024;
         server {{ {listens}{locations} }}
         server {{ listen {h2c} http2; {locations} }}"
    );
    let path = folder.join("app.conf");
    fs::write(&path, nginx::config(folder, "app", &servers, ""))?;
    Ok(Process::start("app", nginx::command(&path), folder)?)
}
