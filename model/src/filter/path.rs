//! Where a request is sent instead: redirects, which tell the client, and rewrites, which do not.

use http::StatusCode;
use http::uri::Authority;

use crate::route::PathMatch;
use crate::{FieldError, Hostname};

/// Answers with another place to look (Gateway API `HTTPRequestRedirectFilter`). What is `None` stays as requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<Scheme>,
    pub hostname: Option<Authority>,
    pub path: Option<PathChange>,
    /// `None`: the well-known port of `scheme`, or without one the port of the listener.
    pub port: Option<u16>,
    /// One of [`Redirect::STATUSES`].
    pub status: StatusCode,
}

impl Redirect {
    /// Those that Gateway API allows.
    pub const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
    /// Where a redirect does not say.
    pub const DEFAULT_STATUS: u16 = 302;

    /// One of [`Redirect::STATUSES`].
    pub fn status(code: u16) -> Result<StatusCode, FieldError> {
        let status = StatusCode::from_u16(code).ok();
        let allowed = status.filter(|_| Self::STATUSES.contains(&code));
        allowed.ok_or_else(|| FieldError::new(format!("{code} is no redirect (301, 302, 303, 307 or 308)")))
    }
}

/// The scheme of a URL that a redirect points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL that names none.
    pub fn well_known_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Changes whom and what a request asks for before it is sent on (Gateway API `HTTPURLRewriteFilter`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The new `Host` or `:authority`, without a port.
    pub hostname: Option<Authority>,
    pub path: Option<PathChange>,
}

/// How a path is replaced (Gateway API `HTTPPathModifier`). The query stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    Full(String),
    Prefix {
        /// What the rule's only match asks for, as [`PathMatch::Prefix`] has it.
        matched: String,
        replacement: String,
    },
}

impl PathChange {
    /// Longest replacement, in bytes (Gateway API).
    pub const MAX_BYTES: usize = 1024;

    /// The whole path becomes `path`; an empty one is `/`.
    pub fn full(path: &str) -> Result<Self, FieldError> {
        must_be_replacement(path)?;
        Ok(Self::Full(if path.is_empty() { "/" } else { path }.to_owned()))
    }

    /// The elements that `matched` asks for become `replacement`, which may be empty.
    pub fn prefix(matched: &PathMatch, replacement: &str) -> Result<Self, FieldError> {
        let PathMatch::Prefix(matched) = matched else {
            return Err(FieldError::new("needs a match of type PathPrefix"));
        };
        must_be_replacement(replacement)?;
        Ok(Self::Prefix {
            matched: matched.clone(),
            replacement: replacement.to_owned(),
        })
    }
}

/// Only what may stand in a path (RFC 3986 section 3.3): neither query nor fragment.
fn must_be_replacement(path: &str) -> Result<(), FieldError> {
    if path.len() > PathChange::MAX_BYTES {
        return Err(FieldError::new("a path has at most 1024 characters"));
    }
    if !path.is_empty() && !path.starts_with('/') {
        return Err(FieldError::new(format!("{path:?} does not start with '/'")));
    }
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let is_valid = match byte {
            b'%' => (0..2).all(|_| rest.next().is_some_and(|hex| hex.is_ascii_hexdigit())),
            byte => byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte),
        };
        if !is_valid {
            return Err(FieldError::new(format!(
                "{path:?} has what no path has: it is percent-encoded, without query and fragment"
            )));
        }
    }
    Ok(())
}

/// One host name, without a wildcard (Gateway API `PreciseHostname`).
pub fn precise_hostname(text: &str) -> Result<Authority, FieldError> {
    let name = match text.parse::<Hostname>()? {
        Hostname::Exact(name) => Authority::try_from(&*name).ok(),
        Hostname::Any | Hostname::Under(_) => None,
    };
    name.ok_or_else(|| FieldError::new(format!("{text:?} is not one host name, such as www.example.com")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_are_paths() {
        for path in ["", "/", "/a/b", "/a%2Fb", "/a/(x)"] {
            assert!(PathChange::full(path).is_ok(), "{path}");
        }
        for path in [
            "a",
            "/a?b",
            "/a#b",
            "/a b",
            "/%4",
            "/%zz",
            "/ü",
            &"/a".repeat(600),
        ] {
            assert!(PathChange::full(path).is_err(), "{path}");
        }
        let regex = PathMatch::regex("/.*").expect("valid");
        assert!(PathChange::prefix(&regex, "/a").is_err());
    }

    #[test]
    fn only_one_name_is_a_precise_hostname() {
        assert!(precise_hostname("www.example.com").is_ok());
        for text in ["*.example.com", "1.2.3.4", "a:80", "", "*"] {
            assert!(precise_hostname(text).is_err(), "{text}");
        }
    }
}
