//! Route rules as compiled from HTTPRoute and GRPCRoute: what a request must look like and where it then goes.

use std::sync::Arc;

use http::{HeaderName, Method};

use crate::fault::Fault;
use crate::filter::Filter;
use crate::pattern::{Regex, ValuePattern};
use crate::resilience::{RetryPolicy, Timeouts};
use crate::session::SessionPersistence;
use crate::shadow::PolicyShadow;
use crate::{FieldError, ServicePort, TrafficPolicy};

/// One rule of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `HTTPRoute/<namespace>/<name>#<rule index>`, as records, spans and metrics name it.
    pub name: Arc<str>,
    /// A request must match one of these. Never empty: "everything" is one default match.
    pub matches: Vec<RequestMatch>,
    pub filters: Vec<Filter>,
    pub backends: Vec<Backend>,
    pub timeouts: Timeouts,
    pub retry: Option<RetryPolicy>,
    pub session: Option<SessionPersistence>,
    /// What stands over the policies of its backends.
    pub policy: Option<Arc<TrafficPolicy>>,
    /// The first that fits a request is done to it; those of the backend come after them.
    pub faults: Vec<Fault>,
    /// What would stand in place of `policy` and `faults` if policies in shadow were in force; `None` where that is nothing
    /// else.
    pub shadow: Option<Arc<PolicyShadow>>,
}

impl Rule {
    /// The services that its requests may reach: backends, mirrors, and whoever is asked whether they may go on.
    pub fn targets(&self) -> impl Iterator<Item = &ServicePort> {
        let of_backends = self.backends.iter().flat_map(|backend| {
            let of_filters = backend.filters.iter().filter_map(Filter::target);
            backend.target.iter().chain(of_filters)
        });
        of_backends.chain(self.filters.iter().filter_map(Filter::target))
    }
}

/// A rule without a name that takes every request and has no backend yet.
impl Default for Rule {
    fn default() -> Self {
        Self {
            name: "".into(),
            matches: vec![RequestMatch::default()],
            filters: Vec::new(),
            backends: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            session: None,
            policy: None,
            faults: Vec::new(),
            shadow: None,
        }
    }
}

/// Where a share of a rule's requests goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// `None` where the reference does not resolve: its share of requests is answered with 500 (Gateway API).
    pub target: Option<ServicePort>,
    /// The name as written, for messages.
    pub reference: Arc<str>,
    /// Its share is `weight` over the sum of all weights of the rule; 0–1,000,000.
    pub weight: u32,
    pub filters: Vec<Filter>,
}

impl Backend {
    /// Gateway API's limit.
    pub const MAX_WEIGHT: u32 = 1_000_000;

    pub fn new(
        target: Option<ServicePort>,
        reference: &str,
        weight: u32,
        filters: Vec<Filter>,
    ) -> Result<Self, FieldError> {
        if weight > Self::MAX_WEIGHT {
            return Err(FieldError::at("weight", format!("{weight} is over 1000000")));
        }
        Ok(Self {
            target,
            reference: reference.into(),
            weight,
            filters,
        })
    }
}

/// What one request must look like: everything given must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMatch {
    pub path: PathMatch,
    pub method: Option<Method>,
    pub headers: Vec<(HeaderName, ValuePattern)>,
    pub query: Vec<(String, ValuePattern)>,
    /// Only requests whose content type is gRPC (matches that come from a GRPCRoute).
    pub grpc_only: bool,
}

impl Default for RequestMatch {
    fn default() -> Self {
        Self {
            path: PathMatch::Prefix("/".into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            grpc_only: false,
        }
    }
}

/// How a request's path must look. Paths are compared as sent, case-sensitive and without decoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    Exact(String),
    /// Whole segments: `/a` matches `/a` and `/a/b`, not `/ab`. Kept without a trailing slash, except `/` itself.
    Prefix(String),
    Regex(Regex),
}

impl PathMatch {
    pub fn exact(path: &str) -> Result<Self, FieldError> {
        must_be_path(path)?;
        Ok(Self::Exact(path.to_owned()))
    }

    pub fn prefix(path: &str) -> Result<Self, FieldError> {
        must_be_path(path)?;
        let trimmed = path.trim_end_matches('/');
        Ok(Self::Prefix(if trimmed.is_empty() {
            "/".to_owned()
        } else {
            trimmed.to_owned()
        }))
    }

    pub fn regex(source: &str) -> Result<Self, FieldError> {
        Regex::new(source).map(Self::Regex)
    }
}

fn must_be_path(path: &str) -> Result<(), FieldError> {
    if !path.starts_with('/') {
        return Err(FieldError::new(format!("{path:?} does not start with '/'")));
    }
    if path.len() > 1024 {
        return Err(FieldError::new("a path has at most 1024 characters"));
    }
    if ["//", "/./", "/../", "%2f", "%2F", "#"]
        .iter()
        .any(|bad| path.contains(bad))
        || path.ends_with("/..")
        || path.ends_with("/.")
    {
        return Err(FieldError::new(format!(
            "{path:?} has '//', '/./', '/../', '%2F' or '#'"
        )));
    }
    Ok(())
}
