//! What a gateway serves: listeners, their TLS and their routes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::gateway::{
    BackendTls, Certificate, ClientValidation, Gateway, HttpRoutes, Listener, Serves, StreamRule,
    SubjectAltName, TlsTermination, Transport,
};
use model::{FieldError, ServiceName};

use super::read::{items, parse, port_number};
use super::route::{rule_from_wire, rule_to_wire};
use super::stream::{hostname, stream_rule_from_wire, stream_rule_to_wire};
use crate::v1;

pub(super) fn gateway_to_wire(gateway: &Gateway) -> v1::Gateway {
    v1::Gateway {
        name: gateway.name.to_string(),
        addresses: gateway.addresses.iter().map(ToString::to_string).collect(),
        listeners: gateway.listeners.iter().map(listener_to_wire).collect(),
        client_certificate: gateway.client_certificate.as_deref().map(certificate_to_wire),
    }
}

pub(super) fn gateway_from_wire(wire: v1::Gateway) -> Result<Gateway, FieldError> {
    let listeners = items("listeners", &wire.listeners, listener_from_wire)?;
    let (mut names, mut transports) = (BTreeSet::new(), BTreeMap::new());
    for (index, listener) in listeners.iter().enumerate() {
        let refused = |why: String| FieldError::new(why).within_item(index).within("listeners");
        if !names.insert(listener.name.clone()) {
            return Err(refused(format!("{} is there more than once", listener.name)));
        }
        let transport = listener.serves.transport();
        let socket = (listener.port, transport == Transport::Udp);
        if *transports.entry(socket).or_insert(transport) != transport {
            let why = format!("port {} is shared by listeners of two kinds", listener.port);
            return Err(refused(why));
        }
    }
    Ok(Gateway {
        name: parse::<ServiceName>("name", &wire.name)?,
        addresses: items("addresses", &wire.addresses, |text| {
            text.parse()
                .map_err(|error| FieldError::new(format!("{text:?}: {error}")))
        })?,
        client_certificate: wire
            .client_certificate
            .as_ref()
            .map(certificate_from_wire)
            .transpose()
            .map_err(|error| error.within("client_certificate"))?,
        listeners,
    })
}

fn listener_to_wire(listener: &Listener) -> v1::Listener {
    use v1::listener::Serves as Wire;
    let serves = match &listener.serves {
        Serves::Http(routes) => Wire::Http(routes_to_wire(routes)),
        Serves::Https(tls, routes) => Wire::Https(v1::HttpsListener {
            tls: Some(termination_to_wire(tls)),
            routes: Some(routes_to_wire(routes)),
        }),
        Serves::TlsTerminate(tls, rules) => Wire::TlsTerminate(v1::TlsListener {
            tls: Some(termination_to_wire(tls)),
            routes: Some(streams_to_wire(rules)),
        }),
        Serves::TlsPassthrough(rules) => Wire::TlsPassthrough(streams_to_wire(rules)),
        Serves::Tcp(rules) => Wire::Tcp(streams_to_wire(rules)),
        Serves::Udp(rules) => Wire::Udp(streams_to_wire(rules)),
    };
    v1::Listener {
        name: listener.name.to_string(),
        port: u32::from(listener.port),
        hostname: listener.hostname.to_string(),
        serves: Some(serves),
        shadow: listener.shadow.as_ref().map(routes_to_wire),
    }
}

fn listener_from_wire(wire: &v1::Listener) -> Result<Listener, FieldError> {
    use v1::listener::Serves as Wire;
    let within = |field: &'static str| move |error: FieldError| error.within(field);
    let serves = match &wire.serves {
        Some(Wire::Http(routes)) => routes_from_wire(routes).map(Serves::Http).map_err(within("http")),
        Some(Wire::Https(https)) => tls_and(https.tls.as_ref(), https.routes.as_ref(), routes_from_wire)
            .map(|(tls, routes)| Serves::Https(tls, routes))
            .map_err(within("https")),
        Some(Wire::TlsTerminate(tls)) => tls_and(tls.tls.as_ref(), tls.routes.as_ref(), streams_from_wire)
            .map(|(tls, rules)| Serves::TlsTerminate(tls, rules))
            .map_err(within("tls_terminate")),
        Some(Wire::TlsPassthrough(rules)) => streams_from_wire(rules)
            .map(Serves::TlsPassthrough)
            .map_err(within("tls_passthrough")),
        Some(Wire::Tcp(rules)) => streams_from_wire(rules).map(Serves::Tcp).map_err(within("tcp")),
        Some(Wire::Udp(rules)) => streams_from_wire(rules).map(Serves::Udp).map_err(within("udp")),
        None => Err(FieldError::new("serves nothing that this version knows")),
    };
    let serves = serves?;
    let shadow = wire.shadow.as_ref().map(routes_from_wire).transpose();
    let shadow = shadow.map_err(within("shadow"))?;
    if shadow.is_some() && !matches!(serves, Serves::Http(_) | Serves::Https(..)) {
        return Err(FieldError::at("shadow", "is beside something that is not HTTP"));
    }
    Ok(Listener {
        name: wire.name.as_str().into(),
        port: port_number(wire.port)?,
        hostname: hostname(&wire.hostname).map_err(within("hostname"))?,
        serves,
        shadow,
    })
}

/// What ends TLS, and what is served within it.
fn tls_and<W, T>(
    tls: Option<&v1::TlsTermination>,
    routes: Option<&W>,
    read: impl Fn(&W) -> Result<T, FieldError>,
) -> Result<(TlsTermination, T), FieldError> {
    let tls = tls.ok_or_else(|| FieldError::at("tls", "is missing"))?;
    let routes = routes.ok_or_else(|| FieldError::at("routes", "is missing"))?;
    Ok((
        termination_from_wire(tls).map_err(|error| error.within("tls"))?,
        read(routes).map_err(|error| error.within("routes"))?,
    ))
}

fn routes_to_wire(routes: &HttpRoutes) -> v1::HttpRoutes {
    // A list of rules is far shorter than u32 counts.
    let place = |place: &usize| u32::try_from(*place).unwrap_or(u32::MAX);
    v1::HttpRoutes {
        rules: routes.rules.iter().map(rule_to_wire).collect(),
        hosts: routes
            .hosts
            .iter()
            .map(|(hostname, rules)| v1::VirtualHost {
                hostname: hostname.to_string(),
                rules: rules.iter().map(place).collect(),
            })
            .collect(),
    }
}

fn routes_from_wire(wire: &v1::HttpRoutes) -> Result<HttpRoutes, FieldError> {
    let rules = items("rules", &wire.rules, rule_from_wire)?;
    let place = |place: &u32| {
        let known = usize::try_from(*place).ok().filter(|place| *place < rules.len());
        known.ok_or_else(|| FieldError::new(format!("there is no rule {place}")))
    };
    let hosts = items("hosts", &wire.hosts, |host| {
        let places = items("rules", &host.rules, place)?;
        if !places.is_sorted_by(|one, next| one < next) {
            return Err(FieldError::at("rules", "is not ascending"));
        }
        let name = hostname(&host.hostname).map_err(|error| error.within("hostname"))?;
        Ok((name, places))
    })?;
    let mut by_name = BTreeMap::new();
    for (index, (name, places)) in hosts.into_iter().enumerate() {
        if by_name.insert(name.clone(), places).is_some() {
            let why = format!("{name} is there more than once");
            return Err(FieldError::at("hostname", why).within_item(index).within("hosts"));
        }
    }
    Ok(HttpRoutes {
        rules,
        hosts: by_name,
    })
}

fn streams_to_wire(rules: &[StreamRule]) -> v1::StreamRules {
    v1::StreamRules {
        rules: rules.iter().map(stream_rule_to_wire).collect(),
    }
}

fn streams_from_wire(wire: &v1::StreamRules) -> Result<Vec<StreamRule>, FieldError> {
    items("rules", &wire.rules, stream_rule_from_wire)
}

fn termination_to_wire(tls: &TlsTermination) -> v1::TlsTermination {
    v1::TlsTermination {
        certificates: tls
            .certificates
            .iter()
            .map(|certificate| certificate_to_wire(certificate))
            .collect(),
        clients: tls.clients.as_ref().map(|clients| v1::ClientValidation {
            authorities: clients.authorities.clone(),
            optional: clients.optional,
        }),
    }
}

fn termination_from_wire(wire: &v1::TlsTermination) -> Result<TlsTermination, FieldError> {
    if wire.certificates.is_empty() {
        return Err(FieldError::at("certificates", "is empty"));
    }
    let clients = wire.clients.as_ref().map(|clients| ClientValidation {
        authorities: clients.authorities.clone(),
        optional: clients.optional,
    });
    if let Some(clients) = &clients {
        within_bound(&clients.authorities).map_err(|error| error.within("clients"))?;
    }
    Ok(TlsTermination {
        certificates: items("certificates", &wire.certificates, certificate_from_wire)?,
        clients,
    })
}

fn certificate_to_wire(certificate: &Certificate) -> v1::Certificate {
    v1::Certificate {
        chain: certificate.chain.clone(),
        key: certificate.key.clone(),
    }
}

fn certificate_from_wire(wire: &v1::Certificate) -> Result<Arc<Certificate>, FieldError> {
    Certificate::new(wire.chain.clone(), wire.key.clone()).map(Arc::new)
}

pub(super) fn backend_tls_to_wire(tls: &BackendTls) -> v1::BackendTls {
    use v1::subject_alt_name::Name;
    let name = |name: &SubjectAltName| v1::SubjectAltName {
        name: Some(match name {
            SubjectAltName::Hostname(hostname) => Name::Hostname(hostname.to_string()),
            SubjectAltName::Uri(uri) => Name::Uri(uri.clone()),
        }),
    };
    v1::BackendTls {
        hostname: tls.hostname.to_string(),
        authorities: tls.authorities.clone().unwrap_or_default(),
        names: tls.names.iter().map(name).collect(),
    }
}

pub(super) fn backend_tls_from_wire(wire: &v1::BackendTls) -> Result<BackendTls, FieldError> {
    use v1::subject_alt_name::Name;
    within_bound(&wire.authorities)?;
    Ok(BackendTls {
        hostname: parse("hostname", &wire.hostname)?,
        authorities: Some(wire.authorities.clone()).filter(|pem| !pem.is_empty()),
        names: items("names", &wire.names, |name| match &name.name {
            Some(Name::Hostname(text)) => parse("hostname", text).map(SubjectAltName::Hostname),
            Some(Name::Uri(uri)) => Ok(SubjectAltName::Uri(uri.clone())),
            None => Err(FieldError::new("is no kind of name that this version knows")),
        })?,
    })
}

fn within_bound(authorities: &str) -> Result<(), FieldError> {
    if authorities.len() > ClientValidation::MAX_PEM_BYTES {
        let why = format!("is over {} bytes", ClientValidation::MAX_PEM_BYTES);
        return Err(FieldError::at("authorities", why));
    }
    Ok(())
}
