//! Asking another service whether a request may go on.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::{FieldError, ServicePort};

/// Whom to ask whether a request may go on, and what to tell (Gateway API `HTTPExternalAuthFilter`, GEP-1494).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAuth {
    /// `None` where the reference does not resolve: every request is refused.
    pub target: Option<ServicePort>,
    /// The name as written, for messages.
    pub reference: Arc<str>,
    pub protocol: AuthProtocol,
    /// So much of a request's body is sent along, in bytes; a larger one is refused. 0: none is sent.
    pub max_body_bytes: u32,
}

impl ExternalAuth {
    /// Largest `maxSize`: each request that is asked about holds so much memory.
    pub const MAX_BODY_BYTES: u32 = 1024 * 1024;

    pub fn new(
        target: Option<ServicePort>,
        reference: &str,
        protocol: AuthProtocol,
        max_body_bytes: u32,
    ) -> Result<Self, FieldError> {
        if max_body_bytes > Self::MAX_BODY_BYTES {
            let why = format!("{max_body_bytes} is over {}", Self::MAX_BODY_BYTES);
            return Err(FieldError::at("maxSize", why));
        }
        Ok(Self {
            target,
            reference: reference.into(),
            protocol,
            max_body_bytes,
        })
    }
}

/// How the service is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthProtocol {
    /// Envoy's `envoy.service.auth.v3.Authorization`.
    Grpc {
        /// Fields of the request that are told; all where it is empty.
        headers: Vec<HeaderName>,
    },
    /// The same method, host and path, without a body of its own; 200 is a yes.
    Http {
        /// In front of the request's path; may be empty.
        path: String,
        /// Fields of the request that are told besides `Authorization`.
        headers: Vec<HeaderName>,
        /// Fields of the answer that go to the backend; all where it is empty.
        response_headers: Vec<HeaderName>,
    },
}

/// What the service says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthVerdict {
    Allowed(AuthChanges),
    Denied(AuthDenial),
}

/// What it wants changed in a request that goes on, and in its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthChanges {
    pub remove: Vec<HeaderName>,
    pub request: Vec<FieldChange>,
    pub response: Vec<FieldChange>,
}

/// What it wants answered to a request that does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthDenial {
    pub status: StatusCode,
    pub headers: Vec<FieldChange>,
    pub body: Vec<u8>,
}

/// 403, and nothing else.
impl Default for AuthDenial {
    fn default() -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }
}

/// One field that it wants changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    pub name: HeaderName,
    pub value: HeaderValue,
    pub mode: FieldMode,
}

/// What becomes of a value that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldMode {
    /// It is replaced.
    Set,
    /// It stays, and the other joins it.
    Append,
    /// It stays, and the other is not used.
    AddIfAbsent,
    /// It is replaced; where there is none, none is added.
    SetIfPresent,
}
