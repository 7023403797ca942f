//! `spec.tls.backend.clientCertificateRef`: who a gateway is to backends outside the mesh that ask within TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use tests::client::Http;
use tests::edge::{Authority, Shown, at, behind_mutual_tls, free_port};
use tests::{App, Mesh, yaml};

/// Where it is served: a Gateway with a listener for HTTP, and this in its `spec.tls`.
fn edge(port: u16, tls: &str) -> String {
    yaml::gateway("edge", &[format!("{{name: web, port: {port}, protocol: HTTP}}")])
        .replace("  listeners:", &format!("  tls: {{{tls}}}\n  listeners:"))
}

fn shown(name: &str, shown: &Shown) -> String {
    yaml::secret(name, &shown.chain, &shown.key)
}

const REFERENCE: &str = "backend: {clientCertificateRef: {name: edge-client}}";
const POLICY: &str = "{targetRefs: [{group: '', kind: Service, name: api}], validation: \
                      {hostname: api.example.com, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}";

/// A backend that takes only clients of `clients`, and the route of a Gateway to it.
async fn backend(app: &App, clients: &Authority, alpn: &[&str], protocol: &str) -> String {
    let authority = Authority::new("servers");
    let certificate = authority.certificate(&["api.example.com"]);
    let (address, _names) = behind_mutual_tls(app, &certificate, alpn, clients).await;
    yaml::authorities("ca", &authority.pem())
        + &yaml::outside("api", 443, protocol, &[address])
        + &yaml::object("BackendTLSPolicy", "api", POLICY)
        + &yaml::object(
            "HTTPRoute",
            "api",
            "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: api, port: 443}]}]}",
        )
}

/// With TLS 1.3 a server refuses a client when the handshake is over for the client, so that the request is on its way.
const REFUSED: u16 = 502;

async fn status(port: u16) -> u16 {
    let answer = Http::http1(at(port)).await.get("http://www.example.com/").await;
    answer.status.as_u16()
}

#[tokio::test]
async fn a_backend_is_shown_the_gateways_certificate() {
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let (app, port) = (App::echo("api").await, free_port().await);
    let good = shown("edge-client", &clients.certificate(&["edge.example.com"]));
    let yaml = backend(&app, &clients, &["http/1.1"], "http").await + &good;
    let mesh = Mesh::with(&(yaml + &edge(port, REFERENCE))).await;
    let _gateway = mesh.gateway("edge").start().await;
    let mut client = Http::http1(at(port)).await;
    for _ in 0..3 {
        assert_eq!(client.get("http://www.example.com/").await.status, 200);
    }
    assert_eq!(app.connections(), 1, "the connection is kept");

    // What follows counts for the next request, connections and sessions of before or not.
    mesh.apply(&edge(port, "")).await;
    assert_eq!(status(port).await, REFUSED, "nobody is shown");
    mesh.apply(&edge(port, REFERENCE)).await;
    assert_eq!(status(port).await, 200);
    mesh.apply(&shown("edge-client", &others.certificate(&["edge.example.com"])))
        .await;
    assert_eq!(
        status(port).await,
        REFUSED,
        "of an authority that the backend knows not"
    );
    mesh.apply(&shown(
        "edge-client",
        &clients.rsa_certificate(&["edge.example.com"]),
    ))
    .await;
    assert_eq!(status(port).await, 200);
    mesh.apply(&good.replace("kubernetes.io/tls", "Opaque")).await;
    assert_eq!(status(port).await, REFUSED, "a Secret of another type holds none");
}

#[tokio::test]
async fn a_sidecar_has_no_part_in_it() {
    let clients = Authority::new("clients");
    let (app, port) = (App::echo("api").await, free_port().await);
    let yaml = backend(&app, &clients, &["http/1.1"], "http").await
        + &shown("edge-client", &clients.certificate(&["edge.example.com"]))
        + &edge(port, REFERENCE);
    let mesh = Mesh::with(&yaml).await;
    let _gateway = mesh.gateway("edge").start().await;
    let visitor = mesh.workload("visitor").local("api:443").start().await;
    assert_eq!(visitor.get("http://api/").await.status, REFUSED);
    assert_eq!(status(port).await, 200);
}

#[tokio::test]
async fn http2_and_streams_are_no_different() {
    let clients = Authority::new("clients");
    let (app, web, raw) = (App::echo("api").await, free_port().await, free_port().await);
    let listeners = [
        format!("{{name: web, port: {web}, protocol: HTTP}}"),
        format!("{{name: raw, port: {raw}, protocol: TCP}}"),
    ];
    let gateway = yaml::gateway("edge", &listeners)
        .replace("  listeners:", &format!("  tls: {{{REFERENCE}}}\n  listeners:"));
    let stream = "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: api, port: 443}]}]}";
    let yaml = backend(&app, &clients, &["h2"], "kubernetes.io/h2c").await
        + &shown("edge-client", &clients.certificate(&["edge.example.com"]))
        + &gateway
        + &yaml::object("TCPRoute", "api", stream);
    let mesh = Mesh::with(&yaml).await;
    let _gateway = mesh.gateway("edge").start().await;
    assert_eq!(status(web).await, 200);
    assert_eq!(app.requests().remove(0).version, http::Version::HTTP_2);
    let answer = Http::http1(at(raw)).await.get("http://www.example.com/").await;
    assert_eq!(answer.status, 200);
}
