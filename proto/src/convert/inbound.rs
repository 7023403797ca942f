//! What concerns a workload itself.

use model::snapshot::{Inbound, ServedPort};
use model::{FieldError, OutsideHosts, ServicePort};

use super::destination::{protocol_from_wire, protocol_to_wire};
use super::read::{items, parse, socket};
use crate::v1;

pub(super) fn inbound_to_wire(inbound: &Inbound) -> v1::Inbound {
    let mut served: Vec<_> = inbound
        .served
        .iter()
        .map(|(service_port, port)| v1::ServedPort {
            service_port: service_port.to_string(),
            app: port.app.to_string(),
            protocol: protocol_to_wire(port.protocol),
        })
        .collect();
    // The same content must have the same bytes: its hash is its version.
    served.sort_by(|a, b| a.service_port.cmp(&b.service_port));
    v1::Inbound {
        served,
        outside_denied: inbound.outside == OutsideHosts::Deny,
    }
}

pub(super) fn inbound_from_wire(wire: v1::Inbound) -> Result<Inbound, FieldError> {
    let ports = items("served", &wire.served, |port| {
        let served = ServedPort {
            app: socket("app", &port.app)?,
            protocol: protocol_from_wire(port.protocol)?,
        };
        Ok((parse::<ServicePort>("service_port", &port.service_port)?, served))
    })?;
    let mut served = Inbound::default().served;
    for (index, (name, port)) in ports.into_iter().enumerate() {
        let again = || FieldError::at("service_port", format!("{name} is there more than once"));
        if served.contains_key(&name) {
            return Err(again().within_item(index).within("served"));
        }
        served.insert(name, port);
    }
    let outside = match wire.outside_denied {
        true => OutsideHosts::Deny,
        false => OutsideHosts::Allow,
    };
    Ok(Inbound { served, outside })
}
