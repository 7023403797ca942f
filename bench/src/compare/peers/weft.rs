//! Weft: sidecars of one mesh, with the identities that its control plane gave them.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use model::{MeshDomain, ServiceName};

use super::{Door, Pair, Peer, PeerError, Plain, Setting, TlsDoor};
use crate::compare::mesh::{Mesh, MeshError, Sidecar, Workload};
use crate::compare::tls::Credential;
use crate::compare::upstream;

/// The programs that are run.
const PROGRAMS: [&str; 3] = ["weft", "weft-control-plane", "weft-proxy"];

/// A mesh in which every measured hop is a workload.
pub(crate) struct Weft {
    pub(crate) mesh: Mesh,
    version: String,
    numbers: AtomicU32,
}

/// Ports of a service whose callee is measured.
pub(crate) mod port {
    pub(crate) const HTTP: u16 = 80;
    pub(crate) const H2C: u16 = 81;
    pub(crate) const GRPC: u16 = 82;
    pub(crate) const TCP: u16 = 83;
}

impl Weft {
    /// What of the programs is not in `binaries`, and how to get it.
    pub(crate) fn missing(binaries: &Path) -> Option<String> {
        let missing: Vec<&str> = PROGRAMS
            .into_iter()
            .filter(|program| !binaries.join(program).is_file())
            .collect();
        (!missing.is_empty()).then(|| {
            format!(
                "{} not in {}: build with `cargo build --release --workspace`, or say with --weft-bin where they are",
                missing.join(", "),
                binaries.display()
            )
        })
    }

    pub(crate) fn start(binaries: &Path, folder: &Path) -> Result<Self, PeerError> {
        Ok(Self {
            mesh: Mesh::start(binaries, folder)?,
            version: super::version(&binaries.join("weft-proxy"), "--version")
                .unwrap_or_else(|| "unknown".to_owned()),
            numbers: AtomicU32::new(0),
        })
    }

    /// A service without a selector, whose only endpoint is the application itself, outside the mesh.
    pub(crate) fn outside(&self, app: SocketAddr) -> Result<String, PeerError> {
        let (name, yaml) = self.outside_later(app);
        self.mesh.apply(&yaml)?;
        Ok(name)
    }

    /// The same, as YAML still to be applied.
    pub(crate) fn outside_later(&self, app: SocketAddr) -> (String, String) {
        let name = self.name("plain");
        let yaml = outside_yaml(&name, app, &[app.ip()]);
        (name, yaml)
    }

    /// The same, with an endpoint at each of the application's addresses.
    pub(crate) fn spread_later(&self, app: SocketAddr) -> (String, String) {
        let name = self.name("spread");
        let yaml = outside_yaml(&name, app, &upstream::addresses());
        (name, yaml)
    }

    /// A sidecar that only calls.
    pub(crate) fn edge(&self) -> Result<Sidecar, PeerError> {
        let service = self.name("edge");
        Ok(self.mesh.sidecar(&Workload {
            service,
            ..Workload::default()
        })?)
    }

    fn name(&self, what: &str) -> String {
        format!("{what}{}", self.numbers.fetch_add(1, Ordering::Relaxed))
    }
}

impl Peer for Weft {
    fn name(&self) -> &'static str {
        "weft"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn plain(&self, setting: &Setting) -> Result<Plain, PeerError> {
        let host = self.outside(setting.apps.http)?;
        let sidecar = self.edge()?;
        Plain {
            door: Door {
                address: sidecar.outbound,
                host,
            },
            hop: sidecar.process,
        }
        .ready()
    }

    fn pair(&self, setting: &Setting) -> Result<Pair, PeerError> {
        let name = self.name("app");
        self.mesh.apply(&inside_yaml(&name))?;
        let apps = &setting.apps;
        let callee = self.mesh.sidecar(&Workload {
            service: name.clone(),
            apps: vec![
                format!("http={}", apps.http),
                format!("h2c={}", apps.h2c),
                format!("grpc={}", apps.grpc),
                format!("tcp={}", apps.tcp),
            ],
            locals: Vec::new(),
        })?;
        let [tcp] = super::ports()?;
        let caller = self.mesh.sidecar(&Workload {
            service: self.name("caller"),
            apps: Vec::new(),
            locals: vec![format!("{name}:{}={tcp}", port::TCP)],
        })?;
        let door = |port: u16| Door {
            address: caller.outbound,
            host: match port {
                port::HTTP => name.clone(),
                port => format!("{name}:{port}"),
            },
        };
        let service: ServiceName = format!("default/{name}").parse()?;
        // The identity of a third workload, as its sidecar keeps it.
        let visitor = self.edge()?;
        let tls = TlsDoor {
            door: Door {
                address: callee.inbound,
                host: name.clone(),
            },
            server_name: service.port(port::HTTP).sni(&MeshDomain::default()),
            credential: Credential::of_sidecar(&visitor.data)?,
        };
        Pair {
            http: door(port::HTTP),
            http_over_h2: None,
            h2c: door(port::H2C),
            grpc: door(port::GRPC),
            tcp: Some(tcp),
            tls,
            caller: caller.process,
            callee: callee.process,
        }
        .ready()
    }
}

impl From<MeshError> for PeerError {
    fn from(error: MeshError) -> Self {
        match error {
            MeshError::Process(error) => Self::Process(error),
            MeshError::Port(error) => Self::Port(error),
            MeshError::Write { path, source } => Self::Write { path, source },
            error @ (MeshError::Status(_) | MeshError::Operator(_)) => Self::Mesh(error),
        }
    }
}

/// A Service and the EndpointSlice that says where its endpoints are: all at the port of `app`.
fn outside_yaml(name: &str, app: SocketAddr, addresses: &[IpAddr]) -> String {
    let addresses: Vec<String> = addresses
        .iter()
        .map(|ip| format!("{{addresses: [{ip}]}}"))
        .collect();
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  ports: [{{name: http, port: 80, appProtocol: http}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: default
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
endpoints: [{}]
ports: [{{name: http, port: {}, protocol: TCP}}]
---
",
        addresses.join(", "),
        app.port()
    )
}

/// A Service with a port for each protocol, whose endpoints are sidecars.
fn inside_yaml(name: &str) -> String {
    let mut yaml = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  selector: {{app: {name}}}\n  ports:\n"
    );
    let ports = [
        ("http", port::HTTP, "http"),
        ("h2c", port::H2C, "kubernetes.io/h2c"),
        ("grpc", port::GRPC, "grpc"),
        ("tcp", port::TCP, "tcp"),
    ];
    for (name, port, protocol) in ports {
        let _ = writeln!(
            yaml,
            "    - {{name: {name}, port: {port}, targetPort: {name}, appProtocol: {protocol}}}"
        );
    }
    yaml
}
