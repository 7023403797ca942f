//! Workloads: anything with a sidecar. Its labels make it an endpoint of every Service whose selector matches.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::{FieldError, Label, SpiffeId};

/// Names one running workload for as long as it runs; chosen by the proxy: 1–128 of letters, digits, `.`, `-`, `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId(String);

impl WorkloadId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkloadId {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > 128 || !text.bytes().all(letters) {
            return Err(FieldError::new(format!(
                "{text:?} is not a workload id (1-128 of a-z, A-Z, 0-9, '.', '-', '_')"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A workload's labels, as a Pod has them: `app: checkout, version: v2`. At most 64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    pub fn new(labels: BTreeMap<String, String>) -> Result<Self, FieldError> {
        if labels.len() > 64 {
            return Err(FieldError::new("a workload has at most 64 labels"));
        }
        for (key, value) in &labels {
            if key.is_empty() || key.len() > 317 || value.len() > 63 {
                return Err(FieldError::at(
                    key,
                    "a label has a key of 1-317 bytes and a value of at most 63",
                ));
            }
        }
        Ok(Self(labels))
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// A Service's selector: every pair must be among a workload's labels. An empty selector selects nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(pub Labels);

impl Selector {
    pub fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }

    pub fn selects(&self, labels: &Labels) -> bool {
        !self.is_empty() && self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// What a sidecar tells the control plane about its workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    pub id: WorkloadId,
    pub identity: SpiffeId,
    pub labels: Labels,
    /// Where other sidecars reach this one: its inbound mTLS listener. `None` for a gateway, which is no endpoint.
    pub inbound: Option<SocketAddr>,
    /// The Gateway that it serves, in the namespace of its identity.
    pub gateway: Option<Label>,
    /// Where the application listens; empty for a workload that only calls others.
    pub app_ports: Vec<AppPort>,
    /// Whether the application accepts connections; a workload that is not ready is no endpoint.
    pub ready: bool,
}

/// An address on which the application beside a sidecar listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPort {
    /// The name that a Service's `targetPort` uses; `None` serves every port that no other entry does.
    pub name: Option<String>,
    pub address: SocketAddr,
}

impl Workload {
    /// Where the application serves a Service port with this `targetPort`: by name, then by number, then the unnamed one.
    pub fn app_address(&self, target: &crate::service::TargetPort) -> Option<SocketAddr> {
        use crate::service::TargetPort;
        let named = self.app_ports.iter().find(|app| match target {
            TargetPort::Name(name) => app.name.as_deref() == Some(name),
            TargetPort::Number(number) => app.address.port() == *number,
        });
        named
            .or_else(|| self.app_ports.iter().find(|app| app.name.is_none()))
            .map(|app| app.address)
    }
}
