//! Fields that end at this hop (RFC 9110 section 7.6.1), fields no trailer may carry, and cookie crumbs.

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::framing::{self, Framing};
use super::{Upgrade, syntax};
use crate::Reason;

/// Removes what belongs to the hop that a message arrived on: `Connection` and everything that it names,
/// `Keep-Alive`, `Proxy-Connection`, `Transfer-Encoding`, `Upgrade`, `HTTP2-Settings`, `Proxy-Authenticate`,
/// `Proxy-Authorization`, and `TE` but for its member `trailers`, which an HTTP/2 hop may carry (gRPC needs it).
/// Read [`upgrade_protocol`] before.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let found: SmallVec<[HeaderName; 4]> = headers
        .keys()
        .filter(|name| is_of_one_hop(name))
        .cloned()
        .collect();
    // Most messages have none, and of those that have one it is mostly gRPC's.
    match found.as_slice() {
        [] => return,
        [name] if *name == header::TE && is_trailers_alone(headers) => return,
        _ => {}
    }
    let trailers = headers
        .get_all(header::TE)
        .iter()
        .any(|value| names(value, "trailers"));
    let connections: SmallVec<[HeaderValue; 2]> =
        headers.get_all(header::CONNECTION).iter().cloned().collect();
    for option in connections
        .iter()
        .flat_map(|value| syntax::list(value.as_bytes()))
    {
        // The usual option, whose field is found anyway.
        if option != b"keep-alive"
            && let Ok(name) = HeaderName::from_bytes(option)
            && !framing::may_not_be_an_option(option)
        {
            headers.remove(name);
        }
    }
    for name in found {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

fn is_of_one_hop(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Told by their lengths first, as in `is_connection_specific`.
    match name.len() {
        2 => name == "te",
        14 => name == "http2-settings",
        18 => name == "proxy-authenticate",
        19 => name == "proxy-authorization",
        _ => is_connection_specific(name.as_bytes()),
    }
}

fn is_trailers_alone(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::TE).iter();
    values.next().is_some_and(|value| value == "trailers") && values.next().is_none()
}

/// The switch of protocols that an HTTP/1.1 head asks for or agrees to: `Connection` names `upgrade`, and
/// `Upgrade` holds exactly one protocol, which the proxy knows.
pub fn upgrade_protocol(version: Version, headers: &HeaderMap) -> Option<Upgrade> {
    if version != Version::HTTP_11 || !headers.contains_key(header::UPGRADE) {
        return None;
    }
    let mut framing = Framing::default();
    for value in headers.get_all(header::CONNECTION) {
        framing.connection(value.as_bytes()).ok()?;
    }
    if !framing.upgrade {
        return None;
    }
    let mut upgrade = UpgradeList::default();
    for value in headers.get_all(header::UPGRADE) {
        upgrade.add(value.as_bytes());
    }
    upgrade.protocol().ok().flatten()
}

/// Judges the trailers of a request, of either version.
///
/// # Errors
/// [`Reason::BadTrailer`] where one of them frames, routes, authenticates or says how to read the content.
pub fn trailers_allowed(trailers: &HeaderMap) -> Result<(), Reason> {
    let allowed = trailers
        .keys()
        .all(|name| may_be_a_trailer(name.as_str().as_bytes()));
    if allowed { Ok(()) } else { Err(Reason::BadTrailer) }
}

/// Judges the trailers of a response, of either version.
///
/// # Errors
/// [`Reason::BadResponseTrailer`], for the same fields as [`trailers_allowed`].
pub fn response_trailers_allowed(trailers: &HeaderMap) -> Result<(), Reason> {
    trailers_allowed(trailers).map_err(|_| Reason::BadResponseTrailer)
}

/// Joins the cookie crumbs of an HTTP/2 request into the one field that HTTP/1 has (RFC 9113 section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Whether a field of this name, in any case, may stand in a trailer section (RFC 9110 section 6.5.1). Refused:
/// framing, routing, authentication, request modifiers, response control, and how to read the content.
pub(crate) fn may_be_a_trailer(name: &[u8]) -> bool {
    const REFUSED: [&str; 39] = [
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
        "http2-settings",
        "authorization",
        "proxy-authorization",
        "proxy-authenticate",
        "www-authenticate",
        "cookie",
        "set-cookie",
        "content-encoding",
        "content-type",
        "content-range",
        "content-location",
        "cache-control",
        "pragma",
        "expect",
        "max-forwards",
        "range",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "if-range",
        "age",
        "expires",
        "location",
        "retry-after",
        "vary",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    ];
    !REFUSED
        .iter()
        .any(|refused| name.eq_ignore_ascii_case(refused.as_bytes()))
}

/// Fields that HTTP/2 does not have (RFC 9113 section 8.2.2), in any case.
pub(crate) fn is_connection_specific(name: &[u8]) -> bool {
    let is = |specific: &[u8]| name.eq_ignore_ascii_case(specific);
    // Told by their lengths first: this is asked of every field.
    match name.len() {
        7 => is(b"upgrade"),
        10 => is(b"connection") || is(b"keep-alive"),
        16 => is(b"proxy-connection"),
        17 => is(b"transfer-encoding"),
        _ => false,
    }
}

/// `Upgrade` that is empty, no list of protocols, or a choice between a known protocol and another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadUpgrade;

/// The protocols that all the `Upgrade` fields of a head name together.
#[derive(Debug, Default)]
pub(crate) struct UpgradeList {
    websocket: u32,
    others: u32,
    malformed: bool,
}

impl UpgradeList {
    pub(crate) fn add(&mut self, value: &[u8]) {
        for protocol in syntax::list(value) {
            let mut parts = protocol.splitn(2, |byte| *byte == b'/');
            if !parts.all(syntax::is_token) {
                self.malformed = true;
            } else if protocol.eq_ignore_ascii_case(Upgrade::WebSocket.as_str().as_bytes()) {
                self.websocket = self.websocket.saturating_add(1);
            } else {
                self.others = self.others.saturating_add(1);
            }
        }
    }

    /// `None`: only protocols that are not passed on, such as `h2c`, which a server may ignore.
    pub(crate) fn protocol(&self) -> Result<Option<Upgrade>, BadUpgrade> {
        match (self.malformed, self.websocket, self.others) {
            (false, 1, 0) => Ok(Some(Upgrade::WebSocket)),
            (false, 0, 1..) => Ok(None),
            _ => Err(BadUpgrade),
        }
    }
}

fn names(value: &HeaderValue, member: &str) -> bool {
    syntax::list(value.as_bytes()).any(|element| element.eq_ignore_ascii_case(member.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    /// What is left, by the words of the function's documentation, on a list of lines.
    fn left_of(lines: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        let elements = |of: &'static str| {
            let values = lines.iter().filter(move |(name, _)| *name == of);
            values.flat_map(|(_, value)| value.split(',').map(|element| element.trim().to_lowercase()))
        };
        let mut removed: Vec<String> = elements("connection")
            .filter(|option| !framing::may_not_be_an_option(option.as_bytes()))
            .collect();
        removed.extend(
            "connection keep-alive proxy-connection transfer-encoding upgrade http2-settings \
             proxy-authenticate proxy-authorization te"
                .split_whitespace()
                .map(str::to_owned),
        );
        let mut left: Vec<_> = lines
            .iter()
            .filter(|(name, _)| !removed.iter().any(|removed| removed == name))
            .copied()
            .collect();
        if elements("te").any(|member| member == "trailers") {
            left.push(("te", "trailers"));
        }
        left
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_is_left_is_what_no_hop_owns(
            lines in vec((
                select(&[
                    "host", "close", "x-one", "content-length", "te", "te", "connection", "connection",
                    "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings",
                    "proxy-authenticate", "proxy-authorization",
                ][..]),
                select(&[
                    "trailers", "trailers", "gzip, Trailers", "close", "Keep-Alive", "X-One", "te, host", "a b,", "",
                ][..]),
            ), 0..5),
        ) {
            let mut headers = map(&lines);
            remove_hop_by_hop(&mut headers);
            prop_assert_eq!(headers, map(&left_of(&lines)));
        }
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        for (name, value) in fields.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn what_belongs_to_the_hop_is_removed() {
        let mut headers = map(&[
            ("host", "a"),
            ("connection", "close, X-One"),
            ("connection", "x-two,, Host, content-length"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("content-length", "0"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("proxy-authorization", "Basic x"),
            ("proxy-authenticate", "Basic"),
            ("te", "gzip, trailers"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(
            headers,
            map(&[
                ("host", "a"),
                ("x-three", "3"),
                ("content-length", "0"),
                ("te", "trailers")
            ])
        );

        for (lines, left) in [
            (&[("te", "gzip;q=0.5")][..], &[][..]),
            (&[("te", "trailers")], &[("te", "trailers")]),
            (&[("te", "trailers"), ("te", "gzip")], &[("te", "trailers")]),
        ] {
            let mut headers = map(lines);
            remove_hop_by_hop(&mut headers);
            assert_eq!(headers, map(left));
        }
    }

    #[test]
    fn upgrades() {
        let asked =
            |version, fields: &[(&'static str, &'static str)]| upgrade_protocol(version, &map(fields));
        let websocket = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        assert_eq!(asked(Version::HTTP_11, &websocket), Some(Upgrade::WebSocket));
        assert_eq!(asked(Version::HTTP_10, &websocket), None);
        assert_eq!(asked(Version::HTTP_11, &[("upgrade", "websocket")]), None);
        assert_eq!(
            asked(Version::HTTP_11, &[("connection", "upgrade"), ("upgrade", "h2c")]),
            None
        );
        assert_eq!(
            asked(
                Version::HTTP_11,
                &[("connection", "upgrade"), ("upgrade", "websocket, h2c")]
            ),
            None
        );
    }

    #[test]
    fn crumbs_are_joined_in_order() {
        let mut headers = map(&[
            ("cookie", "a=1"),
            ("accept", "x"),
            ("cookie", "b=2"),
            ("cookie", "c=3"),
        ]);
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2; c=3"), ("accept", "x")]));
    }

    #[test]
    fn trailers() {
        let status = map(&[
            ("grpc-status", "0"),
            ("grpc-message", ""),
            ("x-checksum", "1"),
            ("server-timing", "a"),
        ]);
        assert_eq!(trailers_allowed(&status), Ok(()));
        for name in [
            "content-length",
            "transfer-encoding",
            "host",
            "authorization",
            "set-cookie",
            "te",
            "cache-control",
        ] {
            let trailers = map(&[("grpc-status", "0"), (name, "1")]);
            assert_eq!(trailers_allowed(&trailers), Err(Reason::BadTrailer), "{name}");
            assert_eq!(
                response_trailers_allowed(&trailers),
                Err(Reason::BadResponseTrailer),
                "{name}"
            );
        }
    }
}
