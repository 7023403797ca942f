//! `up.yaml`: which workloads a demonstration mesh has, how they are started, and what traffic it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use http::{Method, Uri};
use model::{FieldError, Label, Labels, ServiceName, ServicePort, WorkloadId};
use proto::v1::Diagnostic;
use serde::Deserialize;
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter};

use super::substitution;
use crate::diagnostic;

/// What the file is called inside its folder.
pub(crate) const FILE: &str = "up.yaml";
/// The namespace of everything that names none.
const NAMESPACE: &str = "default";
/// Fastest traffic that is made, requests per second.
const MAX_REQUESTS_PER_SECOND: f64 = 10_000.0;

/// A mesh to run; every name in it is valid and every reference has something at its end.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub name: String,
    /// The folder of Gateway API YAML.
    pub config: PathBuf,
    /// Run once before anything else; may be empty.
    pub build: Vec<String>,
    pub workloads: Vec<Workload>,
    pub traffic: Option<Traffic>,
}

/// One sidecar, and the application beside it.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub id: WorkloadId,
    pub namespace: Label,
    pub service: String,
    pub service_account: Label,
    pub labels: Labels,
    /// With its variables still in it; empty for a sidecar without an application.
    pub command: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// Services that get a local port of their own, under the names that the file gives them.
    pub local: BTreeMap<String, ServicePort>,
}

/// Steady traffic from one workload into the mesh.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    /// The workload through whose sidecar it goes.
    pub from: WorkloadId,
    pub requests_per_second: f64,
    pub requests: Vec<TrafficRequest>,
    /// The service whose split over backends is shown.
    pub split_of: Option<ServiceName>,
}

/// One kind of request; `weight` says how often it is made, compared with the others.
#[derive(Debug, Clone)]
pub(crate) struct TrafficRequest {
    pub method: Method,
    pub url: Uri,
    pub weight: u32,
}

/// Why a plan cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// File, line, column, message and the line itself.
    #[error("{0}")]
    Yaml(String),
    #[error("{}: {source}", path.display())]
    Invalid { path: PathBuf, source: FieldError },
}

impl Plan {
    /// Reads `up.yaml` of a folder.
    pub(crate) fn read(folder: &Path) -> Result<Self, PlanError> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| PlanError::Unreadable {
            path: path.clone(),
            source,
        })?;
        let written: Written =
            serde_saphyr::from_str(&text).map_err(|error| PlanError::Yaml(shown(&path, &text, &error)))?;
        written
            .check(folder)
            .map_err(|source| PlanError::Invalid { path, source })
    }
}

fn shown(path: &Path, text: &str, error: &serde_saphyr::Error) -> String {
    let place = |number: fn(&serde_saphyr::Location) -> u64| {
        error
            .location()
            .as_ref()
            .and_then(|location| u32::try_from(number(location)).ok())
            .unwrap_or_default()
    };
    let diagnostic = Diagnostic {
        file: path.display().to_string(),
        line: place(serde_saphyr::Location::line),
        column: place(serde_saphyr::Location::column),
        field: String::new(),
        message: DefaultMessageFormatter
            .format_message(error.without_snippet())
            .into_owned(),
    };
    diagnostic::render(&diagnostic, Some(text), false)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    name: String,
    config: PathBuf,
    #[serde(default)]
    build: Vec<String>,
    workloads: Vec<WrittenWorkload>,
    traffic: Option<WrittenTraffic>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenWorkload {
    name: String,
    namespace: Option<String>,
    service: Option<String>,
    service_account: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    local: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenTraffic {
    from: String,
    requests_per_second: f64,
    requests: Vec<WrittenRequest>,
    split_of: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenRequest {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default = "one")]
    weight: u32,
}

fn get() -> String {
    "GET".to_owned()
}

fn one() -> u32 {
    1
}

impl Written {
    fn check(self, folder: &Path) -> Result<Plan, FieldError> {
        self.name.parse::<Label>().map_err(|error| error.within("name"))?;
        if self.workloads.is_empty() {
            return Err(FieldError::at("workloads", "is empty"));
        }
        let mut names = BTreeSet::new();
        let mut workloads = Vec::with_capacity(self.workloads.len());
        for (index, written) in self.workloads.into_iter().enumerate() {
            let within = |error: FieldError| error.within_item(index).within("workloads");
            let workload = written.check().map_err(within)?;
            if !names.insert(workload.id.to_string()) {
                let why = format!("another workload is called {} already", workload.id);
                return Err(within(FieldError::at("name", why)));
            }
            workloads.push(workload);
        }
        let traffic = match self.traffic {
            Some(written) => Some(written.check(&names).map_err(|error| error.within("traffic"))?),
            None => None,
        };
        Ok(Plan {
            name: self.name,
            config: folder.join(self.config),
            build: self.build,
            workloads,
            traffic,
        })
    }
}

impl WrittenWorkload {
    fn check(self) -> Result<Workload, FieldError> {
        let id: WorkloadId = self
            .name
            .parse()
            .map_err(|error: FieldError| error.within("name"))?;
        let label = |text: &str, field: &str| text.parse::<Label>().map_err(|error| error.within(field));
        let namespace = label(self.namespace.as_deref().unwrap_or(NAMESPACE), "namespace")?;
        let service = self.service.unwrap_or_else(|| self.name.clone());
        label(&service, "service")?;
        let service_account = label(
            self.service_account.as_deref().unwrap_or(&service),
            "serviceAccount",
        )?;
        let labels = self
            .labels
            .unwrap_or_else(|| [("app".to_owned(), service.clone())].into());
        let labels = Labels::new(labels).map_err(|error| error.within("labels"))?;
        let mut local = BTreeMap::new();
        for (index, text) in self.local.into_iter().enumerate() {
            let port =
                service_port(&text, &namespace).map_err(|error| error.within_item(index).within("local"))?;
            local.insert(text, port);
        }
        let workload = Workload {
            id,
            namespace,
            service,
            service_account,
            labels,
            command: self.command,
            env: self.env,
            local,
        };
        workload.check_variables()?;
        Ok(workload)
    }
}

impl Workload {
    fn check_variables(&self) -> Result<(), FieldError> {
        let known = |name: &str| match name {
            "APP" | "OUTBOUND" | "TARGET" => Some(String::new()),
            name => self
                .local
                .contains_key(name.strip_prefix("LOCAL:")?)
                .then(String::new),
        };
        for (index, word) in self.command.iter().enumerate() {
            substitution::expand(word, known).map_err(|error| error.within_item(index).within("command"))?;
        }
        for (name, value) in &self.env {
            substitution::expand(value, known).map_err(|error| error.within(name).within("env"))?;
        }
        Ok(())
    }
}

/// Reads `name:port` or `name.namespace:port`.
fn service_port(text: &str, own_namespace: &Label) -> Result<ServicePort, FieldError> {
    let bad = || FieldError::new(format!("{text:?} is not service:port or service.namespace:port"));
    let (host, port) = text.split_once(':').ok_or_else(bad)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?;
    Ok(service_name(host, own_namespace)?.port(port))
}

/// Reads `name` or `name.namespace`.
fn service_name(text: &str, own_namespace: &Label) -> Result<ServiceName, FieldError> {
    match text.split_once('.') {
        Some((name, namespace)) => Ok(ServiceName {
            namespace: namespace.parse()?,
            name: name.parse()?,
        }),
        None => Ok(ServiceName {
            namespace: own_namespace.clone(),
            name: text.parse()?,
        }),
    }
}

impl WrittenTraffic {
    fn check(self, workloads: &BTreeSet<String>) -> Result<Traffic, FieldError> {
        if !workloads.contains(&self.from) {
            return Err(FieldError::at(
                "from",
                format!("no workload is called {:?}", self.from),
            ));
        }
        let rate = self.requests_per_second;
        if !(rate > 0.0 && rate <= MAX_REQUESTS_PER_SECOND) {
            let why = format!("is not above 0 and at most {MAX_REQUESTS_PER_SECOND}");
            return Err(FieldError::at("requestsPerSecond", why));
        }
        let namespace = NAMESPACE.parse()?;
        let split_of = self
            .split_of
            .map(|text| service_name(&text, &namespace))
            .transpose();
        let mut requests = Vec::with_capacity(self.requests.len());
        for (index, written) in self.requests.into_iter().enumerate() {
            requests.push(
                written
                    .check()
                    .map_err(|error| error.within_item(index).within("requests"))?,
            );
        }
        if requests.iter().all(|request| request.weight == 0) {
            return Err(FieldError::at("requests", "none has a weight above 0"));
        }
        Ok(Traffic {
            from: self
                .from
                .parse()
                .map_err(|error: FieldError| error.within("from"))?,
            requests_per_second: rate,
            requests,
            split_of: split_of.map_err(|error| error.within("splitOf"))?,
        })
    }
}

impl WrittenRequest {
    fn check(self) -> Result<TrafficRequest, FieldError> {
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_| FieldError::at("method", format!("{:?} is not a method", self.method)))?;
        let bad = || FieldError::at("url", format!("{:?} is not http://host/path", self.url));
        let url: Uri = self.url.parse().map_err(|_| bad())?;
        if url.scheme_str() != Some("http") || url.host().is_none_or(str::is_empty) {
            return Err(bad());
        }
        Ok(TrafficRequest {
            method,
            url,
            weight: self.weight,
        })
    }
}

#[cfg(test)]
mod tests;
