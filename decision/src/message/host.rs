//! Hosts: the strict syntax of an authority, and the service that one names.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use model::{Destination, Label, MeshDomain, ServiceName};

use super::syntax;
use crate::Reason;

/// Longest host that is accepted, in bytes without its port (RFC 1035 section 2.3.4).
pub const MAX_HOST_BYTES: usize = 255;

/// The service and port that `authority` names. `Ok(None)`: a valid host that cannot be the name of a service of
/// this mesh. The names an application may use are `name`, `name.ns`, `name.ns.svc` and `name.ns.svc.<domain>`,
/// in any case, with or without a last dot.
///
/// # Errors
/// [`Reason::BadHost`] where `authority` is not a host with an optional port.
pub fn resolve(
    authority: &str,
    own_namespace: &Label,
    domain: &MeshDomain,
) -> Result<Option<(ServiceName, Option<u16>)>, Reason> {
    let Authority { host, port } = Authority::parse(authority.as_bytes()).ok_or(Reason::BadHost)?;
    let host = authority.get(..host.len()).ok_or(Reason::BadHost)?;
    let host = host.strip_suffix('.').unwrap_or(host);
    let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    };
    let mut labels = host.splitn(4, '.');
    let (Some(name), namespace, svc, suffix) = (labels.next(), labels.next(), labels.next(), labels.next())
    else {
        return Ok(None);
    };
    if svc.is_some_and(|svc| svc != "svc") || suffix.is_some_and(|suffix| suffix != domain.as_str()) {
        return Ok(None);
    }
    let Ok(name) = name.parse() else { return Ok(None) };
    let namespace = match namespace {
        None => own_namespace.clone(),
        Some(namespace) if namespace == own_namespace.as_str() => own_namespace.clone(),
        Some(namespace) => match namespace.parse() {
            Ok(namespace) => namespace,
            Err(_) => return Ok(None),
        },
    };
    Ok(Some((ServiceName { namespace, name }, port)))
}

/// A host that is no service of this mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutsideHost<'a> {
    pub host: Outside<'a>,
    /// As written, if it is.
    pub port: Option<u16>,
}

/// How a host outside the mesh is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside<'a> {
    Address(IpAddr),
    /// Has at least one label.
    Name(&'a str),
}

/// The host outside the mesh that `authority` names, where no service has this name. `Ok(None)`: the name is the mesh's own,
/// under `svc` or the mesh's domain, so that nobody outside is asked about it.
///
/// # Errors
/// [`Reason::BadHost`] where `authority` is not a host with an optional port.
pub fn outside<'a>(authority: &'a str, domain: &MeshDomain) -> Result<Option<OutsideHost<'a>>, Reason> {
    let Authority { host, port } = Authority::parse(authority.as_bytes()).ok_or(Reason::BadHost)?;
    let host = authority.get(..host.len()).ok_or(Reason::BadHost)?;
    if let Some(address) = literal(host) {
        return Ok(Some(OutsideHost {
            host: Outside::Address(address),
            port,
        }));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_under = |suffix: &str| {
        let at = name.len().checked_sub(suffix.len());
        at.is_some_and(|at| {
            let ends = name.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(suffix));
            ends && (at == 0 || name.as_bytes().get(at - 1) == Some(&b'.'))
        })
    };
    let is_own = is_under("svc") || is_under(domain.as_str());
    Ok((!is_own).then_some(OutsideHost {
        host: Outside::Name(host),
        port,
    }))
}

/// The address that `authority` is, where it is one; `port` is that of its scheme.
pub fn address(authority: &str, port: u16) -> Option<SocketAddr> {
    let Authority { host, port: written } = Authority::parse(authority.as_bytes())?;
    let ip = literal(authority.get(..host.len())?)?;
    Some(SocketAddr::new(ip.to_canonical(), written.unwrap_or(port)))
}

fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// The host of an accepted authority as host names are compared: lower case, without its port and without a last dot.
pub fn normal(authority: &str) -> Cow<'_, str> {
    let host = match authority.rsplit_once(':') {
        // An IPv6 address stands in brackets, with its colons.
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// The port that a call goes to: the explicit one, else 80 if the service has it, else its only port. `None`: the
/// service has no such port, or has several and none of them is 80.
pub fn choose_port(destination: &Destination, explicit: Option<u16>) -> Option<u16> {
    match explicit {
        Some(port) => destination.ports.contains_key(&port).then_some(port),
        None if destination.ports.contains_key(&80) => Some(80),
        None => {
            let mut ports = destination.ports.keys();
            ports.next().copied().filter(|_| ports.next().is_none())
        }
    }
}

/// A host and an optional port, in a stricter syntax than RFC 3986 allows: a DNS name, an IPv4 address or an IPv6
/// address in brackets; a port of 1 to 65535 without leading zeros. No user, no escapes, nothing empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    /// ASCII.
    pub(crate) host: &'a [u8],
    pub(crate) port: Option<u16>,
}

impl<'a> Authority<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let host_end = if bytes.starts_with(b"[") {
            memchr::memchr(b']', bytes)? + 1
        } else {
            memchr::memchr(b':', bytes).unwrap_or(bytes.len())
        };
        let (host, rest) = bytes.split_at_checked(host_end)?;
        let port = match rest {
            [] => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return None,
        };
        is_host(host).then_some(Self { host, port })
    }

    /// Whether both name the same, where no port means that of the scheme `http`.
    pub(crate) fn same(&self, other: &Authority<'_>) -> bool {
        self.host.eq_ignore_ascii_case(other.host) && self.port.unwrap_or(80) == other.port.unwrap_or(80)
    }
}

fn port(digits: &[u8]) -> Option<u16> {
    if digits.starts_with(b"0") {
        return None;
    }
    u16::try_from(syntax::decimal(digits)?).ok()
}

fn is_host(host: &[u8]) -> bool {
    if let [b'[', address @ .., b']'] = host {
        let address = std::str::from_utf8(address).unwrap_or_default();
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let host = host.strip_suffix(b".").unwrap_or(host);
    let is_other = |byte: u8| {
        !(byte.is_ascii_alphanumeric() | (byte == b'-') | (byte == b'_') | (byte == b'~') | (byte == b'.'))
    };
    // Behind each dot a label begins, which has a byte at least.
    let mut is_empty = true;
    let empty_labels = host.iter().fold(false, |found, byte| {
        let was_empty = std::mem::replace(&mut is_empty, *byte == b'.');
        found | (was_empty & is_empty)
    });
    host.len() <= MAX_HOST_BYTES && syntax::none_is(host, is_other) && !empty_labels && !is_empty
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::service::DestinationPort;

    fn resolved(authority: &str) -> Result<Option<String>, Reason> {
        let own = "shop".parse().expect("a label");
        let found = resolve(authority, &own, &MeshDomain::default())?;
        Ok(found.map(|(service, port)| {
            format!(
                "{service}{}",
                port.map_or(String::new(), |port| format!(":{port}"))
            )
        }))
    }

    #[test]
    fn names_of_services() {
        for (authority, service) in [
            ("checkout", "shop/checkout"),
            ("Checkout:8080", "shop/checkout:8080"),
            ("checkout.", "shop/checkout"),
            ("checkout.pay", "pay/checkout"),
            ("checkout.Shop", "shop/checkout"),
            ("checkout.pay.svc:1", "pay/checkout:1"),
            ("checkout.pay.svc.cluster.local", "pay/checkout"),
            ("CHECKOUT.PAY.SVC.CLUSTER.LOCAL.:65535", "pay/checkout:65535"),
        ] {
            assert_eq!(resolved(authority), Ok(Some(service.to_owned())), "{authority}");
        }
    }

    #[test]
    fn hosts_that_name_no_service() {
        for authority in [
            "a.b.c",
            "www.example.com",
            "10.0.0.1",
            "10.0.0.1:80",
            "[::1]",
            "[::1]:80",
            "a_b",
            "a.b.svc.other.local",
            "a.b.svc.cluster",
            "-a",
            "a.b.svc.cluster.local.x",
        ] {
            assert_eq!(resolved(authority), Ok(None), "{authority}");
        }
    }

    #[test]
    fn hosts_outside_the_mesh() {
        let outside = |authority| outside(authority, &MeshDomain::default());
        let address = |ip: &str, port| {
            Ok(Some(OutsideHost {
                host: Outside::Address(ip.parse().expect("an address")),
                port,
            }))
        };
        assert_eq!(outside("10.0.0.1"), address("10.0.0.1", None));
        assert_eq!(outside("10.0.0.1:8080"), address("10.0.0.1", Some(8080)));
        assert_eq!(outside("[::1]:80"), address("::1", Some(80)));
        for (authority, name, port) in [
            ("www.example.com", "www.example.com", None),
            ("Example.com.:8443", "Example.com.", Some(8443)),
            ("db", "db", None),
            // Several programs read these as addresses; here they are names, and what DNS says of them counts.
            ("127.1", "127.1", None),
            ("0x7f000001:1", "0x7f000001", Some(1)),
            ("a.b.svc.other.local", "a.b.svc.other.local", None),
            ("notsvc", "notsvc", None),
            ("mycluster.local", "mycluster.local", None),
        ] {
            let host = Outside::Name(name);
            assert_eq!(
                outside(authority),
                Ok(Some(OutsideHost { host, port })),
                "{authority}"
            );
        }
        for authority in [
            "a.b.svc",
            "a.b.SVC:80",
            "a.b.svc.cluster.local",
            "a.b.c.svc.Cluster.Local.:1",
            "x.cluster.local",
            "cluster.local",
            "svc",
        ] {
            assert_eq!(outside(authority), Ok(None), "{authority}");
        }
        assert_eq!(outside("a:0"), Err(Reason::BadHost));
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_last_dot() {
        for (authority, host) in [
            ("www.example.com", "www.example.com"),
            ("WWW.Example.com.:8080", "www.example.com"),
            ("a:80", "a"),
            ("[::1]:80", "[::1]"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
            ("", ""),
        ] {
            assert_eq!(normal(authority), host, "{authority}");
        }
    }

    #[test]
    fn refused_as_bad_host() {
        for authority in [
            "", ".", ":80", "a:", "a:0", "a:080", "a:65536", "a:+1", "a:b", "a:1:2", "u@a", "u:p@a", "a b",
            " a", "a,b", "a..b", ".a", "a/b", "a?b", "a#b", "a%20b", "a\\b", "[::1", "::1", "[::1]x", "[zz]",
            "[]", "a[::1]", "\u{e9}", "a\t", "a\0",
        ] {
            assert_eq!(resolved(authority), Err(Reason::BadHost), "{authority:?}");
        }
        assert_eq!(resolved(&"a".repeat(256)), Err(Reason::BadHost));
    }

    #[test]
    fn ports() {
        let with = |ports: &[u16]| Destination {
            service: "shop/a".parse().expect("a service"),
            ports: ports
                .iter()
                .map(|port| (*port, DestinationPort::default()))
                .collect(),
        };
        assert_eq!(choose_port(&with(&[8080]), None), Some(8080));
        assert_eq!(choose_port(&with(&[80, 8080]), None), Some(80));
        assert_eq!(choose_port(&with(&[81, 8080]), None), None);
        assert_eq!(choose_port(&with(&[]), None), None);
        assert_eq!(choose_port(&with(&[80, 8080]), Some(8080)), Some(8080));
        assert_eq!(choose_port(&with(&[8080]), Some(80)), None);
    }
}
