//! The ports of a gateway, judged against a control plane that does what the test says.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use model::endpoint::OutsidePort;
use model::gateway::{Certificate, Gateway, HttpRoutes, Listener, Serves, StreamRule, TlsTermination};
use model::route::{Backend, Rule};
use model::{AppProtocol, EndpointSet, Endpoints, Hostname, Label, Resource};
use proto::v1;
use proto::v1::proxy_message::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::flags::Flags;
use crate::identity::fake::{FakeControlPlane, ProxyStream, soon};
use crate::{Proxy, Running};

/// A gateway that has said hello, and the control plane's end of its stream.
struct Room {
    fake: FakeControlPlane,
    stream: ProxyStream,
    proxy: Running,
    nonce: u64,
}

impl Room {
    async fn start() -> Self {
        let mut fake = FakeControlPlane::start().await;
        let text = |flag: &str, value: &dyn std::fmt::Display| format!("--{flag}={value}");
        let flags = <Flags as clap::Parser>::parse_from([
            "weft-proxy".to_owned(),
            text("gateway", &"checkout"),
            text("namespace", &"shop"),
            text("control-plane", &fake.address),
            text("admin", &"127.0.0.1:0"),
            text("metrics", &"127.0.0.1:0"),
        ]);
        let mut settings = flags.into_settings().expect("settings");
        settings.token = Some(fake.token());
        assert!(settings.workers >= 1 && settings.service_account == Some(label("checkout")));
        let proxy = soon(Proxy::start(settings)).await.expect("a gateway");
        assert_eq!((proxy.outbound, proxy.inbound), (None, None));
        let mut stream = fake.next_stream().await;
        let hello = stream.hello().await;
        assert_eq!(
            (&*hello.gateway, &*hello.inbound, hello.ready),
            ("checkout", "", false)
        );
        Self {
            fake,
            stream,
            proxy,
            nonce: 0,
        }
    }

    /// Sends these as the whole configuration, and returns what is said until it is acknowledged or refused.
    async fn configure(&mut self, resources: Vec<Resource>) -> Vec<Message> {
        self.nonce += 1;
        let versioned = |resource: &Resource| v1::VersionedResource {
            name: resource.name().to_string(),
            version: self.nonce.to_string(),
            resource: Some(proto::convert::resource_to_wire(resource)),
        };
        let update = v1::Update {
            nonce: self.nonce,
            generation: self.nonce,
            changed: resources.iter().map(versioned).collect(),
            removed: Vec::new(),
        };
        self.stream.send(update).await;
        let mut said = Vec::new();
        loop {
            let message = self.stream.read().await;
            let is_last = matches!(message, Message::Ack(_) | Message::Refuse(_));
            said.push(message);
            if is_last {
                return said;
            }
        }
    }

    /// The next report of ports.
    async fn report(&mut self) -> Vec<v1::BoundPort> {
        loop {
            if let Message::Listeners(report) = self.stream.read().await {
                return report.ports;
            }
        }
    }
}

fn label(text: &str) -> Label {
    text.parse().expect("a label")
}

fn gateway(listeners: Vec<Listener>) -> Resource {
    Resource::Gateway(Gateway {
        name: "shop/checkout".parse().expect("a name"),
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        client_certificate: None,
        listeners,
    })
}

fn listener(name: &str, port: u16, serves: Serves) -> Listener {
    Listener {
        name: name.into(),
        port,
        hostname: Hostname::Any,
        serves,
        shadow: None,
    }
}

/// Every request to `shop/pay`.
fn to_pay() -> HttpRoutes {
    let rule = Rule {
        backends: vec![pay()],
        ..Rule::default()
    };
    HttpRoutes {
        rules: vec![rule],
        hosts: BTreeMap::from([(Hostname::Any, vec![0])]),
    }
}

fn pay() -> Backend {
    let target = "shop/pay".parse::<model::ServiceName>().expect("a name").port(80);
    Backend::new(Some(target), "pay:80", 1, Vec::new()).expect("valid")
}

/// `shop/pay`, outside the mesh.
fn endpoints(address: SocketAddr) -> Resource {
    let port = OutsidePort {
        protocol: AppProtocol::Http,
        addresses: [address].into(),
        tls: None,
    };
    Resource::Endpoints(EndpointSet {
        service: "shop/pay".parse().expect("a name"),
        endpoints: Endpoints::Outside([(80, port)].into()),
        policies: std::collections::BTreeMap::new(),
        faults: std::collections::BTreeMap::new(),
        shadow: std::collections::BTreeMap::new(),
    })
}

/// None of those that the kernel gives to whoever asks for any.
async fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..30_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return port;
        }
    }
}

/// Answers every request with its head as the body.
async fn mirror() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                loop {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
                            return;
                        }
                    }
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
                    let whole = [answer.as_bytes(), &head].concat();
                    if stream.write_all(&whole).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Sends a request and reads an answer's head and body, on a connection that stays.
async fn ask(stream: &mut TcpStream, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    soon(async {
        loop {
            assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0, "closed");
            let text = String::from_utf8_lossy(&answer).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
                return text;
            }
        }
    })
    .await
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await
}

#[tokio::test]
async fn ports_follow_the_configuration_and_what_stays_is_not_touched() {
    let mut room = Room::start().await;
    let (one, two) = (free_port().await, free_port().await);
    let backend = endpoints(mirror().await);
    let first = listener("first", one, Serves::Http(to_pay()));
    let said = room.configure(vec![gateway(vec![first.clone()]), backend]).await;
    let [Message::Listeners(report), Message::Ack(_)] = &said[..] else {
        panic!("{said:?}")
    };
    assert_eq!(report.ports[0].addresses, [format!("127.0.0.1:{one}")]);
    assert!(matches!(
        room.stream.read().await,
        Message::Readiness(v1::Readiness { ready: true })
    ));

    let mut kept = connect(one).await.expect("open when acknowledged");
    let answer = ask(&mut kept, "pay.example:8080").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for field in [
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: pay.example:8080",
    ] {
        assert!(answer.contains(&format!("{field}\r\n")), "{field} in {answer}");
    }

    let second = listener("second", two, Serves::Http(HttpRoutes::default()));
    room.configure(vec![gateway(vec![first, second.clone()])]).await;
    let refused = ask(&mut connect(two).await.expect("open"), "a").await;
    assert!(
        refused.starts_with("HTTP/1.1 404 ") && refused.contains("no_route"),
        "{refused}"
    );
    assert!(ask(&mut kept, "a").await.starts_with("HTTP/1.1 200 "));

    room.configure(vec![gateway(vec![second])]).await;
    let mut end = Vec::new();
    soon(kept.read_to_end(&mut end)).await.expect("closed in order");
    assert!(end.is_empty());
    soon(async { while connect(one).await.is_ok() {} }).await;
    assert!(connect(two).await.is_ok());
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_so_and_bound_when_it_is_free() {
    let mut room = Room::start().await;
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (port, other) = (taken.local_addr().expect("bound").port(), free_port().await);
    let both = [port, other].map(|port| listener(&port.to_string(), port, Serves::Http(to_pay())));
    let said = room.configure(vec![gateway(both.into())]).await;
    let [Message::Listeners(report), Message::Ack(_)] = &said[..] else {
        panic!("{said:?}")
    };
    for bound in &report.ports {
        let is_other = bound.port == u32::from(other);
        assert_eq!(
            (bound.failure.is_empty(), bound.addresses.len()),
            (is_other, usize::from(is_other))
        );
    }
    assert!(connect(other).await.is_ok() && !room.proxy.is_ready());
    drop(taken);
    let report = room.report().await;
    assert!(report.iter().all(|bound| bound.failure.is_empty()), "{report:?}");
    assert!(connect(port).await.is_ok());
}

#[tokio::test]
async fn a_port_may_come_to_serve_something_else() {
    let mut room = Room::start().await;
    let port = free_port().await;
    let backend = mirror().await;
    let http = listener("it", port, Serves::Http(to_pay()));
    room.configure(vec![gateway(vec![http]), endpoints(backend)])
        .await;
    let mut before = connect(port).await.expect("open");
    ask(&mut before, "a").await;
    let bytes = StreamRule {
        name: "TCPRoute/shop/pay#0".into(),
        hostnames: vec![Hostname::Any],
        backends: vec![pay()],
    };
    room.configure(vec![gateway(vec![listener(
        "it",
        port,
        Serves::Tcp(vec![bytes]),
    )])])
    .await;
    let mut end = Vec::new();
    soon(before.read_to_end(&mut end)).await.expect("closed in order");
    let answer = ask(&mut connect(port).await.expect("open"), "a").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && !answer.contains("x-forwarded"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_refused_by_its_field() {
    let mut room = Room::start().await;
    let pem = |tag: &str| format!("-----BEGIN {tag}-----\nAAAA\n-----END {tag}-----\n");
    let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    for (key, field) in [(key, "chain"), (pem("PRIVATE KEY"), "key")] {
        let certificate = Certificate::new(pem("CERTIFICATE"), key).expect("PEM");
        let tls = TlsTermination {
            certificates: vec![Arc::new(certificate)],
            clients: None,
        };
        let https = listener("https", free_port().await, Serves::Https(tls, to_pay()));
        let said = room.configure(vec![gateway(vec![https])]).await;
        let [Message::Refuse(refusal)] = &said[..] else {
            panic!("{said:?}")
        };
        assert_eq!(refusal.resource, "gateway/shop/checkout");
        assert_eq!(
            refusal.field,
            format!("listeners[0].https.tls.certificates[0].{field}")
        );
    }
}

#[tokio::test]
async fn without_addresses_every_address_is_bound_of_either_family() {
    let mut room = Room::start().await;
    let port = free_port().await;
    let mut everywhere = gateway(vec![listener("it", port, Serves::Http(to_pay()))]);
    if let Resource::Gateway(gateway) = &mut everywhere {
        gateway.addresses.clear();
    }
    let said = room.configure(vec![everywhere, endpoints(mirror().await)]).await;
    let [Message::Listeners(report), Message::Ack(_)] = &said[..] else {
        panic!("{said:?}")
    };
    assert!(report.ports[0].failure.is_empty() && !report.ports[0].addresses.is_empty());
    let mut v4 = connect(port).await.expect("open");
    assert!(ask(&mut v4, "a").await.contains("x-forwarded-for: 127.0.0.1\r\n"));
    if let Ok(mut v6) = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await {
        assert!(ask(&mut v6, "a").await.contains("x-forwarded-for: ::1\r\n"));
    }
}

#[tokio::test]
async fn a_new_stream_is_told_again_how_the_ports_stand() {
    let mut room = Room::start().await;
    let port = free_port().await;
    room.configure(vec![gateway(vec![listener("it", port, Serves::Http(to_pay()))])])
        .await;
    // Its end is that of the stream.
    let Room {
        mut fake,
        stream,
        proxy: _proxy,
        ..
    } = room;
    drop(stream);
    let mut stream = fake.next_stream().await;
    let hello = stream.hello().await;
    assert!(hello.ready && hello.versions.contains_key("gateway/shop/checkout"));
    let Message::Listeners(report) = stream.read().await else {
        panic!("no report")
    };
    assert_eq!(report.ports[0].addresses, [format!("127.0.0.1:{port}")]);
    assert!(connect(port).await.is_ok());
}
