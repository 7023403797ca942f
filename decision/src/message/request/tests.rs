use super::*;
use proptest::prelude::*;

fn http1(head: &str) -> Result<Accepted<'_>, Reason> {
    validate(RequestHead::http1(head.as_bytes())?, &MessageLimits::default())
}

fn http2_request(method: &str, uri: Uri, fields: &[(&str, &str)]) -> (Method, Uri, HeaderMap) {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(
            name,
            http::HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
        );
    }
    (method.parse().expect("a method"), uri, headers)
}

fn judged(method: &str, uri: Uri, fields: &[(&str, &str)]) -> Result<(String, Body), Reason> {
    let (method, uri, headers) = http2_request(method, uri, fields);
    let accepted = validate(http2(&method, &uri, &headers), &MessageLimits::default())?;
    Ok((accepted.authority.to_owned(), accepted.body))
}

/// A URI as the HTTP/2 codec builds it, in parts.
fn uri(authority: Option<&str>, path: &str) -> Uri {
    let mut parts = http::uri::Parts::default();
    if let Some(authority) = authority {
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(authority.parse().expect("an authority"));
    }
    parts.path_and_query = Some(path.parse().expect("a path"));
    Uri::from_parts(parts).expect("a URI")
}

#[test]
fn http2_requests_that_are_accepted() {
    let a = || uri(Some("a:8080"), "/x?y");
    for (request, fields, authority, body) in [
        (a(), &[][..], "a:8080", Body::Frames(None)),
        (a(), &[("host", "A:8080")], "a:8080", Body::Frames(None)),
        (uri(None, "/"), &[("host", "b")], "b", Body::Frames(None)),
        (
            a(),
            &[("content-length", "5"), ("te", "trailers")],
            "a:8080",
            Body::Frames(Some(5)),
        ),
        (
            a(),
            &[("cookie", "a=1"), ("cookie", "b=2")],
            "a:8080",
            Body::Frames(None),
        ),
    ] {
        assert_eq!(
            judged("POST", request, fields),
            Ok((authority.to_owned(), body)),
            "{fields:?}"
        );
    }
    assert!(judged("OPTIONS", uri(Some("a"), "*"), &[]).is_ok());
}

#[test]
fn http2_requests_that_are_refused() {
    let a = || uri(Some("a"), "/");
    for (what, method, request, fields, reason) in [
        (
            "CONNECT",
            "CONNECT",
            "a:80".parse().expect("a URI"),
            &[][..],
            Reason::BadMethod,
        ),
        ("CONNECT with a path", "CONNECT", a(), &[], Reason::BadMethod),
        (
            "a user in :authority",
            "GET",
            uri(Some("u@a"), "/"),
            &[],
            Reason::BadHost,
        ),
        (
            "a bad port in :authority",
            "GET",
            uri(Some("a:"), "/"),
            &[],
            Reason::BadHost,
        ),
        (
            "no :authority and no host",
            "GET",
            uri(None, "/"),
            &[],
            Reason::BadHost,
        ),
        (
            "a host that differs",
            "GET",
            a(),
            &[("host", "b")],
            Reason::BadHost,
        ),
        (
            "a host with a user",
            "GET",
            a(),
            &[("host", "u@a")],
            Reason::BadHost,
        ),
        ("an empty host", "GET", a(), &[("host", "")], Reason::BadHost),
        (
            "two hosts",
            "GET",
            a(),
            &[("host", "a"), ("host", "a")],
            Reason::BadHost,
        ),
        ("* for GET", "GET", uri(Some("a"), "*"), &[], Reason::BadTarget),
        (
            "a path without a slash",
            "GET",
            uri(Some("a"), "?x"),
            &[],
            Reason::BadTarget,
        ),
        (
            "raw non-ASCII",
            "GET",
            uri(Some("a"), "/\u{e9}"),
            &[],
            Reason::BadTarget,
        ),
        (
            "another scheme",
            "GET",
            "ftp://a/".parse().expect("a URI"),
            &[],
            Reason::BadTarget,
        ),
        (
            "connection",
            "GET",
            a(),
            &[("connection", "close")],
            Reason::MalformedRequest,
        ),
        (
            "keep-alive",
            "GET",
            a(),
            &[("keep-alive", "timeout=5")],
            Reason::MalformedRequest,
        ),
        (
            "proxy-connection",
            "GET",
            a(),
            &[("proxy-connection", "x")],
            Reason::MalformedRequest,
        ),
        (
            "transfer-encoding",
            "GET",
            a(),
            &[("transfer-encoding", "chunked")],
            Reason::MalformedRequest,
        ),
        (
            "upgrade",
            "GET",
            a(),
            &[("upgrade", "websocket")],
            Reason::MalformedRequest,
        ),
        (
            "te other than trailers",
            "GET",
            a(),
            &[("te", "gzip")],
            Reason::MalformedRequest,
        ),
        (
            "a signed length",
            "GET",
            a(),
            &[("content-length", "+5")],
            Reason::AmbiguousLength,
        ),
        (
            "a listed length",
            "GET",
            a(),
            &[("content-length", "5, 5")],
            Reason::AmbiguousLength,
        ),
        (
            "two lengths",
            "GET",
            a(),
            &[("content-length", "5"), ("content-length", "5")],
            Reason::AmbiguousLength,
        ),
        (
            "an unknown expectation",
            "GET",
            a(),
            &[("expect", "x")],
            Reason::BadExpectation,
        ),
    ] {
        assert_eq!(judged(method, request, fields), Err(reason), "{what}");
    }
}

#[test]
fn http2_limits() {
    let long = format!("/{}", "a".repeat(16 * 1024));
    assert_eq!(
        judged("GET", uri(Some("a"), &long), &[]),
        Err(Reason::TargetTooLong)
    );
    assert_eq!(
        judged("GET", uri(Some("a"), "/"), &[("x", "1"); 101]),
        Err(Reason::TooManyFields)
    );
    assert!(judged("GET", uri(Some("a"), "/"), &[("x", "1"); 100]).is_ok());
    let value = "a".repeat(700);
    assert_eq!(
        judged("GET", uri(Some("a"), "/"), &[("x", value.as_str()); 99]),
        Err(Reason::HeadTooLarge)
    );
}

#[test]
fn targets() {
    for target in [
        "/",
        "//",
        "/a/b;c=d?e=f&g",
        "/|\"{}^[]'%7e",
        "/?`\\{}|",
        "http://a",
        "http://a/",
        "HTTP://A/b",
        "http://a:80/",
        "http://a?x",
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(http1(&head).is_ok(), "{target}");
    }
    for (target, reason) in [
        ("*", Reason::BadTarget),
        ("a", Reason::BadTarget),
        ("?a", Reason::BadTarget),
        ("/a#b", Reason::BadTarget),
        ("/?a#b", Reason::BadTarget),
        ("#", Reason::BadTarget),
        ("http://a#b", Reason::BadTarget),
        ("http://a/#b", Reason::BadTarget),
        ("http:///", Reason::BadTarget),
        ("http://", Reason::BadTarget),
        ("http:/a", Reason::BadTarget),
        ("https://a/", Reason::BadTarget),
        ("ftp://a/", Reason::BadTarget),
        ("a:80", Reason::BadTarget),
        ("/\u{e9}", Reason::BadTarget),
        ("/a<b", Reason::BadTarget),
        ("/a\\b", Reason::BadTarget),
        ("/a`b", Reason::BadTarget),
        ("/?a\"b", Reason::BadTarget),
        ("/?a>b", Reason::BadTarget),
        ("http://u@a/", Reason::BadHost),
        ("http://a:x/", Reason::BadHost),
        ("http://b/", Reason::BadHost),
        ("http://a:81/", Reason::BadHost),
        ("/a\tb", Reason::MalformedRequest),
        ("/a\0b", Reason::MalformedRequest),
        ("/a\rb", Reason::MalformedRequest),
        ("/a b", Reason::MalformedRequest),
        ("/a\x7f", Reason::MalformedRequest),
    ] {
        assert_eq!(
            http1(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")),
            Err(reason),
            "{target:?}"
        );
    }
    assert!(http1("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    assert_eq!(
        http1("REFUSED * HTTP/1.1\r\nHost: a\r\n\r\n"),
        Err(Reason::BadTarget)
    );
}

#[test]
fn both_versions_have_one_effective_target() {
    let host =
        |host: &'static str| HeaderMap::from_iter([(header::HOST, http::HeaderValue::from_static(host))]);
    for (request, headers, authority, target) in [
        ("/a?b".parse().expect("a URI"), host("c:1"), "c:1", "/a?b"),
        ("http://c/a?b".parse().expect("a URI"), host("c"), "c", "/a?b"),
        ("http://c?b".parse().expect("a URI"), host("c"), "c", "/?b"),
        ("http://c".parse().expect("a URI"), host("c"), "c", "/"),
        ("*".parse().expect("a URI"), host("c"), "c", "*"),
        (uri(Some("c"), "/a"), HeaderMap::new(), "c", "/a"),
        (uri(None, "/a"), host("c"), "c", "/a"),
    ] {
        let found = effective(&request, &headers).expect("accepted");
        assert_eq!(
            (found.authority, found.path_and_query.as_str()),
            (authority, target),
            "{request}"
        );
    }
}

proptest! {
    /// What is accepted, the codec behind must read as the same target.
    #[test]
    fn accepted_targets_are_uris(target in "(http://[a-z.:@0-9-]{1,8}|)[!-~]{0,12}(\\?[!-~\u{80}-\u{ff}]{0,8}|)", host in "[a-z.:0-9]{1,4}") {
        let host = target.strip_prefix("http://").map_or(host, |rest| {
            rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned()
        });
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        if let Ok(accepted) = http1(&head) {
            let uri = Uri::try_from(target.as_str()).expect("the codec reads it");
            let headers = HeaderMap::from_iter([(header::HOST, host.parse().expect("a value"))]);
            let found = effective(&uri, &headers).expect("a target");
            prop_assert_eq!(found.authority, accepted.authority);
            let origin = target.strip_prefix("http://").map_or(target.as_str(), |rest| &rest[host.len()..]);
            let slash = if origin.starts_with('/') { "" } else { "/" };
            prop_assert_eq!(found.path_and_query.as_str(), format!("{slash}{origin}"));
        }
    }
}
