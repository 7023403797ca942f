//! Copies of requests that are sent to somebody else as well.

use crate::{FieldError, ServicePort};

/// Sends a copy of a share of the requests to another service, whose answers are ignored (Gateway API
/// `HTTPRequestMirrorFilter`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// It exists: a mirror whose reference does not resolve is left out.
    pub target: ServicePort,
    pub share: Fraction,
}

/// A share of requests, from none to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    numerator: u32,
    denominator: u32,
}

impl Fraction {
    /// All requests.
    pub const ALL: Self = Self {
        numerator: 1,
        denominator: 1,
    };
    /// Where a fraction names no denominator.
    pub const DEFAULT_DENOMINATOR: u32 = 100;

    pub fn new(numerator: u32, denominator: u32) -> Result<Self, FieldError> {
        if denominator == 0 {
            return Err(FieldError::at("denominator", "0 is under 1"));
        }
        if numerator > denominator {
            let why = format!("{numerator} is over the denominator, {denominator}");
            return Err(FieldError::at("numerator", why));
        }
        Ok(Self {
            numerator,
            denominator,
        })
    }

    pub fn numerator(self) -> u32 {
        self.numerator
    }

    pub fn denominator(self) -> u32 {
        self.denominator
    }
}
