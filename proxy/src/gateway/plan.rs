//! What a gateway serves on each of its ports, made ready once per configuration and shared by all workers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use decision::Reason;
use decision::traffic::route::{HostRoutes, HostTable, RequestView};
use model::gateway::{ClientValidation, Gateway, Listener, Serves, StreamRule, TlsTermination, Transport};
use model::route::Rule;
use model::{ServicePort, Snapshot};
use rustls::ServerConfig;

use super::termination;
use crate::downstream::Entry;

/// What a gateway serves, as one snapshot has it.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) snapshot: Arc<Snapshot>,
    served: Arc<Served>,
}

/// Whose clients a listener lets in; `None`: anybody's.
pub(crate) type Admits = Arc<Option<ClientValidation>>;

/// What a Gateway comes to. It stays the same for as long as the Gateway does, whatever else changes.
#[derive(Default)]
struct Served {
    gateway: Option<Arc<Gateway>>,
    ports: BTreeMap<Socket, Port>,
    /// As in the Gateway.
    listeners: Vec<Compiled>,
}

/// One port of one layer: TCP and UDP have ports of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Socket {
    pub(crate) port: u16,
    pub(crate) is_udp: bool,
}

struct Port {
    transport: Transport,
    /// Of its listeners, each with its place in the Gateway.
    names: HostTable,
}

/// One listener, made ready.
#[derive(Clone, Default)]
struct Compiled {
    routes: Arc<HostRoutes>,
    /// Of routes in shadow, together with the others.
    shadow: Option<Arc<HostRoutes>>,
    /// `None` where no TLS ends here, or where it cannot.
    tls: Option<Arc<ServerConfig>>,
    /// The same one for as long as it says the same.
    admits: Admits,
}

/// Where the TLS of a connection ends.
pub(crate) enum Ending {
    /// At a backend.
    Passthrough,
    /// Here, with bytes within for a backend.
    Bytes(Arc<ServerConfig>),
    /// Here, with HTTP within.
    Http(Arc<ServerConfig>),
    Nowhere,
}

impl Plan {
    /// Makes a snapshot's Gateway ready; what did not change is taken from `before`, TLS sessions included.
    pub(crate) fn compile(snapshot: Arc<Snapshot>, before: &Self) -> Self {
        let is_same = match (&snapshot.gateway, &before.served.gateway) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            (now, then) => now.is_none() && then.is_none(),
        };
        let served = if is_same {
            before.served.clone()
        } else {
            Arc::new(Served::compile(snapshot.gateway.clone(), &before.served))
        };
        Self { snapshot, served }
    }

    /// Which kind of listeners a port has; `None` where it has none any more.
    pub(crate) fn transport(&self, socket: Socket) -> Option<Transport> {
        Some(self.served.ports.get(&socket)?.transport)
    }

    /// Every address to be bound.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (Socket, SocketAddr)> + '_ {
        let Served { gateway, ports, .. } = &*self.served;
        let every = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        let ips = match gateway.as_deref() {
            Some(gateway) if !gateway.addresses.is_empty() => gateway.addresses.clone(),
            _ => every.to_vec(),
        };
        let at = move |socket: &Socket| {
            let socket = *socket;
            let addresses: Vec<_> = ips
                .iter()
                .map(|ip| (socket, SocketAddr::new(*ip, socket.port)))
                .collect();
            addresses
        };
        ports.keys().flat_map(at)
    }

    /// The listener that a TLS client is let in by.
    pub(crate) fn by_sni(&self, port: u16, sni: &str) -> Option<usize> {
        self.served.ports.get(&Socket::tcp(port))?.names.best(sni)
    }

    /// Whose clients a listener lets in.
    pub(crate) fn admits(&self, place: usize) -> Admits {
        let compiled = self.served.listeners.get(place);
        compiled
            .map(|compiled| compiled.admits.clone())
            .unwrap_or_default()
    }

    /// Whether a client who came in like this would be let in on the same terms now. Another certificate to show, or
    /// other routes, change nothing about that.
    pub(crate) fn still_admits(&self, port: u16, entry: &Entry) -> bool {
        let compiled = self
            .by_sni(port, &entry.sni)
            .and_then(|place| self.served.listeners.get(place));
        compiled.is_some_and(|compiled| {
            Arc::ptr_eq(&compiled.admits, &entry.admits) || compiled.admits == entry.admits
        })
    }

    /// The only listener of a port that does not tell hosts apart.
    pub(crate) fn only(&self, socket: Socket) -> Option<usize> {
        self.served.ports.get(&socket)?.names.best("")
    }

    /// The rules of a listener that carries bytes or datagrams.
    pub(crate) fn stream_rules(&self, place: Option<usize>) -> &[StreamRule] {
        place
            .and_then(|place| self.listener(place))
            .map_or(&[], stream_rules)
    }

    /// The listener that serves a request for `host`, a normal one; `sni` is what its connection named, where there is TLS.
    pub(crate) fn by_host(&self, port: u16, sni: Option<&str>, host: &str) -> Result<usize, Reason> {
        let port = self
            .served
            .ports
            .get(&Socket::tcp(port))
            .ok_or(Reason::NoListener)?;
        let transport = if sni.is_some() {
            Transport::Tls
        } else {
            Transport::Http
        };
        if port.transport != transport {
            return Err(Reason::NoListener);
        }
        port.names.listener(sni, host)
    }

    pub(crate) fn listener(&self, place: usize) -> Option<&Listener> {
        self.served.gateway.as_ref()?.listeners.get(place)
    }

    /// Where the TLS of a listener's connections ends.
    pub(crate) fn ending(&self, place: usize) -> Ending {
        let tls = self
            .served
            .listeners
            .get(place)
            .and_then(|compiled| compiled.tls.clone());
        match (self.listener(place).map(|listener| &listener.serves), tls) {
            (Some(Serves::TlsPassthrough(_)), _) => Ending::Passthrough,
            (Some(Serves::TlsTerminate(..)), Some(config)) => Ending::Bytes(config),
            (Some(Serves::Https(..)), Some(config)) => Ending::Http(config),
            _ => Ending::Nowhere,
        }
    }

    /// Whether what a listener passes on is TLS of its clients.
    pub(crate) fn passes_tls(&self, place: usize) -> bool {
        let serves = self.listener(place).map(|listener| &listener.serves);
        matches!(serves, Some(Serves::TlsPassthrough(_)))
    }

    /// Whether every TLS listener of a port ends TLS here, so that a client may be told why it is not let in.
    pub(crate) fn ends_all_tls(&self, port: u16) -> bool {
        let listeners = self.served.gateway.iter().flat_map(|gateway| &gateway.listeners);
        let mut here = listeners.filter(|listener| listener.port == port);
        here.all(|listener| !matches!(listener.serves, Serves::TlsPassthrough(_)))
    }

    /// What calls to a listener are counted by: the Gateway at the listener's port.
    pub(crate) fn target(&self, listener: &Listener) -> Option<ServicePort> {
        Some(self.served.gateway.as_ref()?.name.port(listener.port))
    }

    /// The rule of a listener that governs a request for `host`, a normal one, with its place.
    pub(crate) fn rule(
        &self,
        listener: usize,
        host: &str,
        request: &RequestView<'_>,
    ) -> Result<(usize, &Rule), Reason> {
        let compiled = self.served.listeners.get(listener).ok_or(Reason::NoListener)?;
        let routes = self
            .listener(listener)
            .and_then(|listener| listener.serves.http_routes())
            .ok_or(Reason::NoListener)?;
        let place = compiled.routes.choose(&routes.rules, host, request);
        let rule = place.and_then(|place| Some((place, routes.rules.get(place)?)));
        rule.ok_or(Reason::NoRoute)
    }
}

impl Plan {
    /// As [`Plan::rule`], if routes in shadow were in force.
    pub(crate) fn shadow_rule(
        &self,
        listener: usize,
        host: &str,
        request: &RequestView<'_>,
    ) -> Option<&Rule> {
        let compiled = self.served.listeners.get(listener)?.shadow.as_ref()?;
        let rules = &self.listener(listener)?.shadow.as_ref()?.rules;
        rules.get(compiled.choose(rules, host, request)?)
    }
}

impl Served {
    fn compile(gateway: Option<Arc<Gateway>>, before: &Self) -> Self {
        let listeners = gateway.iter().flat_map(|gateway| &gateway.listeners);
        let mut names: BTreeMap<Socket, (Transport, Vec<_>)> = BTreeMap::new();
        for (place, listener) in listeners.clone().enumerate() {
            let transport = listener.serves.transport();
            let socket = Socket {
                port: listener.port,
                is_udp: transport == Transport::Udp,
            };
            let (_, names) = names.entry(socket).or_insert_with(|| (transport, Vec::new()));
            names.push((&listener.hostname, place));
        }
        let ports = names.into_iter().map(|(socket, (transport, names))| {
            let names = HostTable::compile(names);
            (socket, Port { transport, names })
        });
        Self {
            ports: ports.collect(),
            listeners: listeners.map(|listener| before.compiled(listener)).collect(),
            gateway: gateway.clone(),
        }
    }

    /// Makes a listener ready, with what this one has of it.
    fn compiled(&self, listener: &Listener) -> Compiled {
        let known = self.gateway.iter().flat_map(|gateway| &gateway.listeners);
        let before = known
            .zip(&self.listeners)
            .find(|(before, _)| before.name == listener.name);
        let routes = match (listener.serves.http_routes(), before) {
            (Some(routes), Some((before, compiled))) if before.serves.http_routes() == Some(routes) => {
                compiled.routes.clone()
            }
            (Some(routes), _) => Arc::new(HostRoutes::compile(routes)),
            (None, _) => Arc::default(),
        };
        let shadow = listener.shadow.as_ref().map(|shadow| match before {
            Some((before, compiled)) if before.shadow.as_ref() == Some(shadow) => {
                compiled.shadow.clone().unwrap_or_default()
            }
            _ => Arc::new(HostRoutes::compile(shadow)),
        });
        let tls = match (ends_tls(listener), before) {
            (Some(tls), Some((before, compiled)))
                if ends_tls(before) == Some(tls) && protocols(before) == protocols(listener) =>
            {
                compiled.tls.clone()
            }
            (Some(tls), _) => match termination::server_config(tls, protocols(listener)) {
                Ok(config) => Some(config),
                Err(error) => {
                    // The configuration was refused before, where this is the certificate's fault.
                    tracing::error!(listener = %listener.name, %error, "TLS cannot end here");
                    None
                }
            },
            (None, _) => None,
        };
        let clients = ends_tls(listener).and_then(|tls| tls.clients.as_ref());
        let admits = match before {
            Some((_, compiled)) if compiled.admits.as_ref().as_ref() == clients => compiled.admits.clone(),
            _ => Arc::new(clients.cloned()),
        };
        Compiled {
            routes,
            shadow,
            tls,
            admits,
        }
    }
}

impl Socket {
    pub(crate) fn tcp(port: u16) -> Self {
        Self { port, is_udp: false }
    }

    pub(crate) fn udp(port: u16) -> Self {
        Self { port, is_udp: true }
    }
}

fn ends_tls(listener: &Listener) -> Option<&TlsTermination> {
    match &listener.serves {
        Serves::Https(tls, _) | Serves::TlsTerminate(tls, _) => Some(tls),
        _ => None,
    }
}

/// What is offered in ALPN; nothing where the bytes within are a backend's affair.
fn protocols(listener: &Listener) -> &'static [&'static [u8]] {
    match &listener.serves {
        Serves::Https(..) => &[crate::tls::ALPN_HTTP2, crate::tls::ALPN_HTTP1],
        _ => &[],
    }
}

fn stream_rules(listener: &Listener) -> &[StreamRule] {
    match &listener.serves {
        Serves::TlsTerminate(_, rules)
        | Serves::TlsPassthrough(rules)
        | Serves::Tcp(rules)
        | Serves::Udp(rules) => rules,
        Serves::Http(_) | Serves::Https(..) => &[],
    }
}
