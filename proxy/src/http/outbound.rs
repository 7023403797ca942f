//! A request from the application to another service, step by step.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use decision::Reason;
use decision::message::{fields, host};
use decision::traffic::deadline::Deadline;
use decision::traffic::route::{self, RequestView};
use decision::traffic::{filter, grpc, split};
use http::request::Parts;
use http::{Response, StatusCode};
use model::filter::Filter;
use model::route::Rule;
use model::{ServicePort, Snapshot};

use super::answer;
use super::body::ResponseBody;
use super::head::Head;
use super::replay::ReplaySource;
use crate::config::Learned;
use crate::downstream::{Arrived, Downstream};
use crate::forward::{self, Plan};
use crate::stats::Direction;
use crate::telemetry::Record;
use crate::upstream::{Forwarded, Spoken};

/// Answers one request.
pub(crate) async fn handle(downstream: &Rc<Downstream>, arrived: Arrived) -> Response<ResponseBody> {
    let Arrived { request, refused } = arrived;
    let (parts, incoming) = request.into_parts();
    let mut record = Record::open(
        &downstream.worker.recorder,
        Direction::Outbound,
        downstream.client,
        &parts,
    );
    let body = ReplaySource::new(incoming, downstream.worker.limits.replay_bytes);
    match steps(downstream, parts, &body, refused, &mut record).await {
        Ok(chosen) => respond(chosen, record),
        Err(reason) => answer::refuse(reason, record),
    }
}

/// What the steps came to.
struct Chosen {
    forwarded: Forwarded,
    response_filters: Vec<Filter>,
    deadline: Deadline,
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
    let (snapshot, target) = discover(downstream, &head).await?;
    record.generation = snapshot.generation;
    record.destination = Some(target.clone());

    // 2. The rule, and of its backends one.
    let rule = choose_rule(&snapshot, &target, &parts)?;
    let (backend, backend_filters) = choose_backend(rule, &target, || worker.split_dice())?;
    record.route = rule.map(|rule| rule.name.clone());
    record.backend = Some(backend.clone());

    // 3. What is sent: without what was meant for this hop only, and as the filters want it.
    let filters = [rule.map_or(&[][..], |rule| &rule.filters), backend_filters];
    let endpoints = snapshot.endpoints.get(&backend.service);
    let spoken = match endpoints.and_then(|set| set.endpoints.outside(backend.port)) {
        Some(outside) => Spoken::to_app(outside.protocol, head.upgrade, record.is_grpc()),
        None if head.upgrade => Spoken::Http1,
        None => Spoken::Http2,
    };
    let timeouts = rule.map(|rule| rule.timeouts).unwrap_or_default();
    let grpc_timeout = if record.is_grpc() {
        grpc::timeout(&parts.headers)
    } else {
        None
    };
    let deadline = Deadline::new(record.started(), &timeouts, grpc_timeout);
    let mut upstream = head.upstream_parts(parts, spoken)?;
    for filters in filters {
        filter::on_request(filters, &mut upstream.headers);
    }

    // 4. Attempts, until one is delivered.
    let plan = Plan {
        snapshot: &snapshot,
        destination: &target,
        backend: &backend,
        retry: rule.and_then(|rule| rule.retry.as_ref()),
        deadline: &deadline,
        spoken,
    };
    let forwarded = forward::forward(worker, &plan, upstream, body, record).await?;
    Ok(Chosen {
        forwarded,
        response_filters: filters.concat(),
        deadline,
    })
}

/// Finds the service that the request names. Its first caller waits until the control plane has told about it.
async fn discover(downstream: &Downstream, head: &Head) -> Result<(Arc<Snapshot>, ServicePort), Reason> {
    let worker = &downstream.worker;
    let (service, explicit) = match &downstream.service {
        Some(local) => (local.service.clone(), Some(local.port)),
        None => {
            let settings = &worker.shared.settings;
            host::resolve(&head.authority, &settings.namespace, &worker.shared.domain)?
                .ok_or(Reason::UnknownService)?
        }
    };
    let mut snapshot = worker.snapshot();
    if !snapshot.destinations.contains_key(&service) {
        snapshot = match worker
            .shared
            .config
            .learn(&service, worker.limits.discovery_timeout)
            .await
        {
            Learned::Exists(snapshot) | Learned::DoesNotExist(snapshot) => snapshot,
            Learned::TimedOut => return Err(Reason::DiscoveryTimeout),
            Learned::TooMany { .. } => return Err(Reason::Overloaded),
        };
    }
    let destination = snapshot
        .destinations
        .get(&service)
        .and_then(Option::as_ref)
        .ok_or(Reason::UnknownService)?;
    let port = host::choose_port(destination, explicit).ok_or(Reason::UnknownPort)?;
    let target = service.port(port);
    Ok((snapshot, target))
}

/// The rule that governs the request; `None` where no route is attached to the service.
fn choose_rule<'s>(
    snapshot: &'s Snapshot,
    target: &ServicePort,
    parts: &Parts,
) -> Result<Option<&'s Rule>, Reason> {
    let destination = snapshot
        .destinations
        .get(&target.service)
        .and_then(Option::as_ref);
    let port = destination.and_then(|destination| destination.ports.get(&target.port));
    let rules = &port.ok_or(Reason::UnknownPort)?.rules;
    if rules.is_empty() {
        return Ok(None);
    }
    let view = RequestView {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
    };
    route::choose(rules, &view).map(Some).ok_or(Reason::NoRoute)
}

fn choose_backend<'s>(
    rule: Option<&'s Rule>,
    target: &ServicePort,
    roll: impl FnOnce() -> u64,
) -> Result<(ServicePort, &'s [Filter]), Reason> {
    let Some(rule) = rule else {
        return Ok((target.clone(), &[]));
    };
    // Rolled only where there is a choice: dice that are thrown away are missing from an even split.
    let dice = if rule.backends.len() > 1 { roll() } else { 0 };
    let backend = split::pick_backend(&rule.backends, dice).ok_or(Reason::BackendNotFound)?;
    let chosen = backend.target.clone().ok_or(Reason::BackendNotFound)?;
    Ok((chosen, &backend.filters))
}

/// Passes the upstream's answer on.
fn respond(chosen: Chosen, mut record: Record) -> Response<ResponseBody> {
    let Chosen {
        forwarded,
        response_filters,
        deadline,
    } = chosen;
    let Forwarded { mut parts, answer } = forwarded;
    clean_response(&mut parts);
    filter::on_response(&response_filters, &mut parts.headers);
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
