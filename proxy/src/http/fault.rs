//! Faults that a policy makes on purpose: a request waits, or is answered here.

use std::time::Instant;

use decision::Reason;
use decision::traffic::deadline::Deadline;
use decision::traffic::fault::{self, Injected};
use decision::traffic::grpc;
use decision::traffic::route::RequestView;
use http::StatusCode;
use model::fault::{AbortStatus, Fault};

use super::answer::{RouteAnswer, Stop};
use crate::worker::Worker;

/// Does to a request what the policies say. Its time goes on while it waits.
pub(crate) async fn inject(
    worker: &Worker,
    faults: &[Fault],
    request: &RequestView<'_>,
    deadline: &Deadline,
) -> Result<(), Stop> {
    let Injected { delay, abort } = fault::inject(faults, request, || worker.unit_dice());
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
