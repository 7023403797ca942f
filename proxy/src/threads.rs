//! The data-plane threads: one `current_thread` runtime each. A new connection goes to the least loaded one.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::connection::{self, Accepted};
use crate::gateway::ports::Opened;
use crate::listener::Listener;
use crate::worker::{Shared, Worker};

/// How often a worker looks for connections that were not used for a while, at least and at most.
const SWEEP_INTERVAL: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(15)];
/// Connections handed to a worker that it has not taken up yet.
const HANDOVER_QUEUE: usize = 1024;

type Handover = Accepted<std::net::TcpStream>;

/// All workers as each of them sees them.
type Queues = Arc<[WorkerQueue]>;

struct WorkerQueue {
    send: mpsc::Sender<Handover>,
    /// Connections that it serves.
    open: AtomicUsize,
}

/// Starts `count` threads, the first of which accepts, on `listeners` and on whatever is `opened` later. Each ends when the proxy drains and its connections have
/// ended, or the drain timeout is over.
pub(crate) fn start(
    shared: &Arc<Shared>,
    count: usize,
    listeners: Vec<Listener>,
    opened: mpsc::UnboundedReceiver<Opened>,
) -> std::io::Result<Vec<std::thread::JoinHandle<()>>> {
    let queue = |_| {
        let (send, receive) = mpsc::channel(HANDOVER_QUEUE);
        let open = AtomicUsize::new(0);
        (WorkerQueue { send, open }, receive)
    };
    let (queues, receivers): (Vec<_>, Vec<_>) = (0..count.max(1)).map(queue).unzip();
    let queues: Queues = queues.into();
    let mut doors = Some((listeners, opened));
    let mut threads = Vec::new();
    for (index, receive) in receivers.into_iter().enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (shared, queues) = (shared.clone(), queues.clone());
        let doors = doors.take();
        let thread = std::thread::Builder::new()
            .name(format!("weft-worker-{index}"))
            .spawn(move || run(&runtime, shared, (queues, index), receive, doors))?;
        threads.push(thread);
    }
    Ok(threads)
}

/// One worker among all.
#[derive(Clone)]
pub(crate) struct Seat {
    worker: Rc<Worker>,
    queues: Queues,
    index: usize,
}

impl Seat {
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Gives a connection to the worker with the fewest open ones; closes it where that has no time.
    pub(crate) fn seat(&self, accepted: Accepted) {
        let least = self
            .queues
            .iter()
            .enumerate()
            .min_by_key(|(index, queue)| (queue.open.load(Ordering::Relaxed), *index != self.index));
        let Some((index, queue)) = least else { return };
        queue.open.fetch_add(1, Ordering::Relaxed);
        if index == self.index {
            return self.serve(accepted);
        }
        let sent = accepted.leave().map(|connection| queue.send.try_send(connection));
        if !matches!(sent, Some(Ok(()))) {
            queue.open.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!("a connection was closed: its worker has no time");
        }
    }

    /// Serves a connection that is counted already.
    fn serve(&self, accepted: Accepted) {
        let (worker, here) = (self.worker.clone(), self.clone());
        self.worker.tasks.spawn_local(async move {
            connection::serve(worker, accepted).await;
            here.gone();
        });
    }

    fn gone(&self) {
        if let Some(queue) = self.queues.get(self.index) {
            queue.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Often enough for the idle timeout to be kept to an eighth.
pub(crate) fn sweep_interval(idle_timeout: Duration) -> Duration {
    let [least, most] = SWEEP_INTERVAL;
    (idle_timeout / 8).clamp(least, most)
}

/// Takes up ports as they are opened.
async fn open(here: Seat, mut opened: mpsc::UnboundedReceiver<Opened>) {
    while let Some(port) = opened.recv().await {
        match port {
            Opened::Tcp(listener) => tokio::task::spawn_local(listener.run(here.clone())),
            Opened::Udp(listener) => tokio::task::spawn_local(listener.run(here.worker().clone())),
        };
    }
}

fn run(
    runtime: &tokio::runtime::Runtime,
    shared: Arc<Shared>,
    (queues, index): (Queues, usize),
    mut handed_over: mpsc::Receiver<Handover>,
    doors: Option<(Vec<Listener>, mpsc::UnboundedReceiver<Opened>)>,
) {
    let local = tokio::task::LocalSet::new();
    local.block_on(runtime, async move {
        let worker = Worker::new(shared);
        let here = Seat {
            worker: worker.clone(),
            queues,
            index,
        };
        if let Some((listeners, opened)) = doors {
            for listener in listeners {
                tokio::task::spawn_local(listener.run(here.clone()));
            }
            tokio::task::spawn_local(open(here.clone(), opened));
        }
        let draining = worker.shared.draining.clone();
        let mut changes = worker.shared.config.changes();
        let mut sweep = tokio::time::interval(sweep_interval(worker.limits.idle_timeout));
        loop {
            tokio::select! {
                Some(connection) = handed_over.recv() => match connection.arrive() {
                    Some(accepted) => here.serve(accepted),
                    None => here.gone(),
                },
                _ = sweep.tick() => worker.sweep(),
                Ok(()) = changes.changed() => worker.take_up(),
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
