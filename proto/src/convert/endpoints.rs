//! Who serves a service.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use model::endpoint::{Endpoint, EndpointSet, Endpoints, OutsidePort, outside_ip};
use model::fault::Fault;
use model::shadow::PolicyShadow;
use model::{FieldError, Labels, TrafficPolicy};

use super::destination::{protocol_from_wire, protocol_to_wire};
use super::fault::{fault_from_wire, fault_to_wire};
use super::gateway::{backend_tls_from_wire, backend_tls_to_wire};
use super::read::{address, by_port, items, parse, port_number};
use super::shadow::{policy_shadow_from_wire, policy_shadow_to_wire};
use super::traffic_policy::{traffic_policy_from_wire, traffic_policy_to_wire};
use crate::v1;

pub(super) fn endpoints_to_wire(set: &EndpointSet) -> v1::EndpointSet {
    let (endpoints, outside) = match &set.endpoints {
        Endpoints::Mesh(workloads) => (workloads.iter().map(endpoint_to_wire).collect(), None),
        Endpoints::Outside(ports) => (Vec::new(), Some(outside_to_wire(ports))),
    };
    v1::EndpointSet {
        service: set.service.to_string(),
        endpoints,
        outside,
        policies: set.policies.iter().map(policy_to_wire).collect(),
        faults: set.faults.iter().map(faults_to_wire).collect(),
        shadow: set.shadow.iter().map(shadow_to_wire).collect(),
    }
}

pub(super) fn endpoints_from_wire(wire: v1::EndpointSet) -> Result<EndpointSet, FieldError> {
    let endpoints = match &wire.outside {
        None => Endpoints::Mesh(items("endpoints", &wire.endpoints, endpoint_from_wire)?),
        Some(outside) if wire.endpoints.is_empty() => {
            Endpoints::Outside(outside_from_wire(outside).map_err(|error| error.within("outside"))?)
        }
        Some(_) => return Err(FieldError::at("outside", "stands beside workloads of the mesh")),
    };
    Ok(EndpointSet {
        service: parse("service", &wire.service)?,
        endpoints,
        policies: by_port(items("policies", &wire.policies, policy_from_wire)?)
            .map_err(|error| FieldError::at("policies", error.why))?,
        faults: by_port(items("faults", &wire.faults, faults_from_wire)?)
            .map_err(|error| FieldError::at("faults", error.why))?,
        shadow: by_port(items("shadow", &wire.shadow, shadow_from_wire)?)
            .map_err(|error| FieldError::at("shadow", error.why))?,
    })
}

fn policy_to_wire((port, policy): (&u16, &Arc<TrafficPolicy>)) -> v1::PortPolicy {
    v1::PortPolicy {
        port: u32::from(*port),
        policy: Some(traffic_policy_to_wire(policy)),
    }
}

fn policy_from_wire(wire: &v1::PortPolicy) -> Result<(u16, Arc<TrafficPolicy>), FieldError> {
    let policy = wire.policy.as_ref();
    let policy = policy.ok_or_else(|| FieldError::at("policy", "is missing"))?;
    let policy = traffic_policy_from_wire(policy).map_err(|error| error.within("policy"))?;
    Ok((port_number(wire.port)?, Arc::new(policy)))
}

fn faults_to_wire((port, faults): (&u16, &Vec<Fault>)) -> v1::PortFaults {
    v1::PortFaults {
        port: u32::from(*port),
        faults: faults.iter().map(fault_to_wire).collect(),
    }
}

fn faults_from_wire(wire: &v1::PortFaults) -> Result<(u16, Vec<Fault>), FieldError> {
    let faults = items("faults", &wire.faults, fault_from_wire)?;
    Ok((port_number(wire.port)?, faults))
}

fn shadow_to_wire((port, shadow): (&u16, &PolicyShadow)) -> v1::PortShadow {
    v1::PortShadow {
        port: u32::from(*port),
        policies: Some(policy_shadow_to_wire(shadow)),
    }
}

fn shadow_from_wire(wire: &v1::PortShadow) -> Result<(u16, PolicyShadow), FieldError> {
    let policies = wire.policies.as_ref();
    let policies = policies.ok_or_else(|| FieldError::at("policies", "is missing"))?;
    let shadow = policy_shadow_from_wire(policies).map_err(|error| error.within("policies"))?;
    Ok((port_number(wire.port)?, shadow))
}

fn endpoint_to_wire(endpoint: &Arc<Endpoint>) -> v1::Endpoint {
    v1::Endpoint {
        workload_id: endpoint.workload.to_string(),
        address: endpoint.address.to_string(),
        spiffe_id: endpoint.identity.to_string(),
        labels: endpoint
            .labels
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    }
}

fn endpoint_from_wire(wire: &v1::Endpoint) -> Result<Arc<Endpoint>, FieldError> {
    let labels = wire
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Ok(Arc::new(Endpoint {
        workload: parse("workload_id", &wire.workload_id)?,
        address: address("address", &wire.address)?,
        identity: parse("spiffe_id", &wire.spiffe_id)?,
        labels: Labels::new(labels).map_err(|error| error.within("labels"))?,
    }))
}

fn outside_to_wire(ports: &BTreeMap<u16, OutsidePort>) -> v1::OutsideEndpoints {
    let port = |(number, port): (&u16, &OutsidePort)| v1::OutsidePort {
        port: u32::from(*number),
        protocol: protocol_to_wire(port.protocol),
        addresses: port.addresses.iter().map(ToString::to_string).collect(),
        tls: port.tls.as_deref().map(backend_tls_to_wire),
    };
    v1::OutsideEndpoints {
        ports: ports.iter().map(port).collect(),
    }
}

fn outside_from_wire(wire: &v1::OutsideEndpoints) -> Result<BTreeMap<u16, OutsidePort>, FieldError> {
    let outside = |text: &String| {
        let address = text.parse::<SocketAddr>();
        let address = address.map_err(|error| FieldError::new(format!("{text:?}: {error}")))?;
        outside_ip(address.ip())?;
        match address.port() {
            0 => Err(FieldError::new(format!("{address} has no port"))),
            _ => Ok(address),
        }
    };
    let read = items("ports", &wire.ports, |port| {
        let addresses = items("addresses", &port.addresses, outside)?;
        let tls = port.tls.as_ref().map(backend_tls_from_wire).transpose();
        Ok((
            port_number(port.port)?,
            OutsidePort {
                protocol: protocol_from_wire(port.protocol)?,
                addresses: addresses.into_iter().collect(),
                tls: tls.map_err(|error| error.within("tls"))?.map(Arc::new),
            },
        ))
    })?;
    by_port(read)
}
