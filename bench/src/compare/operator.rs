//! An operator with one kept connection: changes faster than a command could be started for each.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::{Identity, IdentityCell, TrustBundle};
use hyper_util::rt::TokioIo;
use model::SpiffeId;
use proto::v1::operator_client::OperatorClient;
use proto::v1::{ApplyRequest, SourceFile};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::mesh::MeshError;

/// Changes that were asked for and are not answered yet.
const OUT: usize = 64;

/// The operator's end of a control plane, for callers that block.
pub(crate) struct Operator {
    runtime: Runtime,
    client: OperatorClient<Channel>,
}

impl Operator {
    /// Connects to the control plane whose data folder this is.
    pub(crate) fn connect(data: &Path) -> Result<Self, MeshError> {
        let broken = |error: &dyn std::fmt::Display| MeshError::Operator(error.to_string());
        let text = |name: &str| {
            std::fs::read_to_string(data.join(name)).map_err(|source| MeshError::Operator(source.to_string()))
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| broken(&error))?;
        let bundle = TrustBundle::from_pem(&text("bundle.pem")?).map_err(|error| broken(&error))?;
        let identity = Identity::from_pem(&text("operator.pem")?, &bundle, SystemTime::now())
            .map_err(|error| broken(&error))?;
        let expected = SpiffeId::control_plane(bundle.trust_domain());
        let cell = IdentityCell::with(identity, bundle);
        let tls = certs::client_config(&cell, &[b"h2"], &expected).map_err(|error| broken(&error))?;
        let (address, connector) = (text("address")?.trim().to_owned(), TlsConnector::from(tls));
        let dial = tower::service_fn(move |_| {
            let (address, connector) = (address.clone(), connector.clone());
            async move {
                let tcp = TcpStream::connect(&address).await?;
                tcp.set_nodelay(true)?;
                let name = ServerName::IpAddress(tcp.peer_addr()?.ip().into());
                connector.connect(name, tcp).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("http://control-plane");
        let channel = runtime.block_on(endpoint.connect_with_connector(dial));
        let client = OperatorClient::new(channel.map_err(|error| broken(&error))?);
        Ok(Self { runtime, client })
    }

    /// Applies `yaml` of 1, 2, … at `rate` per second until `stop` says so; then once more, of the next number, after
    /// all others were answered. How many those were.
    pub(crate) fn keep_changing(
        &self,
        rate: u32,
        stop: impl Fn() -> bool,
        yaml: impl Fn(u64) -> String,
    ) -> Result<u64, MeshError> {
        self.runtime.block_on(async {
            let mut ticks = interval(Duration::from_secs(1) / rate);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let (out, mut answers) = (Arc::new(Semaphore::new(OUT)), JoinSet::new());
            let mut count = 0;
            while !stop() {
                ticks.tick().await;
                let Ok(permit) = out.clone().acquire_owned().await else {
                    break;
                };
                count += 1;
                let change = apply(self.client.clone(), yaml(count));
                answers.spawn(async move {
                    let answer = change.await;
                    drop(permit);
                    answer
                });
                while let Some(answer) = answers.try_join_next() {
                    answer.map_err(|error| MeshError::Operator(error.to_string()))??;
                }
            }
            while let Some(answer) = answers.join_next().await {
                answer.map_err(|error| MeshError::Operator(error.to_string()))??;
            }
            apply(self.client.clone(), yaml(count + 1)).await?;
            Ok(count + 1)
        })
    }

    /// Applies YAML; returns when it is in force, which is before any sidecar knows.
    pub(crate) fn apply(&self, yaml: String) -> Result<(), MeshError> {
        self.runtime.block_on(apply(self.client.clone(), yaml))
    }
}

async fn apply(mut client: OperatorClient<Channel>, text: String) -> Result<(), MeshError> {
    let files = vec![SourceFile {
        name: "bench.yaml".to_owned(),
        text,
    }];
    let request = ApplyRequest {
        files,
        dry_run: false,
        in_part: false,
    };
    let answer = client.apply(request).await;
    let answer = answer.map_err(|status| MeshError::Operator(status.to_string()))?;
    match answer.into_inner().errors.first() {
        None => Ok(()),
        Some(error) => Err(MeshError::Operator(format!("{}: {}", error.field, error.message))),
    }
}
