//! Envoy: HTTP/1.1 between the hops, and HTTP/2 as a variant. Its configuration is JSON, which it reads as YAML.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::{CONNECTIONS, Door, Found, Pair, Peer, PeerError, Plain, Setting, TlsDoor};
use crate::compare::certificates::{KeyPath, SERVER_NAME};
use crate::compare::process::Process;
use crate::compare::tls::Credential;

const TYPE: &str = "type.googleapis.com/envoy.extensions";

struct Envoy {
    version: String,
}

pub(super) fn find() -> Found {
    let version = super::version(Path::new("envoy"), "--version")?;
    // `9e55809/1.40.0/Clean/RELEASE/BoringSSL`
    Some(Box::new(Envoy { version }))
}

/// What a cluster speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    Raw,
}

impl Peer for Envoy {
    fn name(&self) -> &'static str {
        "envoy"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn plain(&self, setting: &Setting) -> Result<Plain, PeerError> {
        let [listen] = super::ports()?;
        let listeners = [http_listener(listen, "app", None)];
        let clusters = [cluster("app", setting.apps.http, Protocol::Http1, None)];
        Plain {
            hop: start(setting, "envoy-plain", &listeners, &clusters)?,
            door: Door::any(listen),
        }
        .ready()
    }

    fn pair(&self, setting: &Setting) -> Result<Pair, PeerError> {
        let [http, over_h2, h2c, grpc, tcp] = super::ports()?;
        let [tls_http, tls_h2c, tls_grpc, tls_tcp] = super::ports()?;
        let apps = &setting.apps;
        let out = |alpn: &[&str]| Some(client_tls(setting, alpn));
        let caller = [
            http_listener(http, "http", None),
            http_listener(over_h2, "over_h2", None),
            http_listener(h2c, "h2c", None),
            http_listener(grpc, "grpc", None),
            tcp_listener(tcp, "tcp", None),
        ];
        let caller_clusters = [
            cluster("http", tls_http, Protocol::Http1, out(&["http/1.1"])),
            cluster("over_h2", tls_http, Protocol::Http2, out(&["h2"])),
            cluster("h2c", tls_h2c, Protocol::Http2, out(&["h2"])),
            cluster("grpc", tls_grpc, Protocol::Http2, out(&["h2"])),
            cluster("tcp", tls_tcp, Protocol::Raw, out(&[])),
        ];
        let inside = |alpn: &[&str]| Some(server_tls(setting, alpn));
        let callee = [
            http_listener(tls_http, "http", inside(&["h2", "http/1.1"])),
            http_listener(tls_h2c, "h2c", inside(&["h2"])),
            http_listener(tls_grpc, "grpc", inside(&["h2"])),
            tcp_listener(tls_tcp, "tcp", inside(&[])),
        ];
        let callee_clusters = [
            cluster("http", apps.http, Protocol::Http1, None),
            cluster("h2c", apps.h2c, Protocol::Http2, None),
            cluster("grpc", apps.grpc, Protocol::Http2, None),
            cluster("tcp", apps.tcp, Protocol::Raw, None),
        ];
        Pair {
            callee: start(setting, "envoy-callee", &callee, &callee_clusters)?,
            caller: start(setting, "envoy-caller", &caller, &caller_clusters)?,
            http: Door::any(http),
            http_over_h2: Some(Door::any(over_h2)),
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

fn http_listener(listen: SocketAddr, cluster: &str, tls: Option<Value>) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}});
    let manager = json!({
        "@type": format!("{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": cluster,
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": format!("{TYPE}.filters.http.router.v3.Router")}
        }]
    });
    listener(
        listen,
        "envoy.filters.network.http_connection_manager",
        manager,
        tls,
    )
}

fn tcp_listener(listen: SocketAddr, cluster: &str, tls: Option<Value>) -> Value {
    let proxy = json!({
        "@type": format!("{TYPE}.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": cluster,
        "cluster": cluster,
    });
    listener(listen, "envoy.filters.network.tcp_proxy", proxy, tls)
}

fn listener(listen: SocketAddr, filter: &str, filter_config: Value, tls: Option<Value>) -> Value {
    let mut chain = json!({"filters": [{"name": filter, "typed_config": filter_config}]});
    if let (Some(tls), Some(chain)) = (tls, chain.as_object_mut()) {
        chain.insert("transport_socket".to_owned(), tls);
    }
    json!({"address": address(listen), "filter_chains": [chain]})
}

fn cluster(name: &str, to: SocketAddr, protocol: Protocol, tls: Option<Value>) -> Value {
    let endpoint = json!({"endpoint": {"address": address(to)}});
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [{
            "max_connections": CONNECTIONS, "max_pending_requests": CONNECTIONS, "max_requests": CONNECTIONS
        }]},
    });
    let options = match protocol {
        Protocol::Http1 => Some(json!({"http_protocol_options": {}})),
        Protocol::Http2 => Some(json!({"http2_protocol_options": {}})),
        Protocol::Raw => None,
    };
    if let Some(cluster) = cluster.as_object_mut() {
        if let Some(options) = options {
            let options = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{TYPE}.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": options,
            }});
            cluster.insert("typed_extension_protocol_options".to_owned(), options);
        }
        if let Some(tls) = tls {
            cluster.insert("transport_socket".to_owned(), tls);
        }
    }
    cluster
}

fn client_tls(setting: &Setting, alpn: &[&str]) -> Value {
    let certificates = &setting.certificates;
    let name = json!({"san_type": "DNS", "matcher": {"exact": SERVER_NAME}});
    let trusted = json!({
        "trusted_ca": {"filename": certificates.root},
        "match_typed_subject_alt_names": [name],
    });
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{TYPE}.transport_sockets.tls.v3.UpstreamTlsContext"),
            "sni": SERVER_NAME,
            "common_tls_context": common_tls(&certificates.client, trusted, alpn),
        }
    })
}

fn server_tls(setting: &Setting, alpn: &[&str]) -> Value {
    let certificates = &setting.certificates;
    let trusted = json!({"trusted_ca": {"filename": certificates.root}});
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "require_client_certificate": true,
            "common_tls_context": common_tls(&certificates.server, trusted, alpn),
        }
    })
}

fn common_tls(key: &KeyPath, trusted: Value, alpn: &[&str]) -> Value {
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{
            "certificate_chain": {"filename": key.chain},
            "private_key": {"filename": key.key},
        }],
        "validation_context": trusted,
        "alpn_protocols": alpn,
    })
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn start(
    setting: &Setting,
    name: &str,
    listeners: &[Value],
    clusters: &[Value],
) -> Result<Process, PeerError> {
    let config = json!({
        "node": {"id": name, "cluster": "bench"},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    });
    let path = setting.write(&format!("{name}.json"), &config.to_string())?;
    let mut command = super::command("envoy");
    command.arg("-c").arg(path).args([
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "error",
    ]);
    super::start(setting, name, command)
}
