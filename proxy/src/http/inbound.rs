//! A request from another sidecar to the application beside this one, step by step.

use std::rc::Rc;

use decision::Reason;
use decision::traffic::lineage::{self, TraceId};
use http::Response;
use http::request::Parts;

use super::answer;
use super::body::ResponseBody;
use super::head::Head;
use super::outbound::clean_response;
use super::replay::ReplaySource;
use crate::downstream::{Arrived, Downstream};
use crate::stats::Direction;
use crate::telemetry::Record;
use crate::upstream::{Forwarded, SendFailure, Spoken};

/// Answers one request.
pub(crate) async fn handle(downstream: &Rc<Downstream>, arrived: Arrived) -> Response<ResponseBody> {
    let Arrived { request, refused } = arrived;
    let (parts, incoming) = request.into_parts();
    let mut record = Record::open(downstream, Direction::Inbound, &parts);
    record.peer = downstream.peer.as_ref().map(|peer| peer.id().clone());
    record.labels.clone_from(&downstream.labels);
    // Sent once: whether to try again is for the caller's sidecar to judge, which knows other endpoints.
    let body = ReplaySource::new(incoming, 0);
    match steps(downstream, parts, &body, refused, &mut record).await {
        Ok(Forwarded { mut parts, answer }) => {
            clean_response(&mut parts);
            answer::disown(&mut parts.headers);
            if (parts.status.is_server_error() || record.is_grpc()) && record.gave_up() {
                lineage::mark_final(&mut parts.headers);
            }
            parts.version = http::Version::HTTP_11;
            record.responded(parts.status, &parts.headers);
            Response::from_parts(parts, ResponseBody::passing(answer, record, None))
        }
        Err(reason) => answer::refuse(reason, record),
    }
}

async fn steps(
    downstream: &Downstream,
    parts: Parts,
    body: &ReplaySource,
    refused: Option<Reason>,
    record: &mut Record,
) -> Result<Forwarded, Reason> {
    if let Some(reason) = refused {
        return Err(reason);
    }
    let worker = &downstream.worker;

    // 1. One unambiguous message.
    let head = Head::judge(&parts, &worker.limits.message)?;

    // 2. What calls inherit that the application makes for it.
    if let Some(trace) = TraceId::of(&parts.headers) {
        record.answering = Some(worker.answering(trace, &parts.headers, record));
    }

    // 3. Where the application serves what the caller's SNI named.
    let snapshot = worker.snapshot();
    record.generation = snapshot.generation;
    let service = downstream.service.as_ref().ok_or(Reason::UnknownService)?;
    let served = snapshot
        .inbound
        .served
        .get(service)
        .ok_or(Reason::UnknownService)?;
    let spoken = Spoken::to_app(served.protocol, head.upgrade, record.is_grpc());

    // 4. What is sent, as a child of this sidecar's span.
    let mut upstream = head.upstream_parts(parts, spoken, None)?;
    record.propagate(&mut upstream.headers);

    // 5. Sent, once.
    let sent = worker.app(served.app).send(&upstream, body, spoken).await;
    record.attempted(sent.is_err(), false);
    match sent {
        Ok(forwarded) => Ok(forwarded),
        Err(SendFailure::NotSent(reason) | SendFailure::Broken(reason)) => {
            Err(body.failure().unwrap_or(reason))
        }
    }
}
