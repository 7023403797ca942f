//! What the algorithms come to over thousands of requests. Every die is from a seeded generator: no run differs.

use std::time::{Duration, Instant};

use model::traffic_policy::{Algorithm, ConsistentHash, HashKey, LoadBalancer};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

const UP: Standing = Standing {
    distance: 0,
    usable: true,
};

fn balancer(algorithm: Algorithm, standings: &[Standing]) -> Balancer {
    let policy = LoadBalancer {
        algorithm,
        ..LoadBalancer::default()
    };
    let names: Vec<String> = (0..standings.len())
        .map(|number| format!("pay-{number}"))
        .collect();
    let mut balancer = Balancer::new(&policy, &names, 0);
    balancer.arrange(standings, 50);
    balancer
}

/// Percent of 10,000 requests that each endpoint got, one request at a time.
fn percents(algorithm: Algorithm, standings: &[Standing], weight: Option<&dyn Fn(usize) -> f64>) -> Vec<f64> {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut balancer = balancer(algorithm, standings);
    let mut counts = vec![0u32; standings.len()];
    for _ in 0..10_000 {
        let ask = Ask {
            dice: rng.next_u64(),
            key: Some(rng.next_u64()),
            ..Ask::default()
        };
        counts[balancer.pick(&ask, |_| 0.0, weight).expect("there are endpoints")] += 1;
    }
    counts.into_iter().map(|count| f64::from(count) / 100.0).collect()
}

/// Tolerance: 1 point of 100.
#[test]
fn weights_are_kept_within_a_point_over_ten_thousand_requests() {
    let weights = [10.0, 20.0, 70.0];
    for algorithm in [
        Algorithm::RoundRobin,
        Algorithm::Random,
        Algorithm::LeastRequest,
        Algorithm::PeakEwma,
    ] {
        let got = percents(algorithm.clone(), &[UP; 3], Some(&|place| weights[place]));
        for (got, wanted) in got.iter().zip(weights) {
            assert!(
                (got - wanted).abs() <= 1.0,
                "{algorithm:?}: {got} % instead of {wanted} %"
            );
        }
    }
}

/// Tolerance: 1 point of 100, for groups as for weights; 2 where keys are spread, which is how even a table is.
#[test]
fn a_group_that_lost_half_of_its_endpoints_hands_on_three_tenths() {
    let mut standings = [UP; 20];
    for (place, standing) in standings.iter_mut().enumerate() {
        standing.distance = if place < 10 { 0 } else { 2 };
        standing.usable = place >= 5;
    }
    let maglev = Algorithm::Maglev(ConsistentHash {
        key: HashKey::SourceIp,
        table_size: 65_537,
    });
    for (algorithm, tolerance) in [
        (Algorithm::Random, 1.0),
        (Algorithm::PeakEwma, 1.0),
        (Algorithm::RoundRobin, 1.0),
        (maglev, 2.0),
    ] {
        let got = percents(algorithm.clone(), &standings, None);
        let (near, far): (f64, f64) = (got[..10].iter().sum(), got[10..].iter().sum());
        assert!(
            (near - 70.0).abs() <= tolerance && (far - 30.0).abs() <= tolerance,
            "{algorithm:?}: {near} {far}"
        );
        assert_eq!(got[..5].iter().sum::<f64>(), 0.0);
    }
}

/// 500 requests a second to five endpoints that answer after 10 ms, until one needs 200 ms. Within two seconds it gets
/// less than 5 % of what it had: under 1 % of all.
#[test]
fn a_slow_endpoint_loses_its_load_within_two_seconds() {
    let start = Instant::now();
    let mut rng = SmallRng::seed_from_u64(2);
    let mut balancer = balancer(Algorithm::PeakEwma, &[UP; 5]);
    let mut ewma = vec![PeakEwma::new(DEFAULT_RTT, DEFAULT_DECAY, start); 5];
    // When each request in hand ends, and where.
    let mut in_hand: Vec<(u64, u64, usize)> = Vec::new();
    let (mut before, mut after) = ([0u32; 5], [0u32; 5]);
    for number in 0..6_000u64 {
        let now_ms = number * 2;
        let now = start + Duration::from_millis(now_ms);
        in_hand.retain(|(end, rtt, place)| {
            if *end <= now_ms {
                ewma[*place].finish(start + Duration::from_millis(*end), Duration::from_millis(*rtt));
            }
            *end > now_ms
        });
        let ask = Ask {
            dice: rng.next_u64(),
            ..Ask::default()
        };
        let place = balancer
            .pick(&ask, |place| ewma[place].load(now), None)
            .expect("there are endpoints");
        ewma[place].start();
        let is_slow = place == 0 && now_ms >= 4_000;
        let rtt = if is_slow { 200 } else { 10 };
        in_hand.push((now_ms + rtt, rtt, place));
        match now_ms {
            0..4_000 => before[place] += 1,
            6_000.. => after[place] += 1,
            _ => {}
        }
    }
    let share = |counts: [u32; 5]| f64::from(counts[0]) / f64::from(counts.iter().sum::<u32>());
    assert!((share(before) - 0.2).abs() < 0.05, "{before:?}");
    assert!(share(after) <= share(before) * 0.05, "{after:?} after {before:?}");
}

#[test]
fn least_request_levels_what_is_in_hand() {
    let mut rng = SmallRng::seed_from_u64(3);
    let mut balancer = balancer(Algorithm::LeastRequest, &[UP; 4]);
    let mut in_hand = [0u32; 4];
    for _ in 0..1_000 {
        let ask = Ask {
            dice: rng.next_u64(),
            ..Ask::default()
        };
        let place = balancer.pick(&ask, |place| f64::from(in_hand[place]), None);
        in_hand[place.expect("there are endpoints")] += 1;
    }
    let (least, most) = (in_hand.iter().min(), in_hand.iter().max());
    assert!(
        most.zip(least).is_some_and(|(most, least)| most - least <= 10),
        "{in_hand:?}"
    );
}
