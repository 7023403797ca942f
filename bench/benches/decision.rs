//! What the judgements of one request cost: `cargo bench -p bench`.
//!
//! Caches and branch predictors are warm, which a sidecar's are not always.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion};
use decision::message::http1::{Http1Reader, Progress, ResponseTo};
use decision::message::request::{self, RequestHead};
use decision::message::response::{self, ResponseHead};
use decision::message::{MessageLimits, fields, host};
use decision::traffic::balance::{self, DEFAULT_DECAY, DEFAULT_RTT, PeakEwma};
use decision::traffic::budget::RetryBudgetState;
use decision::traffic::retry::{self, Attempts, Outcome};
use decision::traffic::route::{RequestView, RouteTable};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use model::pattern::ValuePattern;
use model::resilience::{RetryBudget, RetryPolicy};
use model::route::{PathMatch, RequestMatch, Rule};
use model::{FieldError, MeshDomain};

const VERSION: HeaderName = HeaderName::from_static("x-version");
const TENANT: HeaderName = HeaderName::from_static("x-tenant");

/// As a browser's fetch through one proxy sends it, about 400 bytes.
const REQUEST: &[u8] = b"GET /catalogue/00042/items?page=1&sort=price HTTP/1.1\r\n\
    Host: catalogue.shop.svc.cluster.local\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: application/json, text/plain, */*\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    X-Request-Id: 5bd1c6b2-8f0e-4c0e-9d35-3f6a1f1b7a11\r\n\
    Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
    X-Version: v1\r\n\
    \r\n";
/// As a small service answers.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Content-Length: 0\r\n\
    Cache-Control: no-cache\r\n\
    Date: Thu, 05 Nov 2026 10:00:00 GMT\r\n\
    Server: catalogue\r\n\
    X-Request-Id: 5bd1c6b2-8f0e-4c0e-9d35-3f6a1f1b7a11\r\n\
    Vary: Accept-Encoding\r\n\
    \r\n";

fn main() -> Result<(), FieldError> {
    let mut criterion = Criterion::default().configure_from_args();
    routes(&mut criterion)?;
    endpoints(&mut criterion);
    retries(&mut criterion)?;
    heads(&mut criterion)?;
    hop_by_hop(&mut criterion);
    criterion.final_summary();
    Ok(())
}

/// How the paths of a service's rules look. Of many, only the last one fits.
#[derive(Clone, Copy)]
enum Paths {
    Exact,
    /// A third of the rules also ask for a header.
    Prefix,
    /// Whose beginnings tell them apart, as people write them.
    Regex,
    /// Which all begin alike.
    LateRegex,
    /// One for all, which are told apart by a header.
    Shared,
}

fn routes(criterion: &mut Criterion) -> Result<(), FieldError> {
    let mut headers = headers(REQUEST);
    headers.insert(TENANT, HeaderValue::from_static("00999"));
    let method = Method::GET;
    let mut group = criterion.benchmark_group("route");
    for (name, paths, counts) in [
        ("exact", Paths::Exact, &[1, 10, 100, 1_000][..]),
        ("prefix", Paths::Prefix, &[1, 10, 100, 1_000]),
        ("regex", Paths::Regex, &[1, 1_000]),
        ("regex, all alike", Paths::LateRegex, &[1_000]),
        ("one path, headers", Paths::Shared, &[1_000]),
    ] {
        for &count in counts {
            let rules = (0..count)
                .map(|at| rule(paths, at))
                .collect::<Result<Vec<_>, _>>()?;
            let table = RouteTable::compile(&rules);
            let path = format!("/catalogue/{:05}/items", count - 1);
            let path = match paths {
                Paths::Exact | Paths::Prefix | Paths::Regex | Paths::Shared => path,
                Paths::LateRegex => format!("/catalogue/items/{:05}", count - 1),
            };
            let view = RequestView {
                method: &method,
                path: &path,
                query: Some("page=1&sort=price"),
                headers: &headers,
            };
            assert!(
                table.choose(&rules, &view) == Some(count - 1),
                "{name} among {count}"
            );
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| table.choose(black_box(&rules), black_box(&view)));
            });
            if count == 1_000 {
                group.bench_function(BenchmarkId::new(format!("{name}, compile"), count), |bencher| {
                    bencher.iter(|| RouteTable::compile(black_box(&rules)));
                });
            }
        }
    }
    group.finish();
    Ok(())
}

fn rule(paths: Paths, at: usize) -> Result<Rule, FieldError> {
    let wanted = (VERSION, ValuePattern::Exact("v1".to_owned()));
    let path = match paths {
        Paths::Exact => PathMatch::exact(&format!("/catalogue/{at:05}/items"))?,
        Paths::Prefix => PathMatch::prefix(&format!("/catalogue/{at:05}"))?,
        Paths::Regex => PathMatch::regex(&format!("/catalogue/{at:05}/[a-z]+"))?,
        Paths::LateRegex => PathMatch::regex(&format!("/catalogue/[a-z]+/{at:05}"))?,
        Paths::Shared => PathMatch::prefix("/catalogue")?,
    };
    let headers = match paths {
        Paths::Prefix if at.is_multiple_of(3) => vec![wanted],
        Paths::Shared => vec![(TENANT, ValuePattern::Exact(format!("{at:05}"))), wanted],
        _ => Vec::new(),
    };
    Ok(Rule {
        name: format!("HTTPRoute/shop/catalogue#{at}").into(),
        matches: vec![RequestMatch {
            path,
            headers,
            ..RequestMatch::default()
        }],
        ..Rule::default()
    })
}

/// Picks with measured endpoints, and again as a second attempt makes it, when one of them was tried.
fn endpoints(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut group = criterion.benchmark_group("balance");
    for count in [2, 10, 100] {
        let mut endpoints: Vec<_> = (0..count)
            .map(|_| PeakEwma::new(DEFAULT_RTT, DEFAULT_DECAY, now))
            .collect();
        for (at, endpoint) in endpoints.iter_mut().enumerate() {
            endpoint.start();
            endpoint.finish(now, Duration::from_micros(500 + at as u64));
        }
        let later = now + Duration::from_millis(3);
        let load = |at: usize| {
            endpoints
                .get(at)
                .map_or(f64::MAX, |endpoint| endpoint.load(later))
        };
        for (name, tried) in [("first attempt", &[][..]), ("one was tried", &[1][..])] {
            let mut turn = 0;
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    turn += 1;
                    balance::pick(count, black_box(tried), load, scatter(turn))
                });
            });
        }
    }
    group.finish();
}

/// Dice at the price of two multiplications (the finaliser of SplitMix64), so that the branch predictor
/// cannot learn them.
fn scatter(turn: u64) -> u64 {
    let mixed = (turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (turn >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ (mixed >> 31)
}

fn retries(criterion: &mut Criterion) -> Result<(), FieldError> {
    let policy = RetryPolicy::new([500, 502, 503, 504].into(), 2, Duration::from_millis(25))?;
    let attempts = Attempts {
        is_final: false,
        made: 1,
        replayable: true,
        untouched: false,
        remaining: Some(Duration::from_secs(1)),
    };
    let mut group = criterion.benchmark_group("retry");
    for (name, outcome) in [
        ("of a 200", Outcome::Status(200)),
        ("of a 503", Outcome::Status(503)),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| retry::judge(Some(&policy), black_box(&outcome), black_box(&attempts), 0.5));
        });
    }
    let start = Instant::now();
    let mut budget = RetryBudgetState::new(RetryBudget::default(), start);
    let mut now = start;
    group.bench_function("budget, a request", |bencher| {
        bencher.iter(|| {
            now += Duration::from_micros(100);
            budget.request(black_box(now));
        });
    });
    group.bench_function("budget, a retry", |bencher| {
        bencher.iter(|| {
            now += Duration::from_micros(100);
            budget.try_retry(black_box(now), |_| false)
        });
    });
    group.finish();
    Ok(())
}

/// The judges alone, and the reader that finds the end of a head and asks them.
fn heads(criterion: &mut Criterion) -> Result<(), FieldError> {
    let limits = MessageLimits::default();
    let mut group = criterion.benchmark_group("head");
    let mut reader = Http1Reader::requests(limits);
    assert!(reader.advance(REQUEST) == Progress::Release(REQUEST.len()));
    group.bench_function("request, reader", |bencher| {
        bencher.iter(|| reader.advance(black_box(REQUEST)));
    });
    group.bench_function("request, validator", |bencher| {
        bencher.iter(|| {
            let head = RequestHead::http1(black_box(REQUEST))?;
            request::validate(head, &limits)
        });
    });
    let to = ResponseTo::default();
    let mut reader = Http1Reader::responses(limits);
    group.bench_function("response, reader", |bencher| {
        bencher.iter(|| {
            reader.expect_response(to);
            let progress = reader.advance(black_box(RESPONSE));
            debug_assert_eq!(progress, Progress::Release(RESPONSE.len()));
            progress
        });
    });
    group.bench_function("response, validator", |bencher| {
        bencher.iter(|| {
            let head = ResponseHead::http1(black_box(RESPONSE))?;
            response::validate(head, &to, &limits)
        });
    });

    let uri = http::Uri::from_static("http://catalogue.shop/catalogue/00042/items?page=1");
    let headers = headers(REQUEST);
    let (own, domain) = ("shop".parse()?, MeshDomain::default());
    group.bench_function("authority to service", |bencher| {
        bencher.iter(|| host::resolve(black_box("catalogue.shop.svc.cluster.local:80"), &own, &domain));
    });
    group.bench_function("HTTP/2 request, validator", |bencher| {
        bencher.iter(|| {
            let head = request::http2(&Method::GET, black_box(&uri), black_box(&headers));
            request::validate(head, &limits)
        });
    });
    group.bench_function("HTTP/2 response, validator", |bencher| {
        bencher.iter(|| {
            let head = response::http2(http::StatusCode::OK, black_box(&headers));
            response::validate(head, &to, &limits)
        });
    });
    group.finish();
    Ok(())
}

fn hop_by_hop(criterion: &mut Criterion) {
    let usual = headers(REQUEST);
    let mut of_grpc = usual.clone();
    of_grpc.insert(header::TE, HeaderValue::from_static("trailers"));
    let mut keep_alive = usual.clone();
    keep_alive.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    let mut group = criterion.benchmark_group("hop-by-hop");
    for (name, mut headers) in [("none", usual), ("TE: trailers", of_grpc)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| fields::remove_hop_by_hop(black_box(&mut headers)));
        });
    }
    group.bench_function("Connection: keep-alive", |bencher| {
        bencher.iter_batched_ref(
            || keep_alive.clone(),
            |headers| fields::remove_hop_by_hop(black_box(headers)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// The fields of a head.
fn headers(head: &[u8]) -> HeaderMap {
    let lines = std::str::from_utf8(head).unwrap_or_default().lines().skip(1);
    let field = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((
            HeaderName::try_from(name).ok()?,
            HeaderValue::try_from(value).ok()?,
        ))
    };
    lines.filter_map(field).collect()
}
