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
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use model::resilience::Timeouts;
use model::route::Rule;

use super::answer::{self, Marks, Stop};
use super::body::ResponseBody;
use super::fault;
use super::gate::Arriving;
use super::head::{self, Head};
use super::outside;
use super::replay::ReplaySource;
use super::session::Sticky;
use crate::destinations::{Affinity, Found, Known, Lane};
use crate::downstream::{Arrived, Downstream};
use crate::forward::{self, Plan};
use crate::lineage;
use crate::stats::Direction;
use crate::telemetry::Record;
use crate::upstream::{Forwarded, Spoken};
use crate::worker::Worker;

/// Answers one request.
pub(crate) async fn handle(downstream: &Rc<Downstream>, arrived: Arrived) -> Response<ResponseBody> {
    let Arrived { request, refused } = arrived;
    let (parts, incoming) = request.into_parts();
    let mut record = Record::open(downstream, Direction::Outbound, &parts);
    let body = ReplaySource::new(incoming, downstream.worker.limits.replay_bytes);
    let mut marks = Marks::default();
    match steps(downstream, parts, &body, refused, &mut record, &mut marks).await {
        Ok(chosen) => respond(chosen, record, marks),
        Err(stop) => answer::stopped(stop, record, marks),
    }
}

/// What the steps came to.
struct Chosen {
    forwarded: Forwarded,
    /// `None` where the request went outside the mesh.
    lane: Option<Rc<Lane>>,
    deadline: Deadline,
    /// For a client that is to come back to the same endpoint.
    cookie: Option<Box<HeaderValue>>,
}

impl Chosen {
    fn outside(forwarded: Forwarded, record: &Record) -> Self {
        Self {
            forwarded,
            lane: None,
            deadline: Deadline::new(record.started(), &Timeouts::default(), None),
            cookie: None,
        }
    }
}

async fn steps(
    downstream: &Downstream,
    mut parts: Parts,
    body: &ReplaySource,
    refused: Option<Reason>,
    record: &mut Record,
    marks: &mut Marks,
) -> Result<Chosen, Stop> {
    if let Some(reason) = refused {
        return Err(reason.into());
    }
    let worker = &downstream.worker;

    // 1. One unambiguous message, and whom it is for.
    let head = Head::judge(&parts, &worker.limits.message)?;
    head::disbelieve(&mut parts, downstream);
    let written = head.authority(&parts);
    let Found { known, authority } = match downstream.front.port {
        None => {
            let local = downstream.service.as_ref();
            match worker
                .destinations
                .find(worker, local, downstream.endpoint, written)
                .await
            {
                Err(Reason::UnknownService) if local.is_none() => {
                    let forwarded = Box::pin(outside::pass(worker, parts, head, body, record)).await?;
                    return Ok(Chosen::outside(forwarded, record));
                }
                found => found?,
            }
        }
        Some(port) => worker
            .destinations
            .at_gateway(worker, port, downstream.sni(), written)?,
    };
    record.generation = known.snapshot.generation;
    record.labels = Some(known.labels.clone());

    // 2. The rule, which may have an answer of its own or ask somebody, and of its backends one.
    let view = RequestView {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
    };
    let rule = known.rule(written, &view);
    known.compare(worker, &rule, written, &view);
    let rule = rule?;
    let above = worker.inherited(&parts.headers);
    let said = lineage::deadline(&parts.headers, record);
    let inherited = above.and_then(|(_, inherited)| inherited.deadline);
    let until = [said, inherited].into_iter().flatten().min();
    if let Some((gate, labels)) = rule.and_then(|rule| known.gate(worker, rule)) {
        record.labels = Some(labels);
        let timeouts = rule.map(|(_, rule)| rule.timeouts).unwrap_or_default();
        let arriving = Arriving {
            downstream,
            parts: &parts,
            authority: written,
            port: known.target.port,
            body,
            until: Deadline::new(record.started(), &timeouts, until).at(),
            record,
            marks,
        };
        Box::pin(gate.pass(arriving)).await?;
    }
    let sticky = Sticky::of(rule.and_then(|(_, rule)| rule.session.as_ref()), &parts.headers);
    let backend = choose_backend(worker, &known, rule, sticky.as_deref(), &parts.headers)?;
    let lane = known.lane(worker, rule, backend)?;
    record.labels = Some(lane.labels.clone());
    let deadline = Deadline::new(record.started(), &lane.timeouts, until);
    if let Some(gate) = &lane.gate {
        let arriving = Arriving {
            downstream,
            parts: &parts,
            authority: written,
            port: known.target.port,
            body,
            until: deadline.at(),
            record,
            marks,
        };
        Box::pin(gate.pass(arriving)).await?;
    }
    if let Some(faults) = &lane.faults {
        let request = (rule.map(|(_, rule)| rule), written, &view);
        Box::pin(fault::inject(worker, faults, request, &deadline, record)).await?;
    }
    let (affinity, sticky) = match &lane.policy {
        None => (Affinity::default(), sticky),
        Some(policy) => (
            lane.affinity(&parts.headers, downstream.client.ip(), || worker.dice()),
            sticky.or_else(|| Sticky::of(policy.session.as_ref(), &parts.headers)),
        ),
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
    let mut upstream = head.upstream_parts(parts, spoken, authority.as_ref())?;
    if outside.is_some_and(|outside| outside.tls.is_some()) {
        head::sent_by_tls(&mut upstream)?;
    }
    if downstream.front.port.is_some() {
        head::tell_of_client(&mut upstream, downstream);
    }
    if let Some(rewrite) = &lane.rewrite {
        head::rewrite(&mut upstream, rewrite)?;
    }
    marks.on_request(&mut upstream.headers);
    for modifier in &lane.request {
        filter::apply(modifier, &mut upstream.headers);
    }
    for mirror in &lane.mirrors {
        mirror.send(worker, &upstream, body, record);
    }

    // 4. Attempts, until one is delivered.
    let plan = Plan {
        lane: &lane,
        key: affinity.key,
        deadline: &deadline,
        above,
        sticky: sticky.as_deref(),
        spoken,
        is_grpc: record.is_grpc(),
    };
    let forwarded = forward::forward(worker, &plan, upstream, body, record).await?;
    if let Some(sticky) = &sticky {
        sticky.tell(downstream.front, marks);
    }
    Ok(Chosen {
        forwarded,
        lane: Some(lane),
        deadline,
        cookie: affinity.cookie,
    })
}

/// The place of the backend that a request goes to: that of its session, whether the rule or the policy of a backend keeps
/// it, as long as its endpoint is there, or else one by weight.
fn choose_backend(
    worker: &Worker,
    known: &Known,
    rule: Option<(usize, &Rule)>,
    sticky: Option<&Sticky<'_>>,
    headers: &HeaderMap,
) -> Result<usize, Reason> {
    let Some((index, rule)) = rule else {
        return Ok(0);
    };
    if let Some(endpoint) = sticky.and_then(Sticky::wanted)
        && let Some(backend) = known.backend_with(worker, (index, rule), endpoint)
    {
        return Ok(backend);
    }
    // Rolled only where there is a choice: dice that are thrown away are missing from an even split.
    let dice = if rule.backends.len() > 1 {
        if sticky.is_none()
            && known.has_sessions
            && let Some(backend) = known.backend_of_session(worker, (index, rule), headers)
        {
            return Ok(backend);
        }
        worker.split_dice()
    } else {
        0
    };
    split::pick_backend(&rule.backends, dice).ok_or(Reason::BackendNotFound)
}

/// Passes the upstream's answer on.
fn respond(chosen: Chosen, mut record: Record, marks: Marks) -> Response<ResponseBody> {
    let Chosen {
        forwarded,
        lane,
        deadline,
        cookie,
    } = chosen;
    let Forwarded { mut parts, answer } = forwarded;
    clean_response(&mut parts);
    for modifier in lane.iter().flat_map(|lane| &lane.response) {
        filter::apply(modifier, &mut parts.headers);
    }
    if let Some(cookie) = cookie {
        parts.headers.append(SET_COOKIE, *cookie);
    }
    marks.apply(&mut parts.headers);
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
