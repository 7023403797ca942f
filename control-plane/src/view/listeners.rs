//! The listeners of a Gateway: its own and those of its ListenerSets, each judged beside the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Label;
use model::gateway::{Certificate, ClientValidation, Transport};

use super::MeshState;
use super::attach::Objection;
use super::backend_tls::authorities;
use super::grant::{Referent, may_refer};
use super::lookup::oldest_first;
use crate::sources::{
    Address, GATEWAY_GROUP, GatewayObject, Kind, ListenerObject, ListenerSet, ListenerTls, NamespacesFrom,
    Object, ObjectRef, Protocol,
};

/// Every listener that belongs to a Gateway, in the order of their precedence.
#[derive(Debug)]
pub(super) struct Merged<'s> {
    pub(super) gateway: &'s GatewayObject,
    /// Why the Gateway as a whole serves nothing.
    pub(super) objection: Option<Objection>,
    /// Those that may add listeners, oldest first.
    pub(super) sets: Vec<&'s ListenerSet>,
    pub(super) listeners: Vec<Judged<'s>>,
    /// What is shown to backends that ask who calls.
    pub(super) client_certificate: Option<Result<Arc<Certificate>, Objection>>,
}

/// A listener and what is wrong with it.
#[derive(Debug)]
pub(super) struct Judged<'s> {
    /// `None`: the Gateway itself.
    pub(super) set: Option<&'s ListenerSet>,
    pub(super) listener: &'s ListenerObject,
    /// Another listener has its place.
    pub(super) conflict: Option<Objection>,
    /// Why it cannot be accepted.
    pub(super) refused: Option<Objection>,
    /// The first reference that does not resolve.
    pub(super) unresolved: Option<Objection>,
    /// Why nothing can be served, though it is accepted.
    pub(super) unusable: bool,
    /// The kinds of routes that may be attached.
    pub(super) kinds: Vec<Kind>,
    /// What TLS ends with; empty where it does not.
    pub(super) certificates: Vec<Arc<Certificate>>,
    pub(super) clients: Option<ClientValidation>,
}

impl Judged<'_> {
    /// The namespace in which it is written.
    pub(super) fn namespace<'m>(&'m self, merged: &'m Merged<'_>) -> &'m Label {
        match self.set {
            Some(set) => &set.key.namespace,
            None => &merged.gateway.name.namespace,
        }
    }

    /// Whether something is served on it.
    pub(super) fn is_served(&self) -> bool {
        self.is_accepted() && !self.unusable
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.conflict.is_none() && self.refused.is_none()
    }

    /// As the data plane names it.
    pub(super) fn name(&self) -> Arc<str> {
        match self.set {
            Some(set) => format!("{}/{}", set.key, self.listener.name).into(),
            None => self.listener.name.as_str().into(),
        }
    }
}

/// `None` for a Gateway that does not exist or is another controller's.
pub(super) fn merged<'s>(state: &'s MeshState, gateway: &'s GatewayObject) -> Merged<'s> {
    let sets = sets_of(state, gateway);
    let own = gateway.listeners.iter().map(|listener| (None, listener));
    let added = sets
        .iter()
        .flat_map(|set| set.listeners.iter().map(|listener| (Some(*set), listener)));
    let mut listeners: Vec<Judged<'_>> = own
        .chain(added)
        .map(|(set, listener)| judge(state, gateway, set, listener))
        .collect();
    mark_conflicts(&mut listeners);
    Merged {
        gateway,
        objection: objection(state, gateway),
        sets,
        listeners,
        client_certificate: client_certificate(state, gateway),
    }
}

fn client_certificate(
    state: &MeshState,
    gateway: &GatewayObject,
) -> Option<Result<Arc<Certificate>, Objection>> {
    let reference = gateway.client_certificate.as_ref()?;
    let found = certificate(state, Kind::Gateway, &gateway.name.namespace, reference);
    Some(found.map_err(|mut objection| {
        if objection.reason == "InvalidCertificateRef" {
            objection.reason = "InvalidClientCertificateRef";
        }
        objection
    }))
}

/// The ListenerSets of a Gateway that it allows, oldest first, then by name.
fn sets_of<'s>(state: &'s MeshState, gateway: &GatewayObject) -> Vec<&'s ListenerSet> {
    let sets = state.all_of(Kind::ListenerSet);
    let aged = sets.filter_map(|stored| match &stored.object {
        Object::ListenerSet(set) if set.parent == gateway.name && allows(state, gateway, set) => {
            Some((stored.created, &**set))
        }
        _ => None,
    });
    oldest_first(aged.collect(), |set| &set.key)
}

/// Whether a Gateway lets a ListenerSet of this namespace add listeners.
pub(super) fn allows(state: &MeshState, gateway: &GatewayObject, set: &ListenerSet) -> bool {
    comes_from(
        state,
        &gateway.allowed_sets,
        &gateway.name.namespace,
        &set.key.namespace,
    )
}

/// Whether what is in a namespace is allowed beside an object in the namespace `own`.
pub(super) fn comes_from(state: &MeshState, from: &NamespacesFrom, own: &Label, namespace: &Label) -> bool {
    match from {
        NamespacesFrom::All => true,
        NamespacesFrom::Same => own == namespace,
        NamespacesFrom::Selector(selector) => selector.selects(&state.labels_of(namespace)),
        NamespacesFrom::None => false,
    }
}

fn objection(state: &MeshState, gateway: &GatewayObject) -> Option<Objection> {
    let unusable = gateway.addresses.iter().find_map(|address| match address {
        Address::Ip(_) | Address::Any => None,
        Address::Unusable(shown) => Some(shown),
    });
    if let Some(shown) = unusable {
        return Some(Objection {
            reason: "UnsupportedAddress",
            message: format!("{shown} is no address that can be bound (supported: IPAddress)"),
        });
    }
    let of_class = state
        .class(&gateway.class)
        .is_some_and(|class| class.has_parameters);
    (of_class || gateway.has_parameters).then(|| Objection {
        reason: "InvalidParameters",
        message: "parametersRef is given, and Weft has no parameters".to_owned(),
    })
}

fn judge<'s>(
    state: &'s MeshState,
    gateway: &'s GatewayObject,
    set: Option<&'s ListenerSet>,
    listener: &'s ListenerObject,
) -> Judged<'s> {
    let mut judged = Judged {
        set,
        listener,
        conflict: None,
        refused: None,
        unresolved: None,
        unusable: false,
        kinds: Vec::new(),
        certificates: Vec::new(),
        clients: None,
    };
    if let Protocol::Unknown(protocol) = &listener.protocol {
        judged.refused = Some(Objection {
            reason: "UnsupportedProtocol",
            message: format!("{protocol} is not supported (supported: HTTP, HTTPS, TLS, TCP, UDP)"),
        });
    }
    judge_kinds(&mut judged);
    if let Some(ListenerTls::Terminate(references)) = &listener.tls {
        judge_certificates(state, gateway, &mut judged, references);
    }
    if listener.protocol == Protocol::Https {
        judge_clients(state, gateway, &mut judged);
    }
    judged
}

/// The kinds of routes that a protocol can carry.
fn carried(listener: &ListenerObject) -> &'static [Kind] {
    match (&listener.protocol, &listener.tls) {
        (Protocol::Http | Protocol::Https, _) => &[Kind::HttpRoute, Kind::GrpcRoute],
        (Protocol::Tls, Some(ListenerTls::Terminate(_))) => &[Kind::TlsRoute, Kind::TcpRoute],
        (Protocol::Tls, _) => &[Kind::TlsRoute],
        (Protocol::Tcp, _) => &[Kind::TcpRoute],
        (Protocol::Udp, _) => &[Kind::UdpRoute],
        (Protocol::Unknown(_), _) => &[],
    }
}

fn judge_kinds(judged: &mut Judged<'_>) {
    let carried = carried(judged.listener);
    if judged.listener.kinds.is_empty() {
        judged.kinds = carried.to_vec();
        return;
    }
    for (group, name) in &judged.listener.kinds {
        let known = carried
            .iter()
            .find(|kind| group == GATEWAY_GROUP && kind.as_str() == name);
        match known {
            Some(kind) if !judged.kinds.contains(kind) => judged.kinds.push(*kind),
            Some(_) => {}
            None => {
                let protocol = judged.listener.protocol.as_str();
                judged.unresolved.get_or_insert(Objection {
                    reason: "InvalidRouteKinds",
                    message: format!(
                        "{name}.{group} is no kind of route that a listener for {protocol} takes"
                    ),
                });
            }
        }
    }
}

fn judge_certificates(
    state: &MeshState,
    gateway: &GatewayObject,
    judged: &mut Judged<'_>,
    references: &[ObjectRef],
) {
    let (kind, namespace) = match judged.set {
        Some(set) => (Kind::ListenerSet, &set.key.namespace),
        None => (Kind::Gateway, &gateway.name.namespace),
    };
    for reference in references {
        match certificate(state, kind, namespace, reference) {
            Ok(certificate) => judged.certificates.push(certificate),
            Err(objection) => drop(judged.unresolved.get_or_insert(objection)),
        }
    }
    if references.is_empty() {
        judged.unresolved.get_or_insert(Objection {
            reason: "InvalidCertificateRef",
            message: "there are no certificateRefs, and Weft knows none of the options".to_owned(),
        });
    }
    judged.unusable |= judged.certificates.is_empty();
}

fn certificate(
    state: &MeshState,
    kind: Kind,
    namespace: &Label,
    reference: &ObjectRef,
) -> Result<Arc<Certificate>, Objection> {
    must_be_granted(state, kind, namespace, reference)?;
    let invalid = |why: &str| Objection {
        reason: "InvalidCertificateRef",
        message: format!("{reference} {why}"),
    };
    if (reference.group.as_str(), reference.kind.as_str()) != ("", "Secret") {
        return Err(invalid(
            "is of a kind that holds no certificate (supported: Secret)",
        ));
    }
    let secret = state.secret(&reference.namespace, &reference.name);
    let secret = secret.ok_or_else(|| invalid("does not exist"))?;
    match &secret.certificate {
        Some(certificate) => certificate
            .clone()
            .map_err(|why| invalid(&format!("is no use: {why}"))),
        None => Err(invalid("is not of type kubernetes.io/tls")),
    }
}

fn must_be_granted(
    state: &MeshState,
    kind: Kind,
    namespace: &Label,
    reference: &ObjectRef,
) -> Result<(), Objection> {
    let referent = Referent {
        group: &reference.group,
        kind: &reference.kind,
        namespace: &reference.namespace,
        name: &reference.name,
    };
    if may_refer(state, kind, namespace, referent) {
        return Ok(());
    }
    Err(Objection {
        reason: "RefNotPermitted",
        message: format!(
            "{reference} is in another namespace, and no ReferenceGrant there is for {kind}s of namespace {namespace}"
        ),
    })
}

/// Client certificates, which are asked for by port, on whosever listener it is.
fn judge_clients(state: &MeshState, gateway: &GatewayObject, judged: &mut Judged<'_>) {
    let Some(validation) = gateway.frontend.on(judged.listener.port) else {
        return;
    };
    let (namespace, mut bundle) = (&gateway.name.namespace, String::new());
    for reference in &validation.authorities {
        let found = must_be_granted(state, Kind::Gateway, namespace, reference)
            .and_then(|()| authorities(state, reference));
        match found {
            Ok(pem) => bundle.extend([pem, "\n"]),
            Err(mut objection) => {
                if objection.reason == "InvalidKind" {
                    objection.reason = "InvalidCACertificateKind";
                }
                judged.unresolved.get_or_insert(objection);
            }
        }
    }
    if bundle.is_empty() || bundle.len() > ClientValidation::MAX_PEM_BYTES {
        judged.refused.get_or_insert(Objection {
            reason: "NoValidCACertificate",
            message: "none of the caCertificateRefs for its port can be used".to_owned(),
        });
        return;
    }
    judged.clients = Some(ClientValidation {
        authorities: bundle,
        optional: validation.is_optional,
    });
}

/// Marks the listeners that cannot be told apart. A ListenerSet's gives way to those of the Gateway and of older
/// ListenerSets; of one object's listeners that are left, none is chosen.
fn mark_conflicts(listeners: &mut [Judged<'_>]) {
    let mut by_port: BTreeMap<(u16, bool), Vec<usize>> = BTreeMap::new();
    for (index, judged) in listeners.iter().enumerate() {
        if let Some(transport) = transport(&judged.listener.protocol) {
            // Datagrams and connections to one number are told apart by the machine.
            let port = (judged.listener.port, transport == Transport::Udp);
            by_port.entry(port).or_default().push(index);
        }
    }
    for places in by_port.into_values().filter(|places| places.len() > 1) {
        let mut earlier = Vec::new();
        // One object after the other, as they take precedence.
        while let Some(own) = of_one_object(listeners, &places, earlier.len()) {
            // What an older set lost does not count against a younger.
            let stands = |judged: &Judged<'_>| judged.conflict.is_none() || judged.set.is_none();
            let lost = own
                .iter()
                .map(|place| (*place, conflict(listeners, *place, &earlier, stands)));
            let (lost, left): (Vec<_>, Vec<_>) = lost.partition(|(_, lost)| lost.is_some());
            let left: Vec<usize> = left.into_iter().map(|(place, _)| place).collect();
            let mutual = left
                .iter()
                .map(|place| (*place, conflict(listeners, *place, &left, |_| true)));
            let mutual: Vec<_> = mutual.collect();
            for (place, conflict) in lost.into_iter().chain(mutual) {
                if let Some(judged) = listeners.get_mut(place) {
                    judged.conflict = conflict;
                }
            }
            earlier.extend(own);
        }
    }
}

/// Those of these places, from one on, whose listeners are of the same object; `None` at the end.
fn of_one_object<'p>(listeners: &[Judged<'_>], places: &'p [usize], from: usize) -> Option<&'p [usize]> {
    let object = |place: &usize| listeners.get(*place).map(|judged| judged.set.map(|set| &set.key));
    places
        .get(from..)?
        .chunk_by(|one, next| object(one) == object(next))
        .next()
}

/// With the first of these others that counts and that a listener cannot be told apart from.
fn conflict(
    listeners: &[Judged<'_>],
    place: usize,
    others: &[usize],
    counts: impl Fn(&Judged<'_>) -> bool,
) -> Option<Objection> {
    let one = listeners.get(place)?;
    others.iter().filter(|other| **other != place).find_map(|other| {
        let two = listeners.get(*other).filter(|two| counts(two))?;
        Some(Objection {
            reason: clash(one.listener, two.listener)?,
            message: conflict_message(one, two),
        })
    })
}

fn conflict_message(one: &Judged<'_>, two: &Judged<'_>) -> String {
    let port = one.listener.port;
    match (one.set, two.set) {
        // Whoever owns a ListenerSet need not see what others have.
        (Some(set), other) if other.is_none_or(|other| other.key != set.key) => {
            format!("port {port} is taken by an older listener of the Gateway")
        }
        _ => format!(
            "it cannot be told apart from listener {:?} on port {port}",
            two.listener.name
        ),
    }
}

/// Why two listeners on one port cannot be told apart.
fn clash(one: &ListenerObject, two: &ListenerObject) -> Option<&'static str> {
    let (first, second) = (transport(&one.protocol)?, transport(&two.protocol)?);
    if first != second || matches!(first, Transport::Tcp | Transport::Udp) {
        return Some("ProtocolConflict");
    }
    (one.hostname == two.hostname).then_some("HostnameConflict")
}

fn transport(protocol: &Protocol) -> Option<Transport> {
    match protocol {
        Protocol::Http => Some(Transport::Http),
        Protocol::Https | Protocol::Tls => Some(Transport::Tls),
        Protocol::Tcp => Some(Transport::Tcp),
        Protocol::Udp => Some(Transport::Udp),
        Protocol::Unknown(_) => None,
    }
}
