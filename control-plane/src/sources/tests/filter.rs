//! Filters and sessions of rules: what they mean, and what is refused, as the validations of Gateway API's CRDs say.

use model::filter::{Allowed, Filter, PathChange, Redirect, Scheme};

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
            "{type: CORS, cors: {allowOrigins: ['https://*.a.org'], allowMethods: ['*'], exposeHeaders: [X-A]}}",
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
    let Filter::Cors(cors) = &read[1] else {
        panic!("CORS, not {:?}", read[1])
    };
    assert_eq!((&cors.allow_methods, cors.max_age), (&Allowed::Any, 5));
    assert_eq!(
        cors.expose_headers,
        Allowed::These(vec!["x-a".parse().expect("valid")])
    );
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
                "path: {type: ReplaceFullPath, replaceFullPath: '/a?b'}",
            )],
            "[0].requestRedirect.path.replaceFullPath: \"/a?b\" has what no path has: it is percent-encoded, without query and fragment",
        ),
        (
            vec![redirected(
                "path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}",
            )],
            "[0].requestRedirect.path.type: ReplacePrefixMatch needs a rule with exactly one match, of type PathPrefix",
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
