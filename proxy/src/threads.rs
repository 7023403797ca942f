//! The data-plane threads: one `current_thread` runtime each. A new connection goes to the least loaded one.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::connection::{self, Handover};
use crate::worker::{Shared, Worker};

/// How often a worker looks for connections that were not used for a while, at least and at most.
const SWEEP_INTERVAL: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(15)];
/// Connections handed to a worker that it has not taken up yet.
const HANDOVER_QUEUE: usize = 1024;

/// The other threads' side of all workers: hands each new connection to the least loaded one.
#[derive(Clone)]
pub(crate) struct Workers {
    queues: Arc<Vec<WorkerQueue>>,
}

struct WorkerQueue {
    send: mpsc::Sender<Handover>,
    open: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts `count` threads. Each ends when `draining` is cancelled and its connections have ended, or the
    /// drain timeout is over.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        count: usize,
    ) -> std::io::Result<(Self, Vec<std::thread::JoinHandle<()>>)> {
        let mut queues = Vec::new();
        let mut threads = Vec::new();
        for index in 0..count.max(1) {
            let (send, receive) = mpsc::channel(HANDOVER_QUEUE);
            let open = Arc::new(AtomicUsize::new(0));
            let (shared, counter) = (shared.clone(), open.clone());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let thread = std::thread::Builder::new()
                .name(format!("weft-worker-{index}"))
                .spawn(move || run(&runtime, shared, receive, counter))?;
            queues.push(WorkerQueue { send, open });
            threads.push(thread);
        }
        Ok((
            Self {
                queues: Arc::new(queues),
            },
            threads,
        ))
    }

    /// Hands a connection to the worker with the fewest open ones; closes it where every queue is full.
    pub(crate) fn hand_over(&self, connection: Handover) {
        let least = self
            .queues
            .iter()
            .min_by_key(|queue| queue.open.load(Ordering::Relaxed));
        if let Some(queue) = least {
            queue.open.fetch_add(1, Ordering::Relaxed);
            if queue.send.try_send(connection).is_err() {
                queue.open.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!("a connection was closed: its worker has no time");
            }
        }
    }
}

/// Often enough for the idle timeout to be kept to an eighth.
fn sweep_interval(idle_timeout: Duration) -> Duration {
    let [least, most] = SWEEP_INTERVAL;
    (idle_timeout / 8).clamp(least, most)
}

fn run(
    runtime: &tokio::runtime::Runtime,
    shared: Arc<Shared>,
    mut connections: mpsc::Receiver<Handover>,
    open: Arc<AtomicUsize>,
) {
    let local = tokio::task::LocalSet::new();
    local.block_on(runtime, async move {
        let worker = Worker::new(shared);
        let draining = worker.shared.draining.clone();
        let mut sweep = tokio::time::interval(sweep_interval(worker.limits.idle_timeout));
        loop {
            tokio::select! {
                accepted = connections.recv() => match accepted {
                    Some(accepted) => serve(&worker, accepted, open.clone()),
                    None => break,
                },
                _ = sweep.tick() => worker.sweep(),
                () = draining.cancelled() => break,
            }
        }
        worker.connections.close();
        worker.tasks.close();
        if tokio::time::timeout(worker.limits.drain_timeout, worker.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                open = worker.tasks.len(),
                "connections were cut off at the end of the drain timeout"
            );
        }
    });
}

fn serve(worker: &Rc<Worker>, accepted: Handover, open: Arc<AtomicUsize>) {
    let (tasks, worker) = (worker.tasks.clone(), worker.clone());
    tasks.spawn_local(async move {
        connection::serve(worker, accepted).await;
        open.fetch_sub(1, Ordering::Relaxed);
    });
}
