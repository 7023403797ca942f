//! Encodes each resource once per content, however many proxies are sent it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use model::{Resource, ResourceName, WorkloadId};
use prost::Message;
use proto::v1;
use sha2::{Digest, Sha256};

/// Resources that are kept encoded; the least useful are dropped all at once when there are more.
const MAX_KEPT: usize = 50_000;
/// Bytes of the hash that make a version.
const VERSION_BYTES: usize = 12;

/// Remembers the newest encoding of every resource.
#[derive(Default)]
pub(super) struct Encoder {
    kept: Mutex<HashMap<Key, Kept>>,
}

/// `Inbound` is a different resource for every workload.
type Key = (ResourceName, Option<WorkloadId>);

struct Kept {
    resource: Resource,
    encoded: Arc<Encoded>,
}

/// A resource as it is sent, with its version: equal content has an equal one.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) version: String,
    pub(super) resource: v1::Resource,
}

impl Encoder {
    pub(super) fn encode(
        &self,
        name: &ResourceName,
        resource: &Resource,
        workload: &WorkloadId,
    ) -> Arc<Encoded> {
        let own = matches!(name, ResourceName::Inbound).then(|| workload.clone());
        let key = (name.clone(), own);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(&key).filter(|known| known.resource == *resource) {
            return known.encoded.clone();
        }
        let wire = proto::convert::resource_to_wire(resource);
        let hash = Sha256::digest(wire.encode_to_vec());
        let version = hex::encode(&hash[..VERSION_BYTES]);
        let encoded = Arc::new(Encoded {
            version,
            resource: wire,
        });
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(
            key,
            Kept {
                resource: resource.clone(),
                encoded: encoded.clone(),
            },
        );
        encoded
    }
}
