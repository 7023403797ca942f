//! What callers of a service know: its ports and their rules.

use model::FieldError;
use model::service::{AppProtocol, Destination, DestinationPort};

use super::read::{by_port, items, parse, port_number};
use super::route::{rule_from_wire, rule_to_wire};
use super::stream::{stream_rule_from_wire, stream_rule_to_wire};
use crate::v1;

pub(super) fn destination_to_wire(destination: &Destination) -> v1::Destination {
    let port = |(number, port): (&u16, &DestinationPort)| v1::DestinationPort {
        port: u32::from(*number),
        protocol: protocol_to_wire(port.protocol),
        rules: port.rules.iter().map(rule_to_wire).collect(),
        shadow: port.shadow.as_ref().map(|rules| v1::ShadowRules {
            rules: rules.iter().map(rule_to_wire).collect(),
        }),
        streams: port.streams.iter().map(stream_rule_to_wire).collect(),
    };
    v1::Destination {
        service: destination.service.to_string(),
        ports: destination.ports.iter().map(port).collect(),
    }
}

pub(super) fn destination_from_wire(wire: v1::Destination) -> Result<Destination, FieldError> {
    let service = parse("service", &wire.service)?;
    let read = items("ports", &wire.ports, |port| {
        let number = port_number(port.port)?;
        let rules = items("rules", &port.rules, rule_from_wire)?;
        let shadow = port.shadow.as_ref();
        let shadow = shadow.map(|shadow| items("rules", &shadow.rules, rule_from_wire));
        let shadow = shadow.transpose().map_err(|error| error.within("shadow"))?;
        let streams = items("streams", &port.streams, stream_rule_from_wire)?;
        Ok((
            number,
            DestinationPort {
                protocol: protocol_from_wire(port.protocol)?,
                rules,
                shadow,
                streams,
            },
        ))
    })?;
    let ports = by_port(read)?;
    Ok(Destination { service, ports })
}

pub(super) fn protocol_to_wire(protocol: AppProtocol) -> i32 {
    let wire = match protocol {
        AppProtocol::Detect => v1::AppProtocol::Detect,
        AppProtocol::Http => v1::AppProtocol::Http,
        AppProtocol::Http2 => v1::AppProtocol::Http2,
        AppProtocol::Tcp => v1::AppProtocol::Tcp,
    };
    wire.into()
}

pub(super) fn protocol_from_wire(wire: i32) -> Result<AppProtocol, FieldError> {
    match v1::AppProtocol::try_from(wire) {
        Ok(v1::AppProtocol::Detect) => Ok(AppProtocol::Detect),
        Ok(v1::AppProtocol::Http) => Ok(AppProtocol::Http),
        Ok(v1::AppProtocol::Http2) => Ok(AppProtocol::Http2),
        Ok(v1::AppProtocol::Tcp) => Ok(AppProtocol::Tcp),
        Ok(v1::AppProtocol::Unspecified) | Err(_) => Err(FieldError::at(
            "protocol",
            format!("{wire} is no protocol that this version knows"),
        )),
    }
}
