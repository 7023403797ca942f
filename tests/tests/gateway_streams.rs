//! What a gateway carries without looking into it: TLS that ends elsewhere, bytes, and datagrams.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tests::client::Http;
use tests::edge::{Authority, Client, at, behind_tls, free_port};
use tests::{App, Mesh, Raw, Sidecar, eventually, within, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

async fn start(yaml: &str) -> (Mesh, Sidecar) {
    let mesh = Mesh::with(yaml).await;
    let gateway = mesh.gateway("edge").start().await;
    (mesh, gateway)
}

/// A TLSRoute, TCPRoute or UDPRoute of the listener that has its name.
fn route(kind: &str, name: &str, hostnames: &str, backends: &str) -> String {
    let hostnames = match hostnames {
        "" => String::new(),
        hostnames => format!("hostnames: [{hostnames}], "),
    };
    yaml::object(
        kind,
        name,
        &format!(
            "{{parentRefs: [{{name: edge, sectionName: {name}}}], {hostnames}rules: [{{backendRefs: [{backends}]}}]}}"
        ),
    )
}

/// Says its name, and then sends every byte back.
async fn named(name: &'static str) -> App {
    App::raw(move |mut stream| async move {
        if stream.write_all(name.as_bytes()).await.is_ok() {
            let (mut read, mut write) = stream.into_split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    })
    .await
}

#[tokio::test]
async fn tls_goes_on_to_a_backend_by_its_name() {
    let (authority, app, port) = (Authority::new("test"), App::echo("app").await, free_port().await);
    let [one, two] = ["one", "two"].map(|name| authority.certificate(&[&format!("{name}.example.com")]));
    let (first, mut first_names) = behind_tls(&app, &one, &["h2", "http/1.1"]).await;
    let (second, _names) = behind_tls(&app, &two, &[]).await;
    let yaml = yaml::outside("one", 443, "tls", &[first])
        + &yaml::outside("two", 443, "tls", &[second])
        + &yaml::gateway(
            "edge",
            &[format!(
                "{{name: pass, port: {port}, protocol: TLS, hostname: '*.example.com', tls: {{mode: Passthrough}}}}"
            )],
        )
        + &route("TLSRoute", "pass", "one.example.com", "{name: one, port: 443}")
        + &yaml::object(
            "TLSRoute",
            "rest",
            "{parentRefs: [{name: edge}], hostnames: ['*.example.com'], rules: [{backendRefs: [{name: two, port: 443}]}]}",
        )
        + &yaml::object(
            "TLSRoute",
            "gone",
            "{parentRefs: [{name: edge}], hostnames: [gone.example.com], rules: [{backendRefs: [{name: none, port: 1}]}]}",
        );
    let (_mesh, _gateway) = start(&yaml).await;
    let client = Client::trusting(&authority).offering(&["h2"]);
    let stream = client.connect(at(port), "one.example.com").await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], one.der());
    let answer = Http::tls(stream).await.ask("one.example.com", "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.version),
        (200, http::Version::HTTP_2)
    );
    assert_eq!(first_names.recv().await.unwrap(), "one.example.com");

    let stream = Client::trusting(&authority)
        .connect(at(port), "two.example.com")
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], two.der());

    // Whom nobody serves is told nothing, which would be of the gateway's making.
    for name in ["www.example.org", "gone.example.com"] {
        let refused = client.connect(at(port), name).await.unwrap_err();
        assert_eq!(
            refused.kind(),
            std::io::ErrorKind::UnexpectedEof,
            "{name}: {refused}"
        );
    }
}

#[tokio::test]
async fn a_backend_in_the_mesh_gets_tls_as_it_came() {
    let (authority, app, port) = (Authority::new("test"), App::echo("app").await, free_port().await);
    let shown = authority.certificate(&["www.example.com"]);
    let (behind, _names) = behind_tls(&app, &shown, &[]).await;
    let yaml = yaml::service("shop", 443, "tls")
        + &yaml::gateway(
            "edge",
            &[format!(
                "{{name: pass, port: {port}, protocol: TLS, tls: {{mode: Passthrough}}}}"
            )],
        )
        + &route("TLSRoute", "pass", "www.example.com", "{name: shop, port: 443}");
    let (mesh, _gateway) = start(&yaml).await;
    let _shop = mesh.workload("shop").app(behind).start().await;
    let stream = Client::trusting(&authority)
        .connect(at(port), "www.example.com")
        .await
        .unwrap();
    assert_eq!(
        Http::tls(stream).await.ask("www.example.com", "/").await.status,
        200
    );
}

#[tokio::test]
async fn tls_ends_here_and_the_bytes_within_go_on() {
    let (authority, port) = (Authority::new("test"), free_port().await);
    let shown = authority.certificate(&["db.example.com"]);
    let (inside, outside) = (named("inside").await, named("outside").await);
    let listener = |name: &str, hostname: &str| {
        format!(
            "{{name: {name}, port: {port}, protocol: TLS, hostname: {hostname}, \
             tls: {{mode: Terminate, certificateRefs: [{{name: cert}}]}}}}"
        )
    };
    let yaml = yaml::secret("cert", &shown.chain, &shown.key)
        + &yaml::service("inside", 5432, "tcp")
        + &yaml::outside("outside", 5432, "tcp", &[outside.address])
        + &yaml::gateway(
            "edge",
            &[
                listener("db", "db.example.com"),
                listener("other", "other.example.com"),
            ],
        )
        + &route("TLSRoute", "db", "db.example.com", "{name: inside, port: 5432}")
        + &route(
            "TLSRoute",
            "other",
            "other.example.com",
            "{name: outside, port: 5432}",
        );
    let (mesh, _gateway) = start(&yaml).await;
    let _inside = mesh.workload("inside").app(inside.address).start().await;
    let client = Client::trusting(&authority);
    let mut stream = client.connect(at(port), "db.example.com").await.unwrap();
    stream.write_all(b" hello").await.unwrap();
    let mut said = [0; 12];
    within("bytes", stream.read_exact(&mut said)).await.unwrap();
    assert_eq!(&said, b"inside hello");
    // The certificate is for another name, which only a client cares for.
    assert!(client.connect(at(port), "other.example.com").await.is_err());
}

#[tokio::test]
async fn bytes_go_to_backends_by_weight() {
    let (often, seldom) = (named("often").await, named("seldom").await);
    let port = free_port().await;
    let yaml = yaml::outside("often", 1, "tcp", &[often.address])
        + &yaml::outside("seldom", 1, "tcp", &[seldom.address])
        + &yaml::gateway("edge", &[format!("{{name: raw, port: {port}, protocol: TCP}}")])
        + &route(
            "TCPRoute",
            "raw",
            "",
            "{name: often, port: 1, weight: 4}, {name: seldom, port: 1, weight: 1}, {name: never, port: 1, weight: 0}",
        );
    let (mesh, gateway) = start(&yaml).await;
    let mut seen = 0;
    for _ in 0..50 {
        let mut raw = Raw::connect(at(port)).await;
        raw.half_close().await;
        let said = raw.read_to_end().await;
        assert!(said == b"often" || said == b"seldom", "{said:?}");
        seen += usize::from(said == b"seldom");
    }
    // Each worker throws dice of its own.
    assert!((4..=16).contains(&seen), "{seen} of 50");

    // A connection that is open stays when its listener goes.
    let mut open = Raw::connect(at(port)).await;
    let first = open.read_exact(5).await;
    let other = free_port().await;
    mesh.apply(&yaml::gateway(
        "edge",
        &[format!("{{name: other, port: {other}, protocol: TCP}}")],
    ))
    .await;
    eventually("the port to be closed", || async {
        tokio::net::TcpStream::connect(at(port))
            .await
            .is_err()
            .then_some(())
    })
    .await;
    open.send(b"still here").await;
    let rest = open.read_until(b"here").await;
    assert!([first, rest].concat().ends_with(b"still here"));
    let mut refused = Raw::connect(at(other)).await;
    assert_eq!(refused.read_to_end().await, b"", "no route");
    drop(gateway);
}

/// Answers every datagram with its own name in front.
async fn datagrams(name: &'static str) -> (SocketAddr, tokio::task::AbortHandle) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut space = vec![0; 65_535];
        while let Ok((count, from)) = socket.recv_from(&mut space).await {
            let answer = [name.as_bytes(), &space[..count]].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    });
    (address, task.abort_handle())
}

/// A client of datagrams, none of which is lost on one machine.
struct Datagrams(UdpSocket);

impl Datagrams {
    async fn to(port: u16) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(at(port)).await.unwrap();
        Self(socket)
    }

    async fn ask(&self, text: &str) -> String {
        self.0.send(text.as_bytes()).await.unwrap();
        let mut space = vec![0; 65_535];
        let count = within("an answer", self.0.recv(&mut space)).await.unwrap();
        String::from_utf8_lossy(&space[..count]).into_owned()
    }
}

#[tokio::test]
async fn datagrams_of_one_client_go_to_one_backend() {
    let ((red, _red), (blue, _blue)) = (datagrams("red ").await, datagrams("blue ").await);
    let port = free_port().await;
    let backends = |weights: [u32; 2]| {
        let [red, blue] = weights;
        let backends =
            format!("{{name: red, port: 53, weight: {red}}}, {{name: blue, port: 53, weight: {blue}}}");
        route("UDPRoute", "dns", "", &backends)
    };
    let yaml = yaml::outside_over("UDP", "red", 53, "", &[red])
        + &yaml::outside_over("UDP", "blue", 53, "", &[blue])
        + &yaml::gateway("edge", &[format!("{{name: dns, port: {port}, protocol: UDP}}")])
        + &backends([1, 1]);
    let (mesh, _gateway) = start(&yaml).await;
    let mut met = BTreeSet::new();
    let mut clients = Vec::new();
    for _ in 0..8 {
        let client = Datagrams::to(port).await;
        let first = client.ask("hello").await;
        assert!(first == "red hello" || first == "blue hello", "{first}");
        for _ in 0..5 {
            assert_eq!(client.ask("hello").await, first);
        }
        met.insert(first);
        clients.push(client);
    }
    assert_eq!(met.len(), 2, "both backends have clients");
    let long = "x".repeat(9000);
    assert!(clients[0].ask(&long).await.ends_with(&long));
    // Who is no backend any more loses its clients.
    mesh.apply(&backends([0, 1])).await;
    for client in &clients {
        assert_eq!(client.ask("again").await, "blue again");
    }
}

/// A gateway whose one UDP port leads to one backend.
async fn one_backend(port: u16, backend: SocketAddr, flags: &[(&str, &str)]) -> (Mesh, Sidecar) {
    let yaml = yaml::outside_over("UDP", "dns", 53, "", &[backend])
        + &yaml::gateway("edge", &[format!("{{name: dns, port: {port}, protocol: UDP}}")])
        + &route("UDPRoute", "dns", "", "{name: dns, port: 53}");
    let mesh = Mesh::with(&yaml).await;
    let gateway = mesh.gateway("edge");
    let gateway = flags
        .iter()
        .fold(gateway, |gateway, (flag, value)| gateway.arg(flag, value));
    let gateway = gateway.start().await;
    (mesh, gateway)
}

#[tokio::test]
async fn a_client_of_datagrams_that_says_nothing_is_forgotten() {
    let (backend, _task) = datagrams("dns ").await;
    let port = free_port().await;
    let (_mesh, gateway) = one_backend(port, backend, &[("--udp-idle-timeout", "200ms")]).await;
    let client = Datagrams::to(port).await;
    assert_eq!(client.ask("one").await, "dns one");
    gateway
        .process
        .log_line("a client of datagrams is forgotten")
        .await;
    assert_eq!(client.ask("two").await, "dns two");
}

#[tokio::test]
async fn a_port_has_so_many_clients_of_datagrams() {
    let (backend, _task) = datagrams("dns ").await;
    let port = free_port().await;
    let (_mesh, gateway) = one_backend(port, backend, &[("--udp-sessions", "3")]).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = Datagrams::to(port).await;
        assert_eq!(client.ask("one").await, "dns one");
        clients.push(client);
    }
    let refused = Datagrams::to(port).await;
    refused.0.send(b"two").await.unwrap();
    gateway.process.log_line("a datagram is dropped").await;
    for client in &clients {
        assert_eq!(client.ask("three").await, "dns three");
    }
    // Those came later and were answered, so that it is certain that this one was not.
    let nothing = refused.0.try_recv(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn the_place_of_a_client_that_is_forgotten_is_another_ones() {
    let (backend, _task) = datagrams("dns ").await;
    let port = free_port().await;
    let flags = [("--udp-sessions", "1"), ("--udp-idle-timeout", "200ms")];
    let (_mesh, gateway) = one_backend(port, backend, &flags).await;
    assert_eq!(Datagrams::to(port).await.ask("one").await, "dns one");
    gateway
        .process
        .log_line("a client of datagrams is forgotten")
        .await;
    assert_eq!(Datagrams::to(port).await.ask("two").await, "dns two");
}

#[tokio::test]
async fn a_port_may_end_tls_for_one_name_and_pass_it_on_for_another() {
    let (authority, app, port) = (Authority::new("test"), App::echo("app").await, free_port().await);
    let [here, there] =
        ["here", "there"].map(|name| authority.certificate(&[&format!("{name}.example.com")]));
    let (behind, _names) = behind_tls(&app, &there, &[]).await;
    let listeners = [
        format!(
            "{{name: here, port: {port}, protocol: HTTPS, hostname: here.example.com, \
             tls: {{certificateRefs: [{{name: cert}}]}}}}"
        ),
        format!(
            "{{name: there, port: {port}, protocol: TLS, hostname: there.example.com, tls: {{mode: Passthrough}}}}"
        ),
    ];
    let yaml = yaml::secret("cert", &here.chain, &here.key)
        + &yaml::outside("app", 80, "http", &[app.address])
        + &yaml::outside("behind", 443, "tls", &[behind])
        + &yaml::gateway("edge", &listeners)
        + &route("HTTPRoute", "here", "", "{name: app, port: 80}")
        + &route(
            "TLSRoute",
            "there",
            "there.example.com",
            "{name: behind, port: 443}",
        );
    let (_mesh, _gateway) = start(&yaml).await;
    let client = Client::trusting(&authority);
    for (name, shown) in [("here", &here), ("there", &there)] {
        let host = format!("{name}.example.com");
        let stream = client.connect(at(port), &host).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], shown.der());
        let answer = Http::tls(stream).await.ask(&host, "/").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-app")), (200, "app"));
    }
    let stream = client.connect(at(port), "here.example.com").await.unwrap();
    let answer = Http::tls(stream).await.ask("there.example.com", "/").await;
    assert_eq!(answer.verdict(), (421, "misdirected"));
}
