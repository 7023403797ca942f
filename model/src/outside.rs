//! Whether sidecars pass calls on to hosts that are no service of the mesh.

use std::fmt;
use std::str::FromStr;

use crate::FieldError;

/// What becomes of a call to a host outside the mesh. The later one is the stricter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutsideHosts {
    /// It is passed on as if the application had made it itself.
    #[default]
    Allow,
    /// It is refused.
    Deny,
}

impl OutsideHosts {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl FromStr for OutsideHosts {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        match text {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            _ => Err(FieldError::new(format!("{text:?} is neither allow nor deny"))),
        }
    }
}

impl fmt::Display for OutsideHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
