//! Datagrams: a client's first one opens a session to a backend, which lasts for as long as something passes.
//!
//! Only addresses outside the mesh are sent to: sidecars speak mTLS, which carries no datagrams.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use decision::Reason;
use model::{ServicePort, Snapshot};
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::plan::{Plan, Socket};
use crate::listener;
use crate::tcp;
use crate::upstream::{Picked, Place, Wanted};
use crate::worker::Worker;

/// The largest datagram (RFC 768: a length of 16 bits).
const DATAGRAM_BYTES: usize = 65_535;
/// Datagrams that are taken from one socket before others have their turn.
const TURN: usize = 64;

thread_local! {
    static SPACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; DATAGRAM_BYTES].into_boxed_slice());
}

/// A bound port that nothing is received on yet.
pub(crate) struct UdpListener {
    socket: std::net::UdpSocket,
    port: u16,
    stop: CancellationToken,
}

impl UdpListener {
    pub(crate) fn bind(address: SocketAddr, port: u16, stop: CancellationToken) -> io::Result<Self> {
        Ok(Self {
            socket: listener::bind_udp(address)?,
            port,
            stop,
        })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Receives until the port is given up; its sessions end with it.
    pub(crate) async fn run(self, worker: Rc<Worker>) {
        let Ok(socket) = UdpSocket::from_std(self.socket) else {
            return tracing::error!("a UDP port was lost");
        };
        let port = Rc::new(Port {
            socket,
            number: self.port,
            sessions: RefCell::default(),
            worker,
        });
        loop {
            let ready = tokio::select! {
                ready = port.socket.readable() => ready,
                () = self.stop.cancelled() => break,
            };
            if let Err(error) = ready {
                tracing::warn!(%error, port = port.number, "a UDP port fails");
                break;
            }
            for _ in 0..TURN {
                if !port.receive() {
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
        for (_, session) in port.sessions.borrow_mut().drain() {
            session.task.abort();
        }
    }
}

struct Port {
    socket: UdpSocket,
    number: u16,
    /// By client.
    sessions: RefCell<HashMap<SocketAddr, Session>>,
    worker: Rc<Worker>,
}

/// One client's datagrams, to one backend.
struct Session {
    upstream: Rc<UdpSocket>,
    target: ServicePort,
    picked: Picked,
    /// The configuration under which the backend was last seen to be one.
    snapshot: Arc<Snapshot>,
    last: Rc<Cell<Instant>>,
    task: AbortHandle,
}

impl Port {
    /// Passes one datagram on. False where there is none.
    fn receive(self: &Rc<Self>) -> bool {
        SPACE.with_borrow_mut(|space| match self.socket.try_recv_from(space) {
            Ok((count, client)) => {
                let datagram = space.get(..count).unwrap_or_default();
                if let Err(reason) = self.forward(client, datagram) {
                    tracing::debug!(%client, port = self.number, reason = reason.detail(), "a datagram is dropped");
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            // What an ICMP message said about an earlier answer to some client.
            Err(error) => {
                tracing::debug!(%error, port = self.number, "receiving failed");
                true
            }
        })
    }

    fn forward(self: &Rc<Self>, client: SocketAddr, datagram: &[u8]) -> Result<(), Reason> {
        let plan = self.worker.plan();
        let mut sessions = self.sessions.borrow_mut();
        let known = sessions.get_mut(&client);
        let is_good = known.is_some_and(|session| session.is_still_good(&plan, self.number));
        if !is_good {
            if let Some(gone) = sessions.remove(&client) {
                gone.task.abort();
            }
            if sessions.len() >= self.worker.limits.udp_sessions {
                self.worker
                    .shared
                    .registry
                    .connections_refused
                    .fetch_add(1, Relaxed);
                return Err(Reason::Overloaded);
            }
            sessions.insert(client, self.open(&plan, client)?);
        }
        let session = sessions.get(&client).ok_or(Reason::Internal)?;
        session.last.set(Instant::now());
        // Straight to the socket, of which the runtime does not know yet that it can be written. A full one loses
        // datagrams, as every hop may; a refusal is for the client to notice.
        match SockRef::from(&*session.upstream).send(datagram) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(Reason::ConnectFailed),
            _ => Ok(()),
        }
    }

    /// Begins a session with a backend of the rule that fits.
    fn open(self: &Rc<Self>, plan: &Plan, client: SocketAddr) -> Result<Session, Reason> {
        let worker = &self.worker;
        let rules = plan.stream_rules(plan.only(Socket::udp(self.number)));
        let target = tcp::choose(worker, rules, None)?;
        let endpoints = plan
            .snapshot
            .endpoints
            .get(&target.service)
            .ok_or(Reason::NoEndpoint)?;
        let wanted = Wanted {
            set: endpoints,
            policy: endpoints.governing(target.port),
            tried: &[],
            session: None,
            key: None,
            dice: worker.dice(),
            now: Instant::now(),
        };
        let cluster = worker.cluster(&(target.clone(), None));
        let picked = cluster.pick(&wanted).ok_or(Reason::NoEndpoint)?;
        let Place::Outside {
            address, tls: None, ..
        } = &picked.member.place
        else {
            tracing::debug!(%target, "no datagrams: its endpoints are workloads, or to be called by TLS");
            return Err(Reason::NoEndpoint);
        };
        let upstream = connected(*address).map_err(|error| {
            tracing::debug!(%address, %error, "no UDP socket");
            Reason::ConnectFailed
        })?;
        let (upstream, last) = (Rc::new(upstream), Rc::new(Cell::new(Instant::now())));
        let answers = answers(self.clone(), client, upstream.clone(), last.clone());
        Ok(Session {
            task: tokio::task::spawn_local(answers).abort_handle(),
            upstream,
            target: target.clone(),
            picked,
            snapshot: plan.snapshot.clone(),
            last,
        })
    }
}

impl Session {
    /// Whether its backend still is one; looked up only where the configuration has changed.
    fn is_still_good(&mut self, plan: &Plan, port: u16) -> bool {
        if Arc::ptr_eq(&self.snapshot, &plan.snapshot) {
            return true;
        }
        self.snapshot = plan.snapshot.clone();
        let rules = plan.stream_rules(plan.only(Socket::udp(port)));
        let is_backend = rules
            .iter()
            .flat_map(|rule| &rule.backends)
            .any(|backend| backend.weight > 0 && backend.target.as_ref() == Some(&self.target));
        let endpoints = plan.snapshot.endpoints.get(&self.target.service);
        let outside = endpoints.and_then(|set| set.endpoints.outside(self.target.port));
        let address = self.picked.member.place.address();
        is_backend
            && outside.is_some_and(|outside| outside.tls.is_none() && outside.addresses.contains(&address))
    }
}

/// Passes on what the backend sends, until nothing passed either way for the session's time.
async fn answers(port: Rc<Port>, client: SocketAddr, upstream: Rc<UdpSocket>, last: Rc<Cell<Instant>>) {
    let idle = port.worker.limits.udp_idle_timeout;
    loop {
        let until = last.get() + idle;
        match tokio::time::timeout_at(until.into(), upstream.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break,
            Err(_) if last.get() + idle > until => continue,
            Err(_) => break,
        }
        let received = SPACE.with_borrow_mut(|space| {
            let count = upstream.try_recv(space)?;
            // A full socket loses datagrams, as every hop may.
            let _ = port
                .socket
                .try_send_to(space.get(..count).unwrap_or_default(), client);
            io::Result::Ok(())
        });
        match received {
            Ok(()) => last.set(Instant::now()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Nobody listens there, says an ICMP message; somebody may again.
            Err(error) => tracing::debug!(%client, %error, "a backend of datagrams fails"),
        }
    }
    port.sessions.borrow_mut().remove(&client);
    tracing::debug!(%client, port = port.number, "a client of datagrams is forgotten");
}

/// A socket of its own, which takes answers from nobody else.
fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    UdpSocket::from_std(socket)
}
