//! Faults that are made on purpose, to see how callers bear them (FaultInjectionPolicy).

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::FieldError;
use crate::route::RequestMatch;

/// What one policy does to the requests that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `FaultInjectionPolicy/<namespace>/<name>`.
    pub policy: Arc<str>,
    /// A request must match one of these. Never empty: "everything" is one default match.
    pub matches: Vec<RequestMatch>,
    pub delay: Option<FaultDelay>,
    pub abort: Option<FaultAbort>,
}

/// Waiting before a request is sent; its time goes on meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultDelay {
    pub time: Duration,
    pub share: Share,
}

/// Answering instead of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultAbort {
    pub status: AbortStatus,
    pub share: Share,
}

/// What an aborted request is answered. Either is translated where the other protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    Http(StatusCode),
    Grpc(u8),
}

impl Fault {
    /// Longest delay that is accepted.
    pub const MAX_DELAY: Duration = Duration::from_secs(3600);
    /// The greatest status of gRPC.
    pub const MAX_GRPC_STATUS: u8 = 16;

    pub fn new(
        policy: &str,
        matches: Vec<RequestMatch>,
        delay: Option<FaultDelay>,
        abort: Option<FaultAbort>,
    ) -> Result<Self, FieldError> {
        if delay.is_none() && abort.is_none() {
            return Err(FieldError::new("neither delay nor abort is given"));
        }
        if delay.is_some_and(|delay| delay.time > Self::MAX_DELAY) {
            return Err(FieldError::at("delay", "is over 1h"));
        }
        match abort.map(|abort| abort.status) {
            Some(AbortStatus::Http(status)) if !(200..=599).contains(&status.as_u16()) => {
                return Err(FieldError::at(
                    "abort",
                    format!("{status} is not a status of 200-599"),
                ));
            }
            Some(AbortStatus::Grpc(status)) if status > Self::MAX_GRPC_STATUS => {
                return Err(FieldError::at(
                    "abort",
                    format!("{status} is not a gRPC status of 0-16"),
                ));
            }
            _ => {}
        }
        Ok(Self {
            policy: policy.into(),
            matches: if matches.is_empty() {
                vec![RequestMatch::default()]
            } else {
                matches
            },
            delay,
            abort,
        })
    }
}

/// A share of all requests, in steps of a millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    const WHOLE: u32 = 1_000_000;
    pub const ALL: Self = Self(Self::WHOLE);

    /// Reads a percentage, 0.0–100.0.
    pub fn percent(percent: f64) -> Result<Self, FieldError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(FieldError::new(format!("{percent} is not a percentage of 0-100")));
        }
        Ok(Self((percent * 10_000.0).round() as u32))
    }

    /// Reads so many millionths.
    pub fn millionths(millionths: u32) -> Result<Self, FieldError> {
        if millionths > Self::WHOLE {
            return Err(FieldError::new(format!("{millionths} is over 1000000")));
        }
        Ok(Self(millionths))
    }

    pub fn as_millionths(self) -> u32 {
        self.0
    }

    /// Whether one request is among them; `dice` is uniform in 0.0–1.0.
    pub fn includes(self, dice: f64) -> bool {
        dice * f64::from(Self::WHOLE) < f64::from(self.0)
    }
}
