//! The operator's end of the control plane, as `weft` has it: gRPC over mTLS with `operator.pem`.

use std::path::Path;
use std::time::SystemTime;

use certs::{Identity, IdentityCell, TrustBundle};
use hyper_util::rt::TokioIo;
use model::SpiffeId;
use proto::v1::operator_client::OperatorClient;
use proto::v1::{
    ApplyRequest, ApplyResponse, AwaitRequest, AwaitResponse, CreateTokenRequest, DeleteRequest, GetRequest,
    GetResponse, ObjectName, ProxyStatus, SourceFile, StatusRequest, StatusResponse,
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::BoxError;
use crate::wait::{DEADLINE, eventually, within};

/// An operator with the credential of a data folder.
#[derive(Clone)]
pub struct Operator {
    pub client: OperatorClient<Channel>,
    pub bundle: TrustBundle,
}

impl Operator {
    /// Connects to the control plane whose data folder this is.
    pub async fn connect(data: &Path) -> Result<Self, BoxError> {
        let address = std::fs::read_to_string(data.join("address"))?.trim().to_owned();
        let bundle = TrustBundle::from_pem(&std::fs::read_to_string(data.join("bundle.pem"))?)?;
        let credential = std::fs::read_to_string(data.join("operator.pem"))?;
        let identity = Identity::from_pem(&credential, &bundle, SystemTime::now())?;
        let expected = SpiffeId::control_plane(bundle.trust_domain());
        let cell = IdentityCell::with(identity, bundle.clone());
        let channel = channel(&address, certs::client_config(&cell, &[b"h2"], &expected)?).await?;
        Ok(Self {
            client: OperatorClient::new(channel).max_decoding_message_size(64 << 20),
            bundle,
        })
    }

    /// Applies YAML; the answer may hold errors.
    pub async fn try_apply(&self, yaml: &str) -> ApplyResponse {
        self.send(yaml, false).await
    }

    /// Applies YAML without what of it cannot be followed, and returns the generation in which it is in force.
    pub async fn apply_in_part(&self, yaml: &str) -> u64 {
        let response = self.send(yaml, true).await;
        assert!(
            response.errors.is_empty(),
            "refused: {:#?}\n{yaml}",
            response.errors
        );
        response.generation
    }

    async fn send(&self, yaml: &str, in_part: bool) -> ApplyResponse {
        let files = vec![SourceFile {
            name: "test.yaml".to_owned(),
            text: yaml.to_owned(),
        }];
        let request = ApplyRequest {
            files,
            dry_run: false,
            in_part,
        };
        within("apply", self.client.clone().apply(request))
            .await
            .expect("apply is answered")
            .into_inner()
    }

    /// Applies YAML, and returns the generation in which it is in force.
    pub async fn apply(&self, yaml: &str) -> u64 {
        let response = self.try_apply(yaml).await;
        assert!(
            response.errors.is_empty(),
            "refused: {:#?}\n{yaml}",
            response.errors
        );
        response.generation
    }

    pub async fn delete(&self, kind: &str, name: &str) -> u64 {
        let name = ObjectName {
            kind: kind.to_owned(),
            namespace: "default".to_owned(),
            name: name.to_owned(),
        };
        let request = DeleteRequest { names: vec![name] };
        let response = within("delete", self.client.clone().delete(request))
            .await
            .expect("deleted")
            .into_inner();
        assert!(
            response.not_found.is_empty(),
            "not found: {:?}",
            response.not_found
        );
        response.generation
    }

    pub async fn get(&self, kind: &str, name: &str) -> GetResponse {
        let request = GetRequest {
            kind: kind.to_owned(),
            namespace: "default".to_owned(),
            name: name.to_owned(),
            secrets: false,
        };
        within("get", self.client.clone().get(request))
            .await
            .expect("get is answered")
            .into_inner()
    }

    pub async fn status(&self) -> StatusResponse {
        within("status", self.client.clone().status(StatusRequest {}))
            .await
            .expect("a status")
            .into_inner()
    }

    /// What the control plane says about one workload, if it knows it.
    pub async fn proxy(&self, workload: &str) -> Option<ProxyStatus> {
        self.status()
            .await
            .proxies
            .into_iter()
            .find(|proxy| proxy.workload_id == workload)
    }

    /// One `Await`.
    pub async fn reached(&self, generation: u64) -> AwaitResponse {
        let timeout_ms = u64::try_from(DEADLINE.as_millis()).expect("not that long");
        let request = AwaitRequest {
            generation,
            timeout_ms,
        };
        within("await", self.client.clone().r#await(request))
            .await
            .expect("await is answered")
            .into_inner()
    }

    /// Waits until every connected sidecar uses `generation`.
    pub async fn in_use(&self, generation: u64) {
        let response = self.reached(generation).await;
        assert!(
            response.reached,
            "generation {generation} is not in use: {:#?}",
            response.behind
        );
    }

    /// Waits until every connected sidecar uses what is in force now.
    pub async fn settled(&self) {
        self.in_use(self.status().await.generation).await;
    }

    /// Waits until a workload's status is as `wanted` says.
    pub async fn until(&self, workload: &str, wanted: impl Fn(Option<&ProxyStatus>) -> bool) {
        eventually(&format!("the wanted status of {workload}"), || async {
            wanted(self.proxy(workload).await.as_ref()).then_some(())
        })
        .await;
    }

    /// A join token.
    pub async fn token(&self, namespace: &str, service_account: &str) -> String {
        let request = CreateTokenRequest {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            ttl_seconds: 0,
        };
        within("token", self.client.clone().create_token(request))
            .await
            .expect("a token")
            .into_inner()
            .token
    }
}

/// A gRPC channel over TLS with these settings; whom they accept is the other side.
pub(crate) async fn channel(
    address: &str,
    tls: std::sync::Arc<rustls::ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let (address, connector) = (address.to_owned(), TlsConnector::from(tls));
    let dial = tower::service_fn(move |_| {
        let (address, connector) = (address.clone(), connector.clone());
        async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::IpAddress(tcp.peer_addr()?.ip().into());
            connector.connect(name, tcp).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://control-plane")
        .connect_with_connector(dial)
        .await
}
