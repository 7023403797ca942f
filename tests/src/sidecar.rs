//! One workload: a real `weft-proxy`, and the address of its application.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};

use model::{MeshDomain, SpiffeId, TrustDomain};

use crate::binaries::binary;
use crate::client::{Answer, Http, Raw};
use crate::mesh::Mesh;
use crate::network::Host;
use crate::operator::Operator;
use crate::otlp;
use crate::process::Process;

/// A workload to be started.
pub struct Workload<'m> {
    mesh: &'m Mesh,
    service: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    has_app: bool,
    joins: bool,
    wait_for_app: bool,
    is_gateway: bool,
    host: Option<Arc<Host>>,
}

/// A running sidecar, or gateway, which has neither `outbound` nor `inbound`.
pub struct Sidecar {
    /// Unique in its mesh.
    pub workload: String,
    pub service: String,
    /// Where the application sends its calls.
    pub outbound: SocketAddr,
    /// Where other sidecars connect.
    pub inbound: SocketAddr,
    pub admin: SocketAddr,
    pub metrics: SocketAddr,
    /// `namespace/name:port` to the address that stands for it.
    pub locals: BTreeMap<String, SocketAddr>,
    pub process: Process,
    pub data: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    operator: Arc<Mutex<Option<Operator>>>,
    trust_domain: TrustDomain,
    waits_for_app: bool,
    host: Option<Arc<Host>>,
}

impl<'m> Workload<'m> {
    pub(crate) fn new(mesh: &'m Mesh, service: &str) -> Self {
        let env = vec![(
            "WEFT_LOG".to_owned(),
            "debug,h2=info,hyper=info,rustls=info,tonic=info".to_owned(),
        )];
        Self {
            mesh,
            service: service.to_owned(),
            args: Vec::new(),
            env,
            has_app: false,
            joins: true,
            wait_for_app: true,
            is_gateway: false,
            host: None,
        }
    }

    /// The proxy of a Gateway. Its start waits until all ports of the Gateway are open.
    pub(crate) fn gateway(mesh: &'m Mesh, name: &str) -> Self {
        Self {
            is_gateway: true,
            has_app: true,
            ..Self::new(mesh, name)
        }
    }

    /// Runs on this host, and not where the test is.
    pub fn on(self, host: &Arc<Host>) -> Self {
        Self {
            host: Some(host.clone()),
            ..self
        }
    }

    /// Where the application listens.
    pub fn app(self, address: SocketAddr) -> Self {
        Self {
            has_app: true,
            ..self
        }
        .arg("--app", &address.to_string())
    }

    /// The start does not wait until the application accepts.
    pub fn without_waiting_for_app(self) -> Self {
        Self {
            wait_for_app: false,
            ..self
        }
    }

    pub fn label(self, key: &str, value: &str) -> Self {
        self.arg("--label", &format!("{key}={value}"))
    }

    /// A local port for `[namespace/]service:port`.
    pub fn local(self, service_port: &str) -> Self {
        self.arg("--local", &format!("{service_port}=127.0.0.1:0"))
    }

    /// Others are told this address instead of the inbound listener's own.
    pub fn advertise(self, address: SocketAddr) -> Self {
        self.arg("--advertise", &address.to_string())
    }

    /// Spans go there, without waiting for full batches.
    pub fn traces(self, receiver: &otlp::Receiver) -> Self {
        self.env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &format!("http://{}", receiver.address),
        )
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
    }

    /// A further flag of `weft-proxy`.
    pub fn arg(mut self, flag: &str, value: &str) -> Self {
        self.args.push(format!("{flag}={value}"));
        self
    }

    /// A further flag without a value.
    pub fn flag(mut self, flag: &str) -> Self {
        self.args.push(flag.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// No join token: the identity is in the data folder already.
    pub fn without_token(self) -> Self {
        Self { joins: false, ..self }
    }

    /// Starts the sidecar; returns when it is ready, and, where it has an application, when every sidecar that
    /// asked for its services knows it as an endpoint.
    pub async fn start(self) -> Sidecar {
        let operator = self.mesh.operator().clone();
        let waits_for_app = self.has_app && self.wait_for_app;
        let token = match self.joins {
            true => Some(operator.token("default", &self.service).await),
            false => None,
        };
        let service = self.service.clone();
        let shared = self.mesh.shared_operator();
        let Launch {
            process,
            workload,
            data,
            args,
            env,
            host,
        } = self.launched(token);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut sidecar = Sidecar {
            workload,
            service,
            outbound: nowhere,
            inbound: nowhere,
            admin: nowhere,
            metrics: nowhere,
            locals: BTreeMap::new(),
            process,
            data,
            args,
            env,
            trust_domain: operator.bundle.trust_domain().clone(),
            operator: shared,
            waits_for_app,
            host,
        };
        sidecar.read_addresses().await;
        sidecar.wait_until_known().await;
        sidecar
    }

    /// Starts the process and waits for nothing: for one that cannot or shall not become ready.
    pub fn launch(self) -> Process {
        self.launched(None).process
    }

    fn launched(self, token: Option<String>) -> Launch {
        let workload = format!("{}-{}", self.service, self.mesh.next_number());
        let data = self.mesh.path().join(format!("proxy-{workload}"));
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let here = SocketAddr::new(self.host.as_ref().map_or(loopback, |host| host.address), 0);
        let of_sidecar = [
            ("--service", self.service.clone()),
            ("--outbound", here.to_string()),
            ("--inbound", here.to_string()),
        ];
        let of_gateway = [("--gateway", self.service)];
        let kind = if self.is_gateway {
            &of_gateway[..]
        } else {
            &of_sidecar[..]
        };
        let flags = [
            ("--workload-id", workload.clone()),
            ("--control-plane", self.mesh.control_plane_address().to_string()),
            ("--data", data.display().to_string()),
            ("--admin", "127.0.0.1:0".to_owned()),
            ("--metrics", "127.0.0.1:0".to_owned()),
        ];
        let mut args: Vec<String> = kind
            .iter()
            .chain(&flags)
            .map(|(flag, value)| format!("{flag}={value}"))
            .collect();
        args.extend(self.args);
        // A token is good once: a restart does without.
        let mut once = self.env.clone();
        once.extend(token.map(|token| ("WEFT_TOKEN".to_owned(), token)));
        let process = start_process(self.host.as_deref(), &workload, &args, &once);
        Launch {
            process,
            workload,
            data,
            args,
            env: self.env,
            host: self.host,
        }
    }
}

/// A process that was started a moment ago, and how to start it again.
struct Launch {
    process: Process,
    workload: String,
    data: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    host: Option<Arc<Host>>,
}

fn start_process(host: Option<&Host>, name: &str, args: &[String], env: &[(String, String)]) -> Process {
    let start = || Process::start(name, &binary("weft-proxy"), args, env);
    match host {
        Some(host) => host.inside(start),
        None => start(),
    }
}

impl Sidecar {
    async fn read_addresses(&mut self) {
        self.process.line("ready").await;
        for line in self.process.stdout() {
            let Some((what, rest)) = line.split_once(' ') else {
                continue;
            };
            let parse = |text: &str| text.parse::<SocketAddr>();
            match what {
                "outbound" => self.outbound = parse(rest).expect("an address"),
                "inbound" => self.inbound = parse(rest).expect("an address"),
                "admin" => self.admin = parse(rest).expect("an address"),
                "metrics" => self.metrics = parse(rest).expect("an address"),
                "local" => {
                    let (service, address) = rest.split_once(' ').expect("a service and an address");
                    self.locals
                        .insert(service.to_owned(), parse(address).expect("an address"));
                }
                _ => {}
            }
        }
    }

    async fn wait_until_known(&self) {
        let has_app = self.waits_for_app;
        let operator = self
            .operator
            .lock()
            .unwrap()
            .clone()
            .expect("the control plane runs");
        operator
            .until(&self.workload, |proxy| {
                proxy.is_some_and(|proxy| proxy.connected && (proxy.ready || !has_app))
            })
            .await;
        operator.settled().await;
    }

    /// The local address that stands for `default/name:port`; give `name:port`.
    pub fn local(&self, service_port: &str) -> SocketAddr {
        let name = format!("default/{service_port}");
        *self
            .locals
            .get(&name)
            .unwrap_or_else(|| panic!("no local port for {name}: {:?}", self.locals))
    }

    /// This workload's identity.
    pub fn spiffe_id(&self) -> SpiffeId {
        let domain = &self.trust_domain;
        format!("spiffe://{domain}/ns/default/sa/{}", self.service)
            .parse()
            .expect("an identity")
    }

    /// The SNI under which others reach `port` of this workload's service.
    pub fn sni(&self, port: u16) -> String {
        let service: model::ServiceName = format!("default/{}", self.service).parse().expect("a service");
        service.port(port).sni(&MeshDomain::default())
    }

    /// An HTTP/1.1 connection to the outbound port.
    pub async fn http1(&self) -> Http {
        Http::http1(self.outbound).await
    }

    /// An HTTP/2 connection to the outbound port, with prior knowledge.
    pub async fn h2c(&self) -> Http {
        Http::h2c(self.outbound).await
    }

    /// A raw connection to the outbound port.
    pub async fn raw(&self) -> Raw {
        Raw::connect(self.outbound).await
    }

    /// GET as an application with `http_proxy` set sends it, on a connection of its own.
    pub async fn get(&self, url: &str) -> Answer {
        self.http1().await.get(url).await
    }

    /// POST of a body.
    pub async fn post(&self, url: &str, body: impl Into<bytes::Bytes>) -> Answer {
        self.http1().await.post(url, body).await
    }

    /// SIGTERM, and its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.process.terminate().await
    }

    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Starts the sidecar again on its data folder, without a token; its ports are others.
    pub async fn restart(&mut self) {
        self.start_again();
        self.read_addresses().await;
        self.wait_until_known().await;
    }

    /// As [`Sidecar::restart`], without waiting for anything.
    pub fn start_again(&mut self) {
        self.process = start_process(self.host.as_deref(), &self.workload, &self.args, &self.env);
    }
}
