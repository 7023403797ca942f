//! Listeners, of a Gateway and of a `ListenerSet`, which have them in the same shape.

use gateway_api::experimental::gateways::{GatewayListeners, GatewayListenersTls, GatewayListenersTlsMode};
use gateway_api::experimental::listenersets as sets;
use model::{FieldError, Hostname, Label, ServiceName};

use super::check::{At, Distinct, key};
use super::kind::{Kind, ObjectKey, ObjectName};
use super::reference::{GATEWAY_GROUP, ObjectRef, reference};
use super::route::same_shapes;
use super::selector::{From, from};

// Gateway API's own limits.
const MAX_LISTENERS: usize = 64;
const MAX_ROUTE_KINDS: usize = 8;
const MAX_CERTIFICATES: usize = 64;
const MAX_TLS_OPTIONS: usize = 16;
const MAX_PROTOCOL_BYTES: usize = 255;

/// Listeners that somebody else than its owner adds to a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSet {
    pub key: ObjectKey,
    pub parent: ServiceName,
    /// Never empty.
    pub listeners: Vec<ListenerObject>,
}

/// One listener as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerObject {
    /// Unique in its object.
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
    pub hostname: Hostname,
    /// Present exactly for [`Protocol::Https`] and [`Protocol::Tls`].
    pub tls: Option<ListenerTls>,
    /// `allowedRoutes.kinds`, as group and kind; empty is what the protocol can carry.
    pub kinds: Vec<(String, String)>,
    /// `allowedRoutes.namespaces`.
    pub namespaces: From,
}

/// What a listener expects to be spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Https,
    Tls,
    Tcp,
    Udp,
    /// Of another implementation: a name of its own, or one with a domain in front.
    Unknown(String),
}

impl Protocol {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Unknown(text) => text,
        }
    }
}

/// How a listener meets TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerTls {
    /// Empty where there are only `options`, none of which Weft knows.
    Terminate(Vec<ObjectRef>),
    Passthrough,
}

pub(super) fn set(at: &At<'_>, set: sets::ListenerSet) -> Option<ListenerSet> {
    let key = key(at, Kind::ListenerSet, &set.metadata)?;
    let (at, spec) = (at.field("spec"), set.spec);
    let parent = {
        let at = at.field("parentRef");
        let parent = spec.parent_ref;
        let group = parent.group.as_deref().unwrap_or(GATEWAY_GROUP);
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        if (group, kind) != (GATEWAY_GROUP, "Gateway") {
            at.refuse(format!(
                "a ListenerSet belongs to a Gateway, not to {kind}.{group}"
            ));
        }
        let namespace = match &parent.namespace {
            Some(namespace) => at.field("namespace").keep(namespace.parse()),
            None => Some(key.namespace.clone()),
        };
        let name = at.field("name").keep(parent.name.parse());
        namespace
            .zip(name)
            .map(|(namespace, name)| ServiceName { namespace, name })
    };
    let given = same_shapes(&at.field("listeners"), Some(spec.listeners)).unwrap_or_default();
    let listeners = listeners(&at, &key.namespace, given);
    Some(ListenerSet {
        key,
        parent: parent?,
        listeners,
    })
}

/// `at` is what has the field `listeners`.
pub(super) fn listeners(at: &At<'_>, own: &Label, list: Vec<GatewayListeners>) -> Vec<ListenerObject> {
    if list.is_empty() {
        at.field("listeners").refuse("has at least one entry");
    }
    let (mut names, mut places) = (Distinct::new(), Distinct::new());
    let mut listeners = Vec::with_capacity(list.len());
    for (index, (at, given)) in at
        .field("listeners")
        .items(Some(list), MAX_LISTENERS)
        .into_iter()
        .enumerate()
    {
        names.check(&at.field("name"), index, given.name.clone());
        let Some(listener) = listener(&at, own, given) else {
            continue;
        };
        let place = (
            listener.port,
            listener.protocol.as_str().to_owned(),
            listener.hostname.clone(),
        );
        places.check(&at, index, place);
        listeners.push(listener);
    }
    listeners
}

fn listener(at: &At<'_>, own: &Label, given: GatewayListeners) -> Option<ListenerObject> {
    at.field("name").keep(given.name.parse::<ObjectName>());
    let port = at.field("port").port(given.port);
    let protocol = at.field("protocol").keep(protocol(&given.protocol));
    let hostname = match given.hostname.as_deref().filter(|name| !name.is_empty()) {
        None => Some(Hostname::Any),
        Some(_) if matches!(protocol, Some(Protocol::Tcp | Protocol::Udp)) => {
            at.field("hostname")
                .refuse("has no meaning for TCP and UDP, which name no host");
            None
        }
        Some(name) => at.field("hostname").keep(name.parse()),
    };
    let tls = tls(at, own, protocol.as_ref(), given.tls);
    let (kinds, namespaces) = match given.allowed_routes {
        Some(allowed) => {
            let at = at.field("allowedRoutes");
            let kinds = at.field("kinds").items(allowed.kinds, MAX_ROUTE_KINDS);
            let kinds = kinds.into_iter().map(|(_, kind)| {
                let group = kind.group.unwrap_or_else(|| GATEWAY_GROUP.to_owned());
                (group, kind.kind)
            });
            let namespaces = match allowed.namespaces {
                Some(namespaces) => from(&at.field("namespaces"), namespaces, From::Same),
                None => From::Same,
            };
            (kinds.collect(), namespaces)
        }
        None => (Vec::new(), From::Same),
    };
    Some(ListenerObject {
        name: given.name,
        port: port?,
        protocol: protocol?,
        hostname: hostname?,
        tls,
        kinds,
        namespaces,
    })
}

/// Gateway API's `ProtocolType`. A name that nobody knows is for the listener's status to say.
fn protocol(text: &str) -> Result<Protocol, FieldError> {
    let is_name = |text: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=MAX_PROTOCOL_BYTES).contains(&text.len())
            && text.bytes().all(known)
            && !text.starts_with('-')
            && !text.ends_with('-')
    };
    let of_somebody = |text: &str| {
        text.len() <= MAX_PROTOCOL_BYTES
            && text.split_once('/').is_some_and(|(domain, name)| {
                domain.parse::<ObjectName>().is_ok()
                    && !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_alphanumeric())
            })
    };
    Ok(match text {
        "HTTP" => Protocol::Http,
        "HTTPS" => Protocol::Https,
        "TLS" => Protocol::Tls,
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        text if is_name(text) || of_somebody(text) => Protocol::Unknown(text.to_owned()),
        text => {
            return Err(FieldError::new(format!(
                "{text:?} is not a protocol (HTTP, HTTPS, TLS, TCP, UDP)"
            )));
        }
    })
}

fn tls(
    at: &At<'_>,
    own: &Label,
    protocol: Option<&Protocol>,
    tls: Option<GatewayListenersTls>,
) -> Option<ListenerTls> {
    let (protocol, at_tls) = (protocol?, at.field("tls"));
    let tls = match (protocol, tls) {
        (Protocol::Https | Protocol::Tls, Some(tls)) => tls,
        (Protocol::Https | Protocol::Tls, None) => {
            at.refuse(format!("tls is missing, which {} needs", protocol.as_str()));
            return None;
        }
        (Protocol::Http | Protocol::Tcp | Protocol::Udp, Some(_)) => {
            at_tls.refuse(format!("is not for {}", protocol.as_str()));
            return None;
        }
        _ => return None,
    };
    match (protocol, &tls.mode) {
        (Protocol::Https, Some(GatewayListenersTlsMode::Passthrough)) => {
            at_tls
                .field("mode")
                .refuse("is Terminate for HTTPS; what is passed through is TLS");
            return None;
        }
        (_, Some(GatewayListenersTlsMode::Passthrough)) => return Some(ListenerTls::Passthrough),
        (_, None | Some(GatewayListenersTlsMode::Terminate)) => {}
    }
    let has_options = tls.options.as_ref().is_some_and(|options| !options.is_empty());
    if tls.options.is_some_and(|options| options.len() > MAX_TLS_OPTIONS) {
        at_tls
            .field("options")
            .refuse(format!("has over {MAX_TLS_OPTIONS} entries"));
    }
    let given = at_tls
        .field("certificateRefs")
        .items(tls.certificate_refs, MAX_CERTIFICATES);
    if given.is_empty() && !has_options {
        at_tls.refuse("certificateRefs is missing, which mode Terminate needs");
    }
    let certificates = given.into_iter().filter_map(|(at, given)| {
        let (group, kind) = (given.group.as_deref(), given.kind.as_deref());
        reference(
            &at,
            own,
            group,
            kind.or(Some("Secret")),
            given.namespace.as_deref(),
            &given.name,
        )
    });
    Some(ListenerTls::Terminate(certificates.collect()))
}
