//! The only conversion between wire and model. What comes off the wire is hostile: every bound is checked again by
//! the model's own constructors, and an error names the field.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use model::endpoint::{Endpoint, EndpointSet, Endpoints, OutsidePort, outside_ip};
use model::filter::{Filter, HeaderModifier};
use model::pattern::{Regex, ValuePattern};
use model::resilience::{RetryPolicy, Timeouts};
use model::route::{Backend, PathMatch, RequestMatch, Rule};
use model::service::{AppProtocol, Destination, DestinationPort};
use model::snapshot::{Inbound, Resource, ServedPort};
use model::workload::{AppPort, Workload};
use model::{FieldError, Labels, ServicePort, SpiffeId};

use crate::v1;

/// A resource as it is sent.
pub fn resource_to_wire(resource: &Resource) -> v1::Resource {
    use v1::resource::Resource as Wire;
    let resource = match resource {
        Resource::Inbound(inbound) => Wire::Inbound(inbound_to_wire(inbound)),
        Resource::Destination(destination) => Wire::Destination(destination_to_wire(destination)),
        Resource::Endpoints(set) => Wire::Endpoints(endpoints_to_wire(set)),
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
    }
}

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
    let inbound = address("inbound", &hello.inbound)?;
    Ok(Workload {
        id: parse("workload_id", &hello.workload_id)?,
        identity: identity.clone(),
        labels: Labels::new(labels).map_err(|error| error.within("labels"))?,
        inbound,
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

fn inbound_to_wire(inbound: &Inbound) -> v1::Inbound {
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
    v1::Inbound { served }
}

fn inbound_from_wire(wire: v1::Inbound) -> Result<Inbound, FieldError> {
    let ports = items("served", &wire.served, |port| {
        let served = ServedPort {
            app: socket("app", &port.app)?,
            protocol: protocol_from_wire(port.protocol)?,
        };
        Ok((parse::<ServicePort>("service_port", &port.service_port)?, served))
    })?;
    let mut served = HashMap::with_capacity(ports.len());
    for (index, (name, port)) in ports.into_iter().enumerate() {
        let again = || FieldError::at("service_port", format!("{name} is there more than once"));
        if served.contains_key(&name) {
            return Err(again().within_item(index).within("served"));
        }
        served.insert(name, port);
    }
    Ok(Inbound { served })
}

fn protocol_to_wire(protocol: AppProtocol) -> i32 {
    let wire = match protocol {
        AppProtocol::Detect => v1::AppProtocol::Detect,
        AppProtocol::Http => v1::AppProtocol::Http,
        AppProtocol::Http2 => v1::AppProtocol::Http2,
        AppProtocol::Tcp => v1::AppProtocol::Tcp,
    };
    wire.into()
}

fn protocol_from_wire(wire: i32) -> Result<AppProtocol, FieldError> {
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

fn destination_to_wire(destination: &Destination) -> v1::Destination {
    let port = |(number, port): (&u16, &DestinationPort)| v1::DestinationPort {
        port: u32::from(*number),
        protocol: protocol_to_wire(port.protocol),
        rules: port.rules.iter().map(rule_to_wire).collect(),
    };
    v1::Destination {
        service: destination.service.to_string(),
        ports: destination.ports.iter().map(port).collect(),
    }
}

fn destination_from_wire(wire: v1::Destination) -> Result<Destination, FieldError> {
    let service = parse("service", &wire.service)?;
    let read = items("ports", &wire.ports, |port| {
        let number = port_number(port.port)?;
        let rules = items("rules", &port.rules, rule_from_wire)?;
        Ok((
            number,
            DestinationPort {
                protocol: protocol_from_wire(port.protocol)?,
                rules,
            },
        ))
    })?;
    let ports = by_port(read)?;
    Ok(Destination { service, ports })
}

fn rule_to_wire(rule: &Rule) -> v1::Rule {
    let millis = |time: Option<Duration>| time.map_or(0, millis);
    v1::Rule {
        name: rule.name.to_string(),
        matches: rule.matches.iter().map(match_to_wire).collect(),
        filters: rule.filters.iter().map(filter_to_wire).collect(),
        backends: rule.backends.iter().map(backend_to_wire).collect(),
        request_timeout_ms: millis(rule.timeouts.request),
        backend_request_timeout_ms: millis(rule.timeouts.backend_request),
        retry: rule.retry.as_ref().map(retry_to_wire),
    }
}

fn rule_from_wire(wire: &v1::Rule) -> Result<Rule, FieldError> {
    if wire.matches.is_empty() {
        return Err(FieldError::at(
            "matches",
            "is empty: everything is one match of the prefix \"/\"",
        ));
    }
    let time = |ms: u64| Some(Duration::from_millis(ms));
    Ok(Rule {
        name: wire.name.as_str().into(),
        matches: items("matches", &wire.matches, match_from_wire)?,
        filters: items("filters", &wire.filters, filter_from_wire)?,
        backends: items("backends", &wire.backends, backend_from_wire)?,
        // Its error is in the words of the configuration: here the field has another name.
        timeouts: Timeouts::new(
            time(wire.request_timeout_ms),
            time(wire.backend_request_timeout_ms),
        )
        .map_err(|error| FieldError::at("backend_request_timeout_ms", error.why))?,
        retry: match &wire.retry {
            Some(retry) => Some(retry_from_wire(retry).map_err(|error| error.within("retry"))?),
            None => None,
        },
    })
}

fn match_to_wire(wanted: &RequestMatch) -> v1::RequestMatch {
    use v1::path_match::Path;
    let path = match &wanted.path {
        PathMatch::Exact(path) => Path::Exact(path.clone()),
        PathMatch::Prefix(path) => Path::Prefix(path.clone()),
        PathMatch::Regex(regex) => Path::Regex(regex.source().to_owned()),
    };
    v1::RequestMatch {
        path: Some(v1::PathMatch { path: Some(path) }),
        method: wanted
            .method
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        headers: wanted
            .headers
            .iter()
            .map(|(name, pattern)| value_to_wire(name.as_str(), pattern))
            .collect(),
        query: wanted
            .query
            .iter()
            .map(|(name, pattern)| value_to_wire(name, pattern))
            .collect(),
        grpc_only: wanted.grpc_only,
    }
}

fn match_from_wire(wire: &v1::RequestMatch) -> Result<RequestMatch, FieldError> {
    use v1::path_match::Path;
    let path = match wire.path.as_ref().and_then(|path| path.path.as_ref()) {
        Some(Path::Exact(path)) => PathMatch::exact(path).map_err(|error| error.within("exact")),
        Some(Path::Prefix(path)) => PathMatch::prefix(path).map_err(|error| error.within("prefix")),
        Some(Path::Regex(regex)) => PathMatch::regex(regex).map_err(|error| error.within("regex")),
        None => Err(FieldError::new("is missing")),
    };
    Ok(RequestMatch {
        path: path.map_err(|error| error.within("path"))?,
        method: match wire.method.as_str() {
            "" => None,
            method => Some(parse::<Method>("method", method)?),
        },
        headers: items("headers", &wire.headers, |header| {
            Ok((
                parse::<HeaderName>("name", &header.name)?,
                value_from_wire(header)?,
            ))
        })?,
        query: items("query", &wire.query, |query| {
            Ok((query.name.clone(), value_from_wire(query)?))
        })?,
        grpc_only: wire.grpc_only,
    })
}

fn value_to_wire(name: &str, pattern: &ValuePattern) -> v1::ValueMatch {
    use v1::value_match::Pattern;
    let pattern = match pattern {
        ValuePattern::Exact(text) => Pattern::Exact(text.clone()),
        ValuePattern::Regex(regex) => Pattern::Regex(regex.source().to_owned()),
    };
    v1::ValueMatch {
        name: name.to_owned(),
        pattern: Some(pattern),
    }
}

fn value_from_wire(wire: &v1::ValueMatch) -> Result<ValuePattern, FieldError> {
    use v1::value_match::Pattern;
    match &wire.pattern {
        Some(Pattern::Exact(text)) => Ok(ValuePattern::Exact(text.clone())),
        Some(Pattern::Regex(regex)) => Regex::new(regex)
            .map(ValuePattern::Regex)
            .map_err(|error| error.within("regex")),
        None => Err(FieldError::at("pattern", "is missing")),
    }
}

fn filter_to_wire(filter: &Filter) -> v1::Filter {
    use v1::filter::Filter as Wire;
    let filter = match filter {
        Filter::RequestHeaders(modifier) => Wire::RequestHeaders(modifier_to_wire(modifier)),
        Filter::ResponseHeaders(modifier) => Wire::ResponseHeaders(modifier_to_wire(modifier)),
    };
    v1::Filter { filter: Some(filter) }
}

fn filter_from_wire(wire: &v1::Filter) -> Result<Filter, FieldError> {
    use v1::filter::Filter as Wire;
    let within = |field: &'static str| move |error: FieldError| error.within(field);
    match &wire.filter {
        Some(Wire::RequestHeaders(modifier)) => modifier_from_wire(modifier)
            .map(Filter::RequestHeaders)
            .map_err(within("request_headers")),
        Some(Wire::ResponseHeaders(modifier)) => modifier_from_wire(modifier)
            .map(Filter::ResponseHeaders)
            .map_err(within("response_headers")),
        None => Err(FieldError::new("is no kind of filter that this version knows")),
    }
}

fn modifier_to_wire(modifier: &HeaderModifier) -> v1::HeaderModifier {
    let field = |(name, value): &(HeaderName, HeaderValue)| v1::HeaderField {
        name: name.to_string(),
        value: value.as_bytes().to_vec(),
    };
    v1::HeaderModifier {
        remove: modifier.remove.iter().map(ToString::to_string).collect(),
        set: modifier.set.iter().map(field).collect(),
        add: modifier.add.iter().map(field).collect(),
    }
}

fn modifier_from_wire(wire: &v1::HeaderModifier) -> Result<HeaderModifier, FieldError> {
    let field = |field: &v1::HeaderField| {
        let value = HeaderValue::from_bytes(&field.value);
        let value = value.map_err(|_| FieldError::at("value", "is not a field value"))?;
        Ok((parse::<HeaderName>("name", &field.name)?, value))
    };
    let remove = |name: &String| {
        HeaderName::from_str(name).map_err(|_| FieldError::new(format!("{name:?} is not a field name")))
    };
    HeaderModifier::new(
        items("remove", &wire.remove, remove)?,
        items("set", &wire.set, field)?,
        items("add", &wire.add, field)?,
    )
}

fn backend_to_wire(backend: &Backend) -> v1::Backend {
    v1::Backend {
        target: backend
            .target
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        reference: backend.reference.to_string(),
        weight: backend.weight,
        filters: backend.filters.iter().map(filter_to_wire).collect(),
    }
}

fn backend_from_wire(wire: &v1::Backend) -> Result<Backend, FieldError> {
    let target = match wire.target.as_str() {
        "" => None,
        target => Some(parse("target", target)?),
    };
    Backend::new(
        target,
        &wire.reference,
        wire.weight,
        items("filters", &wire.filters, filter_from_wire)?,
    )
}

fn retry_to_wire(retry: &RetryPolicy) -> v1::RetryPolicy {
    v1::RetryPolicy {
        codes: retry.codes.iter().copied().map(u32::from).collect(),
        attempts: u32::from(retry.attempts),
        backoff_ms: millis(retry.backoff),
    }
}

fn retry_from_wire(wire: &v1::RetryPolicy) -> Result<RetryPolicy, FieldError> {
    let codes: BTreeSet<u16> = items("codes", &wire.codes, |code| {
        u16::try_from(*code).map_err(|_| FieldError::new(format!("{code} is not a status")))
    })?
    .into_iter()
    .collect();
    let attempts = u8::try_from(wire.attempts).map_err(|_| {
        FieldError::at(
            "attempts",
            format!("{} is over {}", wire.attempts, RetryPolicy::MAX_ATTEMPTS),
        )
    })?;
    RetryPolicy::new(codes, attempts, Duration::from_millis(wire.backoff_ms))
}

fn endpoints_to_wire(set: &EndpointSet) -> v1::EndpointSet {
    let (endpoints, outside) = match &set.endpoints {
        Endpoints::Mesh(workloads) => (workloads.iter().map(endpoint_to_wire).collect(), None),
        Endpoints::Outside(ports) => (Vec::new(), Some(outside_to_wire(ports))),
    };
    v1::EndpointSet {
        service: set.service.to_string(),
        endpoints,
        outside,
    }
}

fn endpoints_from_wire(wire: v1::EndpointSet) -> Result<EndpointSet, FieldError> {
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
    })
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
        Ok((
            port_number(port.port)?,
            OutsidePort {
                protocol: protocol_from_wire(port.protocol)?,
                addresses: addresses.into_iter().collect(),
            },
        ))
    })?;
    by_port(read)
}

/// Each port once.
fn by_port<T>(read: Vec<(u16, T)>) -> Result<BTreeMap<u16, T>, FieldError> {
    let mut ports = BTreeMap::new();
    for (index, (number, port)) in read.into_iter().enumerate() {
        if ports.insert(number, port).is_some() {
            let again = FieldError::at("port", format!("{number} is there more than once"));
            return Err(again.within_item(index).within("ports"));
        }
    }
    Ok(ports)
}

fn port_number(wire: u32) -> Result<u16, FieldError> {
    let number = u16::try_from(wire).ok().filter(|number| *number != 0);
    number.ok_or_else(|| FieldError::at("port", format!("{wire} is no port")))
}

/// Converts every item of a list; an error says which one.
fn items<W, T>(
    field: &str,
    wire: &[W],
    convert: impl Fn(&W) -> Result<T, FieldError>,
) -> Result<Vec<T>, FieldError> {
    let item = |(index, item)| convert(item).map_err(|error| error.within_item(index).within(field));
    wire.iter().enumerate().map(item).collect()
}

fn parse<T: FromStr>(field: &str, text: &str) -> Result<T, FieldError>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| FieldError::at(field, format!("{text:?}: {error}")))
}

/// An address that other machines can send to.
fn address(field: &str, text: &str) -> Result<SocketAddr, FieldError> {
    let address = socket(field, text)?;
    if address.ip().is_unspecified() {
        let why = format!("{address} is not an address others can reach");
        return Err(FieldError::at(field, why));
    }
    Ok(address)
}

fn socket(field: &str, text: &str) -> Result<SocketAddr, FieldError> {
    let address: SocketAddr = parse(field, text)?;
    if address.port() == 0 {
        return Err(FieldError::at(field, format!("{address} has no port")));
    }
    Ok(address)
}

/// Rounded up, since 0 is "no limit".
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
