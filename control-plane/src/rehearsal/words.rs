//! Matches, filters and times in the words that people read, and write in YAML.

use std::time::Duration;

use decision::traffic::route::{Miss, Precedence};
use http::{HeaderName, HeaderValue};
use model::AppProtocol;
use model::filter::{Filter, HeaderModifier, PathChange, Redirect};
use model::pattern::ValuePattern;
use model::resilience::{GRPC_STATUS_NAMES, RetryPolicy};
use model::route::{PathMatch, RequestMatch};
use model::session::{SessionCarrier, SessionPersistence};

/// `PathPrefix /orders, method POST, header x-user: 1`.
pub(super) fn of_match(wanted: &RequestMatch) -> String {
    let RequestMatch {
        path,
        method,
        headers,
        query,
        grpc_only,
    } = wanted;
    let mut words = vec![match path {
        PathMatch::Exact(path) => format!("Exact {path}"),
        PathMatch::Prefix(path) => format!("PathPrefix {path}"),
        PathMatch::Regex(regex) => format!("RegularExpression {}", regex.source()),
    }];
    if *grpc_only {
        words.insert(0, "gRPC".to_owned());
    }
    words.extend(method.iter().map(|method| format!("method {method}")));
    let pattern = |pattern: &ValuePattern, is: &str| match pattern {
        ValuePattern::Exact(value) => format!("{is}{value}"),
        ValuePattern::Regex(regex) => format!(" ~ {}", regex.source()),
    };
    words.extend(
        headers
            .iter()
            .map(|(name, value)| format!("header {name}{}", pattern(value, ": "))),
    );
    words.extend(
        query
            .iter()
            .map(|(name, value)| format!("query {name}{}", pattern(value, "="))),
    );
    words.join(", ")
}

/// What a request has instead of what a match wants.
pub(super) fn of_miss(miss: &Miss<'_>, method: &http::Method, path: &str) -> String {
    match miss {
        Miss::Path => format!("the path is {path}"),
        Miss::Method => format!("the method is {method}"),
        Miss::NotGrpc => "it is not gRPC (no content-type application/grpc)".to_owned(),
        Miss::Header(name, Some(value)) => format!("header {name} is {value:?}"),
        Miss::Header(name, None) => format!("header {name} is absent"),
        Miss::Query(name, Some(value)) => format!("query {name} is {value:?}"),
        Miss::Query(name, None) => format!("query {name} is absent"),
    }
}

/// In what another match is ahead; `None` where it only stands first, which takes more words.
pub(super) fn of_precedence(precedence: Precedence) -> Option<&'static str> {
    Some(match precedence {
        Precedence::Hostname => "its host name is more specific",
        Precedence::Kind => "GRPCRoutes come first",
        Precedence::PathKind => "its path is of a more specific kind",
        Precedence::PathLength => "its path is longer",
        Precedence::Method => "it names a method",
        Precedence::Headers => "it names more headers",
        Precedence::Query => "it names more query parameters",
        Precedence::GrpcService => "its service is longer",
        Precedence::GrpcMethod => "its method is longer",
        Precedence::Order => return None,
    })
}

pub(super) fn of_filter(filter: &Filter) -> String {
    match filter {
        Filter::RequestHeaders(modifier) => format!("request headers: {}", of_modifier(modifier)),
        Filter::ResponseHeaders(modifier) => format!("response headers: {}", of_modifier(modifier)),
        Filter::Redirect(redirect) => of_redirect(redirect),
        Filter::Rewrite(rewrite) => {
            let host = rewrite.hostname.as_ref().map(|name| format!("host {name}"));
            let path = rewrite.path.as_ref().map(of_path_change);
            listed("rewrite", [host, path])
        }
        Filter::Mirror(mirror) => {
            let (part, whole) = (mirror.share.numerator(), mirror.share.denominator());
            format!("mirror {part}/{whole} to {}", mirror.target)
        }
        Filter::Cors(cors) => {
            let origins: Vec<String> = cors.allow_origins.iter().map(ToString::to_string).collect();
            let credentials = if cors.allow_credentials {
                " with credentials"
            } else {
                ""
            };
            format!("CORS for {}{credentials}", origins.join(" "))
        }
        Filter::Auth(auth) => format!("ask {} first", auth.reference),
        Filter::Unresolved(named) => format!("{named}, which does not exist"),
    }
}

/// `redirect: 302, scheme https, path /new in place of /old`.
pub(super) fn of_redirect(redirect: &Redirect) -> String {
    let Redirect {
        scheme,
        hostname,
        path,
        port,
        status,
    } = redirect;
    listed(
        "redirect",
        [
            Some(status.as_u16().to_string()),
            scheme.map(|scheme| format!("scheme {}", scheme.as_str())),
            hostname.as_ref().map(|name| format!("host {name}")),
            port.map(|port| format!("port {port}")),
            path.as_ref().map(of_path_change),
        ],
    )
}

fn of_path_change(change: &PathChange) -> String {
    match change {
        PathChange::Full(path) => format!("path {path}"),
        PathChange::Prefix { matched, replacement } => format!("path {replacement} in place of {matched}"),
    }
}

fn listed(what: &str, words: impl IntoIterator<Item = Option<String>>) -> String {
    let words: Vec<String> = words.into_iter().flatten().collect();
    format!("{what}: {}", words.join(", "))
}

/// `502 503 UNAVAILABLE`.
pub(super) fn of_retry_on(retry: &RetryPolicy) -> String {
    let of_grpc = retry.grpc_codes.iter();
    let of_grpc = of_grpc.filter_map(|code| GRPC_STATUS_NAMES.get(usize::from(*code)));
    let codes = retry.codes.iter().map(u16::to_string);
    let codes: Vec<String> = codes.chain(of_grpc.map(ToString::to_string)).collect();
    codes.join(" ")
}

/// `Cookie cart, absolute 24h, idle 5m`.
pub(super) fn of_session(session: &SessionPersistence) -> String {
    let carrier = match session.carrier {
        SessionCarrier::Cookie => "Cookie",
        SessionCarrier::PermanentCookie => "permanent Cookie",
        SessionCarrier::Header => "Header",
    };
    let time = |name: &str, time: Option<Duration>| time.map(|time| format!("{name} {}", of_duration(time)));
    let words = [
        Some(format!("{carrier} {}", session.name)),
        time("absolute", session.absolute_timeout),
        time("idle", session.idle_timeout),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn of_modifier(modifier: &HeaderModifier) -> String {
    let HeaderModifier { remove, set, add } = modifier;
    let field =
        |verb: &str, (name, value): &(HeaderName, HeaderValue)| format!("{verb} {name}: {}", text(value));
    let words = remove
        .iter()
        .map(|name| format!("remove {name}"))
        .chain(set.iter().map(|entry| field("set", entry)))
        .chain(add.iter().map(|entry| field("add", entry)));
    words.collect::<Vec<_>>().join(", ")
}

/// A header's value as text.
pub(super) fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

pub(super) fn of_protocol(protocol: AppProtocol) -> &'static str {
    match protocol {
        AppProtocol::Detect => "told by the first bytes",
        AppProtocol::Http => "http",
        AppProtocol::Http2 => "http/2",
        AppProtocol::Tcp => "tcp",
    }
}

/// `2s`, `1m30s`, `500ms`, as Gateway API writes durations.
pub(super) fn of_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}
