//! What the proxies of Gateways say of the ports that they serve.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use model::{ServiceName, WorkloadId};

/// The connected proxies of each Gateway.
pub type Reports = BTreeMap<ServiceName, BTreeMap<WorkloadId, ProxyReport>>;

/// How the ports of one proxy stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyReport {
    pub ports: BTreeMap<u16, BoundPort>,
    /// Why it uses no newer configuration, where it refused some.
    pub refusal: Option<String>,
}

/// How one port stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundPort {
    At(BTreeSet<SocketAddr>),
    Failed(String),
    /// The proxy's machine has not the address that the Gateway asks for.
    NoAddress(String),
}

/// Why a port is not served by every proxy; `None` where it is.
pub(super) fn unserved(
    proxies: Option<&BTreeMap<WorkloadId, ProxyReport>>,
    port: u16,
) -> Option<(&'static str, String)> {
    let proxies = proxies.filter(|proxies| !proxies.is_empty());
    let Some(proxies) = proxies else {
        return Some(("Pending", "no proxy of the Gateway is connected".to_owned()));
    };
    proxies
        .iter()
        .find_map(|(id, report)| match report.ports.get(&port) {
            _ if report.refusal.is_some() => {
                let why = report.refusal.as_deref().unwrap_or_default();
                Some(("Invalid", format!("proxy {id} refused its configuration: {why}")))
            }
            Some(BoundPort::At(_)) => None,
            Some(BoundPort::Failed(why)) => Some((
                "PortUnavailable",
                format!("proxy {id} cannot bind port {port}: {why}"),
            )),
            Some(BoundPort::NoAddress(why)) => Some((
                "AddressNotUsable",
                format!("proxy {id} cannot bind port {port}: {why}"),
            )),
            None => Some(("Pending", format!("proxy {id} has yet to bind port {port}"))),
        })
}

/// The addresses that are bound, each once.
pub(super) fn addresses(proxies: Option<&BTreeMap<WorkloadId, ProxyReport>>) -> BTreeSet<IpAddr> {
    let ports = proxies.into_iter().flat_map(BTreeMap::values);
    let ports = ports.flat_map(|report| report.ports.values());
    ports
        .flat_map(|port| match port {
            BoundPort::At(addresses) => addresses.iter().map(SocketAddr::ip).collect(),
            BoundPort::Failed(_) | BoundPort::NoAddress(_) => Vec::new(),
        })
        .collect()
}
