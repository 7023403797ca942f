//! Attempts: pick an endpoint, send, judge, and perhaps again.

use std::time::Instant;

use decision::Reason;
use decision::traffic::deadline::Deadline;
use decision::traffic::grpc;
use decision::traffic::retry::{self, Attempts, Outcome, Verdict};
use http::HeaderMap;
use http::request::Parts;
use smallvec::SmallVec;
use tokio::time::timeout_at;

use crate::destinations::Lane;
use crate::http::answer;
use crate::http::replay::ReplaySource;
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
    pub(crate) spoken: Spoken,
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
    plan.lane.budget.borrow_mut().request(record.started());
    if let Some(policy) = &plan.lane.policy {
        record.hold(plan.lane.cluster.admit(policy)?);
    }
    // Of the retry that is being made.
    let mut retrying: Option<Permit> = None;
    loop {
        let picked = pick(worker, plan, &tried)?;
        let span = record.attempt(&picked.member.place, &mut parts.headers);
        let result = attempt(plan, &picked, &parts, body).await;
        if let Some(reason) = body.failure() {
            // The client broke off or broke the rules: no endpoint's fault, and nothing to repeat.
            span.failed(reason, false);
            return Err(reason);
        }
        let outcome = outcome_of(&result);
        if plan.lane.policy.is_some() {
            plan.lane.cluster.judged(&picked, &outcome, Instant::now());
        }
        drop(retrying.take());
        let verdict = judge(worker, plan, &outcome, body, record, &mut retrying);
        let is_retried = verdict.is_some();
        record.attempted(is_failure(&outcome), picked.member.upstream.route.is_mtls());
        match &result {
            Ok(forwarded) => {
                let head = &forwarded.parts;
                span.responded(head.status, grpc::status(&head.headers), is_retried);
            }
            Err(failure) => span.failed(failure.reason(), is_retried),
        }
        let Some(after) = verdict else {
            return result.map_err(Failure::reason);
        };
        tried.push(picked.member.place.clone());
        drop((result, picked));
        tokio::time::sleep(after).await;
    }
}

/// Why an attempt has no response.
#[derive(Clone, Copy)]
enum Failure {
    Send(SendFailure),
    TimedOut(Reason),
}

impl Failure {
    fn reason(self) -> Reason {
        match self {
            Self::Send(SendFailure::NotSent(reason) | SendFailure::Broken(reason))
            | Self::TimedOut(reason) => reason,
        }
    }
}

fn pick(worker: &Worker, plan: &Plan<'_>, tried: &[Place]) -> Result<Picked, Reason> {
    let endpoints = plan.lane.endpoints.as_ref().ok_or(Reason::NoEndpoint)?;
    let wanted = Wanted {
        set: endpoints,
        policy: plan.lane.policy.as_ref(),
        tried,
        key: plan.key,
        dice: worker.dice(),
        now: Instant::now(),
    };
    plan.lane.cluster.pick(&wanted).ok_or(Reason::NoEndpoint)
}

async fn attempt(
    plan: &Plan<'_>,
    picked: &Picked,
    parts: &Parts,
    body: &ReplaySource,
) -> Result<Forwarded, Failure> {
    let sending = picked.member.upstream.send(parts, body, plan.spoken);
    let sent = match plan.deadline.attempt(Instant::now()) {
        None => sending.await.map_err(Failure::Send),
        Some(limit) => match timeout_at(limit.at.into(), sending).await {
            Ok(sent) => sent.map_err(Failure::Send),
            Err(_) => Err(Failure::TimedOut(limit.reason)),
        },
    };
    match sent {
        Ok(mut forwarded) => {
            picked.responded(Instant::now());
            if let Some(bytes) = forwarded.answer.exact() {
                plan.lane.cluster.answered(bytes);
            }
            if matches!(picked.member.place, Place::Outside(_)) {
                answer::disown(&mut forwarded.parts.headers);
            }
            Ok(forwarded)
        }
        Err(failure) => {
            picked.failed(Instant::now());
            Err(failure)
        }
    }
}

fn outcome_of(result: &Result<Forwarded, Failure>) -> Outcome {
    match result {
        Ok(forwarded) => outcome_of_response(forwarded.parts.status, &forwarded.parts.headers),
        Err(Failure::Send(SendFailure::NotSent(reason))) => Outcome::NotSent(*reason),
        Err(Failure::Send(SendFailure::Broken(reason))) => Outcome::Broken(*reason),
        Err(Failure::TimedOut(_)) => Outcome::TimedOut,
    }
}

fn outcome_of_response(status: http::StatusCode, headers: &HeaderMap) -> Outcome {
    match answer::peer_failure(status, headers) {
        Some(Reason::ConnectionReset) => return Outcome::Broken(Reason::ConnectionReset),
        Some(reason) => return Outcome::NotSent(reason),
        None => {}
    }
    match grpc::status(headers) {
        Some(status) if grpc::is_grpc(headers) => Outcome::Grpc(status),
        _ => Outcome::Status(status.as_u16()),
    }
}

/// How long to wait before another attempt; `None` where this one is delivered.
fn judge(
    worker: &Worker,
    plan: &Plan<'_>,
    outcome: &Outcome,
    body: &ReplaySource,
    record: &Record,
    retrying: &mut Option<Permit>,
) -> Option<std::time::Duration> {
    let now = Instant::now();
    let attempts = Attempts {
        made: record.attempts(),
        replayable: body.is_replayable(),
        untouched: body.is_untouched(),
        remaining: plan.deadline.remaining(now),
    };
    match retry::judge(plan.lane.retry.as_ref(), outcome, &attempts, worker.unit_dice()) {
        Verdict::Retry { after } => {
            if let Some(policy) = &plan.lane.policy {
                *retrying = plan.lane.cluster.admit_retry(policy).ok()?;
            }
            plan.lane.budget.borrow_mut().try_retry(now).then_some(after)
        }
        Verdict::Deliver => None,
    }
}

fn is_failure(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Status(status) => *status >= 500,
        Outcome::Grpc(status) => grpc::http_status(*status) >= 500,
        Outcome::NotSent(_) | Outcome::Broken(_) | Outcome::TimedOut => true,
    }
}
