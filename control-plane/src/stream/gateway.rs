//! What is particular to the proxies of Gateways: who may be one, and what they say of their ports.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use model::workload::Workload;
use proto::v1;
use tonic::Status;

use super::session::shortened;
use crate::view::BoundPort;

/// Most entries of one report, and addresses of one entry that are kept.
const MAX_REPORTED_PORTS: usize = 4096;
const MAX_REPORTED_ADDRESSES: usize = 64;

/// What a Gateway's proxy is told has its private keys, so only the service account of the Gateway's own name may serve
/// it, in the Gateway's namespace.
pub(super) fn may_serve_gateway(workload: &Workload) -> Result<(), Status> {
    let (identity, gateway) = (&workload.identity, &workload.gateway);
    match gateway {
        Some(gateway) if *gateway != identity.service_account => Err(Status::permission_denied(format!(
            "only service account {gateway} may serve Gateway {}/{gateway}, and this is {identity}",
            identity.namespace
        ))),
        _ => Ok(()),
    }
}

/// The ports of a report. One may have several entries, for TCP and UDP: it is bound where all of them are.
pub(super) fn listener_report(report: &v1::ListenerReport) -> Result<BTreeMap<u16, BoundPort>, Status> {
    if report.ports.len() > MAX_REPORTED_PORTS {
        return Err(Status::invalid_argument(format!(
            "more than {MAX_REPORTED_PORTS} ports are reported"
        )));
    }
    let mut ports = BTreeMap::new();
    for reported in &report.ports {
        let port = u16::try_from(reported.port)
            .map_err(|_| Status::invalid_argument(format!("{} is not a port", reported.port)))?;
        let bound = match reported.failure.as_str() {
            "" => {
                let addresses = reported.addresses.iter().take(MAX_REPORTED_ADDRESSES);
                let read = addresses.map(|address| address.parse::<SocketAddr>());
                let read: Result<_, _> = read.collect();
                let bad = |_| Status::invalid_argument("an address of a report is not ip:port");
                BoundPort::At(read.map_err(bad)?)
            }
            failure if reported.no_address => BoundPort::NoAddress(shortened(failure)),
            failure => BoundPort::Failed(shortened(failure)),
        };
        match ports.entry(port) {
            Entry::Vacant(vacant) => drop(vacant.insert(bound)),
            Entry::Occupied(mut known) => match (known.get_mut(), bound) {
                (BoundPort::Failed(_) | BoundPort::NoAddress(_), _) => {}
                (BoundPort::At(known), BoundPort::At(more)) => known.extend(more),
                (known, failed) => *known = failed,
            },
        }
    }
    Ok(ports)
}
