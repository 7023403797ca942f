//! The config stream: one per proxy, for as long as it runs. What a proxy lacks is sent; what it uses is known.

mod encode;
mod held;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::WorkloadId;
use proto::v1;
use proto::v1::configuration_server::Configuration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use self::encode::Encoder;
use self::session::Session;
use crate::callers;
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::settings::Limits;

/// Updates on their way to a proxy: one is sent at a time, the rest waits as state, not as messages.
const UPDATE_QUEUE: usize = 1;

/// Serves config streams.
pub(crate) struct ConfigService {
    shared: Arc<Shared>,
}

/// What all streams have in common.
struct Shared {
    mesh: Arc<Mesh>,
    encoder: Encoder,
    metrics: Arc<Metrics>,
    limits: Limits,
    stopping: CancellationToken,
    sessions: AtomicU64,
}

impl ConfigService {
    pub(crate) fn new(
        mesh: Arc<Mesh>,
        metrics: Arc<Metrics>,
        limits: Limits,
        stopping: CancellationToken,
    ) -> Self {
        let sessions = AtomicU64::new(1);
        let shared = Shared {
            mesh,
            encoder: Encoder::default(),
            metrics,
            limits,
            stopping,
            sessions,
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

#[tonic::async_trait]
impl Configuration for ConfigService {
    type StreamStream = ReceiverStream<Result<v1::Update, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let peer = callers::workload(&request)?;
        let (updates, sent) = mpsc::channel(UPDATE_QUEUE);
        let shared = self.shared.clone();
        let messages = request.into_inner();
        tokio::spawn(async move {
            if let Err(status) = Session::run(&shared, peer, messages, &updates).await {
                tracing::info!(why = %status.message(), code = ?status.code(), "a config stream ended");
                // The proxy may be gone, and then has nothing to be told.
                let _ = updates.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(sent)))
    }
}

impl Shared {
    fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a newer stream of the same workload has taken over.
    fn is_replaced(&self, id: &WorkloadId, session: u64) -> bool {
        self.mesh
            .with_proxies_read(|proxies| proxies.get(id).is_none_or(|record| record.session != session))
    }
}
