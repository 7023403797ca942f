//! One more attempt beside another whose answer takes long; the first good answer counts, and the others are given up.

use std::rc::Rc;
use std::time::{Duration, Instant};

use decision::traffic::deadline::AttemptLimit;
use decision::traffic::hedge;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::UPGRADE;
use http::request::Parts;
use model::traffic_policy::Hedging;
use smallvec::SmallVec;

use crate::destinations::Measured;
use crate::forward::{self, Failure, Plan};
use crate::http::replay::ReplaySource;
use crate::telemetry::{AttemptRecord, Record};
use crate::upstream::{Forwarded, Permit, Picked, Place};
use crate::worker::Worker;

/// Whether another attempt has become possible is not looked at before this time, and then after twice as long each.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// What a lane's policy says, and what it needs to know.
pub(crate) struct Hedges {
    policy: Hedging,
    measured: Rc<Measured>,
}

/// An attempt that was begun, and its span.
pub(crate) type Begun = (Picked, AttemptRecord);

/// An attempt that has ended.
pub(crate) struct Ended {
    pub(crate) picked: Picked,
    pub(crate) span: AttemptRecord,
    pub(crate) result: Result<Forwarded, Failure>,
}

/// What all attempts of a race have in common.
#[derive(Clone, Copy)]
pub(crate) struct Race<'r> {
    pub(crate) worker: &'r Worker,
    pub(crate) plan: &'r Plan<'r>,
    pub(crate) parts: &'r Parts,
    pub(crate) body: &'r ReplaySource,
    pub(crate) limit: Option<AttemptLimit>,
}

impl Hedges {
    pub(crate) fn new(policy: Hedging, measured: Rc<Measured>) -> Self {
        Self { policy, measured }
    }

    /// An answer, which is no failure, came after `took`.
    pub(crate) fn answered(&self, took: Duration) {
        self.measured.latencies.borrow_mut().answered(took);
    }

    /// How long to wait before another attempt goes beside one of this request; `None` where none does.
    pub(crate) fn delay(&self, parts: &Parts, is_grpc: bool) -> Option<Duration> {
        let is_upgrade = parts.headers.contains_key(UPGRADE);
        hedge::may_repeat(&self.policy, &parts.method, is_grpc, is_upgrade)
            .then(|| hedge::delay(&self.policy, &mut self.measured.latencies.borrow_mut()))?
    }
}

/// Waits for an attempt, and every `delay` sends one more beside it, if that is possible then. Returns the first that ended well, else the last;
/// whoever failed before it is in `tried`.
pub(crate) async fn race(
    race: Race<'_>,
    (picked, span): Begun,
    delay: Duration,
    tried: &mut SmallVec<[Place; 4]>,
    record: &mut Record,
) -> Ended {
    let mut places: SmallVec<[Place; 4]> = tried.clone();
    places.push(picked.member.place.clone());
    let mut running = FuturesUnordered::new();
    running.push(run(race, race.parts.clone(), (picked, span), None));
    let hedges = race.plan.lane.hedges.as_ref();
    let mut left = hedges.map_or(0, |hedges| hedges.policy.max_attempts.saturating_sub(1));
    let mut timer = Box::pin(tokio::time::sleep(delay));
    let mut pause = delay.max(MIN_PAUSE);
    loop {
        tokio::select! {
            Some(ended) = running.next() => {
                let outcome = forward::outcome_of(&ended.result, race.plan.is_grpc);
                if running.is_empty() || !forward::is_failure(&outcome) {
                    for _ in 0..running.len() {
                        // Given up: it says nothing about its endpoint.
                        record.attempted(false, ended.picked.member.upstream.route.is_mtls());
                    }
                    return ended;
                }
                forward::judged(race.plan, &ended.picked, &outcome, race.limit);
                record.attempted(true, ended.picked.member.upstream.route.is_mtls());
                match &ended.result {
                    Ok(forwarded) => ended.span.responded(forwarded.parts.status, None, true),
                    Err(failure) => ended.span.failed(failure.reason(), true),
                }
                tried.push(ended.picked.member.place.clone());
            }
            () = &mut timer, if left > 0 => match another(race, &places, record) {
                Another::Begun(begun, parts, permit) => {
                    places.push(begun.0.member.place.clone());
                    running.push(run(race, parts, begun, permit));
                    left -= 1;
                    timer.as_mut().reset(tokio::time::Instant::now() + delay);
                }
                Another::Later => {
                    timer.as_mut().reset(tokio::time::Instant::now() + pause);
                    pause = pause.saturating_mul(2);
                }
                Another::Never => left = 0,
            },
        }
    }
}

/// What becomes of one more attempt.
#[expect(clippy::large_enum_variant, reason = "matched where it is made")]
enum Another {
    Begun(Begun, Parts, Option<Permit>),
    /// The body is not whole yet, or budget or breaker forbid it.
    Later,
    /// There is no other endpoint, or the request cannot be sent again.
    Never,
}

/// Begins one more attempt, at another endpoint. Who is chosen for one has its turn and its room, so that is done last.
fn another(race: Race<'_>, places: &[Place], record: &mut Record) -> Another {
    let now = Instant::now();
    let lane = race.plan.lane;
    if !race.body.is_replayable() || lane.cluster.len() <= places.len() {
        return Another::Never;
    }
    let permit = match &lane.policy {
        Some(policy) => lane.cluster.admit_retry(policy),
        None => Ok(None),
    };
    let Ok(permit) = permit else {
        return Another::Later;
    };
    if !race.body.is_whole() || !lane.budget.try_retry(now) {
        return Another::Later;
    }
    let picked = forward::pick(race.worker, race.plan, places, now).ok();
    let is_other = |picked: &Picked| !places.iter().any(|place| place.is(&picked.member.place));
    let Some(picked) = picked.filter(is_other) else {
        return Another::Later;
    };
    let mut parts = race.parts.clone();
    let span = record.attempt(&picked.member.place, &mut parts.headers);
    Another::Begun((picked, span), parts, permit)
}

async fn run(race: Race<'_>, parts: Parts, (picked, span): Begun, permit: Option<Permit>) -> Ended {
    let result = forward::attempt(race.plan, &picked, &parts, race.body, race.limit).await;
    drop(permit);
    Ended { picked, span, result }
}
