//! Attempts: pick an endpoint, send, judge, and perhaps again.

use std::time::{Duration, Instant};

use decision::Reason;
use decision::traffic::deadline::{AttemptLimit, Deadline};
use decision::traffic::grpc;
use decision::traffic::lineage::{self, Inherited, TraceId};
use decision::traffic::retry::{self, Attempts, Outcome, Verdict};
use http::HeaderMap;
use http::request::Parts;
use smallvec::SmallVec;
use tokio::time::timeout_at;

use crate::destinations::Lane;
use crate::hedge::{self, Race};
use crate::http::answer;
use crate::http::replay::ReplaySource;
use crate::http::session::Sticky;
use crate::telemetry::Record;
use crate::upstream::{Forwarded, Permit, Picked, Place, SendFailure, Spoken, Wanted};
use crate::worker::Worker;

/// What was decided about a request before its first attempt.
pub(crate) struct Plan<'s> {
    /// Whose endpoints are tried.
    pub(crate) lane: &'s Lane,
    /// Where equal requests go to one endpoint, which those are.
    pub(crate) key: Option<u64>,
    pub(crate) deadline: &'s Deadline,
    /// The request that this one is made for, where it is known.
    pub(crate) above: Option<(TraceId, Inherited)>,
    /// Where the rule keeps sessions.
    pub(crate) sticky: Option<&'s Sticky<'s>>,
    pub(crate) spoken: Spoken,
    pub(crate) is_grpc: bool,
}

/// Sends a request until an attempt is worth delivering, or none is allowed any more.
pub(crate) async fn forward(
    worker: &Worker,
    plan: &Plan<'_>,
    mut parts: Parts,
    body: &ReplaySource,
    record: &mut Record,
) -> Result<Forwarded, Reason> {
    let mut tried: SmallVec<[Place; 4]> = SmallVec::new();
    plan.lane.budget.request(record.started());
    if let Some(policy) = &plan.lane.policy {
        record.hold(plan.lane.cluster.admit(policy)?);
    }
    // Of the retry that is being made.
    let mut retrying: Option<Permit> = None;
    loop {
        let now = Instant::now();
        let limit = plan.deadline.attempt(now);
        if let Some(left) = plan.deadline.remaining(now)
            && !plan.lane.measured.quickest.borrow().can_meet(now, left)
        {
            return Err(Reason::RequestTimeout);
        }
        let mut picked = pick(worker, plan, &tried, now)?;
        let mut span = record.attempt(&picked.member.place, &mut parts.headers);
        // What hops above say that this one is, counts for as many.
        let above = plan.above.map_or(1, |(_, inherited)| inherited.attempt);
        let attempts = (above - 1).saturating_add(record.attempts());
        tell(&mut parts.headers, plan.is_grpc, attempts, limit.as_ref(), now);
        let hedges = plan.lane.hedges.as_ref();
        let delay = hedges.and_then(|hedges| hedges.delay(&parts, plan.is_grpc));
        let result = match delay {
            None => attempt(plan, &picked, &parts, body, limit).await,
            Some(delay) => {
                let race = Race {
                    worker,
                    plan,
                    parts: &parts,
                    body,
                    limit,
                };
                let ended = Box::pin(hedge::race(race, (picked, span), delay, &mut tried, record)).await;
                (picked, span) = (ended.picked, ended.span);
                ended.result
            }
        };
        if let Some(sticky) = plan.sticky {
            sticky.served(picked.member.key);
        }
        if let Some(reason) = body.failure() {
            // The client broke off or broke the rules: no endpoint's fault, and nothing to repeat.
            span.failed(reason, false);
            return Err(reason);
        }
        let outcome = outcome_of(&result, plan.is_grpc);
        if let Some(hedges) = hedges
            && !is_failure(&outcome)
        {
            hedges.answered(picked.took(Instant::now()));
        }
        judged(plan, &picked, &outcome, limit);
        drop(retrying.take());
        let is_final = is_failure(&outcome)
            && matches!(&result, Ok(forwarded) if lineage::is_final(&forwarded.parts.headers));
        let verdict = judge(worker, plan, &outcome, (attempts, is_final), body, &mut retrying);
        let is_retried = matches!(verdict, Verdict::Retry { .. });
        record.attempted(is_failure(&outcome), picked.member.upstream.route.is_mtls());
        match &result {
            Ok(forwarded) => {
                let head = &forwarded.parts;
                let status = forwarded.answer.peeked_trailers().and_then(grpc::status);
                let of_head = || plan.is_grpc.then(|| grpc::status(&head.headers)).flatten();
                let status = status.or_else(of_head);
                span.responded(head.status, status, is_retried);
            }
            Err(failure) => span.failed(failure.reason(), is_retried),
        }
        let after = match verdict {
            Verdict::Retry { after } => after,
            Verdict::Deliver => return result.map_err(Failure::reason),
            Verdict::GiveUp => {
                worker.give_up(plan.above.map(|(trace, _)| trace));
                if record.attempts() > 1 && outcome == Outcome::Broken(Reason::ConnectionReset) {
                    return Err(Reason::RetriesExhausted);
                }
                let mut result = result;
                if let Ok(forwarded) = &mut result {
                    // Between sidecars only: what the application is told is for itself to say.
                    forwarded.parts.headers.remove(&lineage::SHOULD_RETRY);
                }
                return result.map_err(Failure::reason);
            }
        };
        tried.push(picked.member.place.clone());
        drop((result, picked));
        tokio::time::sleep(after).await;
    }
}

/// Why an attempt has no response.
#[derive(Clone, Copy)]
pub(crate) enum Failure {
    Send(SendFailure),
    TimedOut(Reason),
}

impl Failure {
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Send(SendFailure::NotSent(reason) | SendFailure::Broken(reason))
            | Self::TimedOut(reason) => reason,
        }
    }
}

pub(crate) fn pick(
    worker: &Worker,
    plan: &Plan<'_>,
    tried: &[Place],
    now: Instant,
) -> Result<Picked, Reason> {
    let endpoints = plan.lane.endpoints.as_ref().ok_or(Reason::NoEndpoint)?;
    let wanted = Wanted {
        set: endpoints,
        policy: plan.lane.policy.as_ref(),
        tried,
        session: plan.sticky.and_then(Sticky::wanted),
        key: plan.key,
        dice: worker.dice(),
        now,
    };
    plan.lane.cluster.pick(&wanted).ok_or(Reason::NoEndpoint)
}

/// Tells the next hop how long it has, and which attempt this is over all hops.
fn tell(headers: &mut HeaderMap, is_grpc: bool, attempts: u8, limit: Option<&AttemptLimit>, now: Instant) {
    if let Some(limit) = limit {
        let left = limit.at.saturating_duration_since(now);
        if is_grpc {
            headers.insert(&grpc::TIMEOUT, grpc::format_timeout(left));
        } else {
            let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            headers.insert(&lineage::EXPECTED_TIMEOUT, millis.into());
        }
    }
    if attempts > 1 {
        headers.insert(&lineage::ATTEMPT_COUNT, u16::from(attempts).into());
    }
}

pub(crate) async fn attempt(
    plan: &Plan<'_>,
    picked: &Picked,
    parts: &Parts,
    body: &ReplaySource,
    limit: Option<AttemptLimit>,
) -> Result<Forwarded, Failure> {
    let sending = picked.member.upstream.send(parts, body, plan.spoken);
    let mut sent = match limit {
        None => sending.await.map_err(Failure::Send),
        Some(limit) => match timeout_at(limit.at.into(), sending).await {
            Ok(sent) => sent.map_err(Failure::Send),
            Err(_) => Err(Failure::TimedOut(limit.reason)),
        },
    };
    // Where there is nothing to wait for, the answer is not moved.
    if let (Some(patience), Ok(forwarded)) = (plan.lane.grpc_patience, &sent)
        && is_undecided(forwarded)
        && body.is_whole()
    {
        sent = match sent {
            Ok(forwarded) => Box::pin(peek(forwarded, limit, patience)).await,
            failed => failed,
        };
    }
    match sent {
        Ok(mut forwarded) => {
            let now = Instant::now();
            let took = picked.took(now);
            match peer_failure(&forwarded.parts, plan.is_grpc) {
                // The callee's sidecar answers quickly that its application does not.
                Some(_) => picked.failed(now),
                None => picked.responded(now),
            }
            if !forwarded.parts.status.is_server_error() {
                plan.lane.measured.quickest.borrow_mut().answered(now, took);
            }
            if let Some(bytes) = forwarded.answer.exact() {
                plan.lane.cluster.answered(bytes);
            }
            if matches!(picked.member.place, Place::Outside { .. }) {
                answer::disown(&mut forwarded.parts.headers);
            }
            Ok(forwarded)
        }
        Err(failure) => {
            let by_caller =
                matches!(failure, Failure::TimedOut(_)) && limit.is_some_and(|limit| limit.is_callers);
            let now = Instant::now();
            match body.failure() {
                // Its caller went wrong: no endpoint's fault.
                Some(_) => {}
                None if by_caller => picked.given_up(now),
                None => picked.failed(now),
            }
            Err(failure)
        }
    }
}

/// Tells the policy, where there is one, how an attempt at an endpoint ended.
pub(crate) fn judged(plan: &Plan<'_>, picked: &Picked, outcome: &Outcome, limit: Option<AttemptLimit>) {
    if plan.lane.policy.is_some() && !limit.is_some_and(|limit| limit.excuses(outcome)) {
        plan.lane.cluster.judged(picked, outcome, Instant::now());
    }
}

/// Whether it takes more than the head to say how a gRPC call went.
fn is_undecided(forwarded: &Forwarded) -> bool {
    let headers = &forwarded.parts.headers;
    grpc::is_grpc(headers) && grpc::status(headers).is_none()
}

/// Waits for what follows the head, a message or trailers, but not for long: a stream may begin with silence.
async fn peek(
    forwarded: Forwarded,
    limit: Option<AttemptLimit>,
    patience: Duration,
) -> Result<Forwarded, Failure> {
    let Forwarded { parts, answer } = forwarded;
    let peeked = match limit {
        None => answer.peek(patience).await,
        Some(limit) => match timeout_at(limit.at.into(), answer.peek(patience)).await {
            Ok(peeked) => peeked,
            Err(_) => return Err(Failure::TimedOut(limit.reason)),
        },
    };
    match peeked {
        Ok(answer) => Ok(Forwarded { parts, answer }),
        Err(reason) => Err(Failure::Send(SendFailure::Broken(reason))),
    }
}

pub(crate) fn outcome_of(result: &Result<Forwarded, Failure>, is_grpc: bool) -> Outcome {
    match result {
        Ok(forwarded) => match forwarded.answer.peeked_trailers().and_then(grpc::status) {
            Some(status) => Outcome::Grpc(status),
            None => outcome_of_response(&forwarded.parts, is_grpc),
        },
        Err(Failure::Send(SendFailure::NotSent(reason))) => Outcome::NotSent(*reason),
        Err(Failure::Send(SendFailure::Broken(reason))) => Outcome::Broken(*reason),
        Err(Failure::TimedOut(_)) => Outcome::TimedOut,
    }
}

fn outcome_of_response(head: &http::response::Parts, is_grpc: bool) -> Outcome {
    match peer_failure(head, is_grpc) {
        Some(Reason::ConnectionReset) => return Outcome::Broken(Reason::ConnectionReset),
        Some(reason) => return Outcome::NotSent(reason),
        None => {}
    }
    let status = is_grpc.then(|| grpc::status(&head.headers)).flatten();
    match status {
        Some(status) if grpc::is_grpc(&head.headers) => Outcome::Grpc(status),
        _ => Outcome::Status(head.status.as_u16()),
    }
}

/// What the callee's sidecar says went wrong. To others than callers of gRPC it says so with a status of its own.
fn peer_failure(head: &http::response::Parts, is_grpc: bool) -> Option<Reason> {
    if !is_grpc && !head.status.is_server_error() {
        return None;
    }
    answer::peer_failure(head.status, &head.headers)
}

/// What becomes of an attempt, `made` of them until now.
fn judge(
    worker: &Worker,
    plan: &Plan<'_>,
    outcome: &Outcome,
    (made, is_final): (u8, bool),
    body: &ReplaySource,
    retrying: &mut Option<Permit>,
) -> Verdict {
    let now = Instant::now();
    let attempts = Attempts {
        made,
        is_final,
        replayable: body.is_replayable(),
        untouched: body.is_untouched(),
        remaining: plan.deadline.remaining(now),
    };
    let verdict = retry::judge(plan.lane.retry.as_ref(), outcome, &attempts, worker.unit_dice());
    if !matches!(verdict, Verdict::Retry { .. }) {
        return verdict;
    }
    if let Some(policy) = &plan.lane.policy {
        match plan.lane.cluster.admit_retry(policy) {
            Ok(permit) => *retrying = permit,
            Err(_) => return Verdict::GiveUp,
        }
    }
    match plan.lane.budget.try_retry(now) {
        true => verdict,
        false => Verdict::GiveUp,
    }
}

pub(crate) fn is_failure(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Status(status) => *status >= 500,
        Outcome::Grpc(status) => grpc::http_status(*status) >= 500,
        Outcome::NotSent(_) | Outcome::Broken(_) | Outcome::TimedOut => true,
    }
}
