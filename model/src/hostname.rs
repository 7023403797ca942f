//! Host names of listeners and routes: one name, or all names under a suffix.

use std::fmt;
use std::str::FromStr;

use crate::FieldError;

/// Longest host name in bytes (RFC 1123 section 2.1).
pub const MAX_HOSTNAME_BYTES: usize = 253;

/// A host name as Gateway API writes it (`Hostname`): lower case, no port, no address. Ordered by how specific it is:
/// of two that fit a host the greater one takes precedence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Hostname {
    /// Any host; not written as such, but the meaning of a host name that is not given.
    Any,
    /// `*.example.com`, kept as `example.com`: every name that has at least one more label in front, of any depth.
    Under(Box<str>),
    /// `www.example.com`.
    Exact(Box<str>),
}

impl Hostname {
    /// Whether a host that is sent, lower case and without a port, is meant.
    pub fn fits(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Under(suffix) => is_under(host, suffix),
            Self::Exact(name) => host == &**name,
        }
    }

    /// The names that both mean, as a listener's host name and a route's are taken together (Gateway API
    /// `HTTPRouteSpec.hostnames`); `None` where there is no such name.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, one) | (one, Self::Any) => Some(one.clone()),
            (Self::Exact(one), Self::Exact(two)) => (one == two).then(|| self.clone()),
            (Self::Exact(name), Self::Under(suffix)) => is_under(name, suffix).then(|| self.clone()),
            (Self::Under(suffix), Self::Exact(name)) => is_under(name, suffix).then(|| other.clone()),
            (Self::Under(one), Self::Under(two)) if one == two || is_under(one, two) => Some(self.clone()),
            (Self::Under(one), Self::Under(two)) => is_under(two, one).then(|| other.clone()),
        }
    }
}

/// Whether `host` has at least one label in front of `suffix`.
fn is_under(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix)
        .is_some_and(|front| front.len() > 1 && front.ends_with('.'))
}

impl PartialOrd for Hostname {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hostname {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let rank = |name: &Self| match name {
            Self::Any => (0, 0),
            Self::Under(suffix) => (1, suffix.len()),
            Self::Exact(name) => (2, name.len()),
        };
        rank(self)
            .cmp(&rank(other))
            .then_with(|| self.to_string().cmp(&other.to_string()))
    }
}

impl FromStr for Hostname {
    type Err = FieldError;

    /// Reads `www.example.com` or `*.example.com`. Refuses addresses, ports, capitals and other wildcards.
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let (is_wildcard, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let is_name = !name.is_empty()
            && text.len() <= MAX_HOSTNAME_BYTES
            && name.split('.').all(is_label)
            && text.parse::<std::net::IpAddr>().is_err();
        if !is_name {
            return Err(FieldError::new(format!(
                "{text:?} is not a host name (lower case, such as www.example.com or *.example.com)"
            )));
        }
        Ok(if is_wildcard {
            Self::Under(name.into())
        } else {
            Self::Exact(name.into())
        })
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// As it is written; [`Hostname::Any`] as `*`.
impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Under(suffix) => write!(f, "*.{suffix}"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Hostname {
        text.parse().expect("a host name")
    }

    fn some_name() -> impl Strategy<Value = Hostname> {
        let labels = proptest::collection::vec("[ab]", 1..4).prop_map(|labels| labels.join("."));
        (labels, 0..5).prop_map(|(labels, kind)| match kind {
            0 => Hostname::Any,
            1 | 2 => Hostname::Under(labels.into()),
            _ => Hostname::Exact(labels.into()),
        })
    }

    proptest! {
        /// An intersection means exactly the hosts that both mean, and is one of the two.
        #[test]
        fn an_intersection_is_what_both_mean(
            one in some_name(),
            two in some_name(),
            host in proptest::collection::vec("[ab]", 1..5),
        ) {
            let host = host.join(".");
            let both = one.intersection(&two);
            prop_assert_eq!(&both, &two.intersection(&one));
            let fits = both.as_ref().is_some_and(|both| both.fits(&host));
            prop_assert_eq!(fits, one.fits(&host) && two.fits(&host));
            prop_assert!(both.is_none_or(|both| both == one || both == two));
        }

        #[test]
        fn any_text_is_read_without_panic_and_round_trips(text in ".{0,80}|(\\*\\.)?[a-z0-9.-]{1,40}") {
            if let Ok(name) = text.parse::<Hostname>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn a_wildcard_means_one_label_more_or_several() {
        let under = name("*.example.com");
        for host in ["www.example.com", "a.b.example.com"] {
            assert!(under.fits(host), "{host}");
        }
        for host in ["example.com", ".example.com", "wwwexample.com", "example.com.org"] {
            assert!(!under.fits(host), "{host}");
        }
    }

    #[test]
    fn the_more_specific_name_is_the_greater() {
        let ordered = [
            Hostname::Any,
            name("*.com"),
            name("*.example.com"),
            name("example.com"),
            name("www.example.com"),
        ];
        assert!(ordered.is_sorted(), "{ordered:?}");
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        for text in [
            "", "*", "*.", ".", "a..b", "a.", "A.b", "1.2.3.4", "::1", "a:80", "*a.b", "a.*.b", "-a", "a_b",
        ] {
            assert!(text.parse::<Hostname>().is_err(), "{text}");
        }
    }
}
