//! Hosts outside the mesh, which a sidecar calls as its application would: whether, where, and over which connections.

mod resolver;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::{Duration, Instant};

use decision::Reason;
use decision::message::host::{self, Outside, OutsideHost};
use decision::traffic::outside::{in_force, is_own};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::{Generation, OutsideHosts};
use smallvec::SmallVec;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use self::resolver::Resolver;
use crate::upstream::{Route, Upstream};
use crate::worker::Worker;

/// Addresses of one host that are tried; further ones are left out.
const MAX_ADDRESSES: usize = 8;
/// When an address has not answered by then, the next one is tried beside it (RFC 8305 section 8).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Where a host is; there is one at least.
pub(crate) type Addresses = SmallVec<[SocketAddr; MAX_ADDRESSES]>;

/// What one worker has for calls to hosts outside the mesh.
#[derive(Default)]
pub(crate) struct OutsideCalls {
    resolver: Resolver,
    upstreams: RefCell<HashMap<SocketAddr, Rc<Upstream>, foldhash::quality::RandomState>>,
}

impl OutsideCalls {
    /// Finds a host that no service is. `port` is that of the scheme, for an authority without one.
    ///
    /// # Errors
    /// [`Reason::OutsideDenied`] where such hosts may not be called, [`Reason::OwnPort`] where it is this proxy;
    /// [`Reason::UnknownService`] where nobody has this name.
    pub(crate) async fn find(
        &self,
        worker: &Worker,
        authority: &str,
        port: u16,
    ) -> Result<Addresses, Reason> {
        let outside = host::outside(authority, &worker.shared.domain)?.ok_or(Reason::UnknownService)?;
        may_be_called(worker, &outside).await?;
        let port = outside.port.unwrap_or(port);
        let found = match outside.host {
            Outside::Address(ip) => SmallVec::from_elem(ip, 1),
            Outside::Name(name) => {
                let within = worker.limits.connect_timeout;
                let kept = worker.limits.resolved_hosts;
                self.resolver.look_up(name, kept, within).await?
            }
        };
        let addresses = found.iter().map(|ip| SocketAddr::new(ip.to_canonical(), port));
        let others = addresses.filter(|address| !leads_back(worker, *address));
        let others: Addresses = others.take(MAX_ADDRESSES).collect();
        match others.is_empty() {
            true => Err(Reason::OwnPort),
            false => Ok(others),
        }
    }

    /// A connection of HTTP's: one that is open, or a new one, with whom it leads to.
    pub(crate) async fn reach(
        &self,
        worker: &Worker,
        addresses: &[SocketAddr],
    ) -> Result<(Rc<Upstream>, Option<TcpStream>), Reason> {
        let open = {
            let upstreams = self.upstreams.borrow();
            let known = addresses.iter().filter_map(|address| upstreams.get(address));
            { known }.find(|upstream| upstream.has_idle()).cloned()
        };
        if let Some(upstream) = open {
            return Ok((upstream, None));
        }
        let (stream, address) = self.connect(worker, addresses).await?;
        Ok((self.upstream(worker, address), Some(stream)))
    }

    /// Opens a connection to the first of these addresses that can be reached.
    pub(crate) async fn connect(
        &self,
        worker: &Worker,
        addresses: &[SocketAddr],
    ) -> Result<(TcpStream, SocketAddr), Reason> {
        match timeout(worker.limits.connect_timeout, first_of(addresses)).await {
            Ok(connected) => connected,
            Err(_) => Err(Reason::ConnectTimeout),
        }
    }

    /// Closes what was not used for a while.
    pub(crate) fn close_idle(&self, now: Instant) {
        self.upstreams.borrow_mut().retain(|_, upstream| {
            upstream.close_idle(now);
            upstream.has_idle() || Rc::strong_count(upstream) > 1
        });
    }

    fn upstream(&self, worker: &Worker, address: SocketAddr) -> Rc<Upstream> {
        let mut upstreams = self.upstreams.borrow_mut();
        // Callers choose whom they call: a list that is full begins anew. Requests under way keep their own.
        if upstreams.len() >= worker.limits.outside_addresses && !upstreams.contains_key(&address) {
            upstreams.clear();
        }
        let new = || Upstream::new(Rc::new(Route::Outside(address, None)), worker.limits.clone());
        upstreams.entry(address).or_insert_with(new).clone()
    }
}

async fn may_be_called(worker: &Worker, outside: &OutsideHost<'_>) -> Result<(), Reason> {
    let config = &worker.shared.config;
    // What the mesh says about such hosts must be known.
    if worker.snapshot().generation == Generation::default()
        && !config.configured(worker.limits.discovery_timeout).await
    {
        return Err(Reason::DiscoveryTimeout);
    }
    let of_mesh = worker.snapshot().inbound.outside;
    match (in_force(worker.shared.settings.outside, of_mesh), outside.host) {
        (OutsideHosts::Allow, _) => Ok(()),
        (OutsideHosts::Deny, Outside::Name(name)) if !name.contains('.') => Err(Reason::UnknownService),
        (OutsideHosts::Deny, _) => Err(Reason::OutsideDenied),
    }
}

/// Whether an address is one of the proxy's own listeners.
pub(crate) fn leads_back(worker: &Worker, address: SocketAddr) -> bool {
    is_own(address, &worker.shared.own_ports, is_local)
}

/// Whether an address is this machine's: only such a one can be bound to.
fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

async fn first_of(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), Reason> {
    let mut waiting = addresses.iter();
    let mut running = FuturesUnordered::new();
    loop {
        match waiting.next() {
            Some(address) => running.push(async move { (TcpStream::connect(address).await, *address) }),
            None if running.is_empty() => return Err(Reason::ConnectFailed),
            None => {}
        }
        tokio::select! {
            Some((connected, address)) = running.next() => match connected {
                Ok(stream) => {
                    // Refused only where the socket is already dead, which the next write will say.
                    let _ = stream.set_nodelay(true);
                    return Ok((stream, address));
                }
                Err(error) => tracing::debug!(%address, %error, "connection failed"),
            },
            () = sleep(NEXT_ADDRESS_AFTER), if waiting.len() > 0 => {}
        }
    }
}
