//! A data plane alone, on the caller's thread: its configuration and its identity are given and stay as they are.
//!
//! For whoever brings the sockets, the configuration and the certificates: another program that embeds it, or a
//! bench. There is no listener, no control plane and no page; a connection is served by the same code as in a
//! whole [`crate::Proxy`].

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use certs::{CertError, IdentityCell, ServerTls};
use model::{Label, Labels, MeshDomain, ServicePort, Snapshot, WorkloadId};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::config::ConfigHandle;
use crate::connection::{self, Accepted, Role};
use crate::doorkeeper::Doorkeeper;
use crate::settings::{Limits, Settings};
use crate::stats::{Registry, Stats};
use crate::threads;
use crate::tls::{ALPN_HTTP1, ALPN_HTTP2, ALPN_TCP};
use crate::worker::{Shared, Worker};

/// What a data plane alone is told.
#[derive(Debug, Clone)]
pub struct StandaloneSettings {
    /// What this workload is called.
    pub workload_id: WorkloadId,
    /// Where a service without a namespace is looked for.
    pub namespace: Label,
    /// The suffix of service names, in Host and in SNI.
    pub domain: MeshDomain,
    pub spans: Spans,
    /// All but `discovery_timeout` count: there is nobody to ask about a service that the snapshot lacks, so such a
    /// request is answered at once.
    pub limits: Limits,
}

/// What becomes of a request's spans. They go nowhere either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Spans {
    /// As in a proxy without a tracing backend: none are made, and a caller's `traceparent` is passed on untouched.
    #[default]
    Off,
    /// As in a proxy with a backend whose sampler takes none: their contexts are made and passed on.
    Unsampled,
}

/// One worker without a process around it. Lives in a [`tokio::task::LocalSet`], in which it must be made; dropping
/// it is [`Standalone::stop`].
pub struct Standalone {
    worker: Rc<Worker>,
    doorkeeper: Arc<Doorkeeper>,
    outbound: Arc<Role>,
    inbound: Arc<Role>,
}

impl Standalone {
    /// # Errors
    /// [`CertError::NoIdentity`] where `identity` is empty, or why no TLS settings can be made of it.
    pub fn new(
        settings: StandaloneSettings,
        snapshot: Snapshot,
        identity: IdentityCell,
    ) -> Result<Self, CertError> {
        let alpn = [ALPN_HTTP2, ALPN_HTTP1, ALPN_TCP];
        let tls = ServerTls::new(&identity, &alpn, settings.limits.tls_sessions);
        // What is wrong with the settings is said here, not to each caller.
        tls.config()?;
        let registry = Arc::new(Registry::default());
        let limits = &settings.limits;
        let doorkeeper = Doorkeeper::new(
            limits.connections,
            limits.connections_per_source,
            registry.clone(),
        );
        let worker = Worker::new(Arc::new(Shared {
            own_ports: Vec::new(),
            config: ConfigHandle::fixed(snapshot),
            plans: Arc::default(),
            identity,
            domain: settings.domain.clone(),
            registry,
            tracer: never_sampling(),
            exporting: settings.spans == Spans::Unsampled,
            draining: CancellationToken::new(),
            joints: Arc::default(),
            minimums: crate::budget::Minimums::default(),
            shown: Arc::default(),
            settings: settings.whole(),
        }));
        tokio::task::spawn_local(sweep(Rc::downgrade(&worker), worker.limits.idle_timeout));
        Ok(Self {
            worker,
            doorkeeper,
            outbound: Arc::new(Role::Outbound),
            inbound: Arc::new(Role::Inbound(tls)),
        })
    }

    /// Serves a connection of the application, which names services by Host, to its end.
    ///
    /// # Errors
    /// Where the socket has no peer any more.
    pub async fn serve_outbound(&self, stream: TcpStream) -> io::Result<()> {
        self.serve(self.outbound.clone(), stream).await
    }

    /// Serves a connection of the application to one service, to its end.
    ///
    /// # Errors
    /// As [`Standalone::serve_outbound`].
    pub async fn serve_local(&self, service: ServicePort, stream: TcpStream) -> io::Result<()> {
        self.serve(Arc::new(Role::Local(service)), stream).await
    }

    /// Serves a connection of another sidecar, handshake included, to its end.
    ///
    /// # Errors
    /// As [`Standalone::serve_outbound`].
    pub async fn serve_inbound(&self, stream: TcpStream) -> io::Result<()> {
        self.serve(self.inbound.clone(), stream).await
    }

    /// All counts at this moment; there are none of certificates and spans.
    pub fn stats(&self) -> Stats {
        self.worker.shared.registry.read()
    }

    /// Asks every connection to end as soon as its requests have, those that come later too.
    pub fn stop(&self) {
        self.worker.shared.draining.cancel();
        self.worker.connections.close();
    }

    async fn serve(&self, role: Arc<Role>, stream: TcpStream) -> io::Result<()> {
        let client = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        let Some(permit) = Doorkeeper::admit(&self.doorkeeper, client.ip()) else {
            return Ok(());
        };
        let accepted = Accepted {
            stream,
            client,
            role,
            permit,
        };
        connection::serve(self.worker.clone(), accepted).await;
        Ok(())
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        self.stop();
    }
}

impl StandaloneSettings {
    /// A whole proxy's settings. What only its listeners, its pages and its way to the control plane read, is empty.
    fn whole(self) -> Settings {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Settings {
            service: self.workload_id.to_string(),
            workload_id: self.workload_id,
            namespace: self.namespace,
            gateway: None,
            service_account: None,
            labels: Labels::default(),
            app: Vec::new(),
            control_plane: String::new(),
            token: None,
            data: None,
            outbound: nowhere,
            inbound: nowhere,
            advertise: None,
            locals: Vec::new(),
            admin: nowhere,
            metrics: nowhere,
            outside: None,
            workers: 1,
            traces: telemetry::Endpoint::FromEnv,
            access_log: false,
            limits: Limits {
                discovery_timeout: Duration::ZERO,
                ..self.limits
            },
        }
    }
}

fn never_sampling() -> SdkTracer {
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOff)
        .with_resource(opentelemetry_sdk::Resource::builder_empty().build())
        .build();
    provider.tracer("weft")
}

/// Closes what was not used for a while, for as long as the worker lives.
async fn sweep(worker: Weak<Worker>, idle_timeout: Duration) {
    let mut interval = tokio::time::interval(threads::sweep_interval(idle_timeout));
    loop {
        interval.tick().await;
        let Some(worker) = worker.upgrade() else { return };
        worker.sweep();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use certs::Authority;
    use model::SpiffeId;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    use super::*;
    use crate::identity::fake::identity;

    fn standalone() -> Standalone {
        let settings = StandaloneSettings {
            workload_id: "frontend".parse().unwrap(),
            namespace: "web".parse().unwrap(),
            domain: MeshDomain::default(),
            spans: Spans::Off,
            limits: Limits::default(),
        };
        let id: SpiffeId = "spiffe://cluster.local/ns/web/sa/frontend".parse().unwrap();
        let now = SystemTime::now();
        let authority = Authority::generate(&id.trust_domain, now).unwrap();
        let identity = IdentityCell::with(identity(&authority, &id, now), authority.bundle());
        Standalone::new(settings, Snapshot::default(), identity).unwrap()
    }

    /// A connection to it, and the future that serves the other end.
    async fn connect(standalone: &Standalone) -> (TcpStream, impl Future<Output = io::Result<()>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (served, _) = listener.accept().await.unwrap();
        (client, standalone.serve_outbound(served))
    }

    #[tokio::test]
    async fn a_service_that_nobody_can_tell_about_is_refused_and_the_connection_ends_with_the_plane() {
        let conversation = async {
            let standalone = standalone();
            let (mut client, served) = connect(&standalone).await;
            let talk = async {
                client
                    .write_all(b"GET / HTTP/1.1\r\nhost: pay.shop\r\n\r\n")
                    .await
                    .unwrap();
                let mut answer = Vec::new();
                while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
                    assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
                }
                assert!(answer.starts_with(b"HTTP/1.1 503 "), "{answer:?}");
                assert_eq!(standalone.stats().connections_open, 1);
                standalone.stop();
                client.read_to_end(&mut answer).await.unwrap();
            };
            let (served, ()) = tokio::join!(served, talk);
            served.unwrap();
            assert_eq!(standalone.stats().connections_open, 0);
        };
        // Far less than the time that a whole proxy gives its control plane to answer, or an idle client.
        let limit = Limits::default().discovery_timeout;
        let local = LocalSet::new();
        let over = tokio::time::timeout(limit, local.run_until(conversation)).await;
        over.unwrap();
    }
}
