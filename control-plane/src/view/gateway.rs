//! What the proxies of a Gateway are told: its listeners with their TLS, and the routes on each.

use std::collections::BTreeSet;

use model::ServiceName;
use model::gateway::{Gateway, HttpRoutes, Listener, Serves, StreamRule, TlsTermination};
use model::route::Rule;

use super::MeshState;
use super::attachments::{AnyRoute, Attached, Attachments};
use super::backend::{Traffic, rules, stream_rules};
use super::listeners::Judged;
use crate::sources::{Address, ListenerTls, Protocol};

/// The Gateway as it is served; `None` where there is none of this name, or it is another controller's. One that is not
/// accepted serves nothing, and so do listeners that are not.
pub fn gateway(state: &MeshState, name: &ServiceName) -> Option<Gateway> {
    let written = state.gateway(name)?;
    if !state.is_ours(&written.class) {
        return None;
    }
    let attachments = Attachments::of(state, written);
    let is_any = written.addresses.contains(&Address::Any);
    let addresses = written.addresses.iter().filter_map(|address| match address {
        Address::Ip(ip) if !is_any => Some(*ip),
        _ => None,
    });
    let routes = attachments.routes.iter().zip(&attachments.would_be);
    let listeners = attachments.merged.listeners.iter().zip(routes);
    let listeners = listeners
        .filter(|(judged, _)| attachments.merged.objection.is_none() && judged.is_served())
        .filter_map(|(judged, (routes, would_be))| {
            let shadow = would_be.as_deref().map(|routes| http_routes(state, routes));
            Some(Listener {
                shadow,
                ..listener(state, judged, routes)?
            })
        });
    Some(Gateway {
        name: name.clone(),
        addresses: addresses.collect(),
        client_certificate: attachments.merged.client_certificate.clone().and_then(Result::ok),
        listeners: listeners.collect(),
    })
}

/// The Services that traffic through a Gateway may end at.
pub fn backends_of(gateway: &Gateway) -> BTreeSet<ServiceName> {
    let mut services = BTreeSet::new();
    for listener in &gateway.listeners {
        match &listener.serves {
            Serves::Http(routes) | Serves::Https(_, routes) => {
                let targets = routes.rules.iter().flat_map(Rule::targets);
                services.extend(targets.map(|target| target.service.clone()));
            }
            Serves::TlsTerminate(_, streams)
            | Serves::TlsPassthrough(streams)
            | Serves::Tcp(streams)
            | Serves::Udp(streams) => {
                let backends = streams.iter().flat_map(|rule| &rule.backends);
                let targets = backends.filter_map(|backend| backend.target.as_ref());
                services.extend(targets.map(|target| target.service.clone()));
            }
        }
    }
    services
}

fn listener(state: &MeshState, judged: &Judged<'_>, routes: &[Attached<'_>]) -> Option<Listener> {
    let termination = || TlsTermination {
        certificates: judged.certificates.clone(),
        clients: judged.clients.clone(),
    };
    let (http, streams) = (|| http_routes(state, routes), || streams(state, routes));
    let serves = match (&judged.listener.protocol, &judged.listener.tls) {
        (Protocol::Http, _) => Serves::Http(http()),
        (Protocol::Https, _) => Serves::Https(termination(), http()),
        (Protocol::Tls, Some(ListenerTls::Terminate(_))) => Serves::TlsTerminate(termination(), streams()),
        (Protocol::Tls, _) => Serves::TlsPassthrough(streams()),
        (Protocol::Tcp, _) => Serves::Tcp(streams()),
        (Protocol::Udp, _) => Serves::Udp(streams()),
        (Protocol::Unknown(_), _) => return None,
    };
    Some(Listener {
        name: judged.name(),
        port: judged.listener.port,
        hostname: judged.listener.hostname.clone(),
        serves,
        shadow: None,
    })
}

fn http_routes(state: &MeshState, routes: &[Attached<'_>]) -> HttpRoutes {
    let mut served = HttpRoutes::default();
    for Attached { route, hostnames } in routes {
        let AnyRoute::Http(route) = route else { continue };
        let first = served.rules.len();
        served.rules.extend(rules(state, route, Traffic::Gateway));
        let places = first..served.rules.len();
        for hostname in hostnames {
            let known = served.hosts.entry(hostname.clone()).or_default();
            known.extend(places.clone());
        }
    }
    served
}

fn streams(state: &MeshState, routes: &[Attached<'_>]) -> Vec<StreamRule> {
    let of_route = |attached: &Attached<'_>| match attached.route {
        AnyRoute::Stream(route) => stream_rules(state, route, Traffic::Gateway, &attached.hostnames),
        AnyRoute::Http(_) => Vec::new(),
    };
    routes.iter().flat_map(of_route).collect()
}
