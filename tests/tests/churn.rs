//! Configuration may change as fast as anybody wants: no request fails, and what was said last is what holds.
//!
//! `WEFT_CHURN_SECONDS=30` makes it long, and then holds it to the rate and to [`IN_EFFECT`] too: a machine that runs other
//! tests beside may be slower.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tests::{App, Load, Mesh, Operator, eventually, yaml};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Changes of one route, per second.
const RATE: u32 = 200;
/// How long it goes on, in seconds, unless `WEFT_CHURN_SECONDS` says so.
const SECONDS: u32 = 5;
/// Changes that are asked for and not yet answered: a slow disk makes the test longer, not its queue.
const OUT: usize = 64;
/// The last change is seen in answers this long after it was made.
const IN_EFFECT: Duration = Duration::from_secs(1);

/// The route of `shop` at its change of this number: another backend, and a header that tells the number.
fn route(number: u32) -> String {
    let backend = if number.is_multiple_of(2) { "red" } else { "blue" };
    yaml::http_route(
        "shop",
        &format!(
            "- filters:
    - type: ResponseHeaderModifier
      responseHeaderModifier: {{set: [{{name: x-change, value: \"{number}\"}}]}}
  backendRefs:
    - {{name: {backend}, port: 80}}"
        ),
    )
}

#[tokio::test]
async fn two_hundred_route_changes_a_second_fail_no_request_and_the_last_one_holds() {
    let seconds = std::env::var("WEFT_CHURN_SECONDS").ok();
    let is_long = seconds.is_some();
    let changes = RATE * seconds.map_or(SECONDS, |seconds| seconds.parse().expect("seconds"));
    let services: String = ["shop", "red", "blue"]
        .iter()
        .map(|name| yaml::service(name, 80, "http"))
        .collect();
    let mesh = Mesh::with(&(services + &route(0))).await;
    let (red, blue) = (App::echo("red").await, App::echo("blue").await);
    let _red = mesh.workload("red").app(red.address).start().await;
    let _blue = mesh.workload("blue").app(blue.address).start().await;
    let visitor = mesh.visitor().await;
    // Eight callers, half of them on connections that they keep.
    let loads: Vec<Load> = (0..4)
        .map(|_| Load::start(visitor.outbound, "http://shop/"))
        .collect();
    for load in &loads {
        load.more(10).await;
    }

    let before = mesh.operator().status().await.generation;
    let began = Instant::now();
    change(mesh.operator(), 1..changes).await;
    let took = began.elapsed();
    let last = mesh.operator().apply(&route(changes)).await;
    let applied = Instant::now();
    let wanted = changes.to_string();
    eventually("the last change in an answer", || async {
        let answer = visitor.get("http://shop/").await;
        (answer.header("x-change") == wanted).then_some(())
    })
    .await;
    let in_effect = applied.elapsed();
    let mut calls = 0;
    for load in loads {
        let counts = load.stop().await;
        counts.assert_no_failure();
        assert_eq!(counts.by_app.len(), 2, "both had their turn: {:?}", counts.by_app);
        calls += counts.calls;
    }
    eprintln!(
        "{changes} changes in {took:.1?}, {} generations, {calls} calls; the last one in effect after {in_effect:.0?}",
        last - before,
    );
    assert!(
        last - before > u64::from(changes / 10),
        "changes were made one by one"
    );
    if is_long {
        let rate = f64::from(changes) / took.as_secs_f64();
        assert!(rate > f64::from(RATE) * 0.9, "{rate} changes a second only");
        assert!(in_effect < IN_EFFECT, "{in_effect:?}");
    }
}

/// Applies the route at these numbers, at [`RATE`] and in any order.
async fn change(operator: &Operator, numbers: std::ops::Range<u32>) {
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    // Late ones are made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (out, mut answers) = (Arc::new(Semaphore::new(OUT)), JoinSet::new());
    for number in numbers {
        ticks.tick().await;
        let permit = out.clone().acquire_owned().await.expect("open");
        let operator = operator.clone();
        answers.spawn(async move {
            operator.apply(&route(number)).await;
            drop(permit);
        });
    }
    while let Some(answer) = answers.join_next().await {
        answer.expect("applied");
    }
}
