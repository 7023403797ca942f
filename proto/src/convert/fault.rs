//! Faults that are made on purpose.

use std::time::Duration;

use http::StatusCode;
use model::FieldError;
use model::fault::{AbortStatus, Fault, FaultAbort, FaultDelay, Share};

use super::read::{items, millis};
use super::route::{match_from_wire, match_to_wire};
use crate::v1;

pub(super) fn fault_to_wire(fault: &Fault) -> v1::Fault {
    use v1::fault_abort::Status;
    v1::Fault {
        policy: fault.policy.to_string(),
        matches: fault.matches.iter().map(match_to_wire).collect(),
        delay: fault.delay.map(|delay| v1::FaultDelay {
            time_ms: millis(delay.time),
            millionths: delay.share.as_millionths(),
        }),
        abort: fault.abort.map(|abort| v1::FaultAbort {
            status: Some(match abort.status {
                AbortStatus::Http(status) => Status::Http(u32::from(status.as_u16())),
                AbortStatus::Grpc(status) => Status::Grpc(u32::from(status)),
            }),
            millionths: abort.share.as_millionths(),
        }),
    }
}

pub(super) fn fault_from_wire(wire: &v1::Fault) -> Result<Fault, FieldError> {
    if wire.matches.is_empty() {
        return Err(FieldError::at("matches", "is empty"));
    }
    let delay = wire.delay.as_ref().map(|delay| {
        Ok(FaultDelay {
            time: Duration::from_millis(delay.time_ms),
            share: share(delay.millionths)?,
        })
    });
    let delay = delay
        .transpose()
        .map_err(|error: FieldError| error.within("delay"))?;
    let abort = wire.abort.as_ref().map(abort_from_wire).transpose();
    let abort = abort.map_err(|error| error.within("abort"))?;
    let matches = items("matches", &wire.matches, match_from_wire)?;
    Fault::new(&wire.policy, matches, delay, abort)
}

fn abort_from_wire(wire: &v1::FaultAbort) -> Result<FaultAbort, FieldError> {
    use v1::fault_abort::Status;
    let bad = |status: u32| FieldError::at("status", format!("{status} is no status"));
    let status = match wire.status {
        Some(Status::Http(status)) => {
            let code = u16::try_from(status).ok();
            let code = code.and_then(|code| StatusCode::from_u16(code).ok());
            AbortStatus::Http(code.ok_or_else(|| bad(status))?)
        }
        Some(Status::Grpc(status)) => AbortStatus::Grpc(u8::try_from(status).map_err(|_| bad(status))?),
        None => return Err(FieldError::at("status", "is missing")),
    };
    Ok(FaultAbort {
        status,
        share: share(wire.millionths)?,
    })
}

fn share(millionths: u32) -> Result<Share, FieldError> {
    Share::millionths(millionths).map_err(|error| error.within("millionths"))
}
