//! What one sidecar knows, resource by resource and as a whole.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::route::Rule;
use crate::{
    AppProtocol, Destination, EndpointSet, FieldError, Gateway, OutsideHosts, ServiceName, ServicePort,
    WorkloadId,
};

/// Counts the mesh's changes; a higher one is newer. 0 is "nothing yet".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a sidecar asks the control plane about, and is kept informed of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    Service(ServiceName),
    /// Who is at this address.
    Address(SocketAddr),
}

impl From<ServiceName> for Question {
    fn from(service: ServiceName) -> Self {
        Self::Service(service)
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => service.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for Question {
    type Err = FieldError;

    /// Reads `namespace/name` or `ip:port`.
    fn from_str(text: &str) -> Result<Self, FieldError> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => text.parse().map(Self::Service),
        }
    }
}

/// Names one resource on the config stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceName {
    /// What the workload itself serves.
    Inbound,
    Destination(ServiceName),
    Endpoints(ServiceName),
    /// What a gateway serves; told to that gateway's proxies only.
    Gateway(ServiceName),
    Address(SocketAddr),
}

impl ResourceName {
    /// The resource that answers a question.
    pub fn answering(question: &Question) -> Self {
        match question {
            Question::Service(service) => Self::Destination(service.clone()),
            Question::Address(address) => Self::Address(*address),
        }
    }

    /// What it answers; `None` for what is sent without a question.
    pub fn question(&self) -> Option<Question> {
        match self {
            Self::Destination(service) => Some(Question::Service(service.clone())),
            Self::Address(address) => Some(Question::Address(*address)),
            Self::Inbound | Self::Endpoints(_) | Self::Gateway(_) => None,
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbound => f.write_str("inbound"),
            Self::Destination(service) => write!(f, "destination/{service}"),
            Self::Endpoints(service) => write!(f, "endpoints/{service}"),
            Self::Gateway(gateway) => write!(f, "gateway/{gateway}"),
            Self::Address(address) => write!(f, "address/{address}"),
        }
    }
}

impl FromStr for ResourceName {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        match text.split_once('/') {
            None if text == "inbound" => Ok(Self::Inbound),
            Some(("destination", service)) => Ok(Self::Destination(service.parse()?)),
            Some(("endpoints", service)) => Ok(Self::Endpoints(service.parse()?)),
            Some(("gateway", gateway)) => Ok(Self::Gateway(gateway.parse()?)),
            Some(("address", address)) => {
                let bad = |_| FieldError::new(format!("{address:?} is not ip:port"));
                Ok(Self::Address(address.parse().map_err(bad)?))
            }
            _ => Err(FieldError::new(format!("{text:?} is not the name of a resource"))),
        }
    }
}

/// One resource as the control plane states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Inbound(Inbound),
    Destination(Destination),
    Endpoints(EndpointSet),
    Gateway(Gateway),
    Address(Owner),
}

/// The workload of the mesh that an address is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub address: SocketAddr,
    pub workload: WorkloadId,
    /// A port of a Service that is served there.
    pub target: ServicePort,
    pub protocol: AppProtocol,
}

impl Resource {
    pub fn name(&self) -> ResourceName {
        match self {
            Self::Inbound(_) => ResourceName::Inbound,
            Self::Destination(destination) => ResourceName::Destination(destination.service.clone()),
            Self::Endpoints(set) => ResourceName::Endpoints(set.service.clone()),
            Self::Gateway(gateway) => ResourceName::Gateway(gateway.name.clone()),
            Self::Address(owner) => ResourceName::Address(owner.address),
        }
    }
}

/// What concerns the workload itself, whatever it calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inbound {
    /// The services that it serves, by the service and port a caller names in SNI. Only the control plane enters any, so
    /// that no caller can make them collide.
    pub served: HashMap<ServicePort, ServedPort, foldhash::fast::RandomState>,
    /// What the mesh says about hosts outside it.
    pub outside: OutsideHosts,
}

/// Where calls to a served port go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedPort {
    pub app: SocketAddr,
    pub protocol: AppProtocol,
}

/// Everything a sidecar knows at one generation. A request sees one of these from beginning to end.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub generation: Generation,
    pub inbound: Arc<Inbound>,
    /// `None` where the control plane said that there is no such service.
    pub destinations: HashMap<ServiceName, Option<Arc<Destination>>>,
    pub endpoints: HashMap<ServiceName, Arc<EndpointSet>>,
    /// `None` where the control plane said that no workload has this address.
    pub addresses: HashMap<SocketAddr, Option<Arc<Owner>>>,
    /// What this proxy serves at the edge; `None` for a sidecar, and for a gateway whose Gateway does not exist.
    pub gateway: Option<Arc<Gateway>>,
}

impl Snapshot {
    /// What is known of an answer: whether there is such a thing.
    pub fn answer(&self, question: &Question) -> Option<bool> {
        match question {
            Question::Service(service) => self.destinations.get(service).map(Option::is_some),
            Question::Address(address) => self.addresses.get(address).map(Option::is_some),
        }
    }

    /// Forgets the answer to a question.
    pub fn forget(&mut self, question: &Question) {
        match question {
            Question::Service(service) => drop(self.destinations.remove(service)),
            Question::Address(address) => drop(self.addresses.remove(address)),
        }
    }

    /// Of all destinations, and of all listeners.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        let destinations = self.destinations.values().flatten();
        let of_ports =
            destinations.flat_map(|destination| destination.ports.values().flat_map(|port| &port.rules));
        let listeners = self.gateway.iter().flat_map(|gateway| &gateway.listeners);
        let of_listeners = listeners.filter_map(|listener| listener.serves.http_routes());
        of_ports.chain(of_listeners.flat_map(|routes| &routes.rules))
    }

    /// The snapshot after these changes, which came with `generation`.
    #[must_use]
    pub fn with(&self, generation: Generation, changed: Vec<Resource>, removed: &[ResourceName]) -> Self {
        let mut next = self.clone();
        next.generation = generation;
        for name in removed {
            match name {
                ResourceName::Inbound => next.inbound = Arc::default(),
                ResourceName::Destination(service) => {
                    next.destinations.insert(service.clone(), None);
                }
                ResourceName::Endpoints(service) => {
                    next.endpoints.remove(service);
                }
                ResourceName::Gateway(_) => next.gateway = None,
                ResourceName::Address(address) => {
                    next.addresses.insert(*address, None);
                }
            }
        }
        for resource in changed {
            match resource {
                Resource::Inbound(inbound) => next.inbound = Arc::new(inbound),
                Resource::Destination(destination) => {
                    next.destinations
                        .insert(destination.service.clone(), Some(Arc::new(destination)));
                }
                Resource::Endpoints(set) => {
                    next.endpoints.insert(set.service.clone(), Arc::new(set));
                }
                Resource::Gateway(gateway) => next.gateway = Some(Arc::new(gateway)),
                Resource::Address(owner) => {
                    next.addresses.insert(owner.address, Some(Arc::new(owner)));
                }
            }
        }
        next
    }
}
