//! Grants by example, those of Gateway API's conformance suite among them.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;

fn cors(origins: &[&str], methods: &[&str], headers: &[&str], credentials: bool) -> Cors {
    Cors {
        allow_origins: origins
            .iter()
            .map(|origin| origin.parse().expect("an origin"))
            .collect(),
        allow_credentials: credentials,
        allow_methods: match methods {
            ["*"] => Allowed::Any,
            names => Allowed::These(names.iter().map(|name| name.parse().expect("a method")).collect()),
        },
        allow_headers: match headers {
            ["*"] => Allowed::Any,
            names => Allowed::These(names.iter().map(|name| name.parse().expect("a name")).collect()),
        },
        expose_headers: Allowed::default(),
        max_age: Cors::DEFAULT_MAX_AGE,
    }
}

fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    lines.iter().map(field).collect()
}

/// The fields of an answer to this request, and whether it was a preflight.
fn answered(cors: &Cors, method: Method, lines: &[(&'static str, &'static str)]) -> (HeaderMap, bool) {
    let (grant, is_preflight) = match judge(cors, &method, &fields(lines)) {
        Judged::Preflight(grant) => (grant, true),
        Judged::Actual(grant) => (grant, false),
    };
    let mut headers = HeaderMap::new();
    grant.apply(&mut headers);
    (headers, is_preflight)
}

fn without_vary(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(VARY);
    headers
}

#[test]
fn a_preflight_is_told_everything() {
    let rule = Cors {
        expose_headers: Allowed::These(vec![
            HeaderName::from_static("x-3"),
            HeaderName::from_static("x-4"),
        ]),
        max_age: 3600,
        ..cors(
            &["https://www.foo.com", "https://*.bar.com"],
            &["GET", "OPTIONS"],
            &["x-1", "x-2"],
            true,
        )
    };
    for origin in ["https://www.foo.com", "https://xpto.www.bar.com"] {
        let asked = [
            ("origin", origin),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "x-1, x-2"),
        ];
        let (headers, is_preflight) = answered(&rule, Method::OPTIONS, &asked);
        assert!(is_preflight);
        let expected = fields(&[
            ("access-control-allow-origin", origin),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "x-3, x-4"),
            ("access-control-allow-methods", "GET, OPTIONS"),
            ("access-control-allow-headers", "x-1, x-2"),
            ("access-control-max-age", "3600"),
            ("vary", "Origin"),
        ]);
        assert_eq!(headers, expected);
    }
    let asked = [
        ("origin", "https://foobar.com"),
        ("access-control-request-method", "GET"),
    ];
    let (headers, is_preflight) = answered(&rule, Method::OPTIONS, &asked);
    assert!(is_preflight, "it is not passed on");
    assert_eq!(without_vary(headers), HeaderMap::new());
}

#[test]
fn only_a_question_with_origin_and_method_is_a_preflight() {
    let rule = cors(&["*"], &["*"], &[], false);
    for (method, lines) in [
        (Method::OPTIONS, &[("origin", "https://a")][..]),
        (Method::OPTIONS, &[("access-control-request-method", "GET")]),
        (
            Method::GET,
            &[("origin", "https://a"), ("access-control-request-method", "GET")],
        ),
    ] {
        assert!(!answered(&rule, method, lines).1, "{lines:?}");
    }
}

#[test]
fn two_origins_are_none_and_an_application_is_overruled() {
    let rule = cors(&["https://a"], &[], &[], false);
    let two = [("origin", "https://a"), ("origin", "https://b")];
    assert_eq!(
        without_vary(answered(&rule, Method::GET, &two).0),
        HeaderMap::new()
    );
    let Judged::Actual(grant) = judge(&rule, &Method::GET, &fields(&[("origin", "https://a")])) else {
        panic!("not a preflight");
    };
    let mut headers = fields(&[("access-control-allow-origin", "*"), ("vary", "Accept, origin")]);
    grant.apply(&mut headers);
    let expected = fields(&[
        ("access-control-allow-origin", "https://a"),
        ("vary", "Accept, origin"),
    ]);
    assert_eq!(headers, expected);
}

#[test]
fn an_origin_that_is_allowed_is_returned_whatever_the_request_came_with() {
    let rule = cors(&["https://a"], &[], &[], false);
    for own in [("authorization", "Bearer x"), ("cookie", "a=b")] {
        let (headers, _) = answered(&rule, Method::GET, &[("origin", "https://a"), own]);
        let expected = fields(&[("access-control-allow-origin", "https://a"), ("vary", "Origin")]);
        assert_eq!(headers, expected, "{own:?}");
        let (headers, _) = answered(&rule, Method::GET, &[("origin", "https://b"), own]);
        assert_eq!(without_vary(headers), HeaderMap::new(), "{own:?}");
    }
}

proptest! {
    /// What Gateway API says of `["*"]` of everything: by whether the rule allows credentials. Whether the request has some is
    /// the browser's affair.
    #[test]
    fn wildcards_are_resolved_where_credentials_are_allowed(
        allows in any::<bool>(), cookie in any::<bool>(), authorization in any::<bool>(), preflight in any::<bool>(),
        method in select(vec!["PUT", "GET"]), names in proptest::option::of(Just("x-1, x-2")),
    ) {
        let rule = cors(&["*"], &["*"], &["*"], allows);
        let mut lines = vec![("origin", "https://other.foo.com"), ("access-control-request-method", method)];
        lines.extend(names.map(|names| ("access-control-request-headers", names)));
        // A browser sends no credentials with a preflight.
        let credentialed = !preflight && (cookie || authorization);
        if credentialed && cookie { lines.push(("cookie", "a=b")); }
        if credentialed && authorization { lines.push(("authorization", "x")); }
        let (headers, _) = answered(&rule, if preflight { Method::OPTIONS } else { Method::POST }, &lines);
        let told = |name: &str| headers.get(name).map(|value| value.to_str().expect("text"));
        let origin = if allows { "https://other.foo.com" } else { "*" };
        prop_assert_eq!(told("access-control-allow-origin"), Some(origin));
        prop_assert_eq!(told("access-control-allow-credentials"), allows.then_some("true"));
        let specific = |asked: Option<&'static str>| match (preflight, allows) {
            (false, _) => None,
            (true, true) => asked,
            (true, false) => Some("*"),
        };
        prop_assert_eq!(told("access-control-allow-methods"), specific(Some(method)));
        prop_assert_eq!(told("access-control-allow-headers"), specific(names));
        prop_assert_eq!(told("vary"), allows.then_some("Origin"));
    }

    #[test]
    fn any_fields_are_judged_without_panic(origin in ".{0,20}", names in ".{0,20}") {
        let mut headers = HeaderMap::new();
        for (name, value) in [(ORIGIN, origin), (ACCESS_CONTROL_REQUEST_HEADERS, names)] {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(name, value);
            }
        }
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("GET"));
        judge(&cors(&["https://*.a"], &["*"], &["*"], true), &Method::OPTIONS, &headers);
    }
}
