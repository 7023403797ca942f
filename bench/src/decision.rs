//! `bench decision`: what the judgements of one request cost.
//!
//! Prints nanoseconds for one route choice among 10, 100 and 1,000 rules and for one pick among 2, 10 and 100
//! endpoints. Every figure is the median of [`ROUNDS`] rounds of at least [`ROUND`] each on one thread,
//! beside the fastest and the slowest round: where these lie far apart the machine was busy, so measure
//! again. Caches are warm, which a sidecar's are not always.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use decision::traffic::balance::{self, DEFAULT_DECAY, DEFAULT_RTT, PeakEwma};
use decision::traffic::route::{self, RequestView};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use model::FieldError;
use model::pattern::ValuePattern;
use model::resilience::Timeouts;
use model::route::{PathMatch, RequestMatch, Rule};

/// Rounds per figure.
const ROUNDS: usize = 15;
/// The least time of one round.
const ROUND: Duration = Duration::from_millis(30);
const VERSION: HeaderName = HeaderName::from_static("x-version");

pub(crate) fn run() -> ExitCode {
    println!(
        "{:<36} {:>6} {:>11} {:>9} {:>9}",
        "decision", "among", "median ns", "fastest", "slowest"
    );
    if let Err(error) = routes() {
        eprintln!("bench: {error}");
        return ExitCode::FAILURE;
    }
    picks();
    ExitCode::SUCCESS
}

/// Rules as a service with many paths has them, a third of which also ask for a header. Only the last one
/// fits.
fn routes() -> Result<(), FieldError> {
    let headers = HeaderMap::from_iter([
        (http::header::HOST, HeaderValue::from_static("catalogue.shop")),
        (http::header::USER_AGENT, HeaderValue::from_static("bench")),
        (VERSION, HeaderValue::from_static("v1")),
    ]);
    for count in [10, 100, 1_000] {
        let rules = (0..count).map(rule).collect::<Result<Vec<_>, _>>()?;
        let path = path(count - 1);
        let view = RequestView {
            method: &Method::GET,
            path: &path,
            query: Some("page=1"),
            headers: &headers,
        };
        let figure = measure(|_| {
            black_box(route::choose(black_box(&rules), black_box(&view)));
        });
        print("route choice, the last rule fits", count, figure);
    }
    Ok(())
}

fn path(at: usize) -> String {
    format!("/catalogue/{at:05}")
}

fn rule(at: usize) -> Result<Rule, FieldError> {
    let wanted = (VERSION, ValuePattern::Exact("v1".to_owned()));
    let headers = if at.is_multiple_of(3) {
        vec![wanted]
    } else {
        Vec::new()
    };
    Ok(Rule {
        name: format!("HTTPRoute/shop/catalogue#{at}").into(),
        matches: vec![RequestMatch {
            path: PathMatch::prefix(&path(at))?,
            headers,
            ..RequestMatch::default()
        }],
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
    })
}

/// Picks with measured endpoints, and again as a second attempt makes it, when one of them was tried.
fn picks() {
    let now = Instant::now();
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
        for (name, tried) in [
            ("balance pick, first attempt", &[][..]),
            ("balance pick, one was tried", &[1][..]),
        ] {
            let figure = measure(|turn| {
                black_box(balance::pick(count, black_box(tried), load, scatter(turn)));
            });
            print(name, count, figure);
        }
    }
}

/// Dice at the price of two multiplications (the finaliser of SplitMix64), so that the branch predictor
/// cannot learn them.
fn scatter(turn: u64) -> u64 {
    let mixed = (turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (turn >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ (mixed >> 31)
}

/// Nanoseconds per call: fastest, median and slowest round. Doubles the calls of a round until it lasts
/// [`ROUND`], which also warms up.
fn measure(mut work: impl FnMut(u64)) -> [f64; 3] {
    let mut calls: u64 = 1;
    let mut round = |calls: u64| {
        let start = Instant::now();
        (0..calls).for_each(&mut work);
        start.elapsed()
    };
    while round(calls) < ROUND {
        calls *= 2;
    }
    let mut nanos = [0.0; ROUNDS];
    nanos.fill_with(|| round(calls).as_nanos() as f64 / calls as f64);
    nanos.sort_by(f64::total_cmp);
    let [fastest, .., slowest] = nanos;
    [fastest, nanos[ROUNDS / 2], slowest]
}

fn print(what: &str, among: usize, [fastest, median, slowest]: [f64; 3]) {
    println!("{what:<36} {among:>6} {median:>11.1} {fastest:>9.1} {slowest:>9.1}");
}
