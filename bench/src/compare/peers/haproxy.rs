//! HAProxy: HTTP/1.1 between the hops, and HTTP/2 as a variant.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use super::{CONNECTIONS, Door, Found, Pair, Peer, PeerError, Plain, Setting, TlsDoor};
use crate::compare::certificates::SERVER_NAME;
use crate::compare::process::Process;
use crate::compare::tls::Credential;

struct Haproxy {
    version: String,
}

pub(super) fn find() -> Found {
    let version = super::version(Path::new("haproxy"), "-v")?;
    Some(Box::new(Haproxy { version }))
}

/// One `listen` section: what it is called, its mode, and the two sides.
struct Section {
    name: &'static str,
    mode: &'static str,
    bind: String,
    server: String,
}

impl Peer for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn plain(&self, setting: &Setting) -> Result<Plain, PeerError> {
        let [listen] = super::ports()?;
        let section = http("plain", listen.to_string(), setting.apps.http.to_string());
        Plain {
            hop: start(setting, "haproxy-plain", &[section])?,
            door: Door::any(listen),
        }
        .ready()
    }

    fn pair(&self, setting: &Setting) -> Result<Pair, PeerError> {
        let [http1, over_h2, h2c, grpc, raw] = super::ports()?;
        let [tls_http, tls_h2c, tls_grpc, tls_raw] = super::ports()?;
        let apps = &setting.apps;
        let to = |address: SocketAddr, alpn: &str| format!("{address} {}{alpn}", client_tls(setting));
        let from = |address: SocketAddr, alpn: &str| format!("{address} {}{alpn}", server_tls(setting));
        let caller = [
            http("http", http1.to_string(), to(tls_http, " alpn http/1.1")),
            http("over_h2", over_h2.to_string(), to(tls_http, " alpn h2")),
            http("h2c", format!("{h2c} proto h2"), to(tls_h2c, " alpn h2")),
            http("grpc", format!("{grpc} proto h2"), to(tls_grpc, " alpn h2")),
            tcp("raw", raw.to_string(), to(tls_raw, "")),
        ];
        let callee = [
            http("http", from(tls_http, " alpn h2,http/1.1"), apps.http.to_string()),
            http("h2c", from(tls_h2c, " alpn h2"), format!("{} proto h2", apps.h2c)),
            http(
                "grpc",
                from(tls_grpc, " alpn h2"),
                format!("{} proto h2", apps.grpc),
            ),
            tcp("raw", from(tls_raw, ""), apps.tcp.to_string()),
        ];
        Pair {
            callee: start(setting, "haproxy-callee", &callee)?,
            caller: start(setting, "haproxy-caller", &caller)?,
            http: Door::any(http1),
            http_over_h2: Some(Door::any(over_h2)),
            h2c: Door::any(h2c),
            grpc: Door::any(grpc),
            tcp: Some(raw),
            tls: TlsDoor {
                door: Door::any(tls_http),
                server_name: SERVER_NAME.to_owned(),
                credential: Credential::client(&setting.certificates)?,
            },
        }
        .ready()
    }
}

fn http(name: &'static str, bind: String, server: String) -> Section {
    Section {
        name,
        mode: "http",
        bind,
        server,
    }
}

fn tcp(name: &'static str, bind: String, server: String) -> Section {
    Section {
        mode: "tcp",
        ..http(name, bind, server)
    }
}

fn client_tls(setting: &Setting) -> String {
    let certificates = &setting.certificates;
    format!(
        "ssl crt {} ca-file {} verify required verifyhost {SERVER_NAME} sni str({SERVER_NAME})",
        certificates.client.both.display(),
        certificates.root.display()
    )
}

fn server_tls(setting: &Setting) -> String {
    let certificates = &setting.certificates;
    format!(
        "ssl crt {} ca-file {} verify required",
        certificates.server.both.display(),
        certificates.root.display()
    )
}

fn start(setting: &Setting, name: &str, sections: &[Section]) -> Result<Process, PeerError> {
    let mut config = format!(
        "global
  nbthread 1
  maxconn {CONNECTIONS}
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  http-reuse always
"
    );
    for section in sections {
        let Section {
            name,
            mode,
            bind,
            server,
        } = section;
        let _ = writeln!(
            config,
            "listen {name}\n  mode {mode}\n  bind {bind}\n  server app {server} pool-purge-delay 1h"
        );
    }
    let path = setting.write(&format!("{name}.cfg"), &config)?;
    let mut command = super::command("haproxy");
    command.arg("-db").arg("-f").arg(path);
    super::start(setting, name, command)
}
