//! discovery.k8s.io/v1 `EndpointSlice`: addresses that serve a Service and that the mesh does not run. Fields that
//! only describe an endpoint (host name, node, zone, target) are accepted and mean nothing here; those that would
//! change where calls go are refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::discovery::v1 as k8s;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::endpoint::outside_ip;
use model::service::AppProtocol;
use model::{FieldError, Label, ServiceName};

use super::check::{At, Distinct, key};
use super::kind::Kind;
use super::object::{EndpointSlice, SliceEndpoint, SlicePort};

/// Names the Service that a slice is for.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
// Kubernetes' own limits of list lengths.
const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 100;

/// `addressType`.
#[derive(Debug, Clone, Copy)]
enum Family {
    V4,
    V6,
}

pub(super) fn slice(at: &At<'_>, slice: k8s::EndpointSlice) -> Option<EndpointSlice> {
    let key = key(at, Kind::EndpointSlice, &slice.metadata);
    let service = service_name(&at.field("metadata"), &slice.metadata);
    let family = family(at, &slice.address_type);
    let ports = ports(at, slice.ports);
    let endpoints = endpoints(&at.field("endpoints"), family, slice.endpoints);
    let key = key?;
    Some(EndpointSlice {
        service: ServiceName {
            namespace: key.namespace.clone(),
            name: service?,
        },
        key,
        ports,
        endpoints,
    })
}

fn service_name(at: &At<'_>, metadata: &ObjectMeta) -> Option<Label> {
    let at = at.field("labels");
    let labels = metadata.labels.as_ref();
    let Some(name) = labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)) else {
        at.refuse(format!(
            "{SERVICE_NAME_LABEL} is missing, which names the Service of the slice"
        ));
        return None;
    };
    at.field(SERVICE_NAME_LABEL).keep(name.parse())
}

fn family(at: &At<'_>, address_type: &str) -> Option<Family> {
    match address_type {
        "IPv4" => return Some(Family::V4),
        "IPv6" => return Some(Family::V6),
        "" => at.refuse("addressType is missing (IPv4, IPv6)"),
        other => at
            .field("addressType")
            .refuse(format!("{other:?} is not supported (supported: IPv4, IPv6)")),
    }
    None
}

fn ports(at: &At<'_>, list: Option<Vec<k8s::EndpointPort>>) -> Vec<SlicePort> {
    let list = list.unwrap_or_default();
    if list.is_empty() {
        at.refuse("an EndpointSlice has at least one port in ports");
    }
    let mut names = Distinct::new();
    let mut ports = Vec::with_capacity(list.len());
    for (index, (at, port)) in at
        .field("ports")
        .items(Some(list), MAX_PORTS)
        .into_iter()
        .enumerate()
    {
        if let Some(protocol) = port
            .protocol
            .as_deref()
            .filter(|name| !matches!(*name, "TCP" | "UDP"))
        {
            at.field("protocol")
                .refuse(format!("{protocol:?} is not supported (supported: TCP, UDP)"));
        }
        // Kubernetes: an empty name is none.
        let name = port.name.filter(|name| !name.is_empty());
        if let Some(name) = &name {
            at.field("name").keep(name.parse::<Label>());
        }
        names.check(&at.field("name"), index, name.clone());
        let protocol = port.app_protocol.as_deref().map(AppProtocol::from_app_protocol);
        let protocol = protocol.and_then(|protocol| at.field("appProtocol").keep(protocol));
        let Some(number) = port.port else {
            at.refuse("port is missing");
            continue;
        };
        if let Some(number) = at.field("port").port(number) {
            ports.push(SlicePort {
                name,
                number,
                protocol,
            });
        }
    }
    ports
}

fn endpoints(at: &At<'_>, family: Option<Family>, list: Vec<k8s::Endpoint>) -> Vec<SliceEndpoint> {
    let mut distinct = Distinct::new();
    let mut endpoints = Vec::with_capacity(list.len());
    for (index, (at, endpoint)) in at.items(Some(list), MAX_ENDPOINTS).into_iter().enumerate() {
        if endpoint.hints.is_some() {
            at.field("hints").refuse("is not supported yet");
        }
        let address = address(&at.field("addresses"), family, &endpoint.addresses);
        if let Some(address) = address {
            distinct.check(&at.field("addresses"), index, address);
            endpoints.push(SliceEndpoint {
                address,
                ready: is_ready(endpoint.conditions.as_ref()),
            });
        }
    }
    endpoints
}

/// Addresses of a family that was refused are not looked at.
fn address(at: &At<'_>, family: Option<Family>, addresses: &[String]) -> Option<IpAddr> {
    let [text] = addresses else {
        let count = addresses.len();
        at.refuse(format!("has {count} addresses; an endpoint has exactly one"));
        return None;
    };
    let (read, what) = match family? {
        Family::V4 => (text.parse::<Ipv4Addr>().map(IpAddr::from), "an IPv4"),
        Family::V6 => (text.parse::<Ipv6Addr>().map(IpAddr::from), "an IPv6"),
    };
    let read = read.map_err(|_| FieldError::new(format!("{text:?} is not {what} address")));
    at.item(0).keep(read.and_then(outside_ip))
}

/// Kubernetes: what is not said of `ready` and `serving` counts as true, of `terminating` as false.
fn is_ready(conditions: Option<&k8s::EndpointConditions>) -> bool {
    let Some(conditions) = conditions else { return true };
    let terminating = conditions.terminating == Some(true);
    conditions.ready.unwrap_or(!terminating) && conditions.serving != Some(false)
}
