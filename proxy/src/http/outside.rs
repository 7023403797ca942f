//! A request to a host outside the mesh: passed on as if the application had made the call itself.

use decision::Reason;
use http::Version;
use http::request::Parts;

use super::answer;
use super::head::Head;
use super::replay::ReplaySource;
use crate::leg::Leg;
use crate::telemetry::Record;
use crate::upstream::{Forwarded, Place, SendFailure, Spoken};
use crate::worker::Worker;

/// The port of a URL of the scheme `http` that names none.
const HTTP_PORT: u16 = 80;

/// Sends a request to the host that it names, in the version in which it came. It is sent once: the mesh has no opinion on
/// such hosts, and another attempt is for the application to make.
pub(super) async fn pass(
    worker: &Worker,
    parts: Parts,
    head: Head,
    body: &ReplaySource,
    record: &mut Record,
) -> Result<Forwarded, Reason> {
    let found = worker
        .outside
        .find(worker, head.authority(&parts), HTTP_PORT)
        .await;
    if !matches!(found, Err(Reason::UnknownService)) {
        record.labels = Some(worker.recorder.outside());
    }
    let addresses = found?;
    let spoken = match parts.version {
        Version::HTTP_2 => Spoken::Http2,
        _ => Spoken::Http1,
    };
    let mut sent = head.upstream_parts(parts, spoken, None)?;

    let (upstream, stream) = worker.outside.reach(worker, &addresses).await?;
    let place = Place::Outside {
        address: upstream.route.address(),
        tls: None,
        shown: None,
    };
    let span = record.attempt(&place, &mut sent.headers);
    let result = upstream
        .send_by(stream.map(Leg::Plain), &sent, body, spoken)
        .await;
    record.attempted(result.is_err(), false);
    match result {
        Ok(mut forwarded) => {
            span.responded(forwarded.parts.status, None, false);
            answer::disown(&mut forwarded.parts.headers);
            Ok(forwarded)
        }
        Err(SendFailure::NotSent(reason) | SendFailure::Broken(reason)) => {
            let reason = body.failure().unwrap_or(reason);
            span.failed(reason, false);
            Err(reason)
        }
    }
}
