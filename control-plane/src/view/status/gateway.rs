//! The status of GatewayClasses, Gateways and ListenerSets.

use model::ServiceName;
use serde_json::{Value, json};

use super::report::{addresses, unserved};
use super::{Condition, Judge, Observed, condition, shown};
use crate::sources::{
    CONTROLLER_NAME, GATEWAY_GROUP, GatewayClass, GatewayObject, ListenerSet, Protocol, UnservableGateway,
};
use crate::view::attach::Objection;
use crate::view::attachments::Attachments;
use crate::view::listeners::{Judged, allows};

/// Most addresses that Gateway API lets a status have.
const MAX_ADDRESSES: usize = 16;

/// The version of Gateway API whose kinds are read.
const API_VERSION: &str = "1.6";

/// None for a class of another controller.
pub(super) fn of_class(class: &GatewayClass) -> Vec<Condition> {
    if class.controller != CONTROLLER_NAME {
        return Vec::new();
    }
    let parameters = class.has_parameters.then(|| Objection {
        reason: "InvalidParameters",
        message: "parametersRef is given, and Weft has no parameters".to_owned(),
    });
    let accepted = condition("Accepted", "Accepted", parameters.into_iter().collect());
    let version = Condition {
        message: format!("what is written is read as Gateway API {API_VERSION}, experimental channel"),
        ..condition("SupportedVersion", "SupportedVersion", Vec::new())
    };
    vec![accepted, version]
}

impl<'s> Judge<'s> {
    pub(super) fn gateway_conditions(&self, gateway: &'s GatewayObject) -> Vec<Condition> {
        if !self.state.is_ours(&gateway.class) {
            return Vec::new();
        }
        let attachments = self.attachments(gateway);
        let own: Vec<&Judged<'_>> = of(&attachments, None).map(|(judged, _)| judged).collect();
        let accepted = match &attachments.merged.objection {
            Some(objection) => condition("Accepted", "Accepted", vec![objection.clone()]),
            None => listeners_accepted(&own, |judged| judged.is_accepted()),
        };
        let shown = attachments.merged.client_certificate.as_ref();
        let shown = shown.and_then(|shown| shown.as_ref().err().cloned());
        let unresolved = own.iter().filter_map(|judged| {
            let objection = judged.unresolved.as_ref()?;
            Some(Objection {
                reason: "ListenersNotResolved",
                message: format!("listener {:?}: {}", judged.listener.name, objection.message),
            })
        });
        let unresolved = shown.into_iter().chain(unresolved);
        let resolved = condition("ResolvedRefs", "ResolvedRefs", unresolved.collect());
        let programmed = self.programmed(&gateway.name, &accepted, "Invalid", &own);
        let mut conditions = vec![accepted, resolved];
        conditions.extend(programmed);
        let is_insecure = own
            .iter()
            .any(|judged| judged.clients.as_ref().is_some_and(|clients| clients.optional));
        if is_insecure {
            conditions.push(Condition {
                type_: "InsecureFrontendValidationMode",
                status: true,
                reason: "ConfigurationChanged",
                message: "clients without a valid certificate are served".to_owned(),
            });
        }
        conditions
    }

    pub(super) fn unservable_conditions(&self, gateway: &UnservableGateway) -> Vec<Condition> {
        if !self.state.is_ours(&gateway.class) {
            return Vec::new();
        }
        let objection = Objection {
            reason: "Invalid",
            message: "its name is no DNS label (1-63 of a-z, 0-9 and '-'), so that no proxy can have it as service account"
                .to_owned(),
        };
        let accepted = condition("Accepted", "Accepted", vec![objection]);
        let programmed = self.reports.map(|_| Condition {
            type_: "Programmed",
            ..accepted.clone()
        });
        [accepted].into_iter().chain(programmed).collect()
    }

    pub(super) fn gateway_status(&self, gateway: &'s GatewayObject, observed: &Observed) -> Option<Value> {
        let conditions = self.gateway_conditions(gateway);
        if conditions.is_empty() {
            return None;
        }
        let attachments = self.attachments(gateway);
        let listeners = of(&attachments, None)
            .map(|(judged, routes)| self.listener_status(&attachments, judged, routes, observed));
        let listeners: Vec<Value> = listeners.collect();
        let proxies = self.reports.and_then(|reports| reports.get(&gateway.name));
        let addresses = addresses(proxies)
            .into_iter()
            .take(MAX_ADDRESSES)
            .map(|ip| json!({"type": "IPAddress", "value": ip.to_string()}));
        let sets = attachments.merged.sets.iter();
        let attached = sets.filter(|set| {
            let conditions = self.set_conditions(set);
            conditions.first().is_some_and(|accepted| accepted.status)
        });
        Some(json!({
            "addresses": addresses.collect::<Value>(),
            "attachedListenerSets": attached.count(),
            "conditions": shown(&conditions, observed),
            "listeners": listeners,
        }))
    }

    pub(super) fn set_conditions(&self, set: &'s ListenerSet) -> Vec<Condition> {
        let refuse = |reason, message| {
            let accepted = condition("Accepted", "Accepted", vec![Objection { reason, message }]);
            let programmed = self.reports.map(|_| Condition {
                type_: "Programmed",
                ..accepted.clone()
            });
            [accepted].into_iter().chain(programmed).collect()
        };
        let Some(gateway) = self.state.gateway(&set.parent) else {
            return refuse(
                "ParentNotAccepted",
                format!("Gateway {} does not exist", set.parent),
            );
        };
        if !self.state.is_ours(&gateway.class) {
            return Vec::new();
        }
        if !allows(self.state, gateway, set) {
            let why = "takes no ListenerSet of this namespace (allowedListeners)";
            return refuse("NotAllowed", format!("Gateway {} {why}", set.parent));
        }
        let attachments = self.attachments(gateway);
        if attachments.merged.objection.is_some() {
            let message = format!("Gateway {} is not accepted itself", set.parent);
            return refuse("ParentNotAccepted", message);
        }
        let own: Vec<&Judged<'_>> = of(&attachments, Some(set)).map(|(judged, _)| judged).collect();
        // The owner of a ListenerSet has no other listeners than these, so that one that serves nothing is no use.
        let accepted = listeners_accepted(&own, |judged| judged.is_served());
        let programmed = self.programmed(&gateway.name, &accepted, accepted.reason, &own);
        [accepted].into_iter().chain(programmed).collect()
    }

    pub(super) fn set_status(&self, set: &'s ListenerSet, observed: &Observed) -> Option<Value> {
        let conditions = self.set_conditions(set);
        if conditions.is_empty() {
            return None;
        }
        let gateway = self.state.gateway(&set.parent);
        let attachments = gateway.map(|gateway| self.attachments(gateway));
        let listeners = attachments.iter().flat_map(|attachments| {
            of(attachments, Some(set))
                .map(|(judged, routes)| self.listener_status(attachments, judged, routes, observed))
        });
        Some(json!({
            "conditions": shown(&conditions, observed),
            "listeners": listeners.collect::<Value>(),
        }))
    }

    /// `None` where only configuration is judged. `refused` is the reason where it is not accepted.
    fn programmed(
        &self,
        gateway: &ServiceName,
        accepted: &Condition,
        refused: &'static str,
        listeners: &[&Judged<'_>],
    ) -> Option<Condition> {
        let proxies = self.reports?.get(gateway);
        let served = listeners.iter().filter(|judged| judged.is_served());
        let ports: std::collections::BTreeSet<u16> = served.map(|judged| judged.listener.port).collect();
        let objections = if !accepted.status {
            vec![Objection {
                reason: refused,
                message: "it is not accepted".to_owned(),
            }]
        } else if ports.is_empty() {
            vec![Objection {
                reason: "Invalid",
                message: "nothing can be served on any of its listeners".to_owned(),
            }]
        } else {
            let unserved = ports.iter().filter_map(|port| unserved(proxies, *port));
            unserved
                .map(|(reason, message)| Objection { reason, message })
                .collect()
        };
        Some(condition("Programmed", "Programmed", objections))
    }

    fn listener_status(
        &self,
        attachments: &Attachments<'_>,
        judged: &Judged<'_>,
        routes: usize,
        observed: &Observed,
    ) -> Value {
        let kinds = judged
            .kinds
            .iter()
            .map(|kind| json!({"group": GATEWAY_GROUP, "kind": kind.as_str()}));
        let mut conditions = listener_conditions(judged);
        conditions.extend(overlap(attachments, judged));
        if let Some(reports) = self.reports {
            let proxies = reports.get(&attachments.merged.gateway.name);
            let is_served = judged.is_served() && attachments.merged.objection.is_none();
            let unserved = match is_served {
                true => unserved(proxies, judged.listener.port),
                false => {
                    // What somebody else's listener took is said as often as Gateway API lets it be.
                    let lost = judged.conflict.as_ref().filter(|_| judged.set.is_some());
                    let reason = lost.map_or("Invalid", |conflict| conflict.reason);
                    Some((reason, "nothing can be served on it".to_owned()))
                }
            };
            let objection = unserved.map(|(reason, message)| Objection {
                reason: match reason {
                    "AddressNotUsable" => "PortUnavailable",
                    reason => reason,
                },
                message,
            });
            conditions.push(condition(
                "Programmed",
                "Programmed",
                objection.into_iter().collect(),
            ));
        }
        json!({
            "name": judged.listener.name,
            "attachedRoutes": routes,
            "supportedKinds": kinds.collect::<Value>(),
            "conditions": shown(&conditions, observed),
        })
    }
}

/// The listeners of the Gateway itself, or of one of its ListenerSets, each with how many routes are attached.
fn of<'a, 's>(
    attachments: &'a Attachments<'s>,
    set: Option<&'a ListenerSet>,
) -> impl Iterator<Item = (&'a Judged<'s>, usize)> {
    let listeners = attachments.merged.listeners.iter().zip(&attachments.routes);
    listeners
        .filter(move |(judged, _)| judged.set.map(|set| &set.key) == set.map(|set| &set.key))
        .map(|(judged, routes)| (judged, routes.len()))
}

/// Accepted where one listener is valid; with the reason `ListenersNotValid` where one is not.
fn listeners_accepted(listeners: &[&Judged<'_>], is_valid: impl Fn(&Judged<'_>) -> bool) -> Condition {
    let (accepted, refused): (Vec<_>, Vec<_>) = listeners.iter().partition(|judged| is_valid(judged));
    let names = |listeners: &[&&Judged<'_>]| {
        let names = listeners.iter().map(|judged| judged.listener.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    if refused.is_empty() {
        return condition("Accepted", "Accepted", Vec::new());
    }
    let mut message = format!("not accepted: {}", names(&refused));
    if !accepted.is_empty() {
        message += &format!("; accepted: {}", names(&accepted));
    }
    Condition {
        type_: "Accepted",
        status: !accepted.is_empty(),
        reason: "ListenersNotValid",
        message,
    }
}

fn listener_conditions(judged: &Judged<'_>) -> Vec<Condition> {
    let conflicted = match &judged.conflict {
        Some(conflict) => Condition {
            type_: "Conflicted",
            status: true,
            reason: conflict.reason,
            message: conflict.message.clone(),
        },
        None => Condition {
            type_: "Conflicted",
            status: false,
            reason: "NoConflicts",
            message: String::new(),
        },
    };
    let refused = judged.conflict.iter().chain(&judged.refused).cloned();
    vec![
        condition("Accepted", "Accepted", refused.collect()),
        conflicted,
        condition(
            "ResolvedRefs",
            "ResolvedRefs",
            judged.unresolved.iter().cloned().collect(),
        ),
    ]
}

/// Where the host names of HTTPS listeners of one port overlap, a client may send over one connection what is meant
/// for another listener.
fn overlap(attachments: &Attachments<'_>, judged: &Judged<'_>) -> Option<Condition> {
    let is_https = |judged: &Judged<'_>| judged.listener.protocol == Protocol::Https && judged.is_accepted();
    if !is_https(judged) {
        return None;
    }
    let other = attachments.merged.listeners.iter().find(|other| {
        is_https(other)
            && other.name() != judged.name()
            && other.listener.port == judged.listener.port
            && other
                .listener
                .hostname
                .intersection(&judged.listener.hostname)
                .is_some()
    })?;
    let shared = match other.set.map(|set| &set.key) == judged.set.map(|set| &set.key) {
        true => format!("with those of listener {:?}", other.listener.name),
        false => "with those of another listener of the Gateway".to_owned(),
    };
    Some(Condition {
        type_: "OverlappingTLSConfig",
        status: true,
        reason: "OverlappingHostnames",
        message: format!("its host names overlap {shared}"),
    })
}
