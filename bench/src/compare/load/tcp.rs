//! Opaque TCP: a server that swallows or echoes, and clients for both; plain, or TLS from end to end.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use super::latency::Latencies;
use super::{Load, LoadError};
use crate::compare::certificates::SERVER_NAME;

/// Bytes of one write of a bulk transfer.
const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes of one ping.
const PING_BYTES: usize = 64;
/// What the first byte of a connection asks for.
const SWALLOW: u8 = b's';
const ECHO: u8 = b'e';
/// A client does not wait longer for bytes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a client connects, and whether it speaks TLS itself.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A stream of either kind.
trait Duplex: Read + Write {}
impl<S: Read + Write> Duplex for S {}

/// Starts the server, a thread per connection; where it listens.
pub(crate) fn serve(tls: Option<Arc<ServerConfig>>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("tcp-app".to_owned()).spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let tls = tls.clone();
            // A client that breaks off is none of its business.
            thread::spawn(move || drop(answer(stream, tls)));
        }
    })?;
    Ok(address)
}

fn answer(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream: Box<dyn Duplex> = match tls {
        None => Box::new(stream),
        Some(tls) => {
            let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
            Box::new(StreamOwned::new(connection, stream))
        }
    };
    let (mut what, mut chunk) = ([0], vec![0; CHUNK_BYTES]);
    stream.read_exact(&mut what)?;
    let mut total: u64 = 0;
    loop {
        let count = stream.read(&mut chunk)?;
        total += u64::try_from(count).unwrap_or_default();
        let received = chunk.get(..count).unwrap_or_default();
        match what {
            _ if count == 0 => return Ok(()),
            [ECHO] => stream.write_all(received)?,
            // The last chunk ends with another byte: everything has arrived.
            _ if received.last() == Some(&ECHO) => stream.write_all(&total.to_be_bytes())?,
            _ => {}
        }
        stream.flush()?;
    }
}

/// Sends as fast as it can for `time`, and waits until all of it has arrived.
pub(crate) fn bulk(way: &Way, time: Duration) -> Result<Load, LoadError> {
    let run = || -> io::Result<Load> {
        let mut stream = way.connect(SWALLOW)?;
        let began = Instant::now();
        let mut chunk = vec![SWALLOW; CHUNK_BYTES];
        let mut sent: u64 = 0;
        let mut is_last = false;
        while !is_last {
            is_last = began.elapsed() >= time;
            if let (true, Some(last)) = (is_last, chunk.last_mut()) {
                *last = ECHO;
            }
            stream.write_all(&chunk)?;
            sent += u64::try_from(chunk.len()).unwrap_or_default();
        }
        stream.flush()?;
        let mut arrived = [0; 8];
        stream.read_exact(&mut arrived)?;
        Ok(Load {
            answers: 1,
            failures: u64::from(u64::from_be_bytes(arrived) != sent),
            bytes: sent,
            time: began.elapsed(),
            ..Load::default()
        })
    };
    run().map_err(LoadError::io("a bulk transfer"))
}

/// Sends a little and waits for its echo, again and again for `time`.
pub(crate) fn ping(way: &Way, time: Duration) -> Result<Load, LoadError> {
    let run = || -> io::Result<Load> {
        let mut stream = way.connect(ECHO)?;
        let mut latencies = Latencies::new().map_err(io::Error::other)?;
        let (began, sent) = (Instant::now(), [b'p'; PING_BYTES]);
        while began.elapsed() < time {
            let start = Instant::now();
            stream.write_all(&sent)?;
            stream.flush()?;
            stream.read_exact(&mut [0; PING_BYTES])?;
            latencies.note(start.elapsed());
        }
        Ok(Load {
            answers: latencies.count(),
            time: began.elapsed(),
            p50: latencies.percentile(50.0),
            p99: latencies.percentile(99.0),
            p999: latencies.percentile(99.9),
            ..Load::default()
        })
    };
    run().map_err(LoadError::io("a ping"))
}

impl Way {
    fn connect(&self, what: u8) -> io::Result<Box<dyn Duplex>> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut stream: Box<dyn Duplex> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
                let connection = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(connection, stream))
            }
        };
        stream.write_all(&[what])?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_sent_arrives_and_every_ping_comes_back() {
        let way = Way {
            address: serve(None).expect("a server"),
            tls: None,
        };
        let load = bulk(&way, Duration::from_millis(50)).expect("a transfer");
        assert_eq!(load.failures, 0);
        assert!(load.bytes >= 64 * 1024);
        let load = ping(&way, Duration::from_millis(50)).expect("pings");
        assert!(load.answers > 10);
    }
}
