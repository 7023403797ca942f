//! nginx: HTTP/1.1 with kept connections between the hops; gRPC over HTTP/2; TCP where its stream module is installed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rustix::process::geteuid;

use super::{CONNECTIONS, Door, Found, IDLE_UPSTREAM, Pair, Peer, PeerError, Plain, Setting, TlsDoor};
use crate::compare::certificates::SERVER_NAME;
use crate::compare::process::Process;
use crate::compare::tls::Credential;

/// Where Debian puts the module for TCP, in its package libnginx-mod-stream.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

struct Nginx {
    version: String,
}

pub(super) fn find() -> Found {
    let version = super::version(Path::new("nginx"), "-v")?;
    Some(Box::new(Nginx { version }))
}

impl Peer for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn plain(&self, setting: &Setting) -> Result<Plain, PeerError> {
        let [listen] = super::ports()?;
        let app = setting.apps.http;
        let http = format!(
            "{}server {{ listen {listen}; location / {{ proxy_pass http://app; {KEEP} }} }}",
            upstream("app", app)
        );
        Plain {
            hop: start(setting, "nginx-plain", &http, "")?,
            door: Door::any(listen),
        }
        .ready()
    }

    fn pair(&self, setting: &Setting) -> Result<Pair, PeerError> {
        let [http, h2c, grpc, tcp] = super::ports()?;
        let [tls_http, tls_grpc, tls_tcp] = super::ports()?;
        let apps = &setting.apps;
        let has_stream = Path::new(STREAM_MODULE).exists();
        let caller = caller(setting, [http, h2c, grpc], [tls_http, tls_grpc]);
        let caller_tcp = format!(
            "server {{ listen {tcp}; proxy_pass {tls_tcp}; proxy_ssl on; {} }}",
            client_tls(setting, "proxy")
        );
        let callee = callee(setting, [tls_http, tls_grpc]);
        let callee_tcp = format!(
            "server {{ listen {tls_tcp} ssl; proxy_pass {}; {} }}",
            apps.tcp,
            server_tls(setting)
        );
        let stream = |text: String| if has_stream { text } else { String::new() };
        Pair {
            callee: start(setting, "nginx-callee", &callee, &stream(callee_tcp))?,
            caller: start(setting, "nginx-caller", &caller, &stream(caller_tcp))?,
            http: Door::any(http),
            http_over_h2: None,
            h2c: Door::any(h2c),
            grpc: Door::any(grpc),
            tcp: has_stream.then_some(tcp),
            tls: TlsDoor {
                door: Door::any(tls_http),
                server_name: SERVER_NAME.to_owned(),
                credential: Credential::client(&setting.certificates)?,
            },
        }
        .ready()
    }
}

/// Large bodies: twice as many bytes per CPU second as with the buffers of 4 KiB that nginx has unless told, and no
/// files.
const BUFFERS: &str = "proxy_buffer_size 16k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k; \
    proxy_max_temp_file_size 0;";
/// Kept connections to an upstream need both.
const KEEP: &str = "proxy_http_version 1.1; proxy_set_header Connection \"\";";

fn caller(
    setting: &Setting,
    [http, h2c, grpc]: [SocketAddr; 3],
    [tls_http, tls_grpc]: [SocketAddr; 2],
) -> String {
    let (mesh, mesh_grpc) = (upstream("mesh", tls_http), upstream("mesh_grpc", tls_grpc));
    let (tls, grpc_tls) = (client_tls(setting, "proxy"), client_tls(setting, "grpc"));
    format!(
        "{mesh}{mesh_grpc}
         server {{ listen {http}; location / {{ proxy_pass https://mesh; {KEEP} {tls} }} }}
         server {{ listen {h2c} http2; location / {{ proxy_pass https://mesh; {KEEP} {tls} }} }}
         server {{ listen {grpc} http2; location / {{ grpc_pass grpcs://mesh_grpc; {grpc_tls} }} }}"
    )
}

fn callee(setting: &Setting, [tls_http, tls_grpc]: [SocketAddr; 2]) -> String {
    let apps = &setting.apps;
    let (app, app_grpc) = (upstream("app", apps.http), upstream("app_grpc", apps.grpc));
    let tls = server_tls(setting);
    format!(
        "{app}{app_grpc}
         server {{ listen {tls_http} ssl; {tls} location / {{ proxy_pass http://app; {KEEP} }} }}
         server {{ listen {tls_grpc} ssl http2; {tls} location / {{ grpc_pass grpc://app_grpc; }} }}"
    )
}

fn upstream(name: &str, address: SocketAddr) -> String {
    format!(
        "upstream {name} {{ server {address}; keepalive {IDLE_UPSTREAM}; keepalive_requests 1000000000; \
         keepalive_timeout 1h; }}\n"
    )
}

fn client_tls(setting: &Setting, module: &str) -> String {
    let certificates = &setting.certificates;
    format!(
        "{module}_ssl_certificate {}; {module}_ssl_certificate_key {}; {module}_ssl_trusted_certificate {}; \
         {module}_ssl_verify on; {module}_ssl_verify_depth 3; {module}_ssl_name {SERVER_NAME}; \
         {module}_ssl_server_name on; {module}_ssl_protocols TLSv1.3;",
        certificates.client.chain.display(),
        certificates.client.key.display(),
        certificates.root.display(),
    )
}

fn server_tls(setting: &Setting) -> String {
    let certificates = &setting.certificates;
    format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client on; \
         ssl_verify_depth 3; ssl_protocols TLSv1.3;",
        certificates.server.chain.display(),
        certificates.server.key.display(),
        certificates.root.display(),
    )
}

fn start(setting: &Setting, name: &str, http: &str, stream: &str) -> Result<Process, PeerError> {
    let stream = match stream {
        "" => String::new(),
        servers => format!("stream {{ {servers} }}\n"),
    };
    let config = config(setting.folder.as_path(), name, http, &stream);
    let path = setting.write(&format!("{name}.conf"), &config)?;
    super::start(setting, name, command(&path))
}

/// A whole configuration with one worker, no logs and connections that stay; the application is one too.
pub(in crate::compare) fn config(folder: &Path, name: &str, http: &str, stream: &str) -> String {
    let folder = folder.display();
    // The worker must be able to read what is in the temporary folder.
    let user = if geteuid().is_root() { "user root;" } else { "" };
    let module = match stream {
        "" => String::new(),
        _ => format!("load_module {STREAM_MODULE};"),
    };
    format!(
        "{module}
         {user}
         daemon off; worker_processes 1; worker_rlimit_nofile 20000;
         pid {folder}/{name}.pid; error_log stderr error;
         events {{ worker_connections {CONNECTIONS}; }}
         http {{
         access_log off; server_tokens off; tcp_nodelay on; sendfile on;
         keepalive_timeout 1h; keepalive_requests 1000000000; keepalive_time 24h;
         client_header_timeout 1h; {BUFFERS}
         client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;
         fastcgi_temp_path {folder}/{name}-fcgi; uwsgi_temp_path {folder}/{name}-uwsgi;
         scgi_temp_path {folder}/{name}-scgi;
         {http}
         }}
         {stream}"
    )
}

pub(in crate::compare) fn command(config: &Path) -> Command {
    let mut command = super::command("nginx");
    command.arg("-c").arg(config).arg("-e").arg("stderr");
    command
}
