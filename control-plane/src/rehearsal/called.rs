//! What a request meets, ready to be asked about many: a service as its callers have it, and a gateway.

use std::collections::BTreeMap;

use decision::Reason;
use decision::traffic::route::{HostRoutes, HostTable, RequestView, RouteTable};
use model::gateway::{Gateway, HttpRoutes, Listener, Serves, Transport};
use model::route::Rule;
use model::service::DestinationPort;
use model::{Destination, Label, ServiceName};

use super::Rehearsed;
use super::explanation::Outcome;
use super::outcome::{of_rule, of_service, refused};
use crate::view::{self, MeshState, Traffic};

/// A service as callers of one namespace have it.
pub(super) struct Called {
    pub(super) destination: Destination,
    tables: BTreeMap<u16, RouteTable>,
}

impl Called {
    /// `None` where there is no such service.
    pub(super) fn new(state: &MeshState, from: &Label, service: &ServiceName) -> Option<Self> {
        let destination = view::destination_for(state, service, from)?;
        let ports = destination.ports.iter();
        let tables = ports
            .map(|(number, port)| (*number, RouteTable::compile(&port.rules)))
            .collect();
        Some(Self { destination, tables })
    }

    pub(super) fn port(&self, number: u16) -> Option<(&DestinationPort, &RouteTable)> {
        Some((self.destination.ports.get(&number)?, self.tables.get(&number)?))
    }

    /// The rule that governs a request; `None` where no route is attached.
    pub(super) fn rule(&self, port: u16, request: &RequestView<'_>) -> Result<Option<&Rule>, Outcome> {
        let (at_port, table) = self
            .port(port)
            .ok_or_else(|| refused(Reason::UnknownPort, format!("there is no port {port}")))?;
        if at_port.rules.is_empty() {
            return Ok(None);
        }
        let no_route = || {
            let why = "routes govern this service, and no rule of them matches".to_owned();
            refused(Reason::NoRoute, why)
        };
        let index = table.choose(&at_port.rules, request).ok_or_else(no_route)?;
        Ok(at_port.rules.get(index))
    }

    /// Where a request to a port ends.
    pub(super) fn end(&self, mesh: &Rehearsed<'_>, port: u16, request: &RequestView<'_>) -> Outcome {
        match self.rule(port, request) {
            Ok(Some(rule)) => of_rule(mesh, Traffic::Mesh, rule, request),
            Ok(None) => of_service(mesh, &self.destination.service.port(port), request),
            Err(answer) => answer,
        }
    }
}

/// A gateway with its listeners.
pub(super) struct Edge {
    pub(super) gateway: Gateway,
    /// By port: how listeners of it are told apart, and by which names.
    ports: BTreeMap<u16, (Transport, HostTable)>,
    /// As in the Gateway.
    routes: Vec<HostRoutes>,
}

impl Edge {
    /// `None` where there is no such Gateway, or where it is another controller's.
    pub(super) fn new(state: &MeshState, name: &ServiceName) -> Option<Self> {
        let gateway = view::gateway(state, name)?;
        let mut names: BTreeMap<u16, (Transport, Vec<_>)> = BTreeMap::new();
        let tcp = gateway.listeners.iter().enumerate();
        for (place, listener) in tcp.filter(|(_, listener)| listener.serves.transport() != Transport::Udp) {
            let transport = listener.serves.transport();
            let (_, names) = names
                .entry(listener.port)
                .or_insert_with(|| (transport, Vec::new()));
            names.push((&listener.hostname, place));
        }
        let ports = names.into_iter();
        let ports = ports
            .map(|(port, (transport, names))| (port, (transport, HostTable::compile(names))))
            .collect();
        let routes = gateway.listeners.iter();
        let routes = routes
            .map(|listener| http_routes(listener).map(HostRoutes::compile).unwrap_or_default())
            .collect();
        Some(Self {
            gateway,
            ports,
            routes,
        })
    }

    /// The listener that serves requests for a host at a port, by TLS or in plain, with its place. `host` is a normal
    /// one, and what a client by TLS names in its handshake.
    pub(super) fn listener(
        &self,
        port: u16,
        by_tls: bool,
        host: &str,
    ) -> Result<(usize, &Listener), Outcome> {
        let (transport, names) = self.ports.get(&port).ok_or_else(|| Outcome::NoConnection {
            why: format!("no listener of Gateway {} is at port {port}", self.gateway.name),
        })?;
        let fits = match transport {
            Transport::Http => !by_tls,
            Transport::Tls => by_tls,
            Transport::Tcp | Transport::Udp => true,
        };
        if !fits {
            let why = match by_tls {
                true => format!("port {port} does not speak TLS"),
                false => format!("port {port} speaks TLS only; write https"),
            };
            return Err(Outcome::NoConnection { why });
        }
        let named = if *transport == Transport::Tcp { "" } else { host };
        let place = match transport {
            Transport::Http => names.listener(None, named),
            Transport::Tls | Transport::Tcp | Transport::Udp => names.best(named).ok_or(Reason::NoListener),
        };
        let place = place.map_err(|reason| {
            let why = format!("no listener at port {port} is for host {host}");
            match by_tls {
                true => Outcome::NoConnection { why },
                false => refused(reason, why),
            }
        })?;
        let listener = self.gateway.listeners.get(place);
        let listener = listener.ok_or_else(|| refused(Reason::NoListener, String::new()))?;
        Ok((place, listener))
    }

    pub(super) fn routes(&self, place: usize) -> Option<(&HttpRoutes, &HostRoutes)> {
        Some((
            http_routes(self.gateway.listeners.get(place)?)?,
            self.routes.get(place)?,
        ))
    }

    /// The rule of a listener that governs a request for a host.
    pub(super) fn rule(&self, place: usize, host: &str, request: &RequestView<'_>) -> Result<&Rule, Outcome> {
        let chosen = self.routes(place).and_then(|(routes, table)| {
            let rule = table.choose(&routes.rules, host, request)?;
            routes.rules.get(rule)
        });
        chosen.ok_or_else(|| {
            let why = "no rule of the listener's routes matches".to_owned();
            refused(Reason::NoRoute, why)
        })
    }

    /// Where a request ends.
    pub(super) fn end(
        &self,
        mesh: &Rehearsed<'_>,
        (port, by_tls, host): (u16, bool, &str),
        request: &RequestView<'_>,
    ) -> Outcome {
        let rule = self
            .listener(port, by_tls, host)
            .and_then(|(place, _)| self.rule(place, host, request));
        match rule {
            Ok(rule) => of_rule(mesh, Traffic::Gateway, rule, request),
            Err(answer) => answer,
        }
    }
}

pub(super) fn http_routes(listener: &Listener) -> Option<&HttpRoutes> {
    match &listener.serves {
        Serves::Http(routes) | Serves::Https(_, routes) => Some(routes),
        Serves::TlsTerminate(..) | Serves::TlsPassthrough(_) | Serves::Tcp(_) | Serves::Udp(_) => None,
    }
}
