//! What an object's owner is told about it: Gateway API's status. Pure, as everything that is compiled.

mod features;
mod gateway;
mod policy;
mod report;
mod route;
mod warning;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use model::{Destination, Gateway, Label, ServiceName};
use serde_json::{Value, json};

use super::attach::Objection;
use super::attachments::Attachments;
use super::destination::destination_for;
use super::outside::{matched, used};
use super::{MeshState, fault, traffic_policy};
use crate::sources::{EndpointSlice, GatewayObject, Object, ObjectKey};

pub use report::{BoundPort, ProxyReport, Reports};
pub use warning::Warning;

/// One status condition (Kubernetes `metav1.Condition`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, `Programmed`, ...
    pub type_: &'static str,
    pub status: bool,
    /// One word, as Gateway API spells it where it has one.
    pub reason: &'static str,
    /// Sentences for people; may be empty.
    pub message: String,
}

/// Which version of an object is judged, and since when it is as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// `metadata.generation`.
    pub generation: u64,
    /// RFC 3339.
    pub since: String,
}

/// The conditions of an object, as far as they follow from configuration alone. See [`Judge::conditions`].
pub fn conditions(state: &MeshState, key: &ObjectKey) -> Vec<Condition> {
    Judge::of_configuration(state).conditions(key)
}

/// Judges many objects of one state; what is attached to a Gateway is worked out once.
#[derive(Debug)]
pub struct Judge<'s> {
    state: &'s MeshState,
    /// What the proxies of Gateways say; `None` where only configuration is judged.
    reports: Option<&'s Reports>,
    attachments: Once<ServiceName, Attachments<'s>>,
    /// As callers of a namespace see them.
    destinations: Once<(ServiceName, Label), Option<Destination>>,
    gateways: Once<ServiceName, Option<Gateway>>,
}

/// What was worked out so far.
type Once<K, T> = RefCell<BTreeMap<K, Rc<T>>>;

impl<'s> Judge<'s> {
    /// Judges configuration and what became of it.
    pub fn new(state: &'s MeshState, reports: &'s Reports) -> Self {
        Self {
            reports: Some(reports),
            ..Self::of_configuration(state)
        }
    }

    /// Judges configuration alone: nothing is said of whether it is `Programmed`.
    pub fn of_configuration(state: &'s MeshState) -> Self {
        Self {
            state,
            reports: None,
            attachments: RefCell::default(),
            destinations: RefCell::default(),
            gateways: RefCell::default(),
        }
    }

    /// The conditions of an object in short. A route has one of each type for all its parents together: true only if
    /// it is true for each of them, but `PartiallyInvalid`, which is there where one of them accepts the route. An EndpointSlice is accepted where its Service uses slices, and resolved where each
    /// of its ports is one of the Service's. A BackendTrafficPolicy is accepted where it counts for all its targets, and a
    /// FaultInjectionPolicy where all of them exist. Empty for kinds without status and for objects that do not exist.
    pub fn conditions(&self, key: &ObjectKey) -> Vec<Condition> {
        match self.object(key) {
            Some(Object::GatewayClass(class)) => gateway::of_class(class),
            Some(Object::Gateway(gateway)) => self.gateway_conditions(gateway),
            Some(Object::UnservableGateway(gateway)) => self.unservable_conditions(gateway),
            Some(Object::ListenerSet(set)) => self.set_conditions(set),
            Some(route @ (Object::Route(_) | Object::StreamRoute(_))) => self.route_conditions(route),
            Some(Object::BackendTlsPolicy(policy)) => policy::conditions(self.state, policy),
            Some(Object::EndpointSlice(slice)) => of_slice(self.state, slice),
            Some(Object::FaultPolicy(policy)) => {
                vec![self.policy_condition(policy, fault::objections(self.state, policy))]
            }
            Some(Object::TrafficPolicy(policy)) => {
                vec![self.policy_condition(policy, traffic_policy::objections(self.state, policy))]
            }
            _ => Vec::new(),
        }
    }

    /// The object's `status` as Kubernetes shows it; `None` for kinds that have none, for objects of other controllers
    /// and for what does not exist.
    pub fn status(&self, key: &ObjectKey, observed: &Observed) -> Option<Value> {
        match self.object(key)? {
            Object::Gateway(gateway) => self.gateway_status(gateway, observed),
            Object::ListenerSet(set) => self.set_status(set, observed),
            route @ (Object::Route(_) | Object::StreamRoute(_)) => self.route_status(route, observed),
            Object::BackendTlsPolicy(policy) => Some(self.backend_tls_status(policy, observed)),
            Object::TrafficPolicy(policy) => Some(self.policy_status(key, &policy.targets, observed)),
            Object::FaultPolicy(policy) => Some(self.policy_status(key, &policy.targets, observed)),
            Object::UnservableGateway(_) => {
                let conditions = self.conditions(key);
                (!conditions.is_empty()).then(|| json!({"conditions": shown(&conditions, observed)}))
            }
            Object::GatewayClass(_) => {
                let conditions = self.conditions(key);
                (!conditions.is_empty()).then(|| {
                    json!({
                        "conditions": shown(&conditions, observed),
                        "supportedFeatures": features::supported(),
                    })
                })
            }
            Object::EndpointSlice(_) => {
                let conditions = self.conditions(key);
                (!conditions.is_empty()).then(|| json!({"conditions": shown(&conditions, observed)}))
            }
            _ => None,
        }
    }

    fn object(&self, key: &ObjectKey) -> Option<&'s Object> {
        self.state.objects.get(key).map(|stored| &stored.object)
    }

    /// What is attached to a Gateway of ours.
    fn attachments(&self, gateway: &'s GatewayObject) -> Rc<Attachments<'s>> {
        let mut known = self.attachments.borrow_mut();
        let attachments = known
            .entry(gateway.name.clone())
            .or_insert_with(|| Rc::new(Attachments::of(self.state, gateway)));
        attachments.clone()
    }

    /// A Service as callers of a namespace see it.
    fn destination(&self, service: &ServiceName, caller: &Label) -> Rc<Option<Destination>> {
        let mut known = self.destinations.borrow_mut();
        known
            .entry((service.clone(), caller.clone()))
            .or_insert_with(|| Rc::new(destination_for(self.state, service, caller)))
            .clone()
    }

    /// A Gateway as its proxies see it.
    fn gateway(&self, name: &ServiceName) -> Rc<Option<Gateway>> {
        let mut known = self.gateways.borrow_mut();
        known
            .entry(name.clone())
            .or_insert_with(|| Rc::new(super::gateway(self.state, name)))
            .clone()
    }
}

fn of_slice(state: &MeshState, slice: &EndpointSlice) -> Vec<Condition> {
    let unmatched = slice
        .ports
        .iter()
        .filter_map(|port| matched(state, slice, port).err());
    vec![
        condition(
            "Accepted",
            "Accepted",
            used(state, slice).err().into_iter().collect(),
        ),
        condition("ResolvedRefs", "ResolvedRefs", unmatched.collect()),
    ]
}

/// False with the first objection's reason and all their sentences, each once; else true.
fn condition(type_: &'static str, reason: &'static str, mut objections: Vec<Objection>) -> Condition {
    let mut seen = std::collections::BTreeSet::new();
    objections.retain(|objection| seen.insert(objection.message.clone()));
    Condition {
        type_,
        status: objections.is_empty(),
        reason: objections.first().map_or(reason, |objection| objection.reason),
        message: joined(objections.iter().map(|objection| objection.message.as_str())),
    }
}

fn joined<'a>(sentences: impl Iterator<Item = &'a str>) -> String {
    sentences
        .filter(|sentence| !sentence.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// Conditions as Kubernetes shows them.
fn shown(conditions: &[Condition], observed: &Observed) -> Value {
    let shown = conditions.iter().map(|condition| {
        json!({
            "type": condition.type_,
            "status": if condition.status { "True" } else { "False" },
            "reason": condition.reason,
            "message": condition.message,
            "observedGeneration": observed.generation,
            "lastTransitionTime": observed.since,
        })
    });
    shown.collect()
}
