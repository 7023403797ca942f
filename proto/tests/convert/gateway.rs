//! Gateways on the wire.

use std::net::Ipv4Addr;
use std::sync::Arc;

use model::gateway::{
    BackendTls, Certificate, ClientValidation, HttpRoutes, Listener, Serves, StreamRule, SubjectAltName,
    TlsTermination, Transport,
};
use model::route::Backend;
use model::{Gateway, Hostname};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proto::convert::resource_from_wire;
use proto::v1;

use crate::{rule, service, service_port};

#[test]
fn listeners_of_one_port_are_of_one_kind() {
    use v1::listener::Serves as Wire;
    let listener = |name: &str, port: u32, serves: Wire| v1::Listener {
        name: name.to_owned(),
        port,
        hostname: "*".to_owned(),
        serves: Some(serves),
        shadow: None,
    };
    let http = || Wire::Http(v1::HttpRoutes::default());
    let streams = v1::StreamRules::default;
    let read = |listeners: Vec<v1::Listener>| {
        resource_from_wire(v1::Resource {
            resource: Some(v1::resource::Resource::Gateway(v1::Gateway {
                name: "shop/edge".to_owned(),
                addresses: Vec::new(),
                client_certificate: None,
                listeners,
            })),
        })
    };
    let first = || listener("a", 80, http());
    for second in [
        listener("b", 80, http()),
        listener("b", 80, Wire::Udp(streams())),
        listener("b", 81, Wire::Tcp(streams())),
    ] {
        assert!(read(vec![first(), second]).is_ok());
    }
    let shadowed = |listener| v1::Listener {
        shadow: Some(v1::HttpRoutes::default()),
        ..listener
    };
    assert!(read(vec![shadowed(first())]).is_ok());
    for (field, second) in [
        ("listeners", listener("b", 80, Wire::Tcp(streams()))),
        (
            "listeners[1].shadow",
            shadowed(listener("b", 81, Wire::Tcp(streams()))),
        ),
        ("listeners", listener("a", 81, http())),
        (
            "listeners[1].https.tls",
            listener("b", 80, Wire::Https(v1::HttpsListener::default())),
        ),
        ("listeners[1].port", listener("b", 0, http())),
    ] {
        let error = read(vec![first(), second]).expect_err(field);
        assert!(error.path.to_string().starts_with(field), "{error}");
    }
}

/// Each listener on a port of its own, but for UDP, which may share that of another.
pub(crate) fn gateway() -> impl Strategy<Value = Gateway> {
    let addresses = vec(any::<u32>().prop_map(|ip| Ipv4Addr::from(ip).into()), 0..3);
    let listener = ("[a-z/]{0,9}", hostname(), serves(), option::of(http_routes()));
    let shown = option::of(certificate());
    (service(), addresses, shown, vec(listener, 0..5)).prop_map(|(name, addresses, shown, listeners)| {
        type Parts = (String, Hostname, Serves, Option<HttpRoutes>);
        let listener = |(place, (name, hostname, serves, shadow)): (u16, Parts)| Listener {
            name: format!("{place}{name}").into(),
            shadow: shadow.filter(|_| matches!(serves, Serves::Http(_) | Serves::Https(..))),
            port: match serves.transport() {
                Transport::Udp => 1,
                _ => place + 1,
            },
            hostname,
            serves,
        };
        Gateway {
            name,
            addresses,
            client_certificate: shown,
            listeners: (0..).zip(listeners).map(listener).collect(),
        }
    })
}

fn serves() -> impl Strategy<Value = Serves> {
    let rules = || vec(stream_rule(), 0..3);
    prop_oneof![
        http_routes().prop_map(Serves::Http),
        (termination(), http_routes()).prop_map(|(tls, routes)| Serves::Https(tls, routes)),
        (termination(), rules()).prop_map(|(tls, rules)| Serves::TlsTerminate(tls, rules)),
        rules().prop_map(Serves::TlsPassthrough),
        rules().prop_map(Serves::Tcp),
        rules().prop_map(Serves::Udp),
    ]
}

fn http_routes() -> impl Strategy<Value = HttpRoutes> {
    vec(rule(), 0..4).prop_flat_map(|rules| {
        let places = btree_set(0..rules.len().max(1), 0..=rules.len());
        let places = places.prop_map(|places| places.into_iter().collect());
        btree_map(hostname(), places, 0..4).prop_map(move |hosts| HttpRoutes {
            rules: rules.clone(),
            hosts,
        })
    })
}

pub(crate) fn stream_rule() -> impl Strategy<Value = StreamRule> {
    let backend = (option::of(service_port()), 0u32..1_000_001).prop_map(|(target, weight)| {
        Backend::new(target, "written/so:80", weight, Vec::new()).expect("within bounds")
    });
    ("[A-Za-z/#0-9]{0,20}", vec(hostname(), 1..4), vec(backend, 0..3)).prop_map(
        |(name, hostnames, backends)| StreamRule {
            name: name.into(),
            hostnames,
            backends,
        },
    )
}

fn hostname() -> impl Strategy<Value = Hostname> {
    let name = || "[a-z]([a-z0-9-]{0,5}[a-z0-9])?(\\.[a-z]{1,5}){0,2}";
    prop_oneof![
        Just(Hostname::Any),
        name().prop_map(|name| format!("*.{name}").parse().expect("a host name")),
        name().prop_map(|name| name.parse().expect("a host name")),
    ]
}

fn pem(tag: &'static str) -> impl Strategy<Value = String> {
    "[A-Za-z0-9+/]{0,40}"
        .prop_map(move |text| format!("-----BEGIN {tag}-----\n{text}\n-----END {tag}-----\n"))
}

fn certificate() -> impl Strategy<Value = Arc<Certificate>> {
    (pem("CERTIFICATE"), pem("EC PRIVATE KEY"))
        .prop_map(|(chain, key)| Arc::new(Certificate::new(chain, key).expect("PEM")))
}

fn termination() -> impl Strategy<Value = TlsTermination> {
    let clients = (pem("CERTIFICATE"), any::<bool>()).prop_map(|(authorities, optional)| ClientValidation {
        authorities,
        optional,
    });
    (vec(certificate(), 1..3), option::of(clients)).prop_map(|(certificates, clients)| TlsTermination {
        certificates,
        clients,
    })
}

pub(crate) fn backend_tls() -> impl Strategy<Value = BackendTls> {
    let exact = || hostname().prop_filter("one host", |name| *name != Hostname::Any);
    let name = prop_oneof![
        exact().prop_map(SubjectAltName::Hostname),
        "spiffe://[a-z]{1,5}/[a-z]{0,5}".prop_map(SubjectAltName::Uri),
    ];
    (exact(), option::of(pem("CERTIFICATE")), vec(name, 0..3)).prop_map(|(hostname, authorities, names)| {
        BackendTls {
            hostname,
            authorities,
            names,
        }
    })
}
