//! A whole control plane on free ports, judged through its own gRPC over TLS.

mod gateway;
mod hostile;
mod identity;
mod operator;
mod restart;
mod shadow;
mod status;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::{CertificateDer, Identity, IdentityCell, PrivateKey, TrustBundle};
use hyper_util::rt::TokioIo;
use model::{Resource, ServiceName, SpiffeId};
use proto::v1;
use proto::v1::configuration_client::ConfigurationClient;
use proto::v1::identity_client::IdentityClient;
use proto::v1::operator_client::OperatorClient;
use proto::v1::proxy_message::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::{ControlPlane, Running, Settings, StartError};

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);

const CART: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, ports: [{port: 80}]}
";

async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event)
        .await
        .expect("it happens in time")
}

/// A control plane with a data folder of its own, and a configuration folder.
struct Plane {
    folder: TempDir,
    settings: Settings,
    running: Option<Running>,
}

impl Plane {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            data: folder.path().join("data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..Settings::default()
        };
        change(&mut settings);
        let running = Some(soon(ControlPlane::start(settings.clone())).await.unwrap());
        Self {
            folder,
            settings,
            running,
        }
    }

    /// One that reads a folder with this file in it.
    async fn with_file(name: &str, text: &str) -> Self {
        let mut plane = Self::start().await;
        plane.stop().await;
        plane.settings.config = Some(plane.config());
        std::fs::create_dir(plane.config()).unwrap();
        plane.write(name, text);
        plane.start_again().await.unwrap();
        plane
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("mesh")
    }

    fn data(&self, name: &str) -> PathBuf {
        self.settings.data.join(name)
    }

    /// Writes a file of the configuration folder, as an editor does.
    fn write(&self, name: &str, text: &str) {
        let fresh = self.folder.path().join("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, self.config().join(name)).unwrap();
    }

    async fn stop(&mut self) {
        soon(self.running.take().unwrap().shutdown()).await;
    }

    async fn start_again(&mut self) -> Result<(), StartError> {
        self.running = Some(soon(ControlPlane::start(self.settings.clone())).await?);
        Ok(())
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    async fn token(&self, account: &str) -> String {
        self.running().create_token("shop", account).await.unwrap()
    }

    fn bundle(&self) -> TrustBundle {
        TrustBundle::from_pem(&std::fs::read_to_string(self.data("bundle.pem")).unwrap()).unwrap()
    }

    /// A connection of whoever holds this identity.
    async fn channel(&self, cell: &IdentityCell) -> Channel {
        let expected = SpiffeId::control_plane(self.bundle().trust_domain());
        connect(self, certs::client_config(cell, &[b"h2"], &expected).unwrap()).await
    }

    /// A connection without a certificate.
    async fn anonymous(&self) -> Channel {
        let root = self.bundle().roots()[0].clone();
        let hash = <sha2::Sha256 as sha2::Digest>::digest(&root).into();
        connect(self, certs::first_contact_config(hash).unwrap()).await
    }

    async fn operator(&self) -> OperatorClient<Channel> {
        let pem = std::fs::read_to_string(self.data("operator.pem")).unwrap();
        let identity = Identity::from_pem(&pem, &self.bundle(), SystemTime::now()).unwrap();
        let cell = IdentityCell::with(identity, self.bundle());
        OperatorClient::new(self.channel(&cell).await)
    }

    async fn apply(&self, text: &str) -> v1::ApplyResponse {
        let file = v1::SourceFile {
            name: "test.yaml".to_owned(),
            text: text.to_owned(),
        };
        let request = v1::ApplyRequest {
            files: vec![file],
            dry_run: false,
            in_part: false,
        };
        soon(self.operator().await.apply(request))
            .await
            .unwrap()
            .into_inner()
    }

    async fn status(&self) -> v1::StatusResponse {
        soon(self.operator().await.status(v1::StatusRequest {}))
            .await
            .unwrap()
            .into_inner()
    }

    async fn arrival(&self, generation: u64) -> v1::AwaitResponse {
        let request = v1::AwaitRequest {
            generation,
            timeout_ms: 600_000,
        };
        soon(self.operator().await.r#await(request))
            .await
            .unwrap()
            .into_inner()
    }

    async fn join(&self, account: &str) -> IdentityCell {
        let (key, token) = (PrivateKey::generate().unwrap(), self.token(account).await);
        let answer = join(self, &token, key.csr().unwrap()).await.unwrap();
        cell(key, answer)
    }

    /// A workload of this name, with the label `app`, that is ready; and its first update, which is acknowledged.
    async fn workload(&self, name: &str) -> Proxy {
        let cell = self.join(name).await;
        let mut proxy = self.stream(&cell, hello(name)).await.unwrap();
        proxy.used().await;
        proxy
    }

    async fn stream(&self, cell: &IdentityCell, hello: v1::Hello) -> Result<Proxy, Status> {
        Proxy::open(self.channel(cell).await, Message::Hello(hello)).await
    }
}

async fn connect(plane: &Plane, tls: Arc<ClientConfig>) -> Channel {
    let (address, connector) = (plane.running().grpc_addr(), TlsConnector::from(tls));
    let dial = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::IpAddress(address.ip().into());
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    soon(Endpoint::from_static("http://control-plane").connect_with_connector(dial))
        .await
        .unwrap()
}

async fn join(plane: &Plane, token: &str, csr: Vec<u8>) -> Result<v1::IssuedCertificate, Status> {
    let request = v1::JoinRequest {
        token: token.to_owned(),
        csr,
    };
    let mut client = IdentityClient::new(plane.anonymous().await);
    soon(client.join(request)).await.map(tonic::Response::into_inner)
}

fn cell(key: PrivateKey, answer: v1::IssuedCertificate) -> IdentityCell {
    let der = |list: Vec<Vec<u8>>| list.into_iter().map(CertificateDer::from).collect();
    let id: SpiffeId = answer.spiffe_id.parse().unwrap();
    let bundle = TrustBundle::from_der(id.trust_domain, der(answer.trust_bundle)).unwrap();
    let identity = Identity::new(key, der(answer.chain), &bundle, SystemTime::now()).unwrap();
    IdentityCell::with(identity, bundle)
}

fn hello(name: &str) -> v1::Hello {
    v1::Hello {
        workload_id: format!("{name}-1"),
        labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        inbound: "10.1.2.3:15008".to_owned(),
        app_ports: vec![v1::AppPort {
            name: String::new(),
            address: "127.0.0.1:8080".to_owned(),
        }],
        ready: true,
        proxy_version: "test".to_owned(),
        ..v1::Hello::default()
    }
}

fn service(name: &str) -> ServiceName {
    format!("shop/{name}").parse().unwrap()
}

/// One config stream, as a proxy sees it.
struct Proxy {
    updates: Streaming<v1::Update>,
    messages: mpsc::Sender<v1::ProxyMessage>,
    /// Resource name to version of everything in use.
    versions: BTreeMap<String, String>,
}

impl Proxy {
    async fn open(channel: Channel, first: Message) -> Result<Self, Status> {
        let (messages, outgoing) = mpsc::channel(64);
        messages.try_send(wire(first)).unwrap();
        let mut client = ConfigurationClient::new(channel);
        let updates = soon(client.stream(ReceiverStream::new(outgoing)))
            .await?
            .into_inner();
        Ok(Self {
            updates,
            messages,
            versions: BTreeMap::new(),
        })
    }

    async fn send(&self, message: Message) {
        self.messages.send(wire(message)).await.unwrap();
    }

    async fn subscribe(&self, names: &[&str]) {
        let destinations = names.iter().map(|name| format!("shop/{name}")).collect();
        let forget = Vec::new();
        self.send(Message::Subscribe(v1::Subscribe { destinations, forget }))
            .await;
    }

    /// The next update.
    async fn next(&mut self) -> v1::Update {
        soon(self.updates.message())
            .await
            .unwrap()
            .expect("the stream goes on")
    }

    /// The next update, acknowledged.
    async fn used(&mut self) -> v1::Update {
        let update = self.next().await;
        for resource in &update.changed {
            self.versions
                .insert(resource.name.clone(), resource.version.clone());
        }
        for name in &update.removed {
            self.versions.remove(name);
        }
        self.send(Message::Ack(v1::Ack { nonce: update.nonce })).await;
        update
    }

    async fn refuse(&self, update: &v1::Update, resource: &str) {
        let refuse = v1::Refuse {
            nonce: update.nonce,
            resource: resource.to_owned(),
            field: "ports[0]".to_owned(),
            why: "a test".to_owned(),
        };
        self.send(Message::Refuse(refuse)).await;
    }

    /// Uses updates until the endpoints of a service are these.
    async fn endpoints(&mut self, name: &str, expected: &[&str]) {
        loop {
            let update = self.used().await;
            let ids =
                update.changed.into_iter().find_map(|resource| {
                    match proto::convert::resource_from_wire(resource.resource.unwrap()).unwrap() {
                        Resource::Endpoints(set) if set.service == service(name) => Some(set.endpoints),
                        _ => None,
                    }
                });
            let ids = ids.map(|set| {
                set.workloads()
                    .iter()
                    .map(|endpoint| endpoint.workload.to_string())
                    .collect::<Vec<_>>()
            });
            if ids.is_some_and(|ids| ids == expected) {
                return;
            }
        }
    }

    /// How the stream ends.
    async fn end(&mut self) -> Result<(), Status> {
        loop {
            match soon(self.updates.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    }
}

fn wire(message: Message) -> v1::ProxyMessage {
    v1::ProxyMessage {
        message: Some(message),
    }
}

/// The names of what an update changes.
fn changed(update: &v1::Update) -> BTreeSet<&str> {
    update
        .changed
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}
