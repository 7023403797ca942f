//! Filters and sessions of rules: what they mean, and what is refused, as the validations of Gateway API's CRDs say.

use std::time::Duration;

use model::filter::{
    Allowed, AuthProtocol, ExternalAuth, Filter, Fraction, Mirror, PathChange, Redirect, Scheme,
};
use model::session::SessionCarrier;

use super::*;

/// A rule with this match of a path and these filters, one a line.
fn filtered(path: &str, filters: &[&str]) -> String {
    let mut lines = format!("      matches: [{{path: {path}}}]\n      filters:\n");
    for filter in filters {
        lines += &format!("        - {filter}\n");
    }
    rule(&lines)
}

fn filters_of(path: &str, filters: &[&str]) -> Vec<Filter> {
    only_route(&filtered(path, filters)).rules.remove(0).filters
}

#[test]
fn every_filter_is_read() {
    let read = filters_of(
        "{value: /old/}",
        &[
            "{type: URLRewrite, urlRewrite: {hostname: a.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}",
            "{type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}, percent: 5}}",
            "{type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 81}, fraction: {numerator: 1}}}",
            "{type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 82}}}",
            "{type: CORS, cors: {allowOrigins: ['https://*.a.org'], allowMethods: ['*'], exposeHeaders: [X-A]}}",
            "{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: auth, port: 9000}, grpc: {}, \
             forwardBody: {maxSize: 100}}}",
            "{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: auth, port: 80}, \
             http: {path: /check, allowedHeaders: [X-In], allowedResponseHeaders: [X-Out]}}}",
        ],
    );
    let Filter::Rewrite(rewrite) = &read[0] else {
        panic!("a rewrite, not {:?}", read[0])
    };
    assert_eq!(
        rewrite.hostname.as_ref().map(|name| name.as_str()),
        Some("a.example")
    );
    let prefix = PathChange::Prefix {
        matched: "/old".to_owned(),
        replacement: "/new".to_owned(),
    };
    assert_eq!(rewrite.path, Some(prefix));
    for (filter, port, numerator, denominator) in [
        (&read[1], 80, 5, 100),
        (&read[2], 81, 1, 100),
        (&read[3], 82, 1, 1),
    ] {
        let mirror = Mirror {
            target: format!("default/shadow:{port}").parse().expect("valid"),
            share: Fraction::new(numerator, denominator).expect("valid"),
        };
        assert_eq!(*filter, Filter::Mirror(mirror));
    }
    let Filter::Cors(cors) = &read[4] else {
        panic!("CORS, not {:?}", read[4])
    };
    assert_eq!((&cors.allow_methods, cors.max_age), (&Allowed::Any, 5));
    assert_eq!(
        cors.expose_headers,
        Allowed::These(vec!["x-a".parse().expect("valid")])
    );
    let auth = |port, protocol, bytes| {
        let target = format!("default/auth:{port}");
        let auth = ExternalAuth::new(target.parse().ok(), &target, protocol, bytes);
        Filter::Auth(auth.expect("valid"))
    };
    assert_eq!(read[5], auth(9000, AuthProtocol::Grpc { headers: vec![] }, 100));
    let over_http = AuthProtocol::Http {
        path: "/check".to_owned(),
        headers: vec!["x-in".parse().expect("valid")],
        response_headers: vec!["x-out".parse().expect("valid")],
    };
    assert_eq!(read[6], auth(80, over_http, 0));
}

#[test]
fn a_redirect_has_the_standards_defaults() {
    let read = filters_of("{value: /}", &["{type: RequestRedirect, requestRedirect: {}}"]);
    let nothing = Redirect {
        scheme: None,
        hostname: None,
        path: None,
        port: None,
        status: http::StatusCode::FOUND,
    };
    assert_eq!(read, [Filter::Redirect(nothing)]);
    let all = "{type: RequestRedirect, requestRedirect: {scheme: https, hostname: b.example, port: 8443, statusCode: 308, \
               path: {type: ReplaceFullPath, replaceFullPath: /x}}}";
    let Filter::Redirect(redirect) = filters_of("{value: /}", &[all]).remove(0) else {
        panic!("a redirect")
    };
    assert_eq!(
        (redirect.scheme, redirect.port),
        (Some(Scheme::Https), Some(8443))
    );
    assert_eq!(redirect.path, PathChange::full("/x").ok());
    assert_eq!(redirect.status, http::StatusCode::PERMANENT_REDIRECT);
}

#[test]
fn what_the_standard_does_not_allow_is_found_at_its_place() {
    let redirect = "{type: RequestRedirect, requestRedirect: {}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {}}";
    let cors = |fields: &str| format!("{{type: CORS, cors: {{{fields}}}}}");
    let redirected = |fields: &str| format!("{{type: RequestRedirect, requestRedirect: {{{fields}}}}}");
    let mirrored = |fields: &str| {
        format!("{{type: RequestMirror, requestMirror: {{backendRef: {{name: a, port: 1}}, {fields}}}}}")
    };
    let asked = |fields: &str| {
        format!("{{type: ExternalAuth, externalAuth: {{backendRef: {{name: a, port: 1}}, {fields}}}}}")
    };
    let table = [
        (
            vec![redirect.to_owned(), rewrite.to_owned()],
            "[1]: cannot stand beside item 0: a request is redirected or rewritten",
        ),
        (
            vec![rewrite.to_owned(), rewrite.to_owned()],
            "[1]: is the same as item 0",
        ),
        (vec![cors(""), cors("")], "[1]: is the same as item 0"),
        (
            vec![redirected("statusCode: 304")],
            "[0].requestRedirect.statusCode: 304 is no redirect (301, 302, 303, 307 or 308)",
        ),
        (
            vec![redirected("scheme: ftp")],
            "[0].requestRedirect.scheme: unknown variant `ftp`, expected `http` or `https`",
        ),
        (
            vec![redirected("hostname: '*.a.b'")],
            "[0].requestRedirect.hostname: \"*.a.b\" is not one host name, such as www.example.com",
        ),
        (
            vec![redirected("port: 0")],
            "[0].requestRedirect.port: 0 is not a port (1-65535)",
        ),
        (
            vec![redirected("path: {type: ReplaceFullPath}")],
            "[0].requestRedirect.path: replaceFullPath is missing, which the path's type asks for",
        ),
        (
            vec![redirected(
                "path: {type: ReplaceFullPath, replaceFullPath: /a, replacePrefixMatch: /b}",
            )],
            "[0].requestRedirect.path.replacePrefixMatch: is not what the path's type says",
        ),
        (
            vec![redirected(
                "path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}",
            )],
            "[0].requestRedirect.path.type: ReplacePrefixMatch needs a rule with exactly one match, of type PathPrefix",
        ),
        (
            vec![mirrored("percent: 101")],
            "[0].requestMirror.percent: is not 0-100",
        ),
        (
            vec![mirrored("percent: 1, fraction: {numerator: 1}")],
            "[0].requestMirror.percent: cannot stand beside fraction",
        ),
        (
            vec![mirrored("fraction: {numerator: 3, denominator: 2}")],
            "[0].requestMirror.fraction.numerator: 3 is over the denominator, 2",
        ),
        (
            vec![mirrored("fraction: {numerator: 0, denominator: 0}")],
            "[0].requestMirror.fraction.denominator: 0 is under 1",
        ),
        (
            vec![cors("allowOrigins: ['*', 'https://a']")],
            "[0].cors.allowOrigins: \"*\" stands alone",
        ),
        (
            vec![cors("allowMethods: ['*', GET]")],
            "[0].cors.allowMethods: \"*\" stands alone",
        ),
        (
            vec![cors("allowHeaders: [x-a, x-a]")],
            "[0].cors.allowHeaders[1]: is the same as item 0",
        ),
        (
            vec![cors("allowMethods: [get]")],
            "[0].cors.allowMethods[0]: \"get\" is none of GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH, *",
        ),
        (
            vec![cors("allowOrigins: ['https://a.*']")],
            "[0].cors.allowOrigins[0]: \"https://a.*\" is not an origin (such as https://www.example.com, \
             https://*.example.com:8443, or *)",
        ),
        (vec![cors("maxAge: 0")], "[0].cors.maxAge: 0 is under 1"),
        (
            vec![asked("protocol: GRPC")],
            "[0].externalAuth: grpc is missing, which the protocol asks for",
        ),
        (
            vec![asked("protocol: HTTP, http: {}, grpc: {}")],
            "[0].externalAuth.grpc: is not what the protocol says",
        ),
        (
            vec!["{type: CORS, urlRewrite: {}, cors: {}}".to_owned()],
            "[0].urlRewrite: is not what the filter's type says",
        ),
    ];
    for (filters, expected) in table {
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let told = complaints(&filtered("{type: Exact, value: /a}", &filters));
        let fields: Vec<_> = told
            .iter()
            .map(|told| told.split_once(": spec.rules[0].filters"))
            .collect();
        assert_eq!(fields.len(), 1, "{told:?}");
        assert_eq!(fields[0].map(|(_, rest)| rest), Some(expected), "{told:?}");
    }
}

#[test]
fn a_prefix_is_replaced_only_where_there_is_one() {
    let change = "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}";
    assert_eq!(filters_of("{type: PathPrefix, value: /a}", &[change]).len(), 1);
    // Gateway API's default: one match of the prefix "/".
    assert_eq!(
        only_route(&rule(&format!("      filters: [{change}]\n"))).rules[0]
            .filters
            .len(),
        1
    );
    let two = format!(
        "      matches: [{{path: {{value: /a}}}}, {{path: {{value: /b}}}}]\n      filters: [{change}]\n"
    );
    let told = complaints(&rule(&two));
    assert!(
        told.len() == 1 && told[0].contains("exactly one match, of type PathPrefix"),
        "{told:?}"
    );
    let of_backend = format!(
        "      matches: [{{path: {{type: Exact, value: /a}}}}]\n      backendRefs: [{{name: a, port: 1, filters: [{change}]}}]\n"
    );
    let told = complaints(&rule(&of_backend));
    assert!(
        told.len() == 1 && told[0].contains("backendRefs[0].filters[0].urlRewrite.path.type"),
        "{told:?}"
    );
}

#[test]
fn a_redirect_has_no_backend_beside_it_but_may_be_a_backends() {
    let redirect = "filters: [{type: RequestRedirect, requestRedirect: {hostname: a.b}}]";
    let beside = format!("      {redirect}\n      backendRefs: [{{name: a, port: 1}}]\n");
    assert_eq!(
        complaints(&rule(&beside)),
        [
            "13:7: spec.rules[0].backendRefs: cannot stand beside a RequestRedirect filter: nothing is sent to a backend"
        ]
    );
    let own = format!("      backendRefs: [{{name: a, port: 1, {redirect}}}]\n");
    assert_eq!(only_route(&rule(&own)).rules[0].backends[0].filters.len(), 1);
}

#[test]
fn a_session_is_read_with_its_defaults() {
    let session = |fields: &str| {
        let lines = format!("      sessionPersistence: {{{fields}}}\n");
        only_route(&rule(&lines)).rules.remove(0).session.expect("given")
    };
    let plain = session("");
    assert_eq!(plain.carrier, SessionCarrier::Cookie);
    assert!(plain.name.starts_with("weft-session-"), "{}", plain.name);
    assert_eq!(plain, session("type: Cookie"), "the name is always the same");
    let permanent = session(
        "sessionName: cart, absoluteTimeout: 24h, idleTimeout: 0s, cookieConfig: {lifetimeType: Permanent}",
    );
    assert_eq!(
        (permanent.carrier, permanent.name.as_str()),
        (SessionCarrier::PermanentCookie, "cart")
    );
    assert_eq!(permanent.absolute_timeout, Some(Duration::from_secs(24 * 3600)));
    assert_eq!(permanent.idle_timeout, None);
    let header = session("type: Header, sessionName: X-Session, idleTimeout: 5m");
    assert_eq!(header.carrier, SessionCarrier::Header);
    assert_eq!(header.idle_timeout, Some(Duration::from_secs(300)));
    let refused = |fields: &str| complaints(&rule(&format!("      sessionPersistence: {{{fields}}}\n")));
    for (fields, expected) in [
        (
            "cookieConfig: {lifetimeType: Permanent}",
            "sessionPersistence.absoluteTimeout: is missing, which a permanent cookie's lifetime is",
        ),
        (
            "type: Header, cookieConfig: {}",
            "sessionPersistence.cookieConfig: is not what the type says",
        ),
        (
            "sessionName: 'a b'",
            "sessionPersistence.sessionName: \"a b\" is not the name of a cookie or header",
        ),
        (
            "idleTimeout: 5",
            "sessionPersistence.idleTimeout: invalid type: integer `5`",
        ),
    ] {
        let told = refused(fields);
        assert!(
            told.len() == 1 && told[0].contains(expected),
            "{expected}: {told:?}"
        );
    }
}
