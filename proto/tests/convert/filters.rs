//! Filters and sessions of any kind, as the model has them.

use std::time::Duration;

use http::HeaderValue;
use model::filter::{
    Allowed, AuthProtocol, Cors, ExternalAuth, Filter, Fraction, HeaderModifier, Mirror, PathChange,
    Redirect, Rewrite, Scheme, precise_hostname,
};
use model::route::PathMatch;
use model::session::{SessionCarrier, SessionPersistence};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{header_name, service_port};

/// Of those that are drawn, as many as go together.
pub(super) fn filters() -> impl Strategy<Value = Vec<Filter>> {
    vec(filter(), 0..5).prop_map(|mut filters| {
        while Filter::compatible(&filters).is_err() {
            filters.pop();
        }
        filters
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    let field = || {
        (header_name(), "[ -~]{0,12}")
            .prop_map(|(name, value)| (name, HeaderValue::from_str(&value).expect("visible")))
    };
    let modifier = || {
        (vec(header_name(), 0..3), vec(field(), 0..3), vec(field(), 0..3))
            .prop_map(|(remove, set, add)| HeaderModifier::new(remove, set, add).expect("not reserved"))
    };
    let hostname =
        || option::of("[a-z]{1,9}[.]org".prop_map(|name| precise_hostname(&name).expect("one name")));
    let scheme = option::of(prop::sample::select(vec![Scheme::Http, Scheme::Https]));
    let status = prop::sample::select(&Redirect::STATUSES[..]);
    let redirect = (
        scheme,
        hostname(),
        option::of(path_change()),
        option::of(1u16..),
        status,
    )
        .prop_map(|(scheme, hostname, path, port, status)| Redirect {
            scheme,
            hostname,
            path,
            port,
            status: Redirect::status(status).expect("a redirect"),
        });
    let rewrite =
        (hostname(), option::of(path_change())).prop_map(|(hostname, path)| Rewrite { hostname, path });
    let mirror =
        (service_port(), 0u32..100, 100u32..1000).prop_map(|(target, numerator, denominator)| Mirror {
            target,
            share: Fraction::new(numerator, denominator).expect("a fraction"),
        });
    prop_oneof![
        modifier().prop_map(Filter::RequestHeaders),
        modifier().prop_map(Filter::ResponseHeaders),
        redirect.prop_map(Filter::Redirect),
        rewrite.prop_map(Filter::Rewrite),
        mirror.prop_map(Filter::Mirror),
        cors().prop_map(Filter::Cors),
        auth().prop_map(Filter::Auth),
        "[ -~]{0,20}".prop_map(|named| Filter::Unresolved(named.into())),
    ]
}

fn path_change() -> impl Strategy<Value = PathChange> {
    let prefix = ("(/[a-z]{1,5}){1,3}", "(/[a-z]{0,5}){0,3}").prop_map(|(matched, replacement)| {
        let matched = PathMatch::prefix(&matched).expect("a path");
        PathChange::prefix(&matched, &replacement).expect("a path")
    });
    prop_oneof![
        "/[a-z/%41]{0,9}".prop_filter_map("a path", |path| PathChange::full(&path).ok()),
        prefix
    ]
}

fn cors() -> impl Strategy<Value = Cors> {
    let origin = prop::sample::select(vec![
        "*",
        "https://*.a.org",
        "http://b:8080",
        "https://*",
        "http://c",
    ]);
    let names = || {
        let some = vec(header_name(), 0..3).prop_map(Allowed::These);
        prop_oneof![Just(Allowed::Any), some]
    };
    let methods = vec(prop::sample::select(&Cors::METHODS[..]), 0..3).prop_map(Allowed::These);
    let methods = prop_oneof![Just(Allowed::Any), methods];
    (
        vec(origin, 0..3),
        any::<bool>(),
        methods,
        names(),
        names(),
        any::<u32>(),
    )
        .prop_map(
            |(origins, allow_credentials, allow_methods, allow_headers, expose_headers, max_age)| Cors {
                allow_origins: origins
                    .iter()
                    .map(|origin| origin.parse().expect("an origin"))
                    .collect(),
                allow_credentials,
                allow_methods,
                allow_headers,
                expose_headers,
                max_age,
            },
        )
}

fn auth() -> impl Strategy<Value = ExternalAuth> {
    let names = || vec(header_name(), 0..3);
    let http = ("(/[a-z]{1,5}){0,3}", names(), names()).prop_map(|(path, headers, response_headers)| {
        AuthProtocol::Http {
            path,
            headers,
            response_headers,
        }
    });
    let protocol = prop_oneof![names().prop_map(|headers| AuthProtocol::Grpc { headers }), http];
    (
        option::of(service_port()),
        protocol,
        0..=ExternalAuth::MAX_BODY_BYTES,
    )
        .prop_map(|(target, protocol, bytes)| {
            ExternalAuth::new(target, "written/so:80", protocol, bytes).expect("small")
        })
}

pub(super) fn session() -> impl Strategy<Value = SessionPersistence> {
    let carrier = prop::sample::select(vec![
        SessionCarrier::Cookie,
        SessionCarrier::PermanentCookie,
        SessionCarrier::Header,
    ]);
    (
        carrier,
        "[a-zA-Z0-9-]{1,20}",
        1u64..1_000_000,
        option::of(1u64..1_000_000),
    )
        .prop_map(|(carrier, name, absolute, idle)| {
            let [absolute, idle] = [Some(absolute), idle].map(|ms| ms.map(Duration::from_millis));
            SessionPersistence::new(carrier, &name, absolute, idle).expect("valid")
        })
}
