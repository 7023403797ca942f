//! Binds, accepts and counts. The first worker accepts, so that a sidecar, which has one, wakes one thread only.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::connection::{Accepted, Role};
use crate::doorkeeper::Doorkeeper;
use crate::settings::Limits;
use crate::stats::Registry;
use crate::threads::Seat;

/// Connections that the kernel keeps while they wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long accepting pauses when the process is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener that does not accept yet.
pub(crate) struct Listener {
    socket: std::net::TcpListener,
    role: Arc<Role>,
    doorkeeper: Arc<Doorkeeper>,
    /// Accepts until then; until the proxy begins to stop where there is none.
    until: Option<CancellationToken>,
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
        if address.is_ipv6() && matches!(role, Role::Gateway(_)) {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let doorkeeper = Doorkeeper::new(
            limits.connections,
            limits.connections_per_source,
            registry.clone(),
        );
        Ok(Self {
            socket: socket.into(),
            role: Arc::new(role),
            doorkeeper,
            until: None,
        })
    }

    /// Stops accepting earlier than the proxy does.
    pub(crate) fn until(self, stop: CancellationToken) -> Self {
        Self {
            until: Some(stop),
            ..self
        }
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the proxy begins to stop, on the worker that this runs on.
    pub(crate) async fn run(self, here: Seat) {
        let Ok(socket) = TcpListener::from_std(self.socket) else {
            return tracing::error!("a listener was lost");
        };
        let door = Door {
            role: self.role,
            doorkeeper: self.doorkeeper,
        };
        let draining = self
            .until
            .unwrap_or_else(|| here.worker().shared.draining.clone());
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = draining.cancelled() => return,
            };
            match accepted {
                Ok((stream, client)) => door.take(stream, client, &here),
                Err(error) => {
                    tracing::warn!(%error, "accepting failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A bound UDP port that nothing is received on yet.
pub(crate) fn bind_udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What every connection of a listener is given.
struct Door {
    role: Arc<Role>,
    doorkeeper: Arc<Doorkeeper>,
}

impl Door {
    fn take(&self, stream: tokio::net::TcpStream, client: SocketAddr, here: &Seat) {
        let Some(permit) = Doorkeeper::admit(&self.doorkeeper, client.ip()) else {
            tracing::debug!(%client, "refused: too many connections");
            return;
        };
        // Fails only on a socket that is already dead; serving it will find that out.
        let _ = stream.set_nodelay(true);
        here.seat(Accepted {
            stream,
            client,
            role: self.role.clone(),
            permit,
        });
    }
}
