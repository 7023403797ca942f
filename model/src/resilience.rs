//! Timeouts, retries and their budget.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::FieldError;

/// Gateway API `HTTPRouteTimeouts`. `None` says nothing: there is no limit, unless a policy has one. Zero is said: there is no
/// limit, whatever a policy says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's first byte to the response's last: all attempts and their backoffs together.
    pub request: Option<Duration>,
    /// For one attempt. At most `request` where both are set.
    pub backend_request: Option<Duration>,
}

impl Timeouts {
    pub fn new(request: Option<Duration>, backend_request: Option<Duration>) -> Result<Self, FieldError> {
        // Gateway API: zero disables the timeout, so that nothing is longer.
        if let (Some(whole), Some(one)) = (request, backend_request)
            && one > whole
            && !whole.is_zero()
        {
            return Err(FieldError::at("backendRequest", "is longer than request"));
        }
        Ok(Self {
            request,
            backend_request,
        })
    }

    /// These, and what `other` says where they say nothing. An attempt has no more time than the request.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let request = self.request.or(other.request);
        let attempt = self.backend_request.or(other.backend_request);
        let within = |one: Duration| match request {
            Some(whole) if !whole.is_zero() => one.min(whole),
            _ => one,
        };
        Self {
            request,
            backend_request: attempt.map(within),
        }
    }
}

/// When and how often a failed attempt is tried again (Gateway API `HTTPRouteRetry`, GEP-1731).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Response codes worth another attempt. Connection errors and refused streams always are.
    pub codes: BTreeSet<u16>,
    /// gRPC statuses worth another attempt, as long as the answer has no message.
    pub grpc_codes: BTreeSet<u8>,
    /// How many times to try again after the first attempt; at most [`RetryPolicy::MAX_ATTEMPTS`].
    pub attempts: u8,
    /// The shortest wait before another attempt; it doubles with each, with full jitter.
    pub backoff: Duration,
}

impl RetryPolicy {
    /// More retries than this are refused: they are an outage amplifier, not resilience.
    pub const MAX_ATTEMPTS: u8 = 20;
    /// `attempts` where a route's `retry` does not say.
    pub const DEFAULT_ATTEMPTS: u8 = 2;
    /// `backoff` where a route's `retry` does not say.
    pub const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);
    /// Longest `backoff` that is accepted.
    pub const MAX_BACKOFF: Duration = Duration::from_secs(60);

    pub fn new(codes: BTreeSet<u16>, attempts: u8, backoff: Duration) -> Result<Self, FieldError> {
        if let Some(code) = codes.iter().find(|code| !(400..=599).contains(*code)) {
            return Err(FieldError::at(
                "codes",
                format!("{code} is not a status of 400-599"),
            ));
        }
        if attempts > Self::MAX_ATTEMPTS {
            return Err(FieldError::at(
                "attempts",
                format!("{attempts} is over {}", Self::MAX_ATTEMPTS),
            ));
        }
        if backoff > Self::MAX_BACKOFF {
            return Err(FieldError::at("backoff", "is over 60s"));
        }
        Ok(Self {
            codes,
            grpc_codes: BTreeSet::new(),
            attempts,
            backoff,
        })
    }

    /// The same, with these gRPC statuses: none is 0, which is OK, or over 16.
    pub fn with_grpc_codes(self, grpc_codes: BTreeSet<u8>) -> Result<Self, FieldError> {
        if let Some(code) = grpc_codes.iter().find(|code| !(1..=16).contains(*code)) {
            let why = format!("{code} is not a failing gRPC status (1-16)");
            return Err(FieldError::at("grpcCodes", why));
        }
        Ok(Self { grpc_codes, ..self })
    }
}

/// gRPC's statuses by number, as they are written.
pub const GRPC_STATUS_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Reads a gRPC status by its name, `UNAVAILABLE` for 14; upper or lower case, with `_` or `-`.
pub fn grpc_status_by_name(name: &str) -> Option<u8> {
    let wanted = name.to_ascii_uppercase().replace('-', "_");
    let at = GRPC_STATUS_NAMES.iter().position(|known| *known == wanted)?;
    u8::try_from(at).ok()
}

/// How many retries a destination may be sent, as a share of its requests: always on, so that retries
/// cannot multiply an outage (Gateway API `retryConstraint`, GEP-3388). The defaults are those people tune from: 20 % of
/// the requests, and 10 per second besides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Retries per request, 0.0–1.0.
    pub ratio: f64,
    /// How long a request counts.
    pub window: Duration,
    /// Retries per `min_interval` that are allowed besides.
    pub min_retries: f64,
    pub min_interval: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            ratio: 0.2,
            window: Duration::from_secs(10),
            min_retries: 10.0,
            min_interval: Duration::from_secs(1),
        }
    }
}
