//! Which pages of other origins may read answers (Fetch, "CORS protocol"; Gateway API GEP-1767).

use std::fmt;
use std::str::FromStr;

use http::{HeaderName, Method};

use crate::FieldError;
use crate::filter::Scheme;

/// What browsers are told about requests of other origins (Gateway API `HTTPCORSFilter`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Empty: no other origin.
    pub allow_origins: Vec<OriginPattern>,
    pub allow_credentials: bool,
    pub allow_methods: Allowed<Method>,
    pub allow_headers: Allowed<HeaderName>,
    pub expose_headers: Allowed<HeaderName>,
    /// How long a preflight's answer may be kept, in seconds.
    pub max_age: u32,
}

impl Cors {
    /// `maxAge` where it is not given.
    pub const DEFAULT_MAX_AGE: u32 = 5;
    /// Longest list of each kind (Gateway API).
    pub const MAX_ITEMS: usize = 64;
    /// The methods that can be allowed by name.
    pub const METHODS: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
}

/// A list of names, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed<T> {
    Any,
    /// Only these; may be empty.
    These(Vec<T>),
}

impl<T> Default for Allowed<T> {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

/// Origins of one scheme and port: `https://www.example.com`, `https://*.example.com:8443`, `http://*`, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    Any,
    Of {
        scheme: Scheme,
        host: HostPattern,
        port: u16,
    },
}

/// The host of an origin, lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    Any,
    /// `*.example.com`, kept as `.example.com`: any number of labels in front of it.
    Under(String),
    Exact(String),
}

impl OriginPattern {
    /// Longest pattern in bytes (Gateway API).
    pub const MAX_BYTES: usize = 253;

    /// Whether an `Origin` is meant: `scheme://host` or `scheme://host:port`. `null` and what is none are meant by `*`
    /// only.
    pub fn is_match(&self, origin: &str) -> bool {
        let Self::Of { scheme, host, port } = self else {
            return true;
        };
        let Some((sent_scheme, sent_host, sent_port)) = split(origin) else {
            return false;
        };
        let sent_host = sent_host.to_ascii_lowercase();
        *scheme == sent_scheme
            && *port == sent_port
            && match host {
                HostPattern::Any => !sent_host.is_empty(),
                HostPattern::Under(suffix) => {
                    sent_host.len() > suffix.len() && sent_host.ends_with(suffix.as_str())
                }
                HostPattern::Exact(host) => *host == sent_host,
            }
    }
}

/// Scheme, host and port. IPv6 addresses keep their brackets.
fn split(origin: &str) -> Option<(Scheme, &str, u16)> {
    let (scheme, rest) = origin.split_once("://")?;
    let scheme = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
        _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        _ => return None,
    };
    let after_address = rest.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match rest.get(after_address..)?.rsplit_once(':') {
        Some((_, port)) => {
            let host = rest.get(..rest.len() - port.len() - 1)?;
            (host, digits(port)?)
        }
        None => (rest, scheme.well_known_port()),
    };
    let is_host = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
    is_host.then_some((scheme, host, port))
}

fn digits(port: &str) -> Option<u16> {
    let is_number = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    port.parse().ok().filter(|port| is_number && *port != 0)
}

impl FromStr for OriginPattern {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let bad = || {
            FieldError::new(format!(
                "{text:?} is not an origin (such as https://www.example.com, https://*.example.com:8443, or *)"
            ))
        };
        let (scheme, host, port) = split(text).ok_or_else(bad)?;
        let (is_under, name) = match host.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, host),
        };
        let is_label =
            |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let host = match name {
            "*" if !is_under => HostPattern::Any,
            name if !name.split('.').all(is_label) => return Err(bad()),
            name if is_under => HostPattern::Under(format!(".{}", name.to_ascii_lowercase())),
            name => HostPattern::Exact(name.to_ascii_lowercase()),
        };
        if text.len() > Self::MAX_BYTES {
            return Err(bad());
        }
        Ok(Self::Of { scheme, host, port })
    }
}

/// As it can be read again.
impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Of { scheme, host, port } = self else {
            return f.write_str("*");
        };
        write!(f, "{}://", scheme.as_str())?;
        match host {
            HostPattern::Any => f.write_str("*")?,
            HostPattern::Under(suffix) => write!(f, "*{suffix}")?,
            HostPattern::Exact(host) => f.write_str(host)?,
        }
        if *port != scheme.well_known_port() {
            write!(f, ":{port}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_by_scheme_host_and_port() {
        let table = [
            ("*", &["https://a", "http://b.c:81", "null", "x"][..], &[][..]),
            (
                "https://www.Foo.com",
                &["https://www.foo.com", "https://WWW.foo.com:443"],
                &[
                    "http://www.foo.com",
                    "https://www.foo.com:8443",
                    "https://foo.com",
                    "null",
                    "",
                ],
            ),
            (
                "https://*.bar.com",
                &["https://www.bar.com", "https://xpto.www.bar.com"],
                &[
                    "https://bar.com",
                    "https://.bar.com.org",
                    "https://foobar.com",
                    "https://x.bar.com:1",
                ],
            ),
            (
                "http://*:8080",
                &["http://a:8080", "http://[::1]:8080"],
                &["http://a", "http://:8080", "http://a:8081", "http://a/:8080"],
            ),
            (
                "http://10.0.0.1:81",
                &["http://10.0.0.1:81"],
                &["http://10.0.0.1:+81"],
            ),
        ];
        for (pattern, fitting, others) in table {
            let parsed: OriginPattern = pattern.parse().expect("a pattern");
            assert_eq!(parsed.to_string().parse(), Ok(parsed.clone()), "{pattern}");
            for origin in fitting {
                assert!(parsed.is_match(origin), "{pattern} {origin}");
            }
            for origin in others {
                assert!(!parsed.is_match(origin), "{pattern} {origin}");
            }
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "**",
            "a.b",
            "ftp://a",
            "https://",
            "https://a.*.b",
            "https://*a",
            "https://a:0",
            "https://a:x",
            "https://a/",
            "https://a:70000",
            "https://*.*",
            "https://a..b",
        ] {
            assert!(text.parse::<OriginPattern>().is_err(), "{text}");
        }
    }
}
