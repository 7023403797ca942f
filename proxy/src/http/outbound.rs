//! A request from the application to another service, step by step.

use std::rc::Rc;
use std::time::Instant;

use decision::Reason;
use decision::message::fields;
use decision::traffic::deadline::Deadline;
use decision::traffic::hop::HopVersion;
use decision::traffic::route::RequestView;
use decision::traffic::{filter, split};
use http::header::SET_COOKIE;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, Version};
use model::route::Rule;

use super::answer;
use super::body::ResponseBody;
use super::head::{self, Head};
use super::replay::ReplaySource;
use crate::destinations::{Affinity, Found, Lane};
use crate::downstream::{Arrived, Downstream};
use crate::forward::{self, Plan};
use crate::lineage;
use crate::stats::Direction;
use crate::telemetry::Record;
use crate::upstream::{Forwarded, Spoken};

/// Answers one request.
pub(crate) async fn handle(downstream: &Rc<Downstream>, arrived: Arrived) -> Response<ResponseBody> {
    let Arrived { request, refused } = arrived;
    let (parts, incoming) = request.into_parts();
    let mut record = Record::open(downstream, Direction::Outbound, &parts);
    let body = ReplaySource::new(incoming, downstream.worker.limits.replay_bytes);
    match steps(downstream, parts, &body, refused, &mut record).await {
        Ok(chosen) => respond(chosen, record),
        Err(reason) => answer::refuse(reason, record),
    }
}

/// What the steps came to.
struct Chosen {
    forwarded: Forwarded,
    lane: Rc<Lane>,
    deadline: Deadline,
    /// For a client that is to come back to the same endpoint.
    cookie: Option<Box<HeaderValue>>,
}

async fn steps(
    downstream: &Downstream,
    parts: Parts,
    body: &ReplaySource,
    refused: Option<Reason>,
    record: &mut Record,
) -> Result<Chosen, Reason> {
    if let Some(reason) = refused {
        return Err(reason);
    }
    let worker = &downstream.worker;

    // 1. One unambiguous message, and whom it is for.
    let head = Head::judge(&parts, &worker.limits.message)?;
    let written = head.authority(&parts);
    let Found { known, authority } = match downstream.front.port {
        None => {
            let local = downstream.service.as_ref();
            worker.destinations.find(worker, local, written).await?
        }
        Some(port) => {
            let sni = downstream.sni.as_deref();
            worker.destinations.at_gateway(worker, port, sni, written)?
        }
    };
    record.generation = known.snapshot.generation;
    record.labels = Some(known.labels.clone());

    // 2. The rule, and of its backends one.
    let view = RequestView {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
    };
    let rule = known.rule(written, &view);
    known.compare(worker, &rule, written, &view);
    let rule = rule?;
    let backend = choose_backend(rule, || worker.split_dice())?;
    let lane = known.lane(worker, rule, backend)?;
    record.labels = Some(lane.labels.clone());
    let affinity = match lane.policy {
        None => Affinity::default(),
        Some(_) => lane.affinity(&parts.headers, downstream.client.ip(), || worker.dice()),
    };

    // 3. What is sent: without what was meant for this hop only, and as the filters want it.
    let outside = lane.outside();
    let spoken = match outside {
        Some(outside) => Spoken::to_app(outside.protocol, head.upgrade, record.is_grpc()),
        None if head.upgrade => Spoken::Http1,
        None => match lane
            .cluster
            .hop_version(parts.version == Version::HTTP_2 || record.is_grpc())
        {
            HopVersion::Http1 => Spoken::Http1,
            HopVersion::Http2 => Spoken::Http2,
        },
    };
    let above = worker.inherited(&parts.headers);
    let said = lineage::deadline(&parts.headers, record);
    let inherited = above.and_then(|(_, inherited)| inherited.deadline);
    let until = [said, inherited].into_iter().flatten().min();
    let deadline = Deadline::new(record.started(), &lane.timeouts, until);
    let mut upstream = head.upstream_parts(parts, spoken, authority.as_ref())?;
    if outside.is_some_and(|outside| outside.tls.is_some()) {
        head::sent_by_tls(&mut upstream)?;
    }
    if downstream.front.port.is_some() {
        head::tell_of_client(&mut upstream, downstream);
    }
    filter::on_request(&lane.filters, &mut upstream.headers);

    // 4. Attempts, until one is delivered.
    let plan = Plan {
        lane: &lane,
        key: affinity.key,
        deadline: &deadline,
        above,
        spoken,
    };
    let forwarded = forward::forward(worker, &plan, upstream, body, record).await?;
    Ok(Chosen {
        forwarded,
        lane,
        deadline,
        cookie: affinity.cookie,
    })
}

/// The place of the backend that a request goes to.
fn choose_backend(rule: Option<(usize, &Rule)>, roll: impl FnOnce() -> u64) -> Result<usize, Reason> {
    let Some((_, rule)) = rule else { return Ok(0) };
    // Rolled only where there is a choice: dice that are thrown away are missing from an even split.
    let dice = if rule.backends.len() > 1 { roll() } else { 0 };
    split::pick_backend(&rule.backends, dice).ok_or(Reason::BackendNotFound)
}

/// Passes the upstream's answer on.
fn respond(chosen: Chosen, mut record: Record) -> Response<ResponseBody> {
    let Chosen {
        forwarded,
        lane,
        deadline,
        cookie,
    } = chosen;
    let Forwarded { mut parts, answer } = forwarded;
    clean_response(&mut parts);
    filter::on_response(&lane.filters, &mut parts.headers);
    if let Some(cookie) = cookie {
        parts.headers.append(SET_COOKIE, *cookie);
    }
    parts.version = http::Version::HTTP_11;
    record.responded(parts.status, &parts.headers);
    let at = deadline
        .at()
        .map(|at| Box::pin(tokio::time::sleep_until(at.max(Instant::now()).into())));
    Response::from_parts(parts, ResponseBody::passing(answer, record, at))
}

/// Takes off a response what was meant for one hop only; an upgrade's answer keeps its `Upgrade`.
pub(super) fn clean_response(parts: &mut http::response::Parts) {
    let headers = &mut parts.headers;
    let protocol = if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        headers.get(http::header::UPGRADE).cloned()
    } else {
        None
    };
    fields::remove_hop_by_hop(headers);
    if let Some(protocol) = protocol {
        headers.insert(http::header::UPGRADE, protocol);
        headers.insert(
            http::header::CONNECTION,
            http::HeaderValue::from_static("upgrade"),
        );
    }
}
