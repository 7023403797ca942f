//! What is told of a request: the decision path as data, which a program can read as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

/// Everything that decides about one request, in the order in which a proxy comes to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub request: Asked,
    /// The service that is called; `None` at a gateway, and where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Destination>,
    /// Of a gateway; `None` in the mesh, and where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listening>,
    /// Every match of every rule of the destination, that of the highest precedence first.
    pub matches: Vec<Candidate>,
    /// `None` where no rule governs the request.
    pub rule: Option<Chosen>,
    pub outcome: Outcome,
}

/// The request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    pub method: String,
    pub url: String,
    /// `namespace/service`, or `namespace/`, of a call within the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// `namespace/name` of the gateway that it comes through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}

/// The listener of a gateway that a request meets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listening {
    pub name: String,
    pub port: u16,
    /// `*` for every host.
    pub hostname: String,
    /// What it does with a connection.
    pub serves: &'static str,
}

/// The service that the request's authority names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// `namespace/name`.
    pub service: String,
    pub port: u16,
    /// Why this port.
    pub port_because: &'static str,
    /// What is spoken there.
    pub protocol: &'static str,
}

/// One match of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// The host name that the rule is for, at a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `HTTPRoute/<namespace>/<name>#<rule index>`.
    pub rule: String,
    /// What it wants, in words.
    pub wants: String,
    pub verdict: Verdict,
    /// Why it is not the chosen one; empty where it is.
    pub why: Vec<String>,
}

/// What became of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    Chosen,
    /// It fits, but another one takes precedence.
    Hidden,
    Misses,
}

/// The rule that governs the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chosen {
    pub name: String,
    /// In words, in their order.
    pub filters: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How requests of one client are kept together, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// As written in YAML: `2s`, `500ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<String>,
}

/// When a failed attempt is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    pub codes: Vec<u16>,
    /// Numbers of gRPC statuses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grpc_codes: Vec<u8>,
    pub attempts: u8,
    pub backoff: String,
}

/// Where the request ends.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// At one of these; each has a share of such requests.
    Backends(Vec<Share>),
    /// The proxy answers itself.
    #[serde(rename_all = "camelCase")]
    Answer {
        status: u16,
        /// One word, as in the answer's `Proxy-Status`; empty where the rule wants it so.
        reason: &'static str,
        why: String,
        /// Of a redirect.
        #[serde(skip_serializing_if = "Option::is_none")]
        location: Option<String>,
    },
    /// A gateway does not take the connection, or ends it.
    NoConnection { why: String },
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// `namespace/name:port`.
    pub backend: String,
    pub weight: u32,
    /// 0–100.
    pub percent: f64,
    /// Why the reference does not resolve, so that its share is answered with 500; `None` where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<String>,
    /// Who serves it now; `None` where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<String>>,
    /// The BackendTrafficPolicies that govern these requests, that of the route first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Governing>,
    /// What is done to this request on purpose, by which policy; `None` where no fault fits it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The backend's own, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// What all filters come to for this request.
    #[serde(skip_serializing_if = "HeaderChange::is_nothing")]
    pub request_headers: HeaderChange,
    /// What all filters come to for any response.
    #[serde(skip_serializing_if = "HeaderChange::is_nothing")]
    pub response_headers: HeaderChange,
}

/// A policy, and what of it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Governing {
    /// `Kind/namespace/name`.
    pub policy: String,
    pub sections: Vec<&'static str>,
    /// What it says there: `circuitBreaker.maxParallelRequests: 3`.
    pub says: Vec<String>,
}

/// What is different in header fields after the filters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderChange {
    /// Those that have another value than before; several values of one field are joined by `, `.
    pub set: BTreeMap<String, String>,
    pub removed: Vec<String>,
}

impl HeaderChange {
    pub fn is_nothing(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }
}
