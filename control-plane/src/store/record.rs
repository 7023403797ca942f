//! What one entry of the store holds.

use std::collections::BTreeMap;

use model::workload::{AppPort, Workload};
use model::{FieldError, Labels};
use serde::{Deserialize, Serialize};

/// A configuration object: the text it was read from, which is read again at every start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectRecord {
    pub(crate) text: String,
    /// The file it came from, by its name; `None` from `weft apply`.
    pub(crate) file: Option<String>,
    /// The mesh's generation at which it was created.
    pub(crate) created: u64,
    /// `metadata.generation`: how many versions of the object there were. Like the times, not written by versions
    /// before Gateway API's status.
    #[serde(default = "first")]
    pub(crate) generation: u64,
    /// Unix seconds; 0 where it is not known.
    #[serde(default)]
    pub(crate) created_at: u64,
    /// When this version came, Unix seconds; 0 where it is not known.
    #[serde(default)]
    pub(crate) changed_at: u64,
}

fn first() -> u64 {
    1
}

impl ObjectRecord {
    /// Where the text comes from, as operators read it.
    pub(crate) fn source(&self) -> &str {
        self.file.as_deref().unwrap_or("apply")
    }
}

/// A workload, remembered over a restart of the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkloadRecord {
    identity: String,
    labels: BTreeMap<String, String>,
    inbound: Option<String>,
    /// Not written by versions before gateways.
    #[serde(default)]
    gateway: Option<String>,
    app_ports: Vec<(Option<String>, String)>,
    ready: bool,
}

impl From<&Workload> for WorkloadRecord {
    fn from(workload: &Workload) -> Self {
        let labels = workload.labels.iter();
        let ports = workload.app_ports.iter();
        Self {
            identity: workload.identity.to_string(),
            labels: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            inbound: workload.inbound.map(|address| address.to_string()),
            gateway: workload.gateway.as_ref().map(ToString::to_string),
            app_ports: ports
                .map(|port| (port.name.clone(), port.address.to_string()))
                .collect(),
            ready: workload.ready,
        }
    }
}

impl WorkloadRecord {
    /// The workload of this id.
    pub(crate) fn read(self, id: &str) -> Result<Workload, FieldError> {
        let address = |text: &str| {
            text.parse()
                .map_err(|_| FieldError::new(format!("{text:?} is no address")))
        };
        let port = |(name, text): (Option<String>, String)| {
            Ok(AppPort {
                name,
                address: address(&text)?,
            })
        };
        Ok(Workload {
            id: id.parse()?,
            identity: self.identity.parse()?,
            labels: Labels::new(self.labels)?,
            inbound: self.inbound.as_deref().map(address).transpose()?,
            gateway: self.gateway.as_deref().map(str::parse).transpose()?,
            app_ports: self
                .app_ports
                .into_iter()
                .map(port)
                .collect::<Result<_, FieldError>>()?,
            ready: self.ready,
        })
    }
}
