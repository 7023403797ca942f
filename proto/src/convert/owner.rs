//! Whose an address is.

use model::FieldError;
use model::snapshot::Owner;

use super::destination::{protocol_from_wire, protocol_to_wire};
use super::read::{parse, socket};
use crate::v1;

pub(super) fn owner_to_wire(owner: &Owner) -> v1::Owner {
    v1::Owner {
        address: owner.address.to_string(),
        workload_id: owner.workload.to_string(),
        service_port: owner.target.to_string(),
        protocol: protocol_to_wire(owner.protocol),
    }
}

pub(super) fn owner_from_wire(wire: &v1::Owner) -> Result<Owner, FieldError> {
    Ok(Owner {
        address: socket("address", &wire.address)?,
        workload: parse("workload_id", &wire.workload_id)?,
        target: parse("service_port", &wire.service_port)?,
        protocol: protocol_from_wire(wire.protocol)?,
    })
}
