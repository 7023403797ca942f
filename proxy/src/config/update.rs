//! Reads one update of the control plane: all of it is understood before any of it is used.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::gateway::Certificate;
use model::{EndpointSet, Endpoints, FieldError, Generation, Question, Resource, ResourceName, Snapshot};
use prost::Message as _;
use proto::v1;

use crate::gateway::termination;
use crate::identity::printable;

/// Longest version of a resource that is accepted, in bytes: versions are sent back with every new stream.
pub const MAX_VERSION_BYTES: usize = 64;

/// Bounds on what a control plane can make a proxy keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Resources in use; default 16,384.
    pub resources: usize,
    /// Their size on the wire, in bytes; default 128 MiB.
    pub bytes: usize,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self {
            resources: 16_384,
            bytes: 128 * 1024 * 1024,
        }
    }
}

/// Why nothing of an update is in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: {field}: {why}")]
pub struct Refusal {
    /// The resource that is wrong, as the control plane named it; empty where it is the update as a whole.
    pub resource: String,
    /// The field that is wrong, as in `ports[0].rules[1].retry.attempts`.
    pub field: String,
    pub why: String,
}

impl Refusal {
    fn new(resource: &str, field: &str, why: impl Into<String>) -> Self {
        Self {
            resource: printable(resource),
            field: field.to_owned(),
            why: why.into(),
        }
    }

    fn of(resource: &str, error: &FieldError) -> Self {
        let path = match error.path.to_string() {
            path if path.is_empty() => "resource".to_owned(),
            path => printable(&path),
        };
        Self::new(resource, &path, printable(&error.why))
    }
}

/// An update that was understood.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) generation: Generation,
    changed: Vec<Changed>,
    removed: Vec<ResourceName>,
}

#[derive(Debug)]
struct Changed {
    name: ResourceName,
    version: String,
    bytes: usize,
    resource: Resource,
}

impl Change {
    /// Converts every resource of an update, or says which field of which is wrong.
    pub(super) fn read(update: v1::Update) -> Result<Self, Refusal> {
        let mut names = HashSet::new();
        let mut once = |text: &str, name: &ResourceName| match names.insert(name.clone()) {
            true => Ok(()),
            false => Err(Refusal::new(text, "name", "is there more than once")),
        };
        let mut changed = Vec::with_capacity(update.changed.len());
        for resource in update.changed {
            let read = Changed::read(resource)?;
            once(&read.name.to_string(), &read.name)?;
            changed.push(read);
        }
        let mut removed = Vec::with_capacity(update.removed.len());
        for text in update.removed {
            let name = read_name(&text)?;
            once(&text, &name)?;
            removed.push(name);
        }
        Ok(Self {
            generation: Generation(update.generation),
            changed,
            removed,
        })
    }

    /// Leaves out answers that nobody wants: they were forgotten while this update was on its way.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Question) -> bool) {
        let keep = |name: &ResourceName| name.question().is_none_or(|question| wanted(&question));
        self.changed.retain(|changed| keep(&changed.name));
        self.removed.retain(keep);
    }

    /// What was asked about and exists after this change, and what does not.
    pub(super) fn answers(&self) -> (Vec<Question>, Vec<Question>) {
        let exist = self
            .changed
            .iter()
            .filter_map(|changed| changed.name.question())
            .collect();
        (
            exist,
            self.removed.iter().filter_map(ResourceName::question).collect(),
        )
    }

    pub(super) fn onto(self, snapshot: &Snapshot) -> Snapshot {
        let changed = self.changed.into_iter().map(|changed| changed.resource).collect();
        let mut next = snapshot.with(self.generation, changed, &self.removed);
        if shown(&next) != shown(snapshot) {
            // Clusters compare sets by pointer, and those behind TLS are called as somebody else from now on.
            for set in next.endpoints.values_mut() {
                if let Endpoints::Outside(ports) = &set.endpoints
                    && ports.values().any(|port| port.tls.is_some())
                {
                    *set = Arc::new(EndpointSet::clone(set));
                }
            }
        }
        next
    }
}

/// What backends outside the mesh are shown.
fn shown(snapshot: &Snapshot) -> Option<&Certificate> {
    snapshot.gateway.as_ref()?.client_certificate.as_deref()
}

impl Changed {
    fn read(wire: v1::VersionedResource) -> Result<Self, Refusal> {
        let v1::VersionedResource {
            name: text,
            version,
            resource: content,
        } = wire;
        let name = read_name(&text)?;
        if version.is_empty() || version.len() > MAX_VERSION_BYTES {
            let why = format!("a version has 1-{MAX_VERSION_BYTES} bytes");
            return Err(Refusal::new(&text, "version", why));
        }
        let content = content.ok_or_else(|| Refusal::new(&text, "resource", "is missing"))?;
        let bytes = content.encoded_len();
        let resource =
            proto::convert::resource_from_wire(content).map_err(|error| Refusal::of(&text, &error))?;
        if let Resource::Gateway(gateway) = &resource {
            termination::check(gateway).map_err(|error| Refusal::of(&text, &error))?;
        }
        if resource.name() != name {
            let why = format!("the content is that of {}", resource.name());
            return Err(Refusal::new(&text, "name", why));
        }
        Ok(Self {
            name,
            version,
            bytes,
            resource,
        })
    }
}

fn read_name(text: &str) -> Result<ResourceName, Refusal> {
    text.parse()
        .map_err(|error: FieldError| Refusal::new(text, "name", printable(&error.why)))
}

/// The version and size of every resource in use: what a new stream begins with.
#[derive(Debug, Default)]
pub(super) struct Held {
    resources: HashMap<ResourceName, (String, usize)>,
    bytes: usize,
}

impl Held {
    /// Refuses a change that would leave more in use than `limits` allow.
    pub(super) fn admit(&self, change: &Change, limits: &ResourceLimits) -> Result<(), Refusal> {
        let (mut count, mut bytes) = (self.resources.len(), self.bytes);
        for name in &change.removed {
            if let Some((_, size)) = self.resources.get(name) {
                count -= 1;
                bytes -= size;
            }
        }
        for changed in &change.changed {
            match self.resources.get(&changed.name) {
                Some((_, size)) => bytes -= size,
                None => count += 1,
            }
            bytes += changed.bytes;
        }
        if count > limits.resources {
            let why = format!(
                "{count} resources are more than the {} that this proxy keeps",
                limits.resources
            );
            return Err(Refusal::new("", "changed", why));
        }
        if bytes > limits.bytes {
            let why = format!(
                "{bytes} bytes of resources are more than the {} that this proxy keeps",
                limits.bytes
            );
            return Err(Refusal::new("", "changed", why));
        }
        Ok(())
    }

    pub(super) fn note(&mut self, change: &Change) {
        for name in &change.removed {
            if let Some((_, size)) = self.resources.remove(name) {
                self.bytes -= size;
            }
        }
        for changed in &change.changed {
            let entry = (changed.version.clone(), changed.bytes);
            if let Some((_, size)) = self.resources.insert(changed.name.clone(), entry) {
                self.bytes -= size;
            }
            self.bytes += changed.bytes;
        }
    }

    pub(super) fn versions(&self) -> impl Iterator<Item = (String, String)> {
        self.resources
            .iter()
            .map(|(name, (version, _))| (name.to_string(), version.clone()))
    }

    pub(super) fn count(&self) -> usize {
        self.resources.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wire() -> impl Strategy<Value = v1::Update> {
        let name = || "inbound|(destination|endpoints)/[a-c]/[a-c]|.{0,12}";
        let service = || "[a-c]/[a-c]|.{0,6}";
        let content = prop_oneof![
            Just(v1::resource::Resource::Inbound(v1::Inbound::default())),
            service().prop_map(|service| v1::resource::Resource::Destination(v1::Destination {
                service,
                ports: Vec::new()
            })),
            service().prop_map(|service| v1::resource::Resource::Endpoints(v1::EndpointSet {
                service,
                endpoints: Vec::new(),
                outside: None,
                policies: Vec::new(),
                faults: Vec::new(),
                shadow: Vec::new(),
            })),
        ];
        let resource = (name(), "[0-9]{0,2}|.{0,80}", proptest::option::of(content)).prop_map(
            |(name, version, resource)| v1::VersionedResource {
                name,
                version,
                resource: Some(v1::Resource { resource }),
            },
        );
        let lists = (
            proptest::collection::vec(resource, 0..4),
            proptest::collection::vec(name(), 0..3),
        );
        lists.prop_map(|(changed, removed)| v1::Update {
            nonce: 1,
            generation: 1,
            changed,
            removed,
        })
    }

    /// An update of resources that are named after what they are.
    fn sound() -> impl Strategy<Value = v1::Update> {
        let names = proptest::collection::btree_map(("[a-c]", "[a-c]"), any::<bool>(), 0..6);
        names.prop_map(|names| {
            let mut update = v1::Update::default();
            for ((namespace, name), keep) in names {
                let service = format!("{namespace}/{name}");
                let name = format!("endpoints/{service}");
                if !keep {
                    update.removed.push(name);
                    continue;
                }
                let set = v1::EndpointSet {
                    service,
                    endpoints: Vec::new(),
                    outside: None,
                    policies: Vec::new(),
                    faults: Vec::new(),
                    shadow: Vec::new(),
                };
                let resource = Some(v1::Resource {
                    resource: Some(v1::resource::Resource::Endpoints(set)),
                });
                update.changed.push(v1::VersionedResource {
                    name,
                    version: "1".to_owned(),
                    resource,
                });
            }
            update
        })
    }

    proptest! {
        #[test]
        fn any_update_is_read_or_refused_without_panic(update in wire()) {
            if let Err(refusal) = Change::read(update) {
                prop_assert!(!refusal.field.is_empty() && !refusal.why.is_empty());
            }
        }

        #[test]
        fn what_is_held_is_what_a_snapshot_has(updates in proptest::collection::vec(sound(), 0..20)) {
            let (mut held, mut snapshot) = (Held::default(), Snapshot::default());
            for update in updates {
                let change = Change::read(update).expect("sound");
                prop_assert!(held.admit(&change, &ResourceLimits::default()).is_ok());
                held.note(&change);
                snapshot = change.onto(&snapshot);
                prop_assert_eq!(held.count(), snapshot.endpoints.len());
                let names: HashSet<String> = held.versions().map(|(name, _)| name).collect();
                let wanted = snapshot.endpoints.keys().map(|service| format!("endpoints/{service}"));
                prop_assert_eq!(names, wanted.collect::<HashSet<String>>());
                // Every one of these is a resource of 7 bytes: two tags, two lengths and `a/a`.
                prop_assert_eq!(held.bytes(), 7 * held.count());
            }
        }
    }
}
