//! SPIFFE identities (SPIFFE-ID specification, sections 2 and 2.4).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{FieldError, Label};

/// Longest SPIFFE ID that is accepted, in bytes (SPIFFE-ID section 2.3).
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;
/// The namespace of the mesh's own identities; no workload and no join token may use it.
pub const SYSTEM_NAMESPACE: &str = "weft-system";
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// The name of an authority's realm: lower-case letters, digits, `.`, `-` and `_`, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The trust domain as text, without `spiffe://`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN_BYTES || !text.bytes().all(letters) {
            return Err(FieldError::new(format!(
                "{text:?} is not a trust domain (1-255 of a-z, 0-9, '.', '-' and '_')"
            )));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a workload is: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    pub trust_domain: TrustDomain,
    pub namespace: Label,
    pub service_account: Label,
}

impl SpiffeId {
    /// The control plane of a trust domain.
    pub fn control_plane(trust_domain: &TrustDomain) -> Self {
        Self::system(trust_domain, "control-plane")
    }

    /// The operators of a trust domain: whoever may change its configuration.
    pub fn operator(trust_domain: &TrustDomain) -> Self {
        Self::system(trust_domain, "operator")
    }

    fn system(trust_domain: &TrustDomain, account: &'static str) -> Self {
        Self {
            trust_domain: trust_domain.clone(),
            namespace: Label::known(SYSTEM_NAMESPACE),
            service_account: Label::known(account),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        if text.len() > MAX_SPIFFE_ID_BYTES {
            return Err(FieldError::new("a SPIFFE ID has at most 2048 bytes"));
        }
        let bad = || {
            FieldError::new(format!(
                "{text:?} is not spiffe://<trust domain>/ns/<namespace>/sa/<account>"
            ))
        };
        let rest = text.strip_prefix("spiffe://").ok_or_else(bad)?;
        let mut parts = rest.split('/');
        let mut next = || parts.next().ok_or_else(bad);
        let trust_domain = next()?.parse()?;
        if next()? != "ns" {
            return Err(bad());
        }
        let namespace = next()?.parse()?;
        if next()? != "sa" {
            return Err(bad());
        }
        let service_account = next()?.parse()?;
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self {
            trust_domain,
            namespace,
            service_account,
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read_without_panic_and_round_trips(text in ".{0,100}|spiffe://[a-z.]{1,9}/ns/[a-z-]{1,9}/sa/[a-z-]{1,9}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn the_meshs_own_identities_are_identities() {
        let domain: TrustDomain = "cluster.local".parse().unwrap();
        let control_plane = "spiffe://cluster.local/ns/weft-system/sa/control-plane";
        assert_eq!(control_plane.parse(), Ok(SpiffeId::control_plane(&domain)));
        assert_eq!(
            "spiffe://cluster.local/ns/weft-system/sa/operator".parse(),
            Ok(SpiffeId::operator(&domain))
        );
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe://td",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/ns/a/sa/b/c",
            "SPIFFE://td/ns/a/sa/b",
            "spiffe://TD/ns/a/sa/b",
            "spiffe://td:80/ns/a/sa/b",
            "spiffe://u@td/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b?x",
            "spiffe://td/ns/a/sa/b#x",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns/%61/sa/b",
            "https://td/ns/a/sa/b",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
