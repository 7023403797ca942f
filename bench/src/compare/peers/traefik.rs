//! Traefik: between the hops it speaks what ALPN chooses, which is HTTP/2. One worker is `GOMAXPROCS=1`.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Door, Found, IDLE_UPSTREAM, Pair, Peer, PeerError, Plain, Setting, TlsDoor};
use crate::compare::certificates::{KeyPath, SERVER_NAME};
use crate::compare::process::Process;
use crate::compare::tls::Credential;

struct Traefik {
    version: String,
}

pub(super) fn find() -> Found {
    let version = super::version(Path::new("traefik"), "version")?;
    Some(Box::new(Traefik { version }))
}

/// The two files of a Traefik as they grow.
#[derive(Default)]
struct Config {
    entry_points: Map<String, Value>,
    http: Side,
    tcp: Side,
}

#[derive(Default)]
struct Side {
    routers: Map<String, Value>,
    services: Map<String, Value>,
}

impl Peer for Traefik {
    fn name(&self) -> &'static str {
        "traefik"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn plain(&self, setting: &Setting) -> Result<Plain, PeerError> {
        let [listen] = super::ports()?;
        let mut config = Config::default();
        config.http("app", listen, false, &format!("http://{}", setting.apps.http));
        Plain {
            hop: start(setting, "traefik-plain", config)?,
            door: Door::any(listen),
        }
        .ready()
    }

    fn pair(&self, setting: &Setting) -> Result<Pair, PeerError> {
        let [http, h2c, grpc, tcp] = super::ports()?;
        let [tls_http, tls_h2c, tls_grpc, tls_tcp] = super::ports()?;
        let apps = &setting.apps;
        let mut caller = Config::default();
        caller.http("http", http, false, &format!("https://{tls_http}"));
        caller.http("h2c", h2c, false, &format!("https://{tls_h2c}"));
        caller.http("grpc", grpc, false, &format!("https://{tls_grpc}"));
        caller.tcp("tcp", tcp, false, tls_tcp, true);
        let mut callee = Config::default();
        callee.http("http", tls_http, true, &format!("http://{}", apps.http));
        callee.http("h2c", tls_h2c, true, &format!("h2c://{}", apps.h2c));
        callee.http("grpc", tls_grpc, true, &format!("h2c://{}", apps.grpc));
        callee.tcp("tcp", tls_tcp, true, apps.tcp, false);
        Pair {
            callee: start(setting, "traefik-callee", callee)?,
            caller: start(setting, "traefik-caller", caller)?,
            http: Door::any(http),
            http_over_h2: None,
            h2c: Door::any(h2c),
            grpc: Door::any(grpc),
            tcp: Some(tcp),
            tls: TlsDoor {
                door: Door::any(tls_http),
                server_name: SERVER_NAME.to_owned(),
                credential: Credential::client(&setting.certificates)?,
            },
        }
        .ready()
    }
}

impl Config {
    fn http(&mut self, name: &str, listen: SocketAddr, is_tls: bool, url: &str) {
        self.entry_point(name, listen);
        let router = router(name, "PathPrefix(`/`)", is_tls);
        self.http.routers.insert(name.to_owned(), router);
        let mut balancer = json!({"servers": [{"url": url}]});
        if url.starts_with("https:") {
            balancer = json!({"servers": [{"url": url}], "serversTransport": "mesh"});
        }
        let service = json!({"loadBalancer": balancer});
        self.http.services.insert(name.to_owned(), service);
    }

    fn tcp(&mut self, name: &str, listen: SocketAddr, is_tls: bool, to: SocketAddr, tls_onward: bool) {
        self.entry_point(name, listen);
        let router = router(name, "HostSNI(`*`)", is_tls);
        self.tcp.routers.insert(name.to_owned(), router);
        let balancer = match tls_onward {
            true => json!({"servers": [{"address": to, "tls": true}], "serversTransport": "mesh"}),
            false => json!({"servers": [{"address": to}]}),
        };
        let service = json!({"loadBalancer": balancer});
        self.tcp.services.insert(name.to_owned(), service);
    }

    fn entry_point(&mut self, name: &str, listen: SocketAddr) {
        let idle = json!({"respondingTimeouts": {"readTimeout": "1h", "idleTimeout": "1h"}});
        let entry = json!({"address": listen, "transport": idle});
        self.entry_points.insert(name.to_owned(), entry);
    }
}

fn router(name: &str, rule: &str, is_tls: bool) -> Value {
    match is_tls {
        true => json!({"entryPoints": [name], "rule": rule, "service": name, "tls": {}}),
        false => json!({"entryPoints": [name], "rule": rule, "service": name}),
    }
}

fn start(setting: &Setting, name: &str, config: Config) -> Result<Process, PeerError> {
    let certificates = &setting.certificates;
    let pair = |key: &KeyPath| json!({"certFile": key.chain, "keyFile": key.key});
    let mesh = json!({
        "serverName": SERVER_NAME,
        "rootCAs": [certificates.root],
        "certificates": [pair(&certificates.client)],
    });
    let mut http_mesh = mesh.clone();
    if let Some(mesh) = http_mesh.as_object_mut() {
        mesh.insert("maxIdleConnsPerHost".to_owned(), json!(IDLE_UPSTREAM));
    }
    let mut dynamic = json!({
        "http": {
            "routers": config.http.routers,
            "services": config.http.services,
            "serversTransports": {"mesh": http_mesh},
        },
        "tls": {
            "stores": {"default": {"defaultCertificate": pair(&certificates.server)}},
            "options": {"default": {
                "minVersion": "VersionTLS13",
                "clientAuth": {
                    "caFiles": [certificates.root],
                    "clientAuthType": "RequireAndVerifyClientCert",
                },
            }},
        },
    });
    if let (Some(dynamic), false) = (dynamic.as_object_mut(), config.tcp.routers.is_empty()) {
        let tcp = json!({
            "routers": config.tcp.routers,
            "services": config.tcp.services,
            "serversTransports": {"mesh": {"tls": mesh}},
        });
        dynamic.insert("tcp".to_owned(), tcp);
    }
    // JSON is YAML.
    let dynamic = setting.write(&format!("{name}-routes.yml"), &dynamic.to_string())?;
    let main = json!({
        "entryPoints": config.entry_points,
        "providers": {"file": {"filename": dynamic, "watch": false}},
        "global": {"checkNewVersion": false, "sendAnonymousUsage": false},
        "log": {"level": "ERROR"},
    });
    let path = setting.write(&format!("{name}.yml"), &main.to_string())?;
    let mut command = super::command("traefik");
    command
        .arg(format!("--configFile={}", path.display()))
        .env("GOMAXPROCS", "1");
    super::start(setting, name, command)
}
