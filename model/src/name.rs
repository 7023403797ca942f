//! Names: DNS labels, services, and the SNI that says which service and port a connection is for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::FieldError;

/// One lower-case DNS label (RFC 1123 section 2.1): 1–63 of `a-z`, `0-9` and `-`, no `-` at either end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

impl Label {
    /// A label that stands in this crate's own source.
    pub(crate) fn known(text: &'static str) -> Self {
        Self(text.into())
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let letters = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if text.is_empty() || text.len() > 63 || !letters || text.starts_with('-') || text.ends_with('-') {
            return Err(FieldError::new(format!(
                "{text:?} is not a DNS label (1-63 of a-z, 0-9 and '-', not at either end)"
            )));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A service, as Kubernetes names it: a name in a namespace. Written `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    pub namespace: Label,
    pub name: Label,
}

impl ServiceName {
    /// This service at one of its ports.
    pub fn port(&self, port: u16) -> ServicePort {
        ServicePort {
            service: self.clone(),
            port,
        }
    }
}

impl FromStr for ServiceName {
    type Err = FieldError;

    /// Reads `namespace/name`.
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let (namespace, name) = text
            .split_once('/')
            .ok_or_else(|| FieldError::new(format!("{text:?} is not namespace/name")))?;
        Ok(Self {
            namespace: namespace.parse()?,
            name: name.parse()?,
        })
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A service at one of its ports: what a backend names and what a connection between sidecars is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    pub service: ServiceName,
    pub port: u16,
}

impl ServicePort {
    /// The SNI of a connection to this service and port: `8080.checkout.shop.svc.cluster.local`.
    pub fn sni(&self, domain: &MeshDomain) -> String {
        format!(
            "{}.{}.{}.svc.{domain}",
            self.port, self.service.name, self.service.namespace
        )
    }

    /// Reads what [`ServicePort::sni`] writes; `None` for anything else, another mesh domain included.
    pub fn from_sni(sni: &str, domain: &MeshDomain) -> Option<Self> {
        let (names, rest) = sni
            .strip_suffix(domain.as_str())?
            .strip_suffix('.')?
            .rsplit_once('.')?;
        if rest != "svc" {
            return None;
        }
        let mut parts = names.split('.');
        let (port, name, namespace) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || port.starts_with(['+', '0']) {
            return None;
        }
        let service = ServiceName {
            namespace: namespace.parse().ok()?,
            name: name.parse().ok()?,
        };
        Some(service.port(port.parse().ok()?))
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

impl FromStr for ServicePort {
    type Err = FieldError;

    /// Reads `namespace/name:port`.
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let bad = || FieldError::new(format!("{text:?} is not namespace/name:port"));
        let (service, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port: u16 = port.parse().map_err(|_| bad())?;
        if port == 0 {
            return Err(bad());
        }
        Ok(service.parse::<ServiceName>()?.port(port))
    }
}

/// The DNS suffix under which services have names, `cluster.local` by default as in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MeshDomain(Arc<str>);

impl MeshDomain {
    /// The suffix without a leading dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for MeshDomain {
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl FromStr for MeshDomain {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        if text.len() > 120 {
            return Err(FieldError::new("a mesh domain has at most 120 characters"));
        }
        for label in text.split('.') {
            label.parse::<Label>()?;
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for MeshDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sni_round_trips(name in "[a-z][a-z0-9]{0,20}", namespace in "[a-z]{1,20}", port in 1u16..) {
            let domain = MeshDomain::default();
            let target = format!("{namespace}/{name}").parse::<ServiceName>().expect("valid").port(port);
            prop_assert_eq!(ServicePort::from_sni(&target.sni(&domain), &domain), Some(target));
        }

        #[test]
        fn any_sni_is_read_without_panic(text in ".{0,80}") {
            let _ = ServicePort::from_sni(&text, &MeshDomain::default());
        }
    }

    #[test]
    fn another_domain_or_shape_is_no_service() {
        let domain = MeshDomain::default();
        for sni in [
            "",
            "svc.cluster.local",
            "8080.a.b.svc.other.local",
            "x.a.b.svc.cluster.local",
            "8080.a.b.c.svc.cluster.local",
            "08.a.b.svc.cluster.local",
            "+8.a.b.svc.cluster.local",
            "70000.a.b.svc.cluster.local",
        ] {
            assert_eq!(ServicePort::from_sni(sni, &domain), None, "{sni}");
        }
    }
}
