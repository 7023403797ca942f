//! TLS that ends at a gateway: which certificate is shown, who is let in, and which host may be asked for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::io;
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ProtocolVersion};
use tests::client::Http;
use tests::edge::{Authority, Client, Shown, at, free_port};
use tests::{App, Mesh, Raw, Sidecar, within, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

fn https(name: &str, port: u16, hostname: &str, secrets: &[&str]) -> String {
    let hostname = match hostname {
        "" => String::new(),
        hostname => format!(", hostname: '{hostname}'"),
    };
    let secrets: Vec<_> = secrets.iter().map(|name| format!("{{name: {name}}}")).collect();
    format!(
        "{{name: {name}, port: {port}, protocol: HTTPS{hostname}, tls: {{certificateRefs: [{}]}}}}",
        secrets.join(", ")
    )
}

fn secret(name: &str, shown: &Shown) -> String {
    yaml::secret(name, &shown.chain, &shown.key)
}

/// Everything on every listener of `edge` goes to `app`, an address outside the mesh.
fn behind(app: &App) -> String {
    yaml::outside("app", 80, "http", &[app.address])
        + &yaml::object(
            "HTTPRoute",
            "app",
            "{parentRefs: [{name: edge}], rules: [{backendRefs: [{name: app, port: 80}]}]}",
        )
}

async fn start(yaml: &str) -> (Mesh, Sidecar) {
    let mesh = Mesh::with(yaml).await;
    let gateway = mesh.gateway("edge").start().await;
    (mesh, gateway)
}

/// What a client was told in an alert.
fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

fn shown_by(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Whether a client gets an answer, or is refused in or after its handshake.
async fn is_served(client: &Client, port: u16) -> bool {
    let Ok(mut stream) = client.connect(at(port), "www.example.com").await else {
        return false;
    };
    let request = b"GET / HTTP/1.1\r\nhost: www.example.com\r\nconnection: close\r\n\r\n";
    let mut answer = Vec::new();
    let sent = stream.write_all(request).await;
    let read = stream.read_to_end(&mut answer).await;
    sent.is_ok() && read.is_ok() && answer.starts_with(b"HTTP/1.1 200 ")
}

#[tokio::test]
async fn requests_are_served_in_either_version_of_tls_and_of_http() {
    let (authority, app, port) = (Authority::new("test"), App::echo("app").await, free_port().await);
    let shown = authority.certificate(&["www.example.com"]);
    let yaml = secret("cert", &shown)
        + &yaml::gateway("edge", &[https("web", port, "www.example.com", &["cert"])])
        + &behind(&app);
    let (_mesh, _gateway) = start(&yaml).await;
    let client = Client::trusting(&authority);
    for (version, wanted) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        for (alpn, http) in [
            (&["h2", "http/1.1"][..], http::Version::HTTP_2),
            (&["http/1.1"], http::Version::HTTP_11),
            (&[], http::Version::HTTP_11),
        ] {
            let client = client.clone().speaking(version).offering(alpn);
            let stream = client.connect(at(port), "www.example.com").await.unwrap();
            assert_eq!(stream.get_ref().1.protocol_version(), Some(wanted));
            let answer = Http::tls(stream).await.ask("www.example.com", "/path").await;
            assert_eq!((answer.status.as_u16(), answer.version), (200, http));
        }
    }
    for request in app.requests() {
        assert_eq!(request.header("x-forwarded-proto"), "https");
        assert_eq!(request.header("x-forwarded-host"), "www.example.com");
    }
    let unknown = client
        .clone()
        .offering(&["spdy/3"])
        .connect(at(port), "www.example.com")
        .await;
    assert_eq!(
        alert(&unknown.unwrap_err()),
        Some(AlertDescription::NoApplicationProtocol)
    );
}

#[tokio::test]
async fn the_certificate_is_the_one_for_the_name_and_the_client() {
    let (authority, app, port) = (Authority::new("test"), App::echo("app").await, free_port().await);
    let first = authority.certificate(&["first.example.com"]);
    let wild = authority.certificate(&["*.example.com"]);
    let ecdsa = authority.certificate(&["both.example.com"]);
    let rsa = authority.rsa_certificate(&["both.example.com"]);
    let other = authority.rsa_certificate(&["www.example.org"]);
    let secrets = [
        ("first", &first),
        ("wild", &wild),
        ("rsa", &rsa),
        ("ecdsa", &ecdsa),
        ("other", &other),
    ];
    let yaml: String = secrets.iter().map(|(name, shown)| secret(name, shown)).collect();
    let listeners = [
        https("com", port, "*.example.com", &["first", "rsa", "ecdsa", "wild"]),
        https("org", port, "*.example.org", &["other"]),
    ];
    let (_mesh, _gateway) = start(&(yaml + &yaml::gateway("edge", &listeners) + &behind(&app))).await;
    let client = Client::trusting(&authority);
    for (name, expected) in [
        ("first.example.com", &first),
        ("any.example.com", &wild),
        ("both.example.com", &rsa),
        ("www.example.org", &other),
    ] {
        for version in [&TLS12, &TLS13] {
            let stream = client
                .clone()
                .speaking(version)
                .connect(at(port), name)
                .await
                .unwrap();
            assert_eq!(shown_by(&stream), expected.der().to_vec(), "{name}");
        }
    }
    // A client that takes no RSA is shown the other certificate for the same name.
    let openssl = tokio::process::Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &at(port).to_string(),
            "-servername",
            "both.example.com",
        ])
        .args(["-sigalgs", "ECDSA+SHA256"])
        .stdin(std::process::Stdio::null())
        .output()
        .await;
    let Ok(openssl) = openssl else {
        tests::skip!("openssl");
    };
    let said = String::from_utf8_lossy(&openssl.stdout).replace("\r\n", "\n");
    let body = ecdsa.chain.replace("\r\n", "\n");
    assert!(said.contains(body.trim()), "{said}");
}

#[tokio::test]
async fn a_name_that_no_listener_has_is_not_let_in() {
    let (authority, app) = (Authority::new("test"), App::echo("app").await);
    let (named, any) = (free_port().await, free_port().await);
    let shown = authority.certificate(&["www.example.com"]);
    let listeners = [
        https("named", named, "www.example.com", &["cert"]),
        https("any", any, "", &["cert"]),
    ];
    let yaml = secret("cert", &shown) + &yaml::gateway("edge", &listeners) + &behind(&app);
    let (_mesh, _gateway) = start(&yaml).await;
    let client = Client::trusting(&authority);
    for name in ["other.example.com", "127.0.0.1"] {
        let refused = client.connect(at(named), name).await.unwrap_err();
        assert_eq!(
            alert(&refused),
            Some(AlertDescription::UnrecognisedName),
            "{name}"
        );
        // Where any name is meant, the certificate is for the client to judge.
        let refused = client.connect(at(any), name).await.unwrap_err();
        assert_eq!(alert(&refused), None, "{refused}");
    }
    assert!(is_served(&client, named).await && is_served(&client, any).await);
    let mut raw = Raw::connect(at(named)).await;
    raw.send("GET / HTTP/1.1\r\nhost: www.example.com\r\n\r\n").await;
    assert_eq!(raw.read_to_end().await, b"", "no TLS");
}

#[tokio::test]
async fn a_connection_is_for_the_hosts_of_its_listener() {
    let (authority, app, port) = (Authority::new("test"), App::echo("app").await, free_port().await);
    let shown = authority.certificate(&["*.example.com", "*.wild.example.com"]);
    let listeners = [
        https("a", port, "a.example.com", &["cert"]),
        https("b", port, "b.example.com", &["cert"]),
        https("wild", port, "*.wild.example.com", &["cert"]),
    ];
    let yaml = secret("cert", &shown) + &yaml::gateway("edge", &listeners) + &behind(&app);
    let (_mesh, _gateway) = start(&yaml).await;
    for alpn in ["h2", "http/1.1"] {
        let client = Client::trusting(&authority).offering(&[alpn]);
        let stream = client.connect(at(port), "a.example.com").await.unwrap();
        let mut http = Http::tls(stream).await;
        for (host, verdict) in [
            ("a.example.com", (200, "")),
            ("b.example.com", (421, "misdirected")),
            ("x.wild.example.com", (421, "misdirected")),
            ("c.example.com", (404, "no_listener")),
            ("A.example.com:1", (200, "")),
        ] {
            assert_eq!(http.ask(host, "/").await.verdict(), verdict, "{host}");
        }
        let stream = client.connect(at(port), "x.wild.example.com").await.unwrap();
        let mut http = Http::tls(stream).await;
        assert_eq!(http.ask("y.wild.example.com", "/").await.status, 200);
        assert_eq!(
            http.ask("a.example.com", "/").await.verdict(),
            (421, "misdirected")
        );
    }
}

#[tokio::test]
async fn clients_may_have_to_show_a_certificate() {
    let (authority, app) = (Authority::new("test"), App::echo("app").await);
    let (trusted, stranger) = (Authority::new("trusted"), Authority::new("stranger"));
    let [asks, lenient, open] = [free_port().await, free_port().await, free_port().await];
    let shown = authority.certificate(&["www.example.com"]);
    let listeners = [asks, lenient, open].map(|port| https(&format!("p{port}"), port, "", &["cert"]));
    let validation = "caCertificateRefs: [{group: '', kind: ConfigMap, name: clients}]";
    let frontend = format!(
        "  tls: {{frontend: {{default: {{validation: {{{validation}}}}}, perPort: [{{port: {lenient}, tls: \
         {{validation: {{{validation}, mode: AllowInsecureFallback}}}}}}, {{port: {open}, tls: {{}}}}]}}}}\n  listeners:"
    );
    let gateway = yaml::gateway("edge", &listeners).replace("  listeners:", &frontend);
    let yaml =
        secret("cert", &shown) + &yaml::authorities("clients", &trusted.pem()) + &gateway + &behind(&app);
    let (_mesh, _gateway) = start(&yaml).await;
    let nobody = Client::trusting(&authority);
    let known = nobody.clone().showing(&trusted.certificate(&["client"]));
    let unknown = nobody.clone().showing(&stranger.certificate(&["client"]));
    for version in [&TLS12, &TLS13] {
        let served = async |client: &Client, port| is_served(&client.clone().speaking(version), port).await;
        for (client, at_asking) in [(&known, true), (&unknown, false), (&nobody, false)] {
            assert_eq!(served(client, asks).await, at_asking);
            assert!(served(client, lenient).await && served(client, open).await);
        }
    }
}

/// Whoever was let in on other terms is asked to come again, however busy it is; elsewhere nothing happens.
#[tokio::test]
async fn who_came_before_certificates_were_asked_for_has_to_show_one_too() {
    let (authority, trusted, app) = (
        Authority::new("test"),
        Authority::new("trusted"),
        App::echo("app").await,
    );
    let [asks, open] = [free_port().await, free_port().await];
    let shown = authority.certificate(&["www.example.com"]);
    let gateway = |listeners: [u16; 2]| {
        yaml::gateway(
            "edge",
            &listeners.map(|port| https(&format!("p{port}"), port, "", &["cert"])),
        )
    };
    let plain = gateway([asks, open]);
    let yaml =
        secret("cert", &shown) + &yaml::authorities("clients", &trusted.pem()) + &plain + &behind(&app);
    let (mesh, _gateway) = start(&yaml).await;
    let nobody = Client::trusting(&authority);
    let known = nobody.clone().showing(&trusted.certificate(&["client"]));
    let validation = "{validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: clients}]}}";
    let asking = plain.replace(
        "  listeners:",
        &format!("  tls: {{frontend: {{default: {{}}, perPort: [{{port: {asks}, tls: {validation}}}]}}}}\n  listeners:"),
    );
    let host = "www.example.com";
    for alpn in ["h2", "http/1.1"] {
        mesh.apply(&plain).await;
        let client = nobody.clone().offering(&[alpn]);
        let connect =
            async |client: &Client, port| Http::tls(client.connect(at(port), host).await.unwrap()).await;
        let [mut before, mut elsewhere] = [connect(&client, asks).await, connect(&client, open).await];
        for client in [&mut before, &mut elsewhere] {
            assert_eq!(client.ask(host, "/").await.status, 200);
        }
        mesh.apply(&asking).await;
        let ended = async { while before.try_ask(host, "/").await.is_ok() {} };
        within("the end of a busy connection", ended).await;
        assert!(!is_served(&client, asks).await);
        assert_eq!(elsewhere.ask(host, "/").await.status, 200);
        // What changes for others is no reason to ask again.
        let mut with = connect(&known.clone().offering(&[alpn]), asks).await;
        mesh.apply(&secret("cert", &authority.certificate(&[host]))).await;
        assert_eq!(with.ask(host, "/").await.status, 200);
    }
}

#[tokio::test]
async fn a_certificate_changes_and_no_connection_notices() {
    let (authority, app, port) = (Authority::new("test"), App::echo("app").await, free_port().await);
    let [old, new] = [0, 1].map(|_| authority.certificate(&["www.example.com"]));
    let gateway = yaml::gateway("edge", &[https("web", port, "", &["cert"])]);
    let (mesh, _gateway) = start(&(secret("cert", &old) + &gateway + &behind(&app))).await;
    let client = Client::trusting(&authority);
    let before = client.connect(at(port), "www.example.com").await.unwrap();
    assert_eq!(shown_by(&before), old.der().to_vec());
    let mut before = Http::tls(before).await;
    assert_eq!(before.ask("www.example.com", "/").await.status, 200);
    mesh.apply(&secret("cert", &new)).await;
    let after = client.connect(at(port), "www.example.com").await.unwrap();
    assert_eq!(shown_by(&after), new.der().to_vec());
    for http in [&mut before, &mut Http::tls(after).await] {
        assert_eq!(http.ask("www.example.com", "/").await.status, 200);
    }
}

#[tokio::test]
async fn who_shakes_hands_slowly_is_cut_off_and_harms_nobody() {
    let (authority, app, port) = (Authority::new("test"), App::echo("app").await, free_port().await);
    let shown = authority.certificate(&["www.example.com"]);
    let yaml = secret("cert", &shown)
        + &yaml::gateway("edge", &[https("web", port, "www.example.com", &["cert"])])
        + &behind(&app);
    let mesh = Mesh::with(&yaml).await;
    let gateway = mesh.gateway("edge").arg("--handshake-timeout", "1s");
    // On one thread those whose time is over are cut off one after the other.
    let gateway = gateway.arg("--workers", "1").start().await;
    let client = Client::trusting(&authority);
    let hello = client.hello("www.example.com");
    let (begin, rest) = hello.split_at(hello.len() / 2);
    let stream = client.connect(at(port), "www.example.com").await.unwrap();
    let mut open = Http::tls(stream).await;

    let mut slow = Vec::new();
    for sent in [&b""[..], begin, &hello] {
        for _ in 0..20 {
            let mut raw = Raw::connect(at(port)).await;
            raw.send(sent).await;
            slow.push(raw);
        }
    }
    let mut late = Raw::connect(at(port)).await;
    late.send(begin).await;
    assert!(is_served(&client, port).await);
    assert_eq!(open.ask("www.example.com", "/").await.status, 200);

    // Byte by byte does not prolong it.
    let mut dripping = Raw::connect(at(port)).await;
    let mut bytes = hello.iter();
    let half_time = Instant::now() + Duration::from_millis(500);
    let mut drip = async |raw: &mut Raw| {
        raw.send([*bytes.next().unwrap()]).await;
        raw.read_for(Duration::from_millis(20)).await.1
    };
    while Instant::now() < half_time && !drip(&mut dripping).await {}
    // Nor does it begin anew with the second part of the handshake.
    let mut silent = Raw::connect(at(port)).await;
    late.send(rest).await;
    while !drip(&mut dripping).await {}
    for raw in slow.iter_mut().chain([&mut late, &mut silent]) {
        raw.read_to_end().await;
    }
    let mut at_line = Vec::new();
    for raw in [&late, &silent] {
        let line = format!("client={}", raw.stream.local_addr().unwrap());
        let logged = gateway.process.log_line(&line).await;
        assert!(logged.contains("not over in time"), "{logged}");
        let lines = gateway.process.stderr();
        at_line.push(lines.iter().position(|other| *other == logged));
    }
    assert!(at_line[0] < at_line[1], "it had time for two handshakes");
    assert!(is_served(&client, port).await);
    assert_eq!(open.ask("www.example.com", "/").await.status, 200);
}
