//! Everything that runs beside the caller, so that a shutdown can wait for it and then cut it off.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

/// The tasks of one control plane. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// Asks every task to end by itself.
    stopping: CancellationToken,
    /// Drops every task where it stands.
    cut_off: CancellationToken,
}

impl Tasks {
    /// Runs a task until it ends or is cut off.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut_off = self.cut_off.clone();
        self.tracker.spawn(async move {
            cut_off.run_until_cancelled(task).await;
        });
    }

    /// Ends when every task should.
    pub(crate) fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.stopping.cancelled()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Asks every task to end, waits, and cuts off those that have not. Nothing runs afterwards. False where
    /// something had to be cut off.
    pub(crate) async fn stop(&self, within: Duration) -> bool {
        self.stopping.cancel();
        self.tracker.close();
        let in_time = tokio::time::timeout(within, self.tracker.wait()).await.is_ok();
        self.cut_off.cancel();
        self.tracker.wait().await;
        in_time
    }

    /// Cuts everything off without waiting.
    pub(crate) fn abandon(&self) {
        self.stopping.cancel();
        self.cut_off.cancel();
    }
}

/// The tasks of HTTP/2 connections.
impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}
