//! Faults that a policy makes on purpose: a request waits, or is answered here. What policies in shadow would do is noted.

use std::rc::Rc;
use std::time::Instant;

use decision::Reason;
use decision::traffic::deadline::Deadline;
use decision::traffic::fault::{self, Injected};
use decision::traffic::grpc;
use decision::traffic::route::RequestView;
use decision::traffic::shadow::{Example, Governed};
use http::StatusCode;
use model::fault::{AbortStatus, Fault};
use model::route::Rule;

use super::answer::{RouteAnswer, Stop};
use crate::shadow::{Done, Trial};
use crate::telemetry::Record;
use crate::worker::Worker;

/// What policies do on purpose to the requests of a lane, and would do.
pub(crate) struct Faults {
    /// The first that fits a request decides on it.
    pub(crate) in_force: Box<[Fault]>,
    /// Where policies in shadow, of whatever kind, would do something else to requests.
    pub(crate) trial: Option<Rc<Trial>>,
}

/// Does to a request what the policies say. Its time goes on while it waits. `authority` is whom it is for.
pub(crate) async fn inject(
    worker: &Worker,
    faults: &Faults,
    (rule, authority, request): (Option<&Rule>, &str, &RequestView<'_>),
    deadline: &Deadline,
    record: &mut Record,
) -> Result<(), Stop> {
    let Injected { delay, abort } = match &faults.trial {
        None => fault::inject(&faults.in_force, request, || worker.unit_dice()),
        Some(trial) => {
            // The same dice for both, so that the same again is no difference.
            let dice = [worker.unit_dice(), worker.unit_dice()];
            let now = Done::by(&faults.in_force, request, dice);
            let injected = now.injected;
            let governor = rule.map_or(Governed::Service, Governed::Rule).name();
            let example = Example::new(request.method.as_str(), authority, request.path);
            record.try_out(trial.begin(governor, example, request, now, dice));
            injected
        }
    };
    if let Some(delay) = delay {
        let left = deadline.remaining(Instant::now());
        tokio::time::sleep(left.map_or(delay, |left| left.min(delay))).await;
        if deadline.is_over(Instant::now()) {
            return Err(Reason::RequestTimeout.into());
        }
    }
    match abort {
        Some(status) => Err(Stop::Answered(Box::new(answer(status)))),
        None => Ok(()),
    }
}

fn answer(status: AbortStatus) -> RouteAnswer {
    let (status, grpc_status) = match status {
        AbortStatus::Http(status) => (status, None),
        AbortStatus::Grpc(status) => {
            let http = StatusCode::from_u16(grpc::http_status(status));
            (http.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Some(status))
        }
    };
    RouteAnswer {
        status,
        grpc_status,
        reason: Some(Reason::FaultInjected),
        ..RouteAnswer::default()
    }
}
