//! Binds, accepts, counts, and hands each connection to a worker.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::connection::Role;
use crate::settings::Limits;
use crate::stats::Registry;
use crate::worker::{Handover, Workers};

/// Connections that the kernel keeps while they wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long accepting pauses when the process is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener that does not accept yet.
pub(crate) struct Listener {
    socket: TcpListener,
    role: Arc<Role>,
    doorkeeper: Arc<Doorkeeper>,
}

impl Listener {
    pub(crate) fn bind(
        address: SocketAddr,
        role: Role,
        limits: &Limits,
        registry: &Arc<Registry>,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let doorkeeper = Doorkeeper {
            total: limits.connections,
            per_source: limits.connections_per_source,
            open: Mutex::default(),
            registry: registry.clone(),
        };
        Ok(Self {
            socket: TcpListener::from_std(socket.into())?,
            role: Arc::new(role),
            doorkeeper: Arc::new(doorkeeper),
        })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the proxy begins to stop.
    pub(crate) async fn run(self, workers: Workers, draining: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = draining.cancelled() => return,
            };
            match accepted {
                Ok((stream, client)) => self.take(stream, client, &workers),
                Err(error) => {
                    tracing::warn!(%error, "accepting failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn take(&self, stream: tokio::net::TcpStream, client: SocketAddr, workers: &Workers) {
        let Some(permit) = Doorkeeper::admit(&self.doorkeeper, client.ip()) else {
            tracing::debug!(%client, "refused: too many connections");
            return;
        };
        // Fails only on a socket that is already dead; serving it will find that out.
        let _ = stream.set_nodelay(true);
        match stream.into_std() {
            Ok(stream) => workers.hand_over(Handover {
                stream,
                client,
                role: self.role.clone(),
                permit,
            }),
            Err(error) => tracing::debug!(%client, %error, "a connection was lost"),
        }
    }
}

/// Counts a listener's open connections, in all and by source address.
struct Doorkeeper {
    total: usize,
    per_source: usize,
    open: Mutex<OpenConnections>,
    registry: Arc<Registry>,
}

#[derive(Default)]
struct OpenConnections {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// The right to keep a connection open; given back when dropped.
pub(crate) struct Permit {
    doorkeeper: Arc<Doorkeeper>,
    source: IpAddr,
}

impl Doorkeeper {
    fn admit(this: &Arc<Self>, source: IpAddr) -> Option<Permit> {
        let mut open = this.open.lock().unwrap_or_else(PoisonError::into_inner);
        let total = open.total;
        let from_source = open.by_source.entry(source).or_default();
        if total >= this.total || *from_source >= this.per_source {
            if *from_source == 0 {
                open.by_source.remove(&source);
            }
            this.registry.connections_refused.fetch_add(1, Relaxed);
            return None;
        }
        *from_source += 1;
        open.total += 1;
        this.registry.connections_open.fetch_add(1, Relaxed);
        Some(Permit {
            doorkeeper: this.clone(),
            source,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self
            .doorkeeper
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(count) = open.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&self.source);
            }
        }
        self.doorkeeper.registry.connections_open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_all_places() {
        let registry = Arc::new(Registry::default());
        let doorkeeper = Arc::new(Doorkeeper {
            total: 3,
            per_source: 2,
            open: Mutex::default(),
            registry: registry.clone(),
        });
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let first = Doorkeeper::admit(&doorkeeper, a);
        let second = Doorkeeper::admit(&doorkeeper, a);
        assert!(first.is_some() && second.is_some());
        assert!(Doorkeeper::admit(&doorkeeper, a).is_none());
        let third = Doorkeeper::admit(&doorkeeper, b);
        assert!(third.is_some());
        assert!(Doorkeeper::admit(&doorkeeper, b).is_none());
        drop(first);
        assert!(Doorkeeper::admit(&doorkeeper, b).is_some());
        assert_eq!(registry.connections_refused.load(Relaxed), 2);
    }
}
