//! Whose an address is: which workload has it, and what it serves there.

use std::net::SocketAddr;

use model::service::Service;
use model::snapshot::Owner;
use model::workload::Workload;

use super::MeshState;

/// The workload at an address, ready or not, and a port of a Service that it serves there: at the port where its
/// application listens, as a Pod would be called, that which leads to it; at its inbound listener the first of all.
/// `None` where nobody is, or nothing is served.
///
/// Workloads may share an address, behind one that forwards: an inbound listener comes before an application, then the
/// lowest id counts. Of Services, the first by name and port.
pub fn owner(state: &MeshState, address: SocketAddr) -> Option<Owner> {
    let at_listener = |workload: &&Workload| workload.inbound == Some(address);
    let workloads = || state.workloads.values();
    let owned = |workload: &Workload| served(state, workload, None, address);
    let of_listener = { workloads() }.filter(at_listener).find_map(owned);
    of_listener.or_else(|| workloads().find_map(|workload| of_application(state, workload, address)))
}

fn of_application(state: &MeshState, workload: &Workload, address: SocketAddr) -> Option<Owner> {
    let inbound = workload.inbound?.ip();
    let app = workload.app_ports.iter().map(|app| app.address).find(|app| {
        // An application that only its own machine can call is known by the address of its sidecar.
        let is_apart = !app.ip().is_loopback() && !app.ip().is_unspecified();
        app.port() == address.port() && (inbound == address.ip() || (is_apart && app.ip() == address.ip()))
    })?;
    served(state, workload, Some(app), address)
}

/// What a workload serves with this application, or with any.
fn served(
    state: &MeshState,
    workload: &Workload,
    app: Option<SocketAddr>,
    address: SocketAddr,
) -> Option<Owner> {
    let selects = |service: &&Service| service.selector.selects(&workload.labels);
    let services = state.services_in(&workload.identity.namespace).filter(selects);
    let ports = services.flat_map(|service| service.ports.iter().map(move |port| (service, port)));
    { ports }.find_map(|(service, (number, port))| {
        let serves = workload.app_address(&port.target)?;
        app.is_none_or(|app| app == serves).then(|| Owner {
            address,
            workload: workload.id.clone(),
            target: service.name.port(*number),
            protocol: port.protocol,
        })
    })
}
