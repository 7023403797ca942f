//! A new mTLS connection for every request: full handshakes, or ones that resume a session.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::latency::Latencies;
use super::{Load, LoadError};
use crate::compare::peers::TlsDoor;
use crate::compare::tls::Sessions;

/// Clients that connect at the same time; each keeps its own sessions.
const CLIENTS: usize = 16;
/// The answer's head and its 100 bytes fit easily.
const ANSWER_BYTES: usize = 4096;
/// For one connection, from beginning to end.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Connects, asks once and closes, again and again for `time`.
pub(crate) fn run(door: &TlsDoor, sessions: Sessions, time: Duration) -> Result<Load, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LoadError::io("a runtime"))?;
    let mut configs = Vec::new();
    for _ in 0..CLIENTS {
        configs.push(door.credential.client_config(sessions)?);
    }
    runtime
        .block_on(all(door, configs, time))
        .map_err(LoadError::io("handshakes"))
}

#[derive(Debug, Default)]
struct Counts {
    latencies: Vec<Duration>,
    failures: u64,
    resumed: u64,
}

async fn all(door: &TlsDoor, configs: Vec<Arc<ClientConfig>>, time: Duration) -> io::Result<Load> {
    let (began, mut clients) = (Instant::now(), JoinSet::new());
    let name = ServerName::try_from(door.server_name.clone()).map_err(io::Error::other)?;
    for config in configs {
        let (connector, name, door) = (TlsConnector::from(config), name.clone(), door.clone());
        clients.spawn(async move { client(&connector, &name, &door, began + time).await });
    }
    let mut sum = Counts::default();
    while let Some(counts) = clients.join_next().await {
        let counts = counts.map_err(io::Error::other)?;
        sum.latencies.extend(counts.latencies);
        sum.failures += counts.failures;
        sum.resumed += counts.resumed;
    }
    let mut latencies = Latencies::new().map_err(io::Error::other)?;
    sum.latencies.iter().for_each(|latency| latencies.note(*latency));
    Ok(Load {
        answers: latencies.count(),
        failures: sum.failures,
        time: began.elapsed(),
        p50: latencies.percentile(50.0),
        p99: latencies.percentile(99.0),
        resumed: Some(sum.resumed),
        ..Load::default()
    })
}

async fn client(
    connector: &TlsConnector,
    name: &ServerName<'static>,
    door: &TlsDoor,
    end: Instant,
) -> Counts {
    let mut counts = Counts::default();
    while Instant::now() < end {
        let began = Instant::now();
        match tokio::time::timeout(TIMEOUT, once(connector, name, door)).await {
            Ok(Ok(kind)) => {
                counts.latencies.push(began.elapsed());
                counts.resumed += u64::from(kind == Some(HandshakeKind::Resumed));
            }
            _ => counts.failures += 1,
        }
    }
    counts
}

/// Closes as soon as the answer is whole, as clients do.
async fn once(
    connector: &TlsConnector,
    name: &ServerName<'static>,
    door: &TlsDoor,
) -> io::Result<Option<HandshakeKind>> {
    let stream = TcpStream::connect(door.door.address).await?;
    stream.set_nodelay(true)?;
    let mut stream = connector.connect(name.clone(), stream).await?;
    let kind = stream.get_ref().1.handshake_kind();
    ask(&mut stream, &door.door.host, "close").await?;
    // An error is the other side's, which had closed first.
    let _ = stream.shutdown().await;
    Ok(kind)
}

/// One GET, and its answer of 200.
pub(super) async fn ask<S>(stream: &mut S, host: &str, connection: &str) -> io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let request = format!("GET /100 HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let (mut answer, mut filled) = ([0; ANSWER_BYTES], 0);
    loop {
        let rest = answer.get_mut(filled..).unwrap_or_default();
        match stream.read(rest).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
        let received = answer.get(..filled).unwrap_or_default();
        if received.ends_with(&[b'x'; 100]) {
            return match received.starts_with(b"HTTP/1.1 200") {
                true => Ok(()),
                false => Err(io::ErrorKind::InvalidData.into()),
            };
        }
    }
}
