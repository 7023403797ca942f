//! One stream per proxy, by which it is told what it must know and says what it uses.

mod fleet;
mod gateway;
mod held;
mod session;
mod shadow;

use std::sync::Arc;
use std::time::Duration;

use proto::encoded;
use proto::encoded::configuration_server::Configuration;
use proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) use fleet::{Fleet, ProxyRecord};

use self::session::Session;
use crate::callers;
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::settings::Limits;
use crate::tasks::Tasks;

/// One update is out at a time; the other place is for the status that ends the stream.
const UPDATE_QUEUE: usize = 2;

/// Serves proxies.
pub(crate) struct ConfigService {
    pub(crate) shared: Arc<Shared>,
}

/// What all streams share.
pub(crate) struct Shared {
    pub(crate) mesh: Mesh,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    pub(crate) tasks: Tasks,
}

#[tonic::async_trait]
impl Configuration for ConfigService {
    type StreamStream = ReceiverStream<Result<encoded::Update, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let peer = callers::workload(&request)?;
        let (updates, sent) = mpsc::channel(UPDATE_QUEUE);
        let shared = self.shared.clone();
        let messages = request.into_inner();
        self.shared.tasks.spawn(async move {
            if let Err(status) = Session::run(&shared, peer, messages, &updates).await {
                tracing::info!(why = %status.message(), code = ?status.code(), "a config stream ended");
                // The proxy may be gone, or not reading: then it cannot be told.
                let _ = updates.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(sent)))
    }
}

impl Shared {
    /// How long a workload stays an endpoint that is expected back.
    fn grace(&self) -> Duration {
        self.limits.restart_grace
    }
}
