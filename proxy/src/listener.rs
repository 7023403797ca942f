//! Binds, accepts, counts, and hands each connection to a worker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::connection::{Handover, Role};
use crate::doorkeeper::Doorkeeper;
use crate::settings::Limits;
use crate::stats::Registry;
use crate::threads::Workers;

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
        let doorkeeper = Doorkeeper::new(
            limits.connections,
            limits.connections_per_source,
            registry.clone(),
        );
        Ok(Self {
            socket: TcpListener::from_std(socket.into())?,
            role: Arc::new(role),
            doorkeeper,
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
