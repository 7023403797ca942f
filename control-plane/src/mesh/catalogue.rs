//! Every resource compiled and encoded once, however many proxies must know it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use model::{Label, Question, Resource, ResourceName, ServiceName, WorkloadId};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::view::{self, MeshState};

/// Bytes of the hash that make a version.
const VERSION_BYTES: usize = 16;

/// What one workload must know; `None` is the answer that there is no such service.
pub(crate) type Known = BTreeMap<ResourceName, Option<Arc<Encoded>>>;

/// A resource as it is sent, with its version: equal content has an equal one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) version: String,
    /// [`proto::v1::Resource`], encoded.
    pub(crate) bytes: Bytes,
}

/// Compiled resources of the present state. Only what exists is kept, so that the configuration bounds it.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// As most callers see them, and as those of a namespace that has consumer routes for it.
    destinations: HashMap<(ServiceName, Option<Label>), Compiled>,
    /// Which callers see a Service in their own way; `None` where it is not known.
    consumers: Option<BTreeSet<(ServiceName, Label)>>,
    gateways: HashMap<ServiceName, Compiled>,
    endpoints: HashMap<ServiceName, Arc<Encoded>>,
    inbound: HashMap<WorkloadId, Arc<Encoded>>,
    /// Of addresses that were asked about, those of workloads.
    owners: HashMap<SocketAddr, Owned>,
}

#[derive(Debug, Clone)]
struct Owned {
    encoded: Arc<Encoded>,
    service: ServiceName,
}

#[derive(Debug, Clone)]
struct Compiled {
    encoded: Arc<Encoded>,
    /// The services that its traffic may end at.
    reaches: Arc<BTreeSet<ServiceName>>,
}

impl Catalogue {
    /// The same as [`view::resources_for`], encoded.
    pub(super) fn resources_for(
        &mut self,
        state: &MeshState,
        workload: &WorkloadId,
        subscriptions: &BTreeSet<Question>,
    ) -> Known {
        let mut known = Known::new();
        known.insert(ResourceName::Inbound, Some(self.inbound(state, workload)));
        let mut reached = BTreeSet::new();
        let known_workload = state.workloads.get(workload);
        if let Some(name) = known_workload.and_then(view::served_gateway) {
            let compiled = self.gateway(state, &name);
            if let Some(compiled) = &compiled {
                reached.extend(compiled.reaches.iter().cloned());
            }
            let encoded = compiled.map(|compiled| compiled.encoded);
            known.insert(ResourceName::Gateway(name), encoded);
        }
        let caller = known_workload.map(|workload| &workload.identity.namespace);
        for question in subscriptions {
            let service = match question {
                Question::Service(service) => service,
                Question::Address(address) => {
                    let owner = self.owner(state, *address);
                    reached.extend(owner.as_ref().map(|owner| owner.service.clone()));
                    let encoded = owner.map(|owner| owner.encoded);
                    known.insert(ResourceName::Address(*address), encoded);
                    continue;
                }
            };
            let compiled = self.destination(state, service, caller);
            if let Some(compiled) = &compiled {
                reached.extend(compiled.reaches.iter().cloned());
            }
            let encoded = compiled.map(|compiled| compiled.encoded);
            known.insert(ResourceName::Destination(service.clone()), encoded);
        }
        for service in reached {
            let encoded = self.endpoints(state, &service);
            known.insert(ResourceName::Endpoints(service), Some(encoded));
        }
        known
    }

    /// After a change of configuration.
    pub(super) fn forget_all(&mut self) {
        *self = Self::default();
    }

    /// After a change of one workload, which serves or served these.
    pub(super) fn forget_workload(&mut self, id: &WorkloadId, services: &[ServiceName]) {
        self.inbound.remove(id);
        self.owners.clear();
        for service in services {
            self.endpoints.remove(service);
        }
    }

    fn inbound(&mut self, state: &MeshState, id: &WorkloadId) -> Arc<Encoded> {
        if let Some(known) = self.inbound.get(id) {
            return known.clone();
        }
        let encoded = encode(&Resource::Inbound(view::inbound(state, id)));
        if state.workloads.contains_key(id) {
            self.inbound.insert(id.clone(), encoded.clone());
        }
        encoded
    }

    fn destination(
        &mut self,
        state: &MeshState,
        service: &ServiceName,
        caller: Option<&Label>,
    ) -> Option<Compiled> {
        let consumers = self.consumers.get_or_insert_with(|| view::consumers(state));
        // Looked for only where there are some at all.
        let consumer = caller.filter(|caller| {
            !consumers.is_empty() && consumers.contains(&(service.clone(), (*caller).clone()))
        });
        let key = (service.clone(), consumer.cloned());
        if let Some(known) = self.destinations.get(&key) {
            return Some(known.clone());
        }
        let destination = match consumer {
            Some(caller) => view::destination_for(state, service, caller)?,
            None => view::destination(state, service)?,
        };
        let compiled = Compiled {
            reaches: Arc::new(view::reached_from(&destination)),
            encoded: encode(&Resource::Destination(destination)),
        };
        self.destinations.insert(key, compiled.clone());
        Some(compiled)
    }

    fn gateway(&mut self, state: &MeshState, name: &ServiceName) -> Option<Compiled> {
        if let Some(known) = self.gateways.get(name) {
            return Some(known.clone());
        }
        let gateway = view::gateway(state, name)?;
        let compiled = Compiled {
            reaches: Arc::new(view::backends_of(&gateway)),
            encoded: encode(&Resource::Gateway(gateway)),
        };
        self.gateways.insert(name.clone(), compiled.clone());
        Some(compiled)
    }

    fn owner(&mut self, state: &MeshState, address: SocketAddr) -> Option<Owned> {
        if let Some(known) = self.owners.get(&address) {
            return Some(known.clone());
        }
        let owner = view::owner(state, address)?;
        let owned = Owned {
            service: owner.target.service.clone(),
            encoded: encode(&Resource::Address(owner)),
        };
        self.owners.insert(address, owned.clone());
        Some(owned)
    }

    fn endpoints(&mut self, state: &MeshState, service: &ServiceName) -> Arc<Encoded> {
        if let Some(known) = self.endpoints.get(service) {
            return known.clone();
        }
        let encoded = encode(&Resource::Endpoints(view::endpoints(state, service)));
        self.endpoints.insert(service.clone(), encoded.clone());
        encoded
    }
}

fn encode(resource: &Resource) -> Arc<Encoded> {
    let bytes = proto::convert::resource_to_wire(resource).encode_to_vec();
    let hash = Sha256::digest(&bytes);
    let version = hex::encode(hash.get(..VERSION_BYTES).unwrap_or(&hash));
    Arc::new(Encoded {
        version,
        bytes: bytes.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::parse_documents;
    use crate::view::StoredObject;

    const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: checkout}
spec: {selector: {app: checkout}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: canary}
spec: {selector: {app: canary}, ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: checkout}
spec:
  parentRefs: [{group: '', kind: Service, name: checkout}]
  rules:
    - backendRefs: [{name: checkout, port: 80, weight: 9}, {name: canary, port: 80, weight: 1}]
      filters: [{type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}}}]
---
apiVersion: v1
kind: Service
metadata: {name: shadow}
spec: {selector: {app: shadow}, ports: [{port: 80}]}
";

    #[test]
    fn it_says_what_the_view_says() {
        let mut state = MeshState::default();
        for document in parse_documents("shop.yaml", SHOP).unwrap() {
            let stored = StoredObject {
                object: document.object.clone(),
                created: 1,
            };
            state.objects.insert(document.object.key(), stored);
        }
        let id: WorkloadId = "caller".parse().unwrap();
        let subscriptions =
            ["default/checkout", "default/nobody"].map(|name| name.parse::<Question>().unwrap());
        let subscriptions = BTreeSet::from(subscriptions);
        let expected: Known = view::resources_for(&state, &id, &subscriptions)
            .into_iter()
            .map(|(name, resource)| (name, resource.map(|resource| encode(&resource))))
            .collect();
        let mut catalogue = Catalogue::default();
        assert!(
            expected.len() == 6,
            "inbound, two answers, three sets of endpoints"
        );
        for _ in 0..2 {
            assert_eq!(catalogue.resources_for(&state, &id, &subscriptions), expected);
        }
    }
}
