//! Upgrades (RFC 9110 section 7.8): after a 101 both connections are one tunnel.

use std::sync::Arc;

use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::guard::GuardState;
use crate::tcp;
use crate::worker::Worker;

/// Joins the two connections if the upstream agreed to what the client asked; tells the client's guard either way.
pub(crate) fn splice(
    worker: &Worker,
    response: &mut Response<Incoming>,
    client: Option<OnUpgrade>,
    guard: Option<Arc<GuardState>>,
) -> bool {
    let agreed = response.status() == StatusCode::SWITCHING_PROTOCOLS && client.is_some();
    if let Some(guard) = guard {
        guard.upgrade_decided(agreed);
    }
    let (true, Some(client)) = (agreed, client) else {
        return false;
    };
    let upstream = hyper::upgrade::on(response);
    let idle = worker.limits.idle_timeout;
    worker.tasks.spawn_local(async move {
        match tokio::try_join!(client, upstream) {
            Ok((client, upstream)) => {
                tcp::tunnel(TokioIo::new(client), TokioIo::new(upstream), idle).await;
            }
            Err(error) => tracing::debug!(%error, "an upgrade was not carried out"),
        }
    });
    true
}
