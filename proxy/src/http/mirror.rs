//! Copies of requests to another service, whose answers nobody waits for: they delay and fail nothing.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use decision::traffic::split;
use http::header::UPGRADE;
use http::request::Parts;
use model::Snapshot;
use model::filter::{Filter, Fraction, Mirror};
use tokio::sync::oneshot;

use super::aside::Aside;
use super::replay::{ReplaySource, Whole};
use crate::telemetry::Record;
use crate::worker::Worker;

/// Largest answer that is read to its end, in bytes, so that its connection can be used again.
const MAX_READ_BYTES: usize = 64 * 1024;

/// One mirror, made ready.
pub(crate) struct MirrorTo {
    to: Rc<Aside>,
    share: Fraction,
}

/// How a copy ended.
enum Ended {
    Answered,
    Failed,
    /// It was never sent: its body is too large or did not end, or too many others are on their way.
    Abandoned,
}

impl MirrorTo {
    pub(crate) fn of(worker: &Worker, snapshot: &Snapshot, filter: &Filter) -> Option<Self> {
        let Filter::Mirror(Mirror { target, share }) = filter else {
            return None;
        };
        Some(Self {
            to: Rc::new(Aside::new(worker, snapshot, target)),
            share: *share,
        })
    }

    /// Sends a copy, if the dice say so, of a request as it goes to its backend. Its body is copied as it is read by
    /// attempts.
    pub(crate) fn send(&self, worker: &Rc<Worker>, parts: &Parts, body: &ReplaySource, record: &Record) {
        // What follows an upgrade is no request.
        if !split::is_in(self.share, worker.dice()) || parts.headers.contains_key(UPGRADE) {
            return;
        }
        let mut parts = parts.clone();
        record.propagate(&mut parts.headers);
        let (worker, to, body) = (worker.clone(), self.to.clone(), body.copied());
        tokio::task::spawn_local(async move {
            let ended = run(&worker, &to, parts, body).await;
            let counts = &worker.shared.registry.mirrors;
            let cell = match ended {
                Ended::Answered => &counts.answered,
                Ended::Failed => &counts.failed,
                Ended::Abandoned => &counts.abandoned,
            };
            cell.fetch_add(1, Relaxed);
        });
    }
}

async fn run(worker: &Worker, to: &Aside, parts: Parts, body: Option<oneshot::Receiver<Whole>>) -> Ended {
    let whole = match body {
        None => Whole::default(),
        Some(copied) => match copied.await {
            Ok(whole) => whole,
            Err(_) => return Ended::Abandoned,
        },
    };
    let Some(_slot) = Slot::take(&worker.mirrored, worker.limits.mirrored_requests) else {
        return Ended::Abandoned;
    };
    let body = ReplaySource::of(whole);
    let exchange = async {
        let forwarded = to.send(worker, &parts, &body, 1).await?;
        forwarded.answer.collect(MAX_READ_BYTES).await
    };
    match tokio::time::timeout(worker.limits.mirror_timeout, exchange).await {
        Ok(Ok(_)) => Ended::Answered,
        Ok(Err(reason)) => {
            tracing::debug!(target = %to.target, reason = reason.detail(), "a copy was not answered");
            Ended::Failed
        }
        Err(_) => Ended::Failed,
    }
}

/// One of a limited number of places.
struct Slot<'c>(&'c Cell<usize>);

impl<'c> Slot<'c> {
    fn take(taken: &'c Cell<usize>, most: usize) -> Option<Self> {
        (taken.get() < most).then(|| {
            taken.set(taken.get() + 1);
            Self(taken)
        })
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
