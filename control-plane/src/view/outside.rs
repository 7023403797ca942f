//! Which addresses outside the mesh serve a Service, and whether a slice of them is of use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use model::endpoint::OutsidePort;
use model::service::{AppProtocol, Port, Service};

use super::MeshState;
use super::attach::Objection;
use super::backend_tls::{backend_tls, policy_for};
use crate::sources::{EndpointSlice, SlicePort};

/// For each port of a Service without a selector, the ready addresses of all its slices: at the number of the
/// slice's port of the same name, since `targetPort` is about workloads. A number that is a TCP port and a UDP port has
/// the addresses of both.
pub(super) fn outside_ports(state: &MeshState, service: &Service) -> BTreeMap<u16, OutsidePort> {
    let addresses = |port: &Port| -> BTreeSet<SocketAddr> {
        slices_of(state, service)
            .flat_map(|slice| addresses(slice, port.name.as_deref()))
            .collect()
    };
    let mut outside: BTreeMap<u16, OutsidePort> = BTreeMap::new();
    for (number, port) in &service.ports {
        let policy = policy_for(state, service, port);
        let tls = policy.map(|policy| backend_tls(state, policy));
        let of_port = OutsidePort {
            protocol: match (port.protocol, policy) {
                // `https` and `tls` say what is within the TLS that the policy makes.
                (AppProtocol::Tcp, Some(_)) => AppProtocol::Detect,
                (protocol, _) => protocol,
            },
            addresses: match tls {
                // Nothing goes out in plain that a policy secures.
                Some(Err(_)) => BTreeSet::new(),
                _ => addresses(port),
            },
            tls: tls.and_then(Result::ok),
        };
        outside.insert(*number, of_port);
    }
    for (number, port) in &service.udp_ports {
        let known = outside.entry(*number).or_default();
        known.addresses.extend(addresses(port));
    }
    outside
}

/// Whether a slice's Service takes its endpoints from slices at all.
pub(super) fn used(state: &MeshState, slice: &EndpointSlice) -> Result<(), Objection> {
    let name = &slice.service;
    let service = state.service(name).ok_or_else(|| Objection {
        reason: "ServiceNotFound",
        message: format!("Service {name} does not exist"),
    })?;
    if service.selector.is_empty() {
        return Ok(());
    }
    Err(Objection {
        reason: "ServiceHasSelector",
        message: format!(
            "Service {name} has a selector: its endpoints are the workloads that it selects, and nothing of the \
             slice is used"
        ),
    })
}

/// Whether a port of a slice is one of its Service, as the Service understands it. No objection where there is no
/// Service, which is another one's to make.
pub(super) fn matched(state: &MeshState, slice: &EndpointSlice, port: &SlicePort) -> Result<(), Objection> {
    let name = &slice.service;
    let Some(service) = state.service(name) else {
        return Ok(());
    };
    let mut ports = service.ports.values().chain(service.udp_ports.values());
    let of_service = ports.find(|known| known.name == port.name);
    let said = match &port.name {
        Some(port) => format!("port {port:?}"),
        None => "port without a name".to_owned(),
    };
    let of_service = of_service.ok_or_else(|| Objection {
        reason: "PortNotFound",
        message: format!("Service {name} has no {said}"),
    })?;
    let declared = of_service.protocol;
    // Where the Service declares nothing, requests are HTTP as here.
    let is_same = |said| said == declared || (said, declared) == (AppProtocol::Http, AppProtocol::Detect);
    if port.protocol.is_none_or(is_same) {
        return Ok(());
    }
    Err(Objection {
        reason: "AppProtocolDiffers",
        message: format!(
            "the {said} has another appProtocol in Service {name}, which is the one that counts"
        ),
    })
}

fn slices_of<'a>(state: &'a MeshState, service: &'a Service) -> impl Iterator<Item = &'a EndpointSlice> {
    let slices = state.slices_in(&service.name.namespace);
    slices.filter(|slice| slice.service == service.name)
}

fn addresses<'a>(slice: &'a EndpointSlice, name: Option<&str>) -> impl Iterator<Item = SocketAddr> + use<'a> {
    let port = slice.ports.iter().find(|port| port.name.as_deref() == name);
    let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready);
    port.into_iter().flat_map(move |port| {
        ready
            .clone()
            .map(move |ready| (ready.address, port.number).into())
    })
}
