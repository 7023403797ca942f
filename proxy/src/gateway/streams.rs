//! Bytes that a gateway carries without looking into them.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::plan::Plan;
use crate::leg::Leg;
use crate::tcp;
use crate::worker::Worker;

/// Carries a connection to a backend of the rule of this listener that fits; `first` was already read from it. Where none
/// does, or no backend can be reached, it ends, and nothing is said on it.
pub(super) async fn carry(
    worker: &Worker,
    plan: Arc<Plan>,
    listener: Option<usize>,
    sni: Option<&str>,
    source: IpAddr,
    mut client: Leg,
    first: BytesMut,
) {
    let opened = async {
        let target = tcp::choose(worker, plan.stream_rules(listener), sni)?;
        let is_tls = listener.is_some_and(|listener| plan.passes_tls(listener));
        tcp::open(worker, &plan.snapshot, target, source, is_tls).await
    };
    let opened = opened.await;
    // A long connection does not hold what was in force when it began.
    drop(plan);
    match opened {
        Ok(upstream) => {
            tcp::carry(client, first, upstream, worker.limits.idle_timeout).await;
        }
        Err(reason) => {
            tracing::debug!(
                ?sni,
                reason = reason.detail(),
                "closed: no connection to a backend"
            );
            // A client that has gone misses it.
            let _ = client.shutdown().await;
        }
    }
}
