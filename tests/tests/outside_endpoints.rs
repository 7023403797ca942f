//! A Service of addresses that the mesh does not run: called in plain, and otherwise as any other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Response, Version};
use tests::client::Http;
use tests::echo::{self, EchoClient, words};
use tests::{App, Load, Mesh, Raw, Relay, Sidecar, within, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A Service without a selector, whose only port has no name.
fn service(name: &str, port: u16, protocol: &str) -> String {
    yaml::service_selecting(name, "", port, protocol)
}

/// One slice for every address, since a slice has one port number; `ready` goes for all.
fn slices(service: &str, addresses: &[SocketAddr], ready: bool) -> String {
    let slice = |(number, address): (usize, &SocketAddr)| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {service}-{number}, labels: {{kubernetes.io/service-name: {service}}}}}\n\
             addressType: IPv4\nports: [{{port: {}}}]\n\
             endpoints: [{{addresses: [{}], conditions: {{ready: {ready}}}}}]\n---\n",
            address.port(),
            address.ip()
        )
    };
    addresses.iter().enumerate().map(slice).collect()
}

/// `legacy` at these addresses, and a sidecar to call it from.
async fn legacy(protocol: &str, addresses: &[SocketAddr]) -> (Mesh, Sidecar) {
    let yaml = service("legacy", 80, protocol) + &slices("legacy", addresses, true);
    let mesh = Mesh::with(&yaml).await;
    let visitor = mesh.workload("visitor").local("legacy:80").start().await;
    (mesh, visitor)
}

/// A counter of the outbound side, over all its series.
async fn counter(sidecar: &Sidecar, name: &str) -> u64 {
    let page = Http::http1(sidecar.metrics)
        .await
        .get(&format!("http://{}/metrics", sidecar.metrics))
        .await;
    let series = page.text().lines().filter(|line| line.starts_with(name));
    let outbound = series.filter(|line| line.contains("direction=\"outbound\""));
    outbound
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

#[tokio::test]
async fn it_is_called_in_plain_http1_by_its_own_name_and_counted_as_such() {
    let app = App::echo("outside").await;
    let (_mesh, visitor) = legacy("http", &[app.address]).await;
    let mut client = visitor.http1().await;
    for body in ["one", "two", "three"] {
        let answer = client.post("http://legacy/path?query", body).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, body));
        assert_eq!(answer.header("x-app"), "outside");
    }
    let mut h2 = visitor.h2c().await;
    assert_eq!(h2.get("http://legacy/path?query").await.status, 200);
    let arrived = app.requests();
    for request in &arrived {
        assert_eq!(request.version, Version::HTTP_11);
        assert_eq!((request.header("host"), request.uri.path()), ("legacy", "/path"));
    }
    assert_eq!(
        (arrived.len(), app.connections()),
        (4, 1),
        "the connection is kept"
    );
    assert_eq!(counter(&visitor, "weft_attempts_total").await, 4);
    assert_eq!(counter(&visitor, "weft_attempts_mtls_total").await, 0);
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_at_another_address_without_a_policy() {
    let (app, mut gone) = (App::echo("here").await, App::echo("gone").await);
    let (_mesh, visitor) = legacy("http", &[gone.address, app.address]).await;
    gone.stop().await;
    let mut client = visitor.http1().await;
    for _ in 0..60 {
        let answer = client.post("http://legacy/", "body").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-app")), (200, "here"));
    }
    assert!(
        counter(&visitor, "weft_attempts_total").await > 60,
        "the refusing address was never chosen first"
    );
    let (_mesh, visitor) = legacy("http", &[gone.address]).await;
    assert_eq!(
        visitor.get("http://legacy/").await.verdict(),
        (503, "connect_failed")
    );
}

#[tokio::test]
async fn routes_and_retries_are_those_of_any_service() {
    let bad = App::answering(|_| Response::builder().status(503).body(Bytes::new()).unwrap()).await;
    let good = App::echo("good").await;
    let (mesh, visitor) = legacy("http", &[bad.address, good.address]).await;
    let rule = "- backendRefs: [{name: legacy, port: 80}]\n  \
                filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-mark, value: set}]}}]\n  \
                retry: {codes: [503], attempts: 1, backoff: 1ms}";
    mesh.apply(&yaml::http_route("legacy", rule)).await;
    // The budget allows that many retries at once.
    while bad.requests().len() < 8 {
        assert_eq!(visitor.get("http://legacy/").await.status, 200);
    }
    assert!(
        good.requests()
            .iter()
            .all(|request| request.header("x-mark") == "set")
    );
}

#[tokio::test]
async fn a_service_of_the_mesh_may_send_to_it_by_a_route() {
    let (inside, outside) = (App::echo("inside").await, App::echo("outside").await);
    let services = yaml::service("shop", 80, "http") + &service("legacy", 80, "http");
    let rule = "- matches: [{path: {value: /old}}]\n  backendRefs: [{name: legacy, port: 80}]\n\
                - backendRefs: [{name: shop, port: 80}]";
    let mesh = Mesh::with(
        &(services + &slices("legacy", &[outside.address], true) + &yaml::http_route("shop", rule)),
    )
    .await;
    let _shop = mesh.workload("shop").app(inside.address).start().await;
    let visitor = mesh.visitor().await;
    for (url, app) in [
        ("http://shop/old", "outside"),
        ("http://shop/new", "inside"),
        ("http://shop/old/too", "outside"),
    ] {
        assert_eq!(visitor.get(url).await.header("x-app"), app, "{url}");
    }
    assert_eq!(counter(&visitor, "weft_attempts_total").await, 3);
    assert_eq!(counter(&visitor, "weft_attempts_mtls_total").await, 1);
}

#[tokio::test]
async fn a_change_of_its_addresses_is_followed_without_a_failed_request() {
    let (red, blue) = (App::echo("red").await, App::echo("blue").await);
    let (mesh, visitor) = legacy("http", &[red.address]).await;
    let load = Load::start(visitor.outbound, "http://legacy/");
    load.more(50).await;
    for (app, name) in [(&blue, "blue"), (&red, "red"), (&blue, "blue")] {
        mesh.apply(&slices("legacy", &[app.address], true)).await;
        let answer = visitor.get("http://legacy/").await;
        assert_eq!(answer.header("x-app"), name, "what is acknowledged is in use");
        load.more(50).await;
    }
    // A second slice, and then the first one not ready: the same by other means.
    mesh.apply(&slices("legacy", &[blue.address, red.address], true))
        .await;
    for app in [&red, &blue] {
        app.arrived(app.requests().len() + 1).await;
    }
    mesh.apply(&slices("legacy", &[blue.address], false)).await;
    let before = blue.requests().len();
    load.more(50).await;
    assert_eq!(visitor.get("http://legacy/").await.header("x-app"), "red");
    assert!(blue.requests().len() <= before + 2, "only what was on its way");
    load.stop().await.assert_no_failure();
    mesh.apply(&slices("legacy", &[blue.address, red.address], false))
        .await;
    assert_eq!(
        visitor.get("http://legacy/").await.verdict(),
        (503, "no_endpoint")
    );
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_declared() {
    let app = App::echo("outside").await;
    let (_mesh, visitor) = legacy("kubernetes.io/h2c", &[app.address]).await;
    for mut client in [visitor.http1().await, visitor.h2c().await] {
        let answer = client.post("http://legacy/", "body").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "body"));
    }
    let versions: Vec<Version> = app.requests().iter().map(|request| request.version).collect();
    assert_eq!(versions, [Version::HTTP_2; 2]);
    assert_eq!(counter(&visitor, "weft_attempts_mtls_total").await, 0);
}

#[tokio::test]
async fn grpc_needs_no_declaration() {
    let app = echo::app().await;
    let (_mesh, visitor) = legacy("", &[app.address]).await;
    let mut client = EchoClient::connect(format!("http://{}", visitor.local("legacy:80")))
        .await
        .unwrap();
    let answer = within("unary", client.say(words("hello"))).await.unwrap();
    assert_eq!(answer.into_inner().text, "hello");
    assert_eq!(app.requests()[0].version, Version::HTTP_2);
}

#[tokio::test]
async fn opaque_bytes_pass_as_they_are() {
    let app = App::raw(|mut stream| async move {
        let _ = stream.write_all(b"220 ready\r\n").await;
        let mut line = [0; 4];
        if stream.read_exact(&mut line).await.is_ok() {
            let _ = stream.write_all(&line).await;
        }
    })
    .await;
    let relay = Relay::start().await;
    relay.set_target(app.address);
    let mut gone = App::tcp_echo().await;
    let (_mesh, visitor) = legacy("tcp", &[gone.address, relay.address]).await;
    gone.stop().await;
    for _ in 0..10 {
        let mut raw = Raw::connect(visitor.local("legacy:80")).await;
        assert_eq!(raw.read_until(b"\r\n").await, b"220 ready\r\n");
        raw.send("EHLO").await;
        assert_eq!(raw.read_to_end().await, b"EHLO");
    }
    for taken in relay.taken() {
        assert_eq!(
            (&taken.forth[..], &taken.back[..]),
            (&b"EHLO"[..], &b"220 ready\r\nEHLO"[..])
        );
    }
}

#[tokio::test]
async fn only_a_sidecar_may_say_what_a_sidecar_found() {
    // What a sidecar says where its application refused the connection, which is always tried again.
    let liar = App::answering(|_| {
        let response = Response::builder().status(503);
        let status = "weft; error=connection_refused; details=\"connect_failed\"";
        response
            .header("proxy-status", status)
            .body(Bytes::new())
            .unwrap()
    })
    .await;
    let (_mesh, visitor) = legacy("http", &[liar.address]).await;
    let answer = visitor.get("http://legacy/").await;
    assert_eq!(answer.verdict(), (503, ""));
    assert_eq!(liar.requests().len(), 1);
}

#[tokio::test]
async fn a_workload_is_never_called_in_plain() {
    let app = App::echo("inside").await;
    let mesh = Mesh::with(&yaml::service("shop", 80, "http")).await;
    let relay = Relay::start().await;
    let shop = mesh
        .workload("shop")
        .app(app.address)
        .advertise(relay.address)
        .start()
        .await;
    relay.set_target(shop.inbound);
    let visitor = mesh.visitor().await;
    assert_eq!(visitor.get("http://shop/").await.header("x-app"), "inside");
    // Slices, even of where it can be reached, change nothing for a Service that selects workloads.
    let addresses = [relay.address, app.address];
    mesh.apply(&slices("shop", &addresses, true)).await;
    let (before, calls) = (app.connections(), 20);
    for _ in 0..calls {
        assert_eq!(visitor.get("http://shop/").await.header("x-app"), "inside");
    }
    assert_eq!(app.connections(), before, "by its sidecar only");
    assert_eq!(counter(&visitor, "weft_attempts_mtls_total").await, calls + 1);
    for taken in relay.taken() {
        assert_eq!(
            taken.forth.first(),
            Some(&22),
            "every connection begins with a TLS handshake"
        );
    }
    // The same Service without its selector is another one: only what is listed is called, and in plain.
    mesh.apply(&(service("shop", 80, "http") + &slices("shop", &[app.address], true)))
        .await;
    assert_eq!(visitor.get("http://shop/").await.header("x-app"), "inside");
    assert_eq!(app.connections(), before + 1);
    assert_eq!(counter(&visitor, "weft_attempts_mtls_total").await, calls + 1);
}

#[tokio::test]
async fn weft_shows_whether_a_slice_is_of_use() {
    let app = App::echo("outside").await;
    let mesh = Mesh::with(&(service("legacy", 80, "http") + &yaml::service("shop", 80, "http"))).await;
    let both = slices("legacy", &[app.address], true) + &slices("shop", &[app.address], true);
    std::fs::write(mesh.path().join("slices.yaml"), both).unwrap();
    let output = mesh.weft(&["apply", "-f", "slices.yaml"]).await;
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("ServiceHasSelector"), "{told}");
    let output = mesh.weft(&["get", "endpointslices"]).await;
    let table = String::from_utf8(output.stdout).unwrap();
    let row = |name: &str| table.lines().find(|line| line.contains(name)).unwrap();
    assert!(row("legacy-0").contains("Accepted, ResolvedRefs"), "{table}");
    assert!(row("shop-0").contains("Accepted=False"), "{table}");
}
