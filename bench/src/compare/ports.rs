//! Free loopback ports, below those that the kernel gives to outgoing connections: a load of new connections takes
//! all of these.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port that is tried, and how many there are.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// How many ports have been looked at.
static LOOKED_AT: AtomicU16 = AtomicU16::new(0);

/// An address on which nobody listens; none is given twice.
pub(crate) fn free() -> io::Result<SocketAddr> {
    // Two comparisons at once do not begin at the same port.
    let offset = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or_default();
    for _ in 0..COUNT {
        let next = LOOKED_AT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (offset.wrapping_add(next)) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(io::ErrorKind::AddrNotAvailable.into())
}
