//! Where a redirect points to.

use model::filter::{Redirect, Scheme};

use super::path;

/// What was requested, as far as a redirect keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requested<'a> {
    pub scheme: Scheme,
    /// Without a port; an IPv6 address in brackets.
    pub host: &'a str,
    /// The listener's, which is not always the one that a client wrote.
    pub port: u16,
    pub path: &'a str,
    pub query: Option<&'a str>,
}

/// The value of `Location` (Gateway API `HTTPRequestRedirectFilter`): what is not replaced stays, the query always does.
///
/// Without a port of its own the redirect has that of its scheme, or else the listener's. A port that goes without saying
/// is not written.
pub fn location(redirect: &Redirect, requested: &Requested<'_>) -> String {
    let scheme = redirect.scheme.unwrap_or(requested.scheme);
    let host = redirect
        .hostname
        .as_ref()
        .map_or(requested.host, |name| name.as_str());
    let of_scheme = redirect.scheme.map(Scheme::well_known_port);
    let port = redirect.port.or(of_scheme).unwrap_or(requested.port);
    let path = match &redirect.path {
        Some(change) => path::changed(change, requested.path),
        None => requested.path.into(),
    };
    let mut location = format!("{}://{host}", scheme.as_str());
    if port != scheme.well_known_port() {
        location.push_str(&format!(":{port}"));
    }
    // `OPTIONS *` asks about no path.
    location.push_str(if path.starts_with('/') { &path } else { "/" });
    if let Some(query) = requested.query {
        location.push('?');
        location.push_str(query);
    }
    location
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use http::uri::Authority;
    use model::filter::PathChange;
    use model::route::PathMatch;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn nothing() -> Redirect {
        Redirect {
            scheme: None,
            hostname: None,
            path: None,
            port: None,
            status: StatusCode::FOUND,
        }
    }

    fn to(name: &'static str) -> Redirect {
        Redirect {
            hostname: Some(Authority::from_static(name)),
            ..nothing()
        }
    }

    fn at(scheme: Scheme, port: u16, path: &str) -> Requested<'_> {
        Requested {
            scheme,
            host: "www.example.com",
            port,
            path,
            query: None,
        }
    }

    /// The cases of Gateway API's conformance suite.
    #[test]
    fn redirects_point_where_conformance_wants_them() {
        use Scheme::{Http, Https};
        let (http, https) = (Some(Http), Some(Https));
        for (listener, port, scheme, own, expected) in [
            (Http, 80, None, None, "http://example.org"),
            (Http, 80, None, Some(80), "http://example.org"),
            (Http, 80, None, Some(8080), "http://example.org:8080"),
            (Http, 80, https, None, "https://example.org"),
            (Http, 80, https, Some(443), "https://example.org"),
            (Http, 80, https, Some(8443), "https://example.org:8443"),
            (Http, 8080, None, None, "http://example.org:8080"),
            (Http, 8080, None, Some(80), "http://example.org"),
            (Http, 8080, https, None, "https://example.org"),
            (Https, 443, None, None, "https://example.org"),
            (Https, 443, None, Some(443), "https://example.org"),
            (Https, 443, None, Some(8443), "https://example.org:8443"),
            (Https, 443, http, None, "http://example.org"),
            (Https, 443, http, Some(80), "http://example.org"),
            (Https, 443, http, Some(8080), "http://example.org:8080"),
        ] {
            let redirect = Redirect {
                scheme,
                port: own,
                ..to("example.org")
            };
            let requested = at(listener, port, "/x");
            assert_eq!(location(&redirect, &requested), format!("{expected}/x"));
        }
        let prefix = |matched| {
            let matched = PathMatch::prefix(matched).expect("a path");
            PathChange::prefix(&matched, "/replacement-prefix").expect("a path")
        };
        let full = PathChange::full("/full-path-replacement").expect("a path");
        for (path, change, name, expected) in [
            (
                "/original-prefix/lemon",
                prefix("/original-prefix"),
                None,
                "/replacement-prefix/lemon",
            ),
            (
                "/full/path/original",
                full.clone(),
                None,
                "/full-path-replacement",
            ),
            (
                "/path-and-host",
                prefix("/path-and-host"),
                Some("example.org"),
                "/replacement-prefix",
            ),
            (
                "/full-path-and-host",
                full,
                Some("example.org"),
                "/full-path-replacement",
            ),
        ] {
            let redirect = Redirect {
                hostname: name.map(Authority::from_static),
                path: Some(change),
                ..nothing()
            };
            let host = name.unwrap_or("www.example.com");
            assert_eq!(
                location(&redirect, &at(Http, 80, path)),
                format!("http://{host}{expected}")
            );
        }
    }

    #[test]
    fn the_query_stays_and_an_address_keeps_its_brackets() {
        let requested = Requested {
            host: "[::1]",
            query: Some("a=%20&b"),
            ..at(Scheme::Http, 8080, "*")
        };
        assert_eq!(location(&nothing(), &requested), "http://[::1]:8080/?a=%20&b");
    }

    proptest! {
        /// Against the specification's sentences, one by one.
        #[test]
        fn every_part_is_the_redirects_or_the_requests(
            listener in select(vec![Scheme::Http, Scheme::Https]),
            listener_port in select(vec![80u16, 443, 8080]),
            scheme in option::of(select(vec![Scheme::Http, Scheme::Https])),
            port in option::of(select(vec![80u16, 443, 8080])),
            name in option::of(Just("example.org")),
            path in "(/[a-z]{0,3}){1,3}",
            query in option::of("[a-z=&]{0,5}"),
        ) {
            let redirect = Redirect { scheme, port, hostname: name.map(Authority::from_static), ..nothing() };
            let requested = Requested { query: query.as_deref(), ..at(listener, listener_port, &path) };
            let mut expected = String::new();
            let scheme_text = match scheme.unwrap_or(listener) { Scheme::Http => "http", Scheme::Https => "https" };
            expected += scheme_text;
            expected += "://";
            expected += name.unwrap_or("www.example.com");
            let port = match (port, scheme) {
                (Some(port), _) => port,
                (None, Some(Scheme::Http)) => 80,
                (None, Some(Scheme::Https)) => 443,
                (None, None) => listener_port,
            };
            if !matches!((scheme_text, port), ("http", 80) | ("https", 443)) {
                expected += &format!(":{port}");
            }
            expected += &path;
            if let Some(query) = &query {
                expected += &format!("?{query}");
            }
            prop_assert_eq!(location(&redirect, &requested), expected);
        }
    }
}
