//! The address of an endpoint as Host: it alone is called, over mTLS and past the routes of its Service.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::net::SocketAddr;

use tests::client::Http;
use tests::{App, Mesh, Network, Raw, Sidecar, eventually, skip, yaml};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn tunnel(proxy: SocketAddr, to: SocketAddr) -> Raw {
    let mut raw = Raw::connect(proxy).await;
    raw.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n"))
        .await;
    let head = String::from_utf8(raw.read_until(b"\r\n\r\n").await).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{to}: {head}");
    raw
}

/// A counter of a sidecar, over the series of one destination.
async fn counted(sidecar: &Sidecar, name: &str, destination: &str) -> u64 {
    let page = format!("http://{}/metrics", sidecar.metrics);
    let answer = Http::http1(sidecar.metrics).await.get(&page).await;
    let label = format!("destination=\"{destination}\"");
    let lines = answer.text().lines().filter(|line| line.starts_with(name));
    lines
        .filter(|line| line.contains(&label))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

#[tokio::test]
async fn that_endpoint_is_called_past_the_routes() {
    // Every request by name is answered by a redirect.
    let route = yaml::http_route(
        "echo",
        "- filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere.example, statusCode: 302}}]",
    );
    let mesh = Mesh::with(&(yaml::service("echo", 80, "") + &route)).await;
    let (one, two) = (App::echo("one").await, App::echo("two").await);
    let first = mesh.workload("echo").app(one.address).start().await;
    let second = mesh.workload("echo").app(two.address).start().await;
    let visitor = mesh.workload("visitor").arg("--outside", "deny").start().await;
    assert_eq!(visitor.get("http://echo/").await.status, 302);
    let mut calls = 0;
    for (address, name) in [
        (one.address, "one"),
        (two.address, "two"),
        (first.inbound, "one"),
        (second.inbound, "two"),
    ] {
        for _ in 0..5 {
            let answer = visitor.get(&format!("http://{address}/")).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("x-app")),
                (200, name),
                "{address}"
            );
        }
        let answer = visitor.h2c().await.get(&format!("http://{address}/")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-app")),
            (200, name),
            "{address}"
        );
        let mut inside = Http::http1_over(tunnel(visitor.outbound, address).await.stream).await;
        let answer = inside.ask("echo", "/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-app")),
            (200, name),
            "{address}"
        );
        let mut inside = Http::h2c_over(tunnel(visitor.outbound, address).await.stream).await;
        let answer = inside.get("http://echo/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-app")),
            (200, name),
            "{address}"
        );
        calls += 8;
    }
    assert_eq!(
        counted(&visitor, "weft_attempts_mtls_total", "default/echo:80").await,
        calls
    );
    let seen = one.requests();
    assert_eq!(seen[0].header("host"), one.address.to_string());
}

#[tokio::test]
async fn opaque_bytes_go_to_that_endpoint_too() {
    let named = async |name: &'static str| {
        App::raw(move |mut stream| async move {
            let mut bytes = [0; 4];
            if stream.read_exact(&mut bytes).await.is_ok() {
                let _ = stream.write_all(name.as_bytes()).await;
            }
        })
        .await
    };
    let mesh = Mesh::with(&yaml::service("db", 5432, "tcp")).await;
    let (one, two) = (named("one").await, named("two").await);
    let _first = mesh.workload("db").app(one.address).start().await;
    let _second = mesh.workload("db").app(two.address).start().await;
    let visitor = mesh.visitor().await;
    for _ in 0..5 {
        for (address, name) in [(one.address, "one"), (two.address, "two")] {
            let mut raw = tunnel(visitor.outbound, address).await;
            raw.send("ping").await;
            assert_eq!(raw.read_to_end().await, name.as_bytes());
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_ready_is_not_called_in_plain_instead() {
    let mesh = Mesh::with(&yaml::service("echo", 80, "http")).await;
    let mut app = App::echo("echo").await;
    let mut echo = mesh.workload("echo").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let url = format!("http://{}/", app.address);
    assert_eq!(visitor.get(&url).await.status, 200);
    app.stop().await;
    eventually("the endpoint is not ready", async || {
        let answer = visitor.get(&url).await;
        (answer.verdict() == (503, "no_endpoint")).then_some(())
    })
    .await;
    assert_eq!(counted(&visitor, "weft_requests_total", "outside").await, 0);
    // Once the workload has gone, the address is nobody's in the mesh.
    echo.terminate().await;
    eventually("the address is outside", async || {
        let answer = visitor.get(&url).await;
        (answer.verdict() == (503, "connect_failed")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn on_hosts_of_their_own_workloads_are_called_like_pods() {
    let Some(network) = Network::start() else {
        skip!("root, ip and nft, for network namespaces")
    };
    let [left, right, caller] = ["left", "right", "caller"].map(|name| network.host(name));
    let mesh = Mesh::builder().reached_at(network.address()).start().await;
    mesh.apply(&yaml::service("pair", 80, "http")).await;
    let mut running = Vec::new();
    for (host, name) in [(&left, "left"), (&right, "right")] {
        // It listens on the loopback of its host: nobody but its sidecar can reach it.
        let app = host.start(App::echo(name));
        let sidecar = mesh.workload("pair").on(host).app(app.address).start().await;
        running.push((app, sidecar, host.address, name));
    }
    let visitor = mesh.workload("visitor").on(&caller).start().await;
    for (app, sidecar, ip, name) in &running {
        for address in [SocketAddr::new(*ip, app.address.port()), sidecar.inbound] {
            for _ in 0..3 {
                let answer = visitor.get(&format!("http://{address}/")).await;
                assert_eq!(
                    (answer.status.as_u16(), answer.header("x-app")),
                    (200, *name),
                    "{address}"
                );
            }
        }
    }
    // Nobody listens at another port, in the mesh or outside it.
    let answer = visitor.get(&format!("http://{}:1/", left.address)).await;
    assert_eq!(answer.verdict(), (503, "connect_failed"));
    // The caller's own ports, by the address that others know it by.
    let answer = visitor
        .get(&format!("http://{}:{}/", caller.address, visitor.admin.port()))
        .await;
    assert_eq!(answer.verdict(), (403, "own_port"));
}
