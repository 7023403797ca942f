//! Route choice against the specification's text, transcribed, and its corners by example.

use std::sync::LazyLock;

mod explained;

use super::*;
use crate::traffic::grpc;
use http::HeaderValue;
use model::pattern::{Regex, ValuePattern};
use model::route::Rule;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

mod hidden;

/// The rule that governs this request, found by looking at every rule: what the table is held against.
fn choose<'r>(rules: &'r [Rule], request: &RequestView<'_>) -> Option<&'r Rule> {
    let is_grpc = grpc::is_grpc(request.headers);
    let mut best: Option<(Summary, &Rule)> = None;
    for rule in rules {
        for wanted in &rule.matches {
            // Compared before it is tried: a match that could not win costs nothing more. Only a strictly
            // greater one wins, so that of equals the first stays.
            let summary = Summary::of(wanted);
            if best.as_ref().is_none_or(|(greatest, _)| summary > *greatest)
                && path_fits(&wanted.path, request.path)
                && fits_beside_path(wanted, request, is_grpc)
            {
                best = Some((summary, rule));
            }
        }
    }
    best.map(|(_, rule)| rule)
}

/// A request in plain words, from which both the view and the reference are made.
#[derive(Debug, Clone)]
struct Sent {
    method: Method,
    path: String,
    query: Vec<(&'static str, &'static str)>,
    headers: Vec<(&'static str, &'static str)>,
    grpc: bool,
}

const NAMES: [&str; 3] = ["x-a", "x-b", "x-c"];
const KEYS: [&str; 3] = ["k", "k e", "ü"];
const VALUES: [&str; 4] = ["1", "2", "a b", "é&=%"];
const PATHS: [&str; 7] = ["/", "/a", "/ab", "/a/b", "/a/b/c", "/a/", "/b"];
const REGEXES: [&str; 10] = [
    "/a.*",
    "/[^/]+/b",
    "/.",
    "/a/b",
    "/a/b/.+",
    "/a/(b|b/c)",
    "(?i)/A/B",
    "/a/b?/?.*",
    "/a/[^/]+/c",
    "",
];
/// Of which the chance is small that a rule has it.
const ODD_PATHS: [&str; 8] = [
    "*",
    "//",
    "/a//b",
    "/a/b/",
    "/a/b/c/",
    "/abc/d",
    "/a/b/c/d/e/f",
    "",
];

/// Compiled once: that is what takes time.
static EXPRESSIONS: LazyLock<Vec<PathMatch>> = LazyLock::new(|| {
    let compiled = REGEXES.iter().map(|source| PathMatch::regex(source));
    compiled.collect::<Result<_, _>>().expect("valid")
});
static PATTERNS: LazyLock<Vec<ValuePattern>> = LazyLock::new(|| {
    let exact = VALUES
        .iter()
        .map(|value| ValuePattern::Exact((*value).to_owned()));
    let regex = ["[12]", "1,2|.*b"].map(|source| ValuePattern::Regex(Regex::new(source).expect("valid")));
    exact.chain(regex).collect()
});

fn rule(name: usize, matches: Vec<RequestMatch>) -> Rule {
    Rule {
        name: name.to_string().into(),
        matches,
        ..Rule::default()
    }
}

fn a_pattern() -> impl Strategy<Value = ValuePattern> {
    select(PATTERNS.as_slice())
}

fn a_match() -> impl Strategy<Value = RequestMatch> {
    let path = prop_oneof![
        select(&PATHS[..]).prop_map(|path| PathMatch::exact(path).expect("valid")),
        select(&PATHS[..]).prop_map(|path| PathMatch::prefix(path).expect("valid")),
        select(EXPRESSIONS.as_slice()),
    ];
    let headers = vec(
        (select(&NAMES[..]).prop_map(HeaderName::from_static), a_pattern()),
        0..3,
    );
    let query = vec((select(&KEYS[..]).prop_map(str::to_owned), a_pattern()), 0..3);
    let method = option::of(select(vec![Method::GET, Method::POST]));
    (path, method, headers, query, proptest::bool::weighted(0.3)).prop_map(
        |(path, method, headers, query, grpc_only)| {
            if grpc_only {
                return RequestMatch {
                    path,
                    headers,
                    grpc_only,
                    ..RequestMatch::default()
                };
            }
            RequestMatch {
                path,
                method,
                headers,
                query,
                grpc_only,
            }
        },
    )
}

fn a_request() -> impl Strategy<Value = Sent> {
    (
        select(vec![Method::GET, Method::POST, Method::OPTIONS]),
        prop_oneof![3 => select(&PATHS[..]), 1 => select(&ODD_PATHS[..])].prop_map(str::to_owned),
        vec((select(&KEYS[..]), select(&VALUES[..])), 0..4),
        vec((select(&NAMES[..]), select(&VALUES[..])), 0..4),
        any::<bool>(),
    )
        .prop_map(|(method, path, query, headers, grpc)| Sent {
            method,
            path,
            query,
            headers,
            grpc,
        })
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b == b' ' {
                "+".to_owned()
            } else {
                format!("%{b:02x}")
            }
        })
        .collect()
}

fn chosen(rules: &[Rule], sent: &Sent) -> Option<usize> {
    let mut headers = HeaderMap::new();
    for (name, value) in &sent.headers {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("valid"));
    }
    if sent.grpc {
        headers.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
    }
    let pairs: Vec<_> = sent
        .query
        .iter()
        .map(|(key, value)| encode(key) + "=" + &encode(value))
        .collect();
    let query = (!pairs.is_empty()).then(|| pairs.join("&"));
    let view = RequestView {
        method: &sent.method,
        path: &sent.path,
        query: query.as_deref(),
        headers: &headers,
    };
    let chosen = choose(rules, &view).map(|rule| rule.name.parse().expect("a number"));
    let table = RouteTable::compile(rules);
    assert_eq!(table.choose(rules, &view), chosen, "by the table");
    assert_eq!(explained::chosen(&table, rules, &view), chosen, "as explained");
    chosen
}

/// The specification, word for word: every match against every other.
mod reference {
    use super::*;

    pub(super) fn choose(rules: &[Rule], sent: &Sent) -> Option<usize> {
        let all = || {
            rules
                .iter()
                .enumerate()
                .flat_map(|(at, rule)| rule.matches.iter().map(move |m| (at, m)))
        };
        let fitting: Vec<_> = all().filter(|(_, wanted)| fits(wanted, sent)).collect();
        let unbeaten = fitting.iter().find(|(at, one)| {
            fitting.iter().all(|(rival_at, rival)| match compare(one, rival) {
                Some(wins) => wins,
                None => at <= rival_at,
            })
        });
        unbeaten.map(|(at, _)| *at)
    }

    fn named<K: PartialEq + Clone>(entries: &[(K, ValuePattern)]) -> Vec<(K, ValuePattern)> {
        let mut distinct: Vec<(K, ValuePattern)> = Vec::new();
        for entry in entries {
            if !distinct.iter().any(|(name, _)| *name == entry.0) {
                distinct.push(entry.clone());
            }
        }
        distinct
    }

    fn fits(wanted: &RequestMatch, sent: &Sent) -> bool {
        let path = match &wanted.path {
            PathMatch::Exact(path) => *path == sent.path,
            PathMatch::Prefix(prefix) => {
                let elements =
                    |path: &str| -> Vec<String> { path.split('/').skip(1).map(str::to_owned).collect() };
                *prefix == "/" || elements(&sent.path).starts_with(&elements(prefix))
            }
            PathMatch::Regex(regex) => regex::Regex::new(&format!("^({})$", regex.source()))
                .expect("valid")
                .is_match(&sent.path),
        };
        let headers = named(&wanted.headers).iter().all(|(name, pattern)| {
            let values: Vec<_> = sent
                .headers
                .iter()
                .filter(|(n, _)| *n == name.as_str())
                .map(|(_, v)| *v)
                .collect();
            !values.is_empty() && pattern.is_match(&values.join(","))
        });
        let query = named(&wanted.query).iter().all(|(key, pattern)| {
            sent.query
                .iter()
                .find(|(k, _)| k == key)
                .is_some_and(|(_, value)| pattern.is_match(value))
        });
        let method = wanted.method.is_none() || wanted.method.as_ref() == Some(&sent.method);
        path && headers && query && method && (!wanted.grpc_only || sent.grpc)
    }

    /// `Some(true)` where `one` takes precedence, `None` where they tie.
    fn compare(one: &RequestMatch, rival: &RequestMatch) -> Option<bool> {
        if one.grpc_only != rival.grpc_only {
            return Some(one.grpc_only);
        }
        let criteria: [fn(&RequestMatch) -> usize; 7] = if one.grpc_only {
            [
                |m| match &m.path {
                    PathMatch::Exact(path) => {
                        path.rsplit_once('/').expect("a slash").0.len().saturating_sub(1)
                    }
                    PathMatch::Prefix(prefix) => prefix.len() - 1,
                    PathMatch::Regex(_) => 0,
                },
                |m| match &m.path {
                    PathMatch::Exact(path) => path.rsplit_once('/').expect("a slash").1.len(),
                    PathMatch::Prefix(_) => 0,
                    PathMatch::Regex(regex) => regex.source().len(),
                },
                |m| named(&m.headers).len(),
                |_| 0,
                |_| 0,
                |_| 0,
                |_| 0,
            ]
        } else {
            [
                |m| usize::from(matches!(m.path, PathMatch::Exact(_))),
                |m| usize::from(matches!(m.path, PathMatch::Regex(_))),
                |m| match &m.path {
                    PathMatch::Regex(regex) => regex.source().len(),
                    _ => 0,
                },
                |m| match &m.path {
                    PathMatch::Prefix(prefix) => prefix.len(),
                    _ => 0,
                },
                |m| usize::from(m.method.is_some()),
                |m| named(&m.headers).len(),
                |m| named(&m.query).len(),
            ]
        };
        criteria
            .iter()
            .find(|by| by(one) != by(rival))
            .map(|by| by(one) > by(rival))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_choice_is_the_specifications(
        matches in vec(vec(a_match(), 1..3), 0..7),
        sent in a_request(),
    ) {
        let rules: Vec<_> = matches.into_iter().enumerate().map(|(at, matches)| rule(at, matches)).collect();
        prop_assert_eq!(chosen(&rules, &sent), reference::choose(&rules, &sent));
    }

    #[test]
    fn a_table_of_many_rules_answers_as_all_of_them_in_turn(
        matches in vec(vec(a_match(), 1..4), 0..60),
        requests in vec(a_request(), 1..8),
    ) {
        let rules: Vec<_> = matches.into_iter().enumerate().map(|(at, matches)| rule(at, matches)).collect();
        for sent in &requests {
            // Asserts that both agree.
            chosen(&rules, sent);
        }
    }

    #[test]
    fn any_path_is_looked_up_as_all_rules_in_turn_say(
        prefixes in vec("(/[ab]{1,2}){1,4}", 0..20),
        paths in vec("(/[ab]{0,2}){0,6}|.{0,9}", 1..9),
    ) {
        let rules: Vec<_> = prefixes
            .iter()
            .enumerate()
            .map(|(at, path)| rule(at, vec![on(if at % 3 == 0 { PathMatch::exact(path) } else { PathMatch::prefix(path) })]))
            .collect();
        for path in &paths {
            chosen(&rules, &get(path));
        }
    }

    #[test]
    fn any_query_is_read_without_panic(query in ".{0,200}", name in ".{0,8}") {
        let _ = query_value(Some(&query), &name);
    }
}

fn get(path: &str) -> Sent {
    Sent {
        method: Method::GET,
        path: path.to_owned(),
        query: vec![],
        headers: vec![],
        grpc: false,
    }
}

fn on(path: Result<PathMatch, model::FieldError>) -> RequestMatch {
    RequestMatch {
        path: path.expect("valid"),
        ..RequestMatch::default()
    }
}

#[test]
fn exact_before_regex_before_longest_prefix() {
    let rules = [
        rule(0, vec![on(PathMatch::prefix("/"))]),
        rule(1, vec![on(PathMatch::prefix("/cart"))]),
        rule(2, vec![on(PathMatch::regex("/cart/[0-9]+"))]),
        rule(3, vec![on(PathMatch::exact("/cart/1"))]),
    ];
    let expected = [
        ("/cart/1", 3),
        ("/cart/2", 2),
        ("/cart/x", 1),
        ("/carts", 0),
        ("*", 0),
    ];
    for (path, wanted) in expected {
        assert_eq!(chosen(&rules, &get(path)), Some(wanted), "{path}");
    }
}

#[test]
fn grpc_rules_take_grpc_requests_only_and_first() {
    let of_grpc = |path| RequestMatch {
        grpc_only: true,
        ..on(path)
    };
    let rules = [
        rule(0, vec![on(PathMatch::exact("/shop.Cart/Get"))]),
        rule(1, vec![of_grpc(PathMatch::regex("/[^/]+/Get"))]),
        rule(2, vec![of_grpc(PathMatch::prefix("/shop.Cart"))]),
    ];
    let sent = Sent {
        method: Method::POST,
        ..get("/shop.Cart/Get")
    };
    assert_eq!(chosen(&rules, &sent), Some(0));
    assert_eq!(chosen(&rules, &Sent { grpc: true, ..sent }), Some(2));
    assert_eq!(
        chosen(
            &rules,
            &Sent {
                grpc: true,
                ..get("/other.S/Get")
            }
        ),
        Some(1)
    );
    assert_eq!(chosen(&rules, &get("/other.S/Get")), None);
}
