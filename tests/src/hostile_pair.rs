//! The smallest mesh that can be attacked from every side: a caller's sidecar, and one beside the service `server`.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::peer::Peer;
use crate::process::Process;
use crate::{Mesh, Sidecar, yaml};

pub const HTTP1: &[u8] = b"http/1.1";
pub const HTTP2: &[u8] = b"h2";

/// The most memory that a process has ever had resident, in bytes.
pub fn peak_bytes(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid().as_raw_nonzero()));
    let status = status.expect("the process lives");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("VmHWM");
    let kib = line
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse::<u64>().ok());
    kib.expect("a number") * 1024
}

/// Two sidecars and their control plane.
pub struct Pair {
    pub mesh: Mesh,
    pub caller: Sidecar,
    pub server: Sidecar,
    /// Where the caller's application sends its calls; `Host: server` names the service.
    pub outbound: SocketAddr,
    peer: Peer,
}

impl Pair {
    /// Starts everything, with `app` behind the service. `flags` are both sidecars'.
    pub async fn start(app: SocketAddr, flags: &[(&str, &str)]) -> Self {
        Self::start_speaking(app, "http", flags).await
    }

    /// As [`Pair::start`], with the protocol that the service declares.
    pub async fn start_speaking(app: SocketAddr, protocol: &str, flags: &[(&str, &str)]) -> Self {
        let mesh = Mesh::with(&yaml::service("server", 80, protocol)).await;
        let [mut caller, mut server] = [mesh.workload("visitor"), mesh.workload("server").app(app)];
        for (flag, value) in flags {
            caller = caller.arg(flag, value);
            server = server.arg(flag, value);
        }
        // Thousands of requests are no news.
        let [caller, server] = [caller.env("WEFT_LOG", "info"), server.env("WEFT_LOG", "info")];
        let (caller, server) = (caller.start().await, server.start().await);
        let peer = Peer::join(&mesh, "visitor").await;
        let outbound = caller.outbound;
        Self {
            mesh,
            caller,
            server,
            outbound,
            peer,
        }
    }

    /// A connection to the service's inbound port from a peer whose certificate is valid.
    pub async fn tls(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        self.tls_to(&self.server.sni(80), alpn)
            .await
            .expect("a handshake")
    }

    /// The same, under any name and for any protocol.
    pub async fn tls_to(&self, sni: &str, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let domain = self.mesh.operator().bundle.trust_domain();
        let expected = format!("spiffe://{domain}/ns/default/sa/server")
            .parse()
            .expect("an identity");
        self.peer.connect(self.server.inbound, &expected, sni, alpn).await
    }

    /// The most that either sidecar has ever had resident, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        peak_bytes(&self.caller.process).max(peak_bytes(&self.server.process))
    }

    /// The processes live, and none of their threads has panicked.
    pub fn assert_unharmed(&self) {
        for sidecar in [&self.caller, &self.server] {
            assert!(sidecar.process.resident_bytes() > 0);
            let log = sidecar.process.stderr();
            let panic = log.iter().find(|line| line.contains("panicked"));
            assert_eq!(panic, None, "{}", sidecar.workload);
        }
    }
}
