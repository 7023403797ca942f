//! What a proxy says of its workload.

use model::workload::{AppPort, Workload};
use model::{FieldError, Labels, SpiffeId};

use super::read::{address, items, parse, socket};
use crate::v1;

/// What a proxy says about its workload, as it is sent.
pub fn app_ports_to_wire(ports: &[AppPort]) -> Vec<v1::AppPort> {
    let wire = |port: &AppPort| v1::AppPort {
        name: port.name.clone().unwrap_or_default(),
        address: port.address.to_string(),
    };
    ports.iter().map(wire).collect()
}

/// Most application ports of one workload.
pub const MAX_APP_PORTS: usize = 64;
/// Longest name of an application port, in bytes.
pub const MAX_PORT_NAME_BYTES: usize = 63;

/// A workload as its proxy introduces it; who it is comes from its certificate.
///
/// # Errors
/// Names the field of `Hello` that is wrong.
pub fn workload_from_wire(hello: &v1::Hello, identity: &SpiffeId) -> Result<Workload, FieldError> {
    if hello.app_ports.len() > MAX_APP_PORTS {
        return Err(FieldError::at(
            "app_ports",
            format!("has more than {MAX_APP_PORTS} entries"),
        ));
    }
    let labels = hello
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let gateway = match hello.gateway.as_str() {
        "" => None,
        name => Some(parse("gateway", name)?),
    };
    let inbound = match (&gateway, hello.inbound.as_str()) {
        (Some(_), "") => None,
        (_, inbound) => Some(address("inbound", inbound)?),
    };
    Ok(Workload {
        id: parse("workload_id", &hello.workload_id)?,
        identity: identity.clone(),
        labels: Labels::new(labels).map_err(|error| error.within("labels"))?,
        inbound,
        gateway,
        app_ports: items("app_ports", &hello.app_ports, |port| {
            if port.name.len() > MAX_PORT_NAME_BYTES {
                let why = format!("is longer than {MAX_PORT_NAME_BYTES} bytes");
                return Err(FieldError::at("name", why));
            }
            let name = Some(port.name.clone()).filter(|name| !name.is_empty());
            Ok(AppPort {
                name,
                address: socket("address", &port.address)?,
            })
        })?,
        ready: hello.ready,
    })
}
