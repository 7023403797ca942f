//! Requests of HTTP/2 that a proxy to HTTP/1 must refuse.

use crate::hostile_h2 as h2;

type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Requests of HTTP/2: in place of `:authority` and `:path`, or behind a good start.
pub fn http2_cases() -> Vec<(&'static str, Vec<u8>)> {
    let start = |authority: Option<&'static str>, path: &'static str| {
        let mut fields: Fields<'static> = vec![(b":method", b"GET"), (b":scheme", b"http")];
        fields.extend(authority.map(|authority| (&b":authority"[..], authority.as_bytes())));
        fields.push((b":path", path.as_bytes()));
        h2::block(&fields)
    };
    let more = |name: &'static [u8], value: &'static [u8]| h2::request("/refused", &[(name, value)]);
    let method = |method: &'static [u8]| {
        h2::block(&[
            (b":method", method),
            (b":scheme", b"http"),
            (b":authority", b"server"),
            (b":path", b"/refused"),
        ])
    };
    vec![
        ("a fragment", start(Some("server"), "/refused#fragment")),
        ("a fragment alone", start(Some("server"), "#")),
        ("a target without slash", start(Some("server"), "refused")),
        (
            "an absolute target",
            start(Some("server"), "http://server/refused"),
        ),
        ("an empty path", start(Some("server"), "")),
        ("a query alone", start(Some("server"), "?refused")),
        ("GET *", start(Some("server"), "*")),
        ("a space in the path", start(Some("server"), "/refused x")),
        (
            "a new line in the path",
            start(Some("server"), "/refused HTTP/1.1\r\nhost: x\r\n\r\nGET /"),
        ),
        ("a user in the authority", start(Some("user@server"), "/refused")),
        ("an empty authority", start(Some(""), "/refused")),
        ("a path in the authority", start(Some("server/x"), "/refused")),
        ("a space in the authority", start(Some("server x"), "/refused")),
        ("no authority", start(None, "/refused")),
        (
            "another scheme",
            h2::block(&[
                (b":method", b"GET"),
                (b":scheme", b"ftp"),
                (b":authority", b"server"),
                (b":path", b"/refused"),
            ]),
        ),
        (
            "no path",
            h2::block(&[
                (b":method", b"GET"),
                (b":scheme", b"http"),
                (b":authority", b"server"),
            ]),
        ),
        (
            "no method",
            h2::block(&[
                (b":scheme", b"http"),
                (b":authority", b"server"),
                (b":path", b"/refused"),
            ]),
        ),
        ("CONNECT with a path", method(b"CONNECT")),
        (
            "a method that is no token",
            method(b"GET /smuggled HTTP/1.1\r\nx: y"),
        ),
        ("an empty method", method(b"")),
        ("a second path", more(b":path", b"/other")),
        (
            "a pseudo-field behind fields",
            h2::request("/refused", &[(b"x", b"1"), (b":authority", b"other")]),
        ),
        ("an unknown pseudo-field", more(b":status", b"200")),
        ("another host", more(b"host", b"other")),
        (
            "two hosts",
            h2::request("/refused", &[(b"host", b"server"), (b"host", b"server")]),
        ),
        ("connection", more(b"connection", b"close")),
        ("keep-alive", more(b"keep-alive", b"5")),
        ("proxy-connection", more(b"proxy-connection", b"keep-alive")),
        ("transfer-encoding", more(b"transfer-encoding", b"chunked")),
        ("upgrade", more(b"upgrade", b"websocket")),
        ("te", more(b"te", b"gzip")),
        ("te with more", more(b"te", b"trailers, gzip")),
        ("a name in upper case", more(b"X", b"1")),
        ("a name that is no token", more(b"x y", b"1")),
        ("a name with a new line", more(b"x\r\ny", b"1")),
        ("a name with a colon", more(b"x:y", b"1")),
        ("an empty name", more(b"", b"1")),
        (
            "a new line in a value",
            more(b"x", b"1\r\ntransfer-encoding: chunked"),
        ),
        ("a line feed in a value", more(b"x", b"1\nx: y")),
        ("NUL in a value", more(b"x", b"1\0a")),
        (
            "two lengths",
            h2::request(
                "/refused",
                &[(b"content-length", b"0"), (b"content-length", b"0")],
            ),
        ),
        ("a signed length", more(b"content-length", b"+0")),
        (
            "a length of 65 bits",
            more(b"content-length", b"18446744073709551616"),
        ),
        ("a length without a body", more(b"content-length", b"5")),
        ("an unknown expectation", more(b"expect", b"200-ok")),
        (
            "70 KiB of fields",
            h2::request("/refused", &[(b"x", &[b'a'; 70 * 1024])]),
        ),
        (
            "70 fields of 1 KiB",
            h2::request("/refused", &[(&b"x"[..], &[b'a'; 1024][..])].repeat(70)),
        ),
        (
            "101 fields",
            h2::request("/refused", &[(&b"x"[..], &b"1"[..])].repeat(101)),
        ),
    ]
}
