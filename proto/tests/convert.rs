//! Wire and model, judged from outside: what the model says survives the wire, and no bytes do harm.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use model::endpoint::{Endpoint, EndpointSet, Endpoints, OutsidePort};
use model::pattern::{Regex, ValuePattern};
use model::resilience::{RetryPolicy, Timeouts};
use model::route::{Backend, PathMatch, RequestMatch, Rule};
use model::service::{AppProtocol, Destination, DestinationPort};
use model::snapshot::{Inbound, Owner, Resource, ServedPort};
use model::{Labels, OutsideHosts, ServiceName, ServicePort, SpiffeId};
use proptest::collection::{btree_map, btree_set, hash_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use proto::convert::{resource_from_wire, resource_to_wire, workload_from_wire};
use proto::{encoded, v1};

use self::filters::{filters, session};

#[path = "convert/filters.rs"]
mod filters;

#[path = "convert/gateway.rs"]
mod gateway;

fn owner() -> impl Strategy<Value = Owner> {
    (address(), service_port(), protocol()).prop_map(|(address, target, protocol)| Owner {
        address,
        workload: "echo-1".parse().expect("an id"),
        target,
        protocol,
    })
}

/// Makes a valid message wrong in one place.
type Spoil<T> = fn(&mut T);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_resource_survives_the_wire(resource in resource()) {
        let bytes = resource_to_wire(&resource).encode_to_vec();
        let read = v1::Resource::decode(bytes.as_slice()).expect("what was encoded");
        prop_assert_eq!(resource_from_wire(read), Ok(resource));
    }

    #[test]
    fn equal_content_has_equal_bytes(resource in resource()) {
        // Another map of the same content iterates in another order.
        let again = match &resource {
            Resource::Inbound(inbound) => {
                let served = inbound.served.iter().map(|(name, port)| (name.clone(), port.clone())).collect();
                Resource::Inbound(Inbound { served, outside: inbound.outside })
            }
            other => other.clone(),
        };
        prop_assert_eq!(resource_to_wire(&resource).encode_to_vec(), resource_to_wire(&again).encode_to_vec());
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(resource) = v1::Resource::decode(bytes.as_slice()) {
            let _ = resource_from_wire(resource);
        }
        if let Ok(hello) = v1::Hello::decode(bytes.as_slice()) {
            let _ = workload_from_wire(&hello, &identity());
        }
    }

    #[test]
    fn a_changed_byte_is_read_without_panic(
        resource in resource(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = resource_to_wire(&resource).encode_to_vec();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        if let Ok(wire) = v1::Resource::decode(bytes.as_slice()) {
            let _ = resource_from_wire(wire);
        }
    }

    #[test]
    fn an_encoded_update_is_the_same_on_the_wire(resource in resource(), nonce in any::<u64>()) {
        let wire = resource_to_wire(&resource);
        let (name, version) = (resource.name().to_string(), "v".to_owned());
        let update = encoded::Update {
            nonce,
            generation: 7,
            changed: vec![encoded::VersionedResource {
                name: name.clone(),
                version: version.clone(),
                resource: wire.encode_to_vec().into(),
            }],
            removed: vec!["inbound".to_owned()],
        };
        let expected = v1::Update {
            nonce,
            generation: 7,
            changed: vec![v1::VersionedResource { name, version, resource: Some(wire) }],
            removed: vec!["inbound".to_owned()],
        };
        prop_assert_eq!(v1::Update::decode(update.encode_to_vec().as_slice()), Ok(expected));
    }
}

#[test]
fn an_error_names_the_field() {
    let bad: [(&str, Spoil<v1::Destination>); 8] = [
        ("service", |d| d.service = "Shop/x".to_owned()),
        ("ports[0].port", |d| d.ports[0].port = 70_000),
        ("ports[0].protocol", |d| d.ports[0].protocol = 99),
        ("ports[0].rules[0].matches[1].path.regex", |d| {
            d.ports[0].rules[0].matches[1].path = Some(v1::PathMatch {
                path: Some(v1::path_match::Path::Regex("(".to_owned())),
            });
        }),
        ("ports[0].rules[0].matches", |d| {
            d.ports[0].rules[0].matches.clear()
        }),
        ("ports[0].rules[0].retry.attempts", |d| {
            d.ports[0].rules[0].retry = Some(v1::RetryPolicy {
                attempts: 300,
                ..Default::default()
            });
        }),
        ("ports[0].rules[0].backends[0].weight", |d| {
            d.ports[0].rules[0].backends[0].weight = 2_000_000;
        }),
        ("ports[1].port", |d| d.ports.push(d.ports[0].clone())),
    ];
    for (field, spoil) in bad {
        let mut wire = destination();
        spoil(&mut wire);
        let error = read(wire).expect_err(field);
        assert_eq!(error.path.to_string(), field, "{error}");
    }
    assert!(read(destination()).is_ok());
}

#[test]
fn a_hello_is_bounded() {
    let hello = || v1::Hello {
        workload_id: "checkout-1".to_owned(),
        inbound: "10.0.0.1:15008".to_owned(),
        app_ports: vec![v1::AppPort {
            name: String::new(),
            address: "127.0.0.1:8080".to_owned(),
        }],
        ..Default::default()
    };
    assert!(workload_from_wire(&hello(), &identity()).is_ok());
    let bad: [(&str, Spoil<v1::Hello>); 7] = [
        ("workload_id", |h| h.workload_id = "a b".to_owned()),
        ("inbound", |h| h.inbound = "0.0.0.0:15008".to_owned()),
        ("inbound", |h| h.inbound = "10.0.0.1:0".to_owned()),
        ("app_ports[0].address", |h| {
            h.app_ports[0].address = "localhost:80".to_owned()
        }),
        ("app_ports[0].name", |h| h.app_ports[0].name = "n".repeat(64)),
        ("app_ports", |h| h.app_ports = vec![h.app_ports[0].clone(); 65]),
        ("labels", |h| {
            h.labels = (0..65).map(|n| (n.to_string(), String::new())).collect();
        }),
    ];
    for (field, spoil) in bad {
        let mut wire = hello();
        spoil(&mut wire);
        let error = workload_from_wire(&wire, &identity()).expect_err(field);
        assert_eq!(error.path.to_string(), field, "{error}");
    }
}

#[test]
fn a_workload_is_never_read_as_an_address_outside_the_mesh() {
    let mut set = v1::EndpointSet {
        service: "shop/checkout".to_owned(),
        endpoints: vec![v1::Endpoint {
            workload_id: "checkout-1".to_owned(),
            address: "10.0.0.1:15008".to_owned(),
            spiffe_id: identity().to_string(),
            ..Default::default()
        }],
        outside: None,
        policies: Vec::new(),
        faults: Vec::new(),
        shadow: Vec::new(),
    };
    let read = |set: &v1::EndpointSet| {
        resource_from_wire(v1::Resource {
            resource: Some(v1::resource::Resource::Endpoints(set.clone())),
        })
    };
    assert!(matches!(
        read(&set),
        Ok(Resource::Endpoints(EndpointSet { endpoints: Endpoints::Mesh(workloads), .. })) if workloads.len() == 1
    ));
    set.outside = Some(outside("10.0.0.1:80"));
    assert_eq!(read(&set).expect_err("both").path.to_string(), "outside");
    set.outside = None;
    set.endpoints[0].spiffe_id.clear();
    let error = read(&set).expect_err("an identity is missing");
    assert_eq!(error.path.to_string(), "endpoints[0].spiffe_id");
}

#[test]
fn an_outside_address_is_that_of_a_host() {
    let bad: [(&str, Spoil<v1::OutsideEndpoints>); 10] = [
        ("outside.ports[0].port", |o| o.ports[0].port = 0),
        ("outside.ports[0].protocol", |o| o.ports[0].protocol = 0),
        ("outside.ports[1].port", |o| o.ports.push(o.ports[0].clone())),
        ("outside.ports[0].addresses[0]", |o| *o = outside("db.example:80")),
        ("outside.ports[0].addresses[0]", |o| *o = outside("10.0.0.1:0")),
        ("outside.ports[0].addresses[0]", |o| *o = outside("0.0.0.0:80")),
        ("outside.ports[0].addresses[0]", |o| *o = outside("[ff02::1]:80")),
        ("outside.ports[0].addresses[0]", |o| {
            *o = outside("169.254.169.254:80")
        }),
        ("outside.ports[0].addresses[0]", |o| {
            *o = outside("255.255.255.255:80")
        }),
        ("outside.ports[0].addresses[0]", |o| {
            *o = outside("[::ffff:10.0.0.1]:80")
        }),
    ];
    let read = |outside| {
        resource_from_wire(v1::Resource {
            resource: Some(v1::resource::Resource::Endpoints(v1::EndpointSet {
                service: "shop/db".to_owned(),
                endpoints: Vec::new(),
                outside: Some(outside),
                policies: Vec::new(),
                faults: Vec::new(),
                shadow: Vec::new(),
            })),
        })
    };
    for (field, spoil) in bad {
        let mut wire = outside("127.0.0.1:80");
        assert!(read(wire.clone()).is_ok());
        spoil(&mut wire);
        let error = read(wire).expect_err(field);
        assert_eq!(error.path.to_string(), field, "{error}");
    }
}

fn outside(address: &str) -> v1::OutsideEndpoints {
    v1::OutsideEndpoints {
        ports: vec![v1::OutsidePort {
            port: 80,
            protocol: v1::AppProtocol::Detect.into(),
            addresses: vec![address.to_owned()],
            tls: None,
        }],
    }
}

fn read(destination: v1::Destination) -> Result<Resource, model::FieldError> {
    resource_from_wire(v1::Resource {
        resource: Some(v1::resource::Resource::Destination(destination)),
    })
}

fn destination() -> v1::Destination {
    let wanted = v1::RequestMatch {
        path: Some(v1::PathMatch {
            path: Some(v1::path_match::Path::Prefix("/".to_owned())),
        }),
        ..Default::default()
    };
    v1::Destination {
        service: "shop/checkout".to_owned(),
        ports: vec![v1::DestinationPort {
            port: 80,
            protocol: v1::AppProtocol::Http.into(),
            streams: Vec::new(),
            shadow: None,
            rules: vec![v1::Rule {
                name: "HTTPRoute/shop/checkout#0".to_owned(),
                matches: vec![wanted.clone(), wanted],
                backends: vec![v1::Backend {
                    target: "shop/checkout:80".to_owned(),
                    reference: "shop/checkout:80".to_owned(),
                    weight: 1,
                    filters: Vec::new(),
                }],
                ..Default::default()
            }],
        }],
    }
}

fn identity() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/checkout"
        .parse()
        .expect("valid")
}

fn service() -> impl Strategy<Value = ServiceName> {
    "[a-z]{1,8}/[a-z]{1,8}".prop_map(|text| text.parse().expect("valid"))
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    (service(), 1u16..).prop_map(|(service, port)| service.port(port))
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (1u32.., 1u16..).prop_map(|(ip, port)| SocketAddr::from((Ipv4Addr::from(ip), port)))
}

/// Within 10.0.0.0/8 or fd00::/8.
fn outside_address() -> impl Strategy<Value = SocketAddr> {
    let v4 = (0u32..1 << 24, 1u16..).prop_map(|(ip, port)| (Ipv4Addr::from((10 << 24) | ip), port).into());
    let v6 =
        (0u128..1 << 120, 1u16..).prop_map(|(ip, port)| (Ipv6Addr::from((0xfd << 120) | ip), port).into());
    prop_oneof![v4, v6]
}

fn protocol() -> impl Strategy<Value = AppProtocol> {
    prop::sample::select(vec![
        AppProtocol::Detect,
        AppProtocol::Http,
        AppProtocol::Http2,
        AppProtocol::Tcp,
    ])
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map("[a-z./]{1,9}", "[a-z0-9]{0,9}", 0..4).prop_map(|labels| Labels::new(labels).expect("few"))
}

fn resource() -> impl Strategy<Value = Resource> {
    let outside = prop_oneof![Just(OutsideHosts::Allow), Just(OutsideHosts::Deny)];
    let served = hash_map(
        service_port(),
        (address(), protocol()).prop_map(|(app, protocol)| ServedPort { app, protocol }),
        0..5,
    );
    let inbound = (served, outside).prop_map(|(served, outside)| {
        let served = served.into_iter().collect();
        Resource::Inbound(Inbound { served, outside })
    });
    let shadow = proptest::option::of(vec(rule(), 0..3));
    let streams = vec(gateway::stream_rule(), 0..3);
    let port =
        (protocol(), vec(rule(), 0..3), shadow, streams).prop_map(|(protocol, rules, shadow, streams)| {
            DestinationPort {
                protocol,
                rules,
                shadow,
                streams,
            }
        });
    let destination = (service(), btree_map(1u16.., port, 0..3))
        .prop_map(|(service, ports)| Resource::Destination(Destination { service, ports }));
    let endpoint = ("[a-z0-9._-]{1,12}", address(), labels()).prop_map(|(id, address, labels)| {
        Arc::new(Endpoint {
            workload: id.parse().expect("valid"),
            address,
            identity: identity(),
            labels,
        })
    });
    let outside = (
        protocol(),
        btree_set(outside_address(), 0..4),
        option::of(gateway::backend_tls().prop_map(Arc::new)),
    )
        .prop_map(|(protocol, addresses, tls)| OutsidePort {
            protocol,
            addresses,
            tls,
        });
    let reached = prop_oneof![
        vec(endpoint, 0..4).prop_map(Endpoints::Mesh),
        btree_map(1u16.., outside, 0..3).prop_map(Endpoints::Outside),
    ];
    let endpoints = (service(), reached).prop_map(|(service, endpoints)| {
        Resource::Endpoints(EndpointSet {
            service,
            endpoints,
            policies: BTreeMap::new(),
            faults: BTreeMap::new(),
            shadow: BTreeMap::new(),
        })
    });
    prop_oneof![
        inbound,
        destination,
        endpoints,
        gateway::gateway().prop_map(Resource::Gateway),
        owner().prop_map(Resource::Address)
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let timeouts = (option::of(0u64..100_000), option::of(0u64..100_000)).prop_map(|(one, other)| {
        let millis = |ms: Option<u64>| ms.map(Duration::from_millis);
        let (request, backend) = match (one, other) {
            (Some(one), Some(other)) => (Some(one.max(other)), Some(one.min(other))),
            either => either,
        };
        Timeouts::new(millis(request), millis(backend)).expect("in order")
    });
    let retry = (
        prop::collection::btree_set(400u16..600, 0..4),
        0u8..21,
        0u64..60_001,
        prop::collection::btree_set(1u8..17, 0..4),
    );
    let retry = retry.prop_map(
        |(codes, attempts, backoff, grpc): (BTreeSet<u16>, u8, u64, BTreeSet<u8>)| {
            let policy = RetryPolicy::new(codes, attempts, Duration::from_millis(backoff));
            policy
                .and_then(|policy| policy.with_grpc_codes(grpc))
                .expect("within bounds")
        },
    );
    let backend = (option::of(service_port()), 0u32..1_000_001, filters());
    let backend = backend.prop_map(|(target, weight, filters)| {
        Backend::new(target, "written/so:80", weight, filters).expect("within bounds")
    });
    (
        "[A-Za-z/#0-9]{0,20}",
        vec(wanted(), 1..3),
        filters(),
        vec(backend, 0..3),
        timeouts,
        option::of(retry),
        option::of(session()),
    )
        .prop_map(
            |(name, matches, filters, backends, timeouts, retry, session)| Rule {
                name: name.into(),
                matches,
                filters,
                backends,
                timeouts,
                retry,
                session,
                policy: None,
                faults: Vec::new(),
                shadow: None,
            },
        )
}

fn wanted() -> impl Strategy<Value = RequestMatch> {
    let path = prop_oneof![
        "(/[a-z]{1,5}){1,3}".prop_map(|path| PathMatch::exact(&path).expect("a path")),
        "(/[a-z]{1,5}){0,3}/?".prop_map(|path| PathMatch::prefix(&format!(
            "/{}",
            path.trim_start_matches('/')
        ))
        .expect("a path")),
        "[a-z.*]{0,1}[a-z]{0,5}"
            .prop_map(|source| PathMatch::regex(source.trim_start_matches('*')).expect("regex")),
    ];
    let method = prop::sample::select(vec![Method::GET, Method::POST, Method::DELETE]);
    (
        path,
        option::of(method),
        vec((header_name(), pattern()), 0..3),
        vec(("[a-zA-Z0-9 ]{1,9}", pattern()), 0..3),
        any::<bool>(),
    )
        .prop_map(|(path, method, headers, query, grpc_only)| RequestMatch {
            path,
            method,
            headers,
            query,
            grpc_only,
        })
}

fn pattern() -> impl Strategy<Value = ValuePattern> {
    prop_oneof![
        ".{0,12}".prop_map(ValuePattern::Exact),
        "[a-z]{0,5}".prop_map(|source| ValuePattern::Regex(Regex::new(&source).expect("regex"))),
    ]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    "x-[a-z]{1,8}".prop_map(|name| name.parse().expect("a token"))
}
