//! Traffic does not need the control plane: it goes on without it, and everybody finds back when it returns.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::time::{SystemTime, UNIX_EPOCH};

use tests::{App, Load, Mesh, Operator, eventually, yaml};

/// Waits until so many sidecars are connected and use what is in force.
async fn all_in_sync(operator: &Operator, count: usize) {
    eventually(&format!("{count} sidecars in sync"), || async {
        let status = operator.status().await;
        let in_sync = status
            .proxies
            .iter()
            .filter(|proxy| proxy.connected && proxy.in_sync);
        (status.proxies.len() == count && in_sync.count() == count).then_some(())
    })
    .await;
}

fn route(backend: &str) -> String {
    yaml::http_route("shop", &format!("- backendRefs: [{{name: {backend}, port: 80}}]"))
}

fn services() -> String {
    ["shop", "red", "blue"]
        .iter()
        .map(|name| yaml::service(name, 80, "http"))
        .collect()
}

#[tokio::test]
async fn traffic_goes_on_while_it_is_dead_and_all_are_in_sync_when_it_is_back() {
    let mut mesh = Mesh::with(&(services() + &route("red"))).await;
    let (red, blue) = (App::echo("red").await, App::echo("blue").await);
    let _red = mesh.workload("red").app(red.address).start().await;
    let _blue = mesh.workload("blue").app(blue.address).start().await;
    let visitor = mesh.visitor().await;
    let load = Load::start(visitor.outbound, "http://shop/");
    load.more(50).await;
    let before = mesh.operator().status().await.generation;

    mesh.kill_control_plane().await;
    visitor.process.log_line("the config stream is lost").await;
    load.more(200).await;
    // What nobody has called yet cannot be learnt now, and the answer says so.
    assert_eq!(
        visitor.get("http://blue/").await.verdict(),
        (503, "discovery_timeout")
    );

    mesh.start_control_plane().await;
    load.more(50).await;
    all_in_sync(mesh.operator(), 3).await;
    assert!(
        mesh.operator().status().await.generation >= before,
        "generations went back"
    );
    // The caller is told about what it asked for meanwhile, and of changes as before.
    assert_eq!(visitor.get("http://blue/").await.status, 200);
    mesh.apply(&route("blue")).await;
    load.more(10).await;
    let from_here = load.counts().by_app["blue"];
    load.until("calls to blue", |counts| counts.by_app["blue"] > from_here + 50)
        .await;
    load.stop().await.assert_no_failure();
}

#[tokio::test]
async fn what_was_applied_and_who_joined_is_remembered() {
    let mut mesh = Mesh::with(&(services() + &route("red"))).await;
    let red = App::echo("red").await;
    let mut sidecar = mesh.workload("red").app(red.address).start().await;
    let unused = mesh.operator().token("default", "late").await;
    for _ in 0..2 {
        mesh.kill_control_plane().await;
        mesh.start_control_plane().await;
    }
    let objects = mesh.operator().get("", "").await.objects;
    assert_eq!(objects.len(), 4, "{objects:#?}");
    all_in_sync(mesh.operator(), 1).await;
    // The sidecar's own restart needs no token, because it kept its identity;
    let identity = mesh.operator().proxy(&sidecar.workload).await.unwrap();
    sidecar.kill().await;
    sidecar.restart().await;
    let again = mesh.operator().proxy(&sidecar.workload).await.unwrap();
    assert_eq!(
        (again.spiffe_id, again.certificate_not_after),
        (identity.spiffe_id, identity.certificate_not_after)
    );
    // and a token made before the restart is good once, and only once.
    let late = mesh
        .workload("late")
        .without_token()
        .env("WEFT_TOKEN", &unused)
        .start()
        .await;
    assert_eq!(late.get("http://shop/").await.header("x-app"), "red");
    let mut thief = mesh
        .workload("late")
        .without_token()
        .env("WEFT_TOKEN", &unused)
        .launch();
    assert!(!thief.ended().await.success());
    let log = thief.stderr().join("\n");
    assert!(log.contains("token"), "{log}");
}

#[tokio::test]
async fn a_sidecar_started_while_it_is_dead_waits_for_it() {
    let mut mesh = Mesh::with(&yaml::service("red", 80, "http")).await;
    let red = App::echo("red").await;
    let token = mesh.operator().token("default", "red").await;
    mesh.kill_control_plane().await;
    let late = mesh
        .workload("red")
        .app(red.address)
        .without_token()
        .env("WEFT_TOKEN", &token)
        .launch();
    late.log_line("joining the mesh: trying again").await;
    mesh.start_control_plane().await;
    late.line("ready").await;
    let visitor = mesh.visitor().await;
    eventually("an endpoint", || async {
        (visitor.get("http://red/").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn certificates_are_renewed_without_a_failed_request() {
    let mesh = Mesh::builder().arg("--certificate-lifetime", "10s").start().await;
    mesh.apply(&yaml::service("red", 80, "http")).await;
    let app = App::echo("red").await;
    let red = mesh.workload("red").app(app.address).start().await;
    let visitor = mesh.visitor().await;
    let load = Load::start(visitor.outbound, "http://red/");
    let mut first_end = 0;
    for sidecar in [&red, &visitor] {
        let proxy = mesh.operator().proxy(&sidecar.workload).await.unwrap();
        first_end = first_end.max(proxy.certificate_not_after);
    }
    // Until both first certificates have ended: every call after that is by a renewed one.
    load.until("the end of the first certificates", |_| unix_now() > first_end)
        .await;
    load.more(100).await;
    for sidecar in [&red, &visitor] {
        let page = format!("http://{}/certs", sidecar.admin);
        let certificates = tests::Http::http1(sidecar.admin).await.get(&page).await;
        let certificates: serde_json::Value = serde_json::from_slice(&certificates.body).unwrap();
        assert_eq!(certificates["spiffe_id"], sidecar.spiffe_id().to_string());
        let ends = mesh
            .operator()
            .proxy(&sidecar.workload)
            .await
            .unwrap()
            .certificate_not_after;
        assert!(ends > first_end, "{} was not renewed", sidecar.workload);
    }
    load.stop().await.assert_no_failure();
}

fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}
