//! `GatewayClass` and `Gateway` of `gateway.networking.k8s.io`, experimental channel, which alone has default Gateways.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gateway_api::experimental::gatewayclasses as class;
use gateway_api::experimental::gateways as api;
use model::hostname::Hostname;
use model::{FieldError, Label, ServiceName};

use super::check::{At, Distinct, key};
use super::kind::{Kind, ObjectKey, ObjectName};
use super::listener::{ListenerObject, listeners};
use super::object::Object;
use super::reference::{ObjectRef, reference};
use super::route::same_shape;
use super::selector::{From, from};

/// The controller that Weft is, as a GatewayClass names it.
pub const CONTROLLER_NAME: &str = "weft.dev/gateway-controller";
/// The GatewayClass that exists without being written.
pub const DEFAULT_CLASS: &str = "weft";

// Gateway API's own limits.
const MAX_ADDRESSES: usize = 16;
const MAX_ADDRESS_BYTES: usize = 253;
const MAX_PORT_OVERRIDES: usize = 64;
const MAX_CA_REFERENCES: usize = 16;
const MAX_DESCRIPTION: usize = 64;

/// A class of Gateways, and who serves them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayClass {
    pub key: ObjectKey,
    /// Ours where it is [`CONTROLLER_NAME`].
    pub controller: String,
    /// Weft has no parameters, so a class that has some is not accepted.
    pub has_parameters: bool,
}

/// A Gateway as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayObject {
    /// The name is a DNS label, because it is also the service account of the Gateway's proxies.
    pub name: ServiceName,
    pub class: ObjectName,
    pub addresses: Vec<Address>,
    /// Which namespaces' ListenerSets are attached.
    pub allowed_sets: From,
    /// Never empty.
    pub listeners: Vec<ListenerObject>,
    pub frontend: Frontend,
    /// `spec.tls.backend.clientCertificateRef`: who it is to backends that ask.
    pub client_certificate: Option<ObjectRef>,
    /// `defaultScope: All`: routes with `useDefaultGateways` are attached without naming it.
    pub is_default: bool,
    /// Weft has no parameters, so a Gateway that has some is not accepted.
    pub has_parameters: bool,
}

impl GatewayObject {
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            kind: Kind::Gateway,
            namespace: self.name.namespace.clone(),
            name: (&self.name.name).into(),
        }
    }
}

/// A Gateway that no proxy can serve, because none could have its name as service account: one over 63 bytes, or with a
/// dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnservableGateway {
    pub key: ObjectKey,
    pub class: ObjectName,
}

/// One of `spec.addresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// To be bound.
    Ip(IpAddr),
    /// An `IPAddress` without a value: whichever addresses the machine has.
    Any,
    /// A type, or the lack of a value, that nothing can be bound to: as it is shown.
    Unusable(String),
}

/// What is asked of clients' certificates, on HTTPS listeners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontend {
    pub default: Option<Validation>,
    /// Takes the place of the default, also where it asks for nothing.
    pub per_port: BTreeMap<u16, Option<Validation>>,
}

impl Frontend {
    /// What is asked on a port.
    pub fn on(&self, port: u16) -> Option<&Validation> {
        match self.per_port.get(&port) {
            Some(validation) => validation.as_ref(),
            None => self.default.as_ref(),
        }
    }
}

/// `FrontendTLSValidation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validation {
    /// Never empty.
    pub authorities: Vec<ObjectRef>,
    /// `AllowInsecureFallback`.
    pub is_optional: bool,
}

pub(super) fn class(at: &At<'_>, class: class::GatewayClass) -> Option<GatewayClass> {
    let key = key(at, Kind::GatewayClass, &class.metadata)?;
    let at = at.field("spec");
    let controller = class.spec.controller_name;
    if !is_controller(&controller) {
        at.field("controllerName").refuse(format!(
            "{controller:?} is not a controller (domain/path, such as {CONTROLLER_NAME})"
        ));
    }
    let described = class.spec.description.unwrap_or_default();
    if described.chars().count() > MAX_DESCRIPTION {
        at.field("description")
            .refuse(format!("has over {MAX_DESCRIPTION} characters"));
    }
    Some(GatewayClass {
        key,
        controller,
        has_parameters: class.spec.parameters_ref.is_some(),
    })
}

/// `domain/path` of at most 253 bytes.
fn is_controller(text: &str) -> bool {
    let path = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    text.len() <= 253
        && text.split_once('/').is_some_and(|(domain, rest)| {
            domain.parse::<ObjectName>().is_ok() && !rest.is_empty() && rest.bytes().all(path)
        })
}

pub(super) fn gateway(at: &At<'_>, gateway: api::Gateway) -> Option<Object> {
    let key = key(at, Kind::Gateway, &gateway.metadata)?;
    let (at, spec) = (at.field("spec"), gateway.spec);
    let class = at
        .field("gatewayClassName")
        .keep(spec.gateway_class_name.parse::<ObjectName>());
    let addresses = addresses(&at, spec.addresses);
    let allowed = spec.allowed_listeners.and_then(|allowed| allowed.namespaces);
    let allowed_at = at.field("allowedListeners").field("namespaces");
    let allowed_sets = match allowed {
        Some(namespaces) => from(&allowed_at, namespaces, From::None),
        None => From::None,
    };
    let listeners = listeners(&at, &key.namespace, spec.listeners);
    let tls = at.field("tls");
    let (backend, frontend) = spec.tls.map_or((None, None), |tls| (tls.backend, tls.frontend));
    let client_certificate = backend.and_then(|backend| backend.client_certificate_ref);
    let client_certificate = client_certificate.and_then(|given| {
        let at = tls.field("backend").field("clientCertificateRef");
        let kind = given.kind.as_deref().or(Some("Secret"));
        let (group, namespace) = (given.group.as_deref(), given.namespace.as_deref());
        reference(&at, &key.namespace, group, kind, namespace, &given.name)
    });
    let frontend = frontend.map(|frontend| read_frontend(&tls.field("frontend"), &key.namespace, frontend));
    let class = class?;
    let Ok(name) = key.name.as_str().parse::<Label>() else {
        return Some(Object::UnservableGateway(UnservableGateway { key, class }));
    };
    Some(Object::Gateway(Box::new(GatewayObject {
        name: ServiceName {
            namespace: key.namespace,
            name,
        },
        class,
        addresses,
        allowed_sets,
        listeners,
        frontend: frontend.unwrap_or_default(),
        client_certificate,
        is_default: matches!(spec.default_scope, Some(api::GatewayDefaultScope::All)),
        has_parameters: spec
            .infrastructure
            .is_some_and(|infrastructure| infrastructure.parameters_ref.is_some()),
    })))
}

fn addresses(at: &At<'_>, list: Option<Vec<api::GatewayAddresses>>) -> Vec<Address> {
    let mut distinct = Distinct::new();
    let items = at.field("addresses").items(list, MAX_ADDRESSES);
    let mut addresses = Vec::with_capacity(items.len());
    for (index, (at, address)) in items.into_iter().enumerate() {
        let kind = address.r#type.as_deref().unwrap_or("IPAddress");
        let value = address.value.as_deref().filter(|value| !value.is_empty());
        if value.is_some_and(|value| value.len() > MAX_ADDRESS_BYTES) {
            at.field("value")
                .refuse(format!("is over {MAX_ADDRESS_BYTES} bytes"));
            continue;
        }
        if let Some(value) = value {
            distinct.check(&at, index, (kind.to_owned(), value.to_owned()));
        }
        let address = match (kind, value) {
            ("IPAddress", None) => Some(Address::Any),
            ("IPAddress", Some(value)) => at.field("value").keep(ip(value)).map(Address::Ip),
            ("Hostname", Some(value)) => at
                .field("value")
                .keep(value.parse::<Hostname>())
                .map(|_| Address::Unusable(format!("Hostname {value}"))),
            (kind, value) => Some(Address::Unusable(format!(
                "{kind} {}",
                value.unwrap_or("without a value")
            ))),
        };
        addresses.extend(address);
    }
    addresses
}

fn ip(text: &str) -> Result<IpAddr, FieldError> {
    text.parse()
        .map_err(|_| FieldError::new(format!("{text:?} is not an IP address")))
}

fn read_frontend(at: &At<'_>, own: &Label, frontend: api::GatewayTlsFrontend) -> Frontend {
    let default = frontend
        .default
        .validation
        .and_then(|given| validation(&at.field("default").field("validation"), own, given));
    let mut per_port = BTreeMap::new();
    let items = at.field("perPort").items(frontend.per_port, MAX_PORT_OVERRIDES);
    for (at, entry) in items {
        let Some(port) = at.field("port").port(entry.port) else {
            continue;
        };
        let at_validation = at.field("tls").field("validation");
        let given = entry
            .tls
            .validation
            .and_then(|given| same_shape(&at_validation, given))
            .and_then(|given| validation(&at_validation, own, given));
        if per_port.insert(port, given).is_some() {
            at.field("port").refuse(format!("{port} has more than one entry"));
        }
    }
    Frontend { default, per_port }
}

fn validation(
    at: &At<'_>,
    own: &Label,
    validation: api::GatewayTlsFrontendDefaultValidation,
) -> Option<Validation> {
    let at_references = at.field("caCertificateRefs");
    if validation.ca_certificate_refs.is_empty() {
        at_references.refuse("has at least one entry");
    }
    let items = at_references.items(Some(validation.ca_certificate_refs), MAX_CA_REFERENCES);
    let authorities: Vec<ObjectRef> = items
        .into_iter()
        .filter_map(|(at, given)| {
            let (group, kind) = (Some(given.group.as_str()), Some(given.kind.as_str()));
            reference(&at, own, group, kind, given.namespace.as_deref(), &given.name)
        })
        .collect();
    Some(Validation {
        authorities,
        is_optional: matches!(
            validation.mode,
            Some(api::GatewayTlsFrontendDefaultValidationMode::AllowInsecureFallback)
        ),
    })
}
