//! Hosts outside the mesh: whether a sidecar may call one, and which addresses are the sidecar itself.

use std::net::{IpAddr, SocketAddr};

use model::OutsideHosts;

/// What holds at a sidecar: the stricter of what it was started with and what the mesh says.
pub fn in_force(own: Option<OutsideHosts>, of_mesh: OutsideHosts) -> OutsideHosts {
    own.map_or(of_mesh, |own| own.max(of_mesh))
}

/// Whether an address leads back to the proxy: one of its ports, at this machine by whichever of its addresses.
/// `is_local` says whether a further address is this machine's; it is asked about own ports only.
pub fn is_own(address: SocketAddr, ports: &[u16], is_local: impl FnOnce(IpAddr) -> bool) -> bool {
    let ip = address.ip().to_canonical();
    ports.contains(&address.port()) && (ip.is_loopback() || ip.is_unspecified() || is_local(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_holds() {
        use OutsideHosts::{Allow, Deny};
        for (own, of_mesh, holds) in [
            (None, Allow, Allow),
            (None, Deny, Deny),
            (Some(Allow), Allow, Allow),
            (Some(Allow), Deny, Deny),
            (Some(Deny), Allow, Deny),
            (Some(Deny), Deny, Deny),
        ] {
            assert_eq!(in_force(own, of_mesh), holds, "{own:?} {of_mesh:?}");
        }
    }

    #[test]
    fn own_ports_by_any_address_of_the_machine() {
        let ports = [15000, 15001];
        let is_own = |address: &str| {
            let mine: IpAddr = "10.1.2.3".parse().expect("an address");
            is_own(address.parse().expect("an address"), &ports, |ip| ip == mine)
        };
        for address in [
            "127.0.0.1:15000",
            "127.8.8.8:15001",
            "0.0.0.0:15001",
            "[::1]:15000",
            "[::]:15000",
            "[::ffff:127.0.0.1]:15001",
            "[::ffff:0.0.0.0]:15001",
            "[::ffff:10.1.2.3]:15001",
            "10.1.2.3:15000",
        ] {
            assert!(is_own(address), "{address}");
        }
        for address in [
            "127.0.0.1:8080",
            "10.1.2.4:15000",
            "[2001:db8::1]:15001",
            "10.1.2.3:80",
        ] {
            assert!(!is_own(address), "{address}");
        }
    }
}
