//! BackendTLSPolicy: what is outside the mesh is called by TLS, and believed only as the policy says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::net::SocketAddr;

use http::Version;
use tests::client::Http;
use tests::edge::{Authority, Client, at, behind_tls, free_port};
use tests::{App, Mesh, Raw, Sidecar, yaml};
use tokio::sync::mpsc::UnboundedReceiver;

/// A BackendTLSPolicy of the Service `api`.
fn policy(validation: &str) -> String {
    yaml::object(
        "BackendTLSPolicy",
        "api",
        &format!("{{targetRefs: [{{group: '', kind: Service, name: api}}], validation: {{{validation}}}}}"),
    )
}

fn trusting(hostname: &str, names: &str) -> String {
    let names = match names {
        "" => String::new(),
        names => format!(", subjectAltNames: [{names}]"),
    };
    policy(&format!(
        "hostname: {hostname}, caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]{names}"
    ))
}

/// `api` behind a certificate for `names`, a mesh that knows of it, and a sidecar to call it from.
struct Api {
    mesh: Mesh,
    visitor: Sidecar,
    app: App,
    names: UnboundedReceiver<String>,
    address: SocketAddr,
}

impl Api {
    async fn start(names: &[&str], protocol: &str, alpn: &[&str], policy: &str) -> Self {
        let (authority, app) = (Authority::new("test"), App::echo("api").await);
        let (address, seen) = behind_tls(&app, &authority.certificate(names), alpn).await;
        let yaml = yaml::authorities("ca", &authority.pem())
            + &yaml::authorities("other", &Authority::new("other").pem())
            + &yaml::outside("api", 443, protocol, &[address])
            + policy;
        let mesh = Mesh::with(&yaml).await;
        let visitor = mesh.workload("visitor").local("api:443").start().await;
        Self {
            mesh,
            visitor,
            app,
            names: seen,
            address,
        }
    }

    async fn verdict(&self) -> (u16, String) {
        let answer = self.visitor.get("http://api/").await;
        let (status, reason) = answer.verdict();
        (status, reason.to_owned())
    }
}

#[tokio::test]
async fn a_sidecar_names_the_host_and_believes_its_certificate() {
    let policy = trusting("api.example.com", "");
    let mut api = Api::start(&["api.example.com"], "http", &["http/1.1"], &policy).await;
    for _ in 0..3 {
        assert_eq!(api.verdict().await, (200, String::new()));
    }
    assert_eq!(api.names.recv().await.unwrap(), "api.example.com");
    let requests = api.app.requests();
    assert!(requests.iter().all(|request| request.header("host") == "api"));
    assert_eq!(api.app.connections(), 1, "the connection is kept");
}

#[tokio::test]
async fn a_changed_policy_goes_for_the_next_request() {
    let good = trusting("api.example.com", "");
    let api = Api::start(&["api.example.com", "spiffe://else/where"], "http", &[], &good).await;
    let ok = (200, String::new());
    let refused = (503, "peer_refused".to_owned());
    assert_eq!(api.verdict().await, ok);
    for (policy, verdict) in [
        (trusting("other.example.com", ""), &refused),
        (
            trusting("other.example.com", "{type: Hostname, hostname: api.example.com}"),
            &ok,
        ),
        (
            trusting("other.example.com", "{type: Hostname, hostname: www.example.com}"),
            &refused,
        ),
        (
            trusting("other.example.com", "{type: URI, uri: 'spiffe://else/where'}"),
            &ok,
        ),
        (
            trusting("api.example.com", "{type: URI, uri: 'spiffe://else'}"),
            &refused,
        ),
        (good.replace("name: ca", "name: other"), &refused),
        (
            policy("hostname: api.example.com, wellKnownCACertificates: System"),
            &refused,
        ),
        (good, &ok),
    ] {
        api.mesh.apply(&policy).await;
        assert_eq!(&api.verdict().await, verdict, "{policy}");
    }
}

#[tokio::test]
async fn plain_text_behind_it_is_no_tls() {
    let api = Api::start(
        &["api.example.com"],
        "http",
        &[],
        &trusting("api.example.com", ""),
    )
    .await;
    let plain = yaml::outside("api", 443, "http", &[api.app.address]);
    api.mesh.apply(&plain).await;
    assert_eq!(api.verdict().await, (503, "tls_failed".to_owned()));
    api.mesh
        .apply(&yaml::outside("api", 443, "http", &[api.address]))
        .await;
    assert_eq!(api.verdict().await, (200, String::new()));
}

#[tokio::test]
async fn http2_is_agreed_on_where_it_is_declared() {
    let policy = trusting("api.example.com", "");
    let api = Api::start(&["api.example.com"], "kubernetes.io/h2c", &["h2"], &policy).await;
    assert_eq!(api.verdict().await, (200, String::new()));
    let request = api.app.requests().remove(0);
    assert_eq!(request.version, Version::HTTP_2);
    assert_eq!(request.uri.scheme_str(), Some("https"));
}

#[tokio::test]
async fn a_copy_says_what_it_is_sent_by_as_a_request_does() {
    let policy = trusting("api.example.com", "");
    let api = Api::start(&["api.example.com"], "kubernetes.io/h2c", &["h2"], &policy).await;
    let shop = App::echo("shop").await;
    let route = "- filters: [{type: RequestMirror, requestMirror: {backendRef: {name: api, port: 443}}}]\n\
                 \x20 backendRefs: [{name: shop, port: 80}]\n";
    let yaml =
        yaml::outside("shop", 80, "kubernetes.io/h2c", &[shop.address]) + &yaml::http_route("shop", route);
    api.mesh.apply(&yaml).await;
    assert_eq!(api.visitor.get("http://shop/").await.status, 200);
    let copy = api.app.arrived(1).await.remove(0);
    let scheme = |request: &tests::app::Recorded| request.uri.scheme_str().map(str::to_owned);
    assert_eq!(scheme(&copy).as_deref(), Some("https"));
    assert_eq!(scheme(&shop.requests()[0]).as_deref(), Some("http"));
}

#[tokio::test]
async fn opaque_bytes_are_carried_in_tls() {
    let authority = Authority::new("test");
    let app = App::tcp_echo().await;
    let (address, _names) = behind_tls(&app, &authority.certificate(&["db.example.com"]), &[]).await;
    let policy = trusting("db.example.com", "");
    let yaml =
        yaml::authorities("ca", &authority.pem()) + &yaml::outside("api", 443, "tcp", &[address]) + &policy;
    let mesh = Mesh::with(&yaml).await;
    let visitor = mesh.workload("visitor").local("api:443").start().await;
    let mut raw = Raw::connect(visitor.local("api:443")).await;
    raw.send("SELECT 1").await;
    assert_eq!(raw.read_exact(8).await, b"SELECT 1");
}

#[tokio::test]
async fn a_gateway_calls_it_as_a_sidecar_does() {
    let policy = trusting("api.example.com", "");
    let api = Api::start(&["api.example.com"], "http", &["http/1.1"], &policy).await;
    let port = free_port().await;
    let yaml = yaml::gateway("edge", &[format!("{{name: web, port: {port}, protocol: HTTP}}")])
        + &yaml::object(
            "HTTPRoute",
            "api",
            "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: api, port: 443}]}]}",
        );
    api.mesh.apply(&yaml).await;
    let _gateway = api.mesh.gateway("edge").start().await;
    let answer = Http::http1(at(port)).await.get("http://www.example.com/").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-app")), (200, "api"));
    api.mesh.apply(&trusting("other.example.com", "")).await;
    let answer = Http::http1(at(port)).await.get("http://www.example.com/").await;
    assert_eq!(answer.verdict(), (503, "peer_refused"));
}

#[tokio::test]
async fn tls_that_is_passed_on_is_not_wrapped_again() {
    let authority = Authority::new("test");
    let (app, port) = (App::echo("api").await, free_port().await);
    let shown = authority.certificate(&["api.example.com"]);
    let (address, _names) = behind_tls(&app, &shown, &[]).await;
    let yaml = yaml::authorities("ca", &authority.pem())
        + &yaml::outside("api", 443, "tls", &[address])
        + &trusting("api.example.com", "")
        + &yaml::gateway(
            "edge",
            &[format!(
                "{{name: pass, port: {port}, protocol: TLS, tls: {{mode: Passthrough}}}}"
            )],
        )
        + &yaml::object(
            "TLSRoute",
            "api",
            "{parentRefs: [{name: edge}], hostnames: [api.example.com], rules: [{backendRefs: [{name: api, port: 443}]}]}",
        );
    let mesh = Mesh::with(&yaml).await;
    let _gateway = mesh.gateway("edge").start().await;
    let stream = Client::trusting(&authority)
        .connect(at(port), "api.example.com")
        .await
        .unwrap();
    assert_eq!(
        Http::tls(stream).await.ask("api.example.com", "/").await.status,
        200
    );
}
