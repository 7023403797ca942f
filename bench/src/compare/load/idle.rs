//! Many connections that asked once and are idle since.

use std::io;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::LoadError;
use super::handshakes::ask;
use crate::compare::peers::{Door, TlsDoor};
use crate::compare::tls::Sessions;

/// Connections that are opened at the same time.
const AT_ONCE: usize = 32;

/// Open connections; they close when this is dropped.
pub(crate) struct Idle {
    plain: Vec<TcpStream>,
    tls: Vec<TlsStream<TcpStream>>,
    _runtime: tokio::runtime::Runtime,
}

impl Idle {
    pub(crate) fn plain(door: &Door, count: usize) -> Result<Self, LoadError> {
        let runtime = runtime()?;
        let plain = runtime.block_on(open(count, || plain(door.clone())));
        Ok(Self {
            plain: plain.map_err(LoadError::io("idle connections"))?,
            tls: Vec::new(),
            _runtime: runtime,
        })
    }

    pub(crate) fn tls(door: &TlsDoor, count: usize) -> Result<Self, LoadError> {
        let runtime = runtime()?;
        let connector = TlsConnector::from(door.credential.client_config(Sessions::Full)?);
        let tls = runtime.block_on(open(count, || tls(door.clone(), connector.clone())));
        Ok(Self {
            plain: Vec::new(),
            tls: tls.map_err(LoadError::io("idle connections"))?,
            _runtime: runtime,
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.plain.len() + self.tls.len()
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(LoadError::io("a runtime"))
}

async fn open<S, F>(count: usize, connect: impl Fn() -> F) -> io::Result<Vec<S>>
where
    S: Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let (mut connections, mut opening) = (Vec::with_capacity(count), JoinSet::new());
    while connections.len() < count {
        while opening.len() < AT_ONCE && connections.len() + opening.len() < count {
            opening.spawn(connect());
        }
        if let Some(connection) = opening.join_next().await {
            connections.push(connection.map_err(io::Error::other)??);
        }
    }
    Ok(connections)
}

async fn plain(door: Door) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(door.address).await?;
    ask(&mut stream, &door.host, "keep-alive").await?;
    Ok(stream)
}

async fn tls(door: TlsDoor, connector: TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(door.server_name).map_err(io::Error::other)?;
    let stream = TcpStream::connect(door.door.address).await?;
    let mut stream = connector.connect(name, stream).await?;
    ask(&mut stream, &door.door.host, "keep-alive").await?;
    Ok(stream)
}
