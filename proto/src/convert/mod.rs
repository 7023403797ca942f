//! The only conversion between wire and model. What comes off the wire is hostile: every bound is checked again by
//! the model's own constructors, and an error names the field.

mod destination;
mod endpoints;
mod fault;
mod filter;
mod gateway;
mod hello;
mod inbound;
mod owner;
mod read;
mod route;
mod session;
mod shadow;
mod stream;
mod traffic_policy;

use model::FieldError;
use model::snapshot::Resource;

use self::destination::{destination_from_wire, destination_to_wire};
use self::endpoints::{endpoints_from_wire, endpoints_to_wire};
use self::gateway::{gateway_from_wire, gateway_to_wire};
use self::inbound::{inbound_from_wire, inbound_to_wire};
use self::owner::{owner_from_wire, owner_to_wire};
use crate::v1;

pub use self::hello::{MAX_APP_PORTS, MAX_PORT_NAME_BYTES, app_ports_to_wire, workload_from_wire};

/// A resource as it is sent.
pub fn resource_to_wire(resource: &Resource) -> v1::Resource {
    use v1::resource::Resource as Wire;
    let resource = match resource {
        Resource::Inbound(inbound) => Wire::Inbound(inbound_to_wire(inbound)),
        Resource::Destination(destination) => Wire::Destination(destination_to_wire(destination)),
        Resource::Endpoints(set) => Wire::Endpoints(endpoints_to_wire(set)),
        Resource::Gateway(gateway) => Wire::Gateway(gateway_to_wire(gateway)),
        Resource::Address(owner) => Wire::Owner(owner_to_wire(owner)),
    };
    v1::Resource {
        resource: Some(resource),
    }
}

/// A resource as it was received.
///
/// # Errors
/// Names the first field that is wrong, from the root of the resource.
pub fn resource_from_wire(wire: v1::Resource) -> Result<Resource, FieldError> {
    use v1::resource::Resource as Wire;
    match wire
        .resource
        .ok_or_else(|| FieldError::new("is no kind of resource that this version knows"))?
    {
        Wire::Inbound(inbound) => inbound_from_wire(inbound).map(Resource::Inbound),
        Wire::Destination(destination) => destination_from_wire(destination).map(Resource::Destination),
        Wire::Endpoints(set) => endpoints_from_wire(set).map(Resource::Endpoints),
        Wire::Gateway(gateway) => gateway_from_wire(gateway).map(Resource::Gateway),
        Wire::Owner(owner) => owner_from_wire(&owner).map(Resource::Address),
    }
}
