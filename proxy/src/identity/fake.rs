//! A control plane for tests: the generated services over real TLS, doing what the test says.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use certs::{Authority, ClientAuth, Identity, IdentityCell, PrivateKey};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use model::{SpiffeId, TrustDomain};
use proto::v1;
use proto::v1::configuration_server::{Configuration, ConfigurationServer};
use proto::v1::identity_server::{Identity as IdentityService, IdentityServer};
use proto::v1::proxy_message::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::{ControlPlaneAddress, JoinToken};

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event)
        .await
        .expect("it happens in time")
}

pub(crate) fn workload() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/checkout"
        .parse()
        .expect("valid")
}

/// What the Identity service answers.
pub(crate) struct Answers {
    pub(crate) issuer: Arc<Authority>,
    pub(crate) id: SpiffeId,
    /// How long ago certificates were issued; they live an hour.
    pub(crate) issued_ago: Duration,
    /// Given once each, before any certificate.
    pub(crate) failures: Vec<Status>,
}

/// Calls so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls {
    pub(crate) tokens: Vec<String>,
    pub(crate) requests: Vec<Vec<u8>>,
    pub(crate) renewals: usize,
}

pub(crate) struct FakeControlPlane {
    pub(crate) address: ControlPlaneAddress,
    pub(crate) authority: Arc<Authority>,
    pub(crate) answers: Arc<Mutex<Answers>>,
    pub(crate) calls: watch::Receiver<Calls>,
    streams: mpsc::Receiver<ProxyStream>,
    listening: AbortHandle,
}

/// One config stream, as the control plane sees it.
pub(crate) struct ProxyStream {
    pub(crate) from_proxy: Streaming<v1::ProxyMessage>,
    pub(crate) to_proxy: mpsc::Sender<Result<v1::Update, Status>>,
}

impl ProxyStream {
    pub(crate) async fn read(&mut self) -> Message {
        let message = soon(self.from_proxy.message())
            .await
            .expect("no error")
            .expect("a message");
        message.message.expect("not empty")
    }

    pub(crate) async fn hello(&mut self) -> v1::Hello {
        match self.read().await {
            Message::Hello(hello) => hello,
            other => panic!("{other:?} is not a Hello"),
        }
    }

    pub(crate) async fn send(&self, update: v1::Update) {
        self.to_proxy.send(Ok(update)).await.expect("the proxy reads");
    }
}

impl FakeControlPlane {
    pub(crate) async fn start() -> Self {
        let day = Duration::from_secs(24 * 3600);
        let domain: TrustDomain = workload().trust_domain;
        let authority = Authority::generate(&domain, SystemTime::now() - day).expect("made");
        let authority = Arc::new(authority);
        let answers = Answers {
            issuer: authority.clone(),
            id: workload(),
            issued_ago: Duration::ZERO,
            failures: Vec::new(),
        };
        let answers = Arc::new(Mutex::new(answers));
        let (calls, seen) = watch::channel(Calls::default());
        let (new_streams, streams) = mpsc::channel(16);
        let service = Service {
            answers: answers.clone(),
            calls: Arc::new(calls),
            streams: new_streams,
        };
        let routes = Routes::new(IdentityServer::new(service.clone()))
            .add_service(ConfigurationServer::new(service))
            .prepare();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener
            .local_addr()
            .expect("bound")
            .to_string()
            .parse()
            .expect("valid");
        let listening = tokio::spawn(accept(listener, own_cell(&authority), routes)).abort_handle();
        Self {
            address,
            authority,
            answers,
            calls: seen,
            streams,
            listening,
        }
    }

    pub(crate) fn token(&self) -> JoinToken {
        token([7; 32], self.authority.root_hash())
    }

    /// A cell for a workload that has joined.
    pub(crate) fn workload_cell(&self) -> IdentityCell {
        let bundle = self.authority.bundle();
        IdentityCell::with(identity(&self.authority, &workload(), SystemTime::now()), bundle)
    }

    pub(crate) async fn next_stream(&mut self) -> ProxyStream {
        soon(self.streams.recv()).await.expect("the server runs")
    }

    pub(crate) fn answer(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.answers.lock().expect("not poisoned"));
    }
}

impl Drop for FakeControlPlane {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

pub(crate) fn token(secret: [u8; 32], root_hash: [u8; 32]) -> JoinToken {
    let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([secret, root_hash].concat());
    JoinToken::parse(&format!("weft-join.{body}")).expect("valid")
}

/// An identity that was issued at `at` for an hour.
pub(crate) fn identity(authority: &Authority, id: &SpiffeId, at: SystemTime) -> Identity {
    let key = PrivateKey::generate().expect("made");
    let hour = Duration::from_secs(3600);
    let issued = authority
        .issue(&key.csr().expect("made"), id, hour, at)
        .expect("issued");
    Identity::new(key, issued.chain, &authority.bundle(), at).expect("it fits")
}

fn own_cell(authority: &Authority) -> IdentityCell {
    let bundle = authority.bundle();
    let id = SpiffeId::control_plane(authority.trust_domain());
    let own = identity(authority, &id, SystemTime::now())
        .presenting_root(&bundle)
        .expect("its root");
    IdentityCell::with(own, bundle)
}

async fn accept(listener: TcpListener, cell: IdentityCell, routes: Routes) {
    let tls = certs::server_config(&cell, super::ALPN, ClientAuth::Optional).expect("valid");
    let acceptor = TlsAcceptor::from(tls);
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, routes) = (acceptor.clone(), routes.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = TowerToHyperService::new(routes);
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[derive(Clone)]
struct Service {
    answers: Arc<Mutex<Answers>>,
    calls: Arc<watch::Sender<Calls>>,
    streams: mpsc::Sender<ProxyStream>,
}

impl Service {
    fn issue(&self, csr: &[u8]) -> Result<Response<v1::IssuedCertificate>, Status> {
        let mut answers = self.answers.lock().expect("not poisoned");
        if let Some(failure) = answers.failures.pop() {
            return Err(failure);
        }
        let at = SystemTime::now() - answers.issued_ago;
        let issued = answers
            .issuer
            .issue(csr, &answers.id, Duration::from_secs(3600), at);
        let issued = issued.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let bundle = answers.issuer.bundle();
        let seconds = |at: SystemTime| {
            at.duration_since(SystemTime::UNIX_EPOCH)
                .expect("after 1970")
                .as_secs()
        };
        Ok(Response::new(v1::IssuedCertificate {
            chain: issued.chain.iter().map(|der| der.to_vec()).collect(),
            trust_bundle: bundle.roots().iter().map(|der| der.to_vec()).collect(),
            spiffe_id: answers.id.to_string(),
            not_before: seconds(issued.not_before) as i64,
            not_after: seconds(issued.not_after) as i64,
            mesh_domain: "mesh.test".to_owned(),
        }))
    }
}

#[tonic::async_trait]
impl IdentityService for Service {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::IssuedCertificate>, Status> {
        let request = request.into_inner();
        let answer = self.issue(&request.csr);
        self.calls.send_modify(|calls| {
            calls.tokens.push(request.token);
            calls.requests.push(request.csr);
        });
        answer
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::IssuedCertificate>, Status> {
        let answer = self.issue(&request.into_inner().csr);
        self.calls.send_modify(|calls| calls.renewals += 1);
        answer
    }
}

#[tonic::async_trait]
impl Configuration for Service {
    type StreamStream = ReceiverStream<Result<v1::Update, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (to_proxy, updates) = mpsc::channel(16);
        let stream = ProxyStream {
            from_proxy: request.into_inner(),
            to_proxy,
        };
        self.streams
            .send(stream)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(updates)))
    }
}
