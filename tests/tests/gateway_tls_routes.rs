//! TLSRoutes at a gateway: TLS that ends there for backends in plain or by TLS anew, and beside it TLS that goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::io::ErrorKind;

use tests::client::Http;
use tests::edge::{Authority, Client, Shown, at, behind_mutual_tls, behind_tls, free_port};
use tests::{App, Mesh, within, yaml};
use tokio::io::AsyncReadExt;

fn terminate(name: &str, port: u16, hostname: &str) -> String {
    format!(
        "{{name: {name}, port: {port}, protocol: TLS, hostname: {hostname}, \
         tls: {{mode: Terminate, certificateRefs: [{{name: cert}}]}}}}"
    )
}

fn route(name: &str, hostname: &str, backend: &str) -> String {
    yaml::object(
        "TLSRoute",
        name,
        &format!(
            "{{parentRefs: [{{name: edge}}], hostnames: [{hostname}], rules: [{{backendRefs: [{backend}]}}]}}"
        ),
    )
}

fn policy(service: &str, hostname: &str) -> String {
    yaml::object(
        "BackendTLSPolicy",
        service,
        &format!(
            "{{targetRefs: [{{group: '', kind: Service, name: {service}}}], validation: \
             {{hostname: {hostname}, caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}}}"
        ),
    )
}

/// A request within the TLS of `host`, whose other end shows `shown`.
async fn ask(client: &Client, port: u16, host: &str, shown: &Shown) -> (u16, String) {
    let stream = client.connect(at(port), host).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], shown.der());
    let answer = Http::tls(stream).await.ask(host, "/").await;
    (answer.status.as_u16(), answer.header("x-app").to_owned())
}

#[tokio::test]
async fn one_port_has_every_mode() {
    let (authority, port) = (Authority::new("test"), free_port().await);
    let here = authority.certificate(&["plain.example.com", "again.example.com", "mutual.example.com"]);
    let there = authority.certificate(&["there.example.com"]);
    let (plain, behind) = (App::echo("plain").await, App::echo("behind").await);
    let (address, mut names) = behind_tls(&behind, &there, &["http/1.1"]).await;
    let (asking, _asking) = behind_mutual_tls(&behind, &there, &["http/1.1"], &authority).await;
    let client_certificate = authority.certificate(&["edge.example.com"]);
    let listeners = [
        terminate("plain", port, "plain.example.com"),
        terminate("again", port, "again.example.com"),
        terminate("mutual", port, "mutual.example.com"),
        terminate("idle", port, "idle.example.com"),
        format!(
            "{{name: there, port: {port}, protocol: TLS, hostname: '*.example.com', tls: {{mode: Passthrough}}}}"
        ),
    ];
    let gateway = yaml::gateway("edge", &listeners).replace(
        "  listeners:",
        "  tls: {backend: {clientCertificateRef: {name: edge-client}}}\n  listeners:",
    );
    let yaml = yaml::secret("cert", &here.chain, &here.key)
        + &yaml::secret("edge-client", &client_certificate.chain, &client_certificate.key)
        + &yaml::authorities("ca", &authority.pem())
        + &yaml::outside("plain", 80, "tcp", &[plain.address])
        + &yaml::outside("again", 443, "tls", &[address])
        + &yaml::outside("mutual", 443, "tls", &[asking])
        + &yaml::outside("there", 443, "tls", &[address])
        + &policy("again", "there.example.com")
        + &policy("mutual", "there.example.com")
        + &gateway
        + &route("plain", "plain.example.com", "{name: plain, port: 80}")
        + &route("again", "again.example.com", "{name: again, port: 443}")
        + &route("mutual", "mutual.example.com", "{name: mutual, port: 443}")
        + &route("there", "there.example.com", "{name: there, port: 443}")
        + &route("gone", "gone.example.com", "{name: none, port: 443}");
    let mesh = Mesh::with(&yaml).await;
    let _gateway = mesh.gateway("edge").start().await;
    let client = Client::trusting(&authority);

    let answer = |name: &str| (200, name.to_owned());
    assert_eq!(
        ask(&client, port, "plain.example.com", &here).await,
        answer("plain")
    );
    assert_eq!(
        ask(&client, port, "again.example.com", &here).await,
        answer("behind")
    );
    assert_eq!(
        names.recv().await.unwrap(),
        "there.example.com",
        "that of the policy, whoever the client asked for"
    );
    assert_eq!(
        ask(&client, port, "mutual.example.com", &here).await,
        answer("behind")
    );
    assert_eq!(
        ask(&client, port, "there.example.com", &there).await,
        answer("behind")
    );
    assert_eq!(names.recv().await.unwrap(), "there.example.com");

    // A route without a backend that exists, and names of no route and of no listener: where TLS may go on to somebody,
    // nobody here says a word of TLS.
    for name in ["gone.example.com", "other.example.com", "www.example.org"] {
        let refused = client.connect(at(port), name).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::UnexpectedEof, "{name}: {refused}");
    }
    // Nothing goes out in plain, or to whom the policy does not believe.
    mesh.apply(&policy("again", "else.example.com")).await;
    let mut stream = client.connect(at(port), "again.example.com").await.unwrap();
    let closed = within("the end", stream.read(&mut [0; 1])).await;
    assert_eq!(closed.unwrap(), 0);
}
