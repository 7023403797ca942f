//! Configuration is taken whole or not at all, its faults are shown in their place, and its arrival can be awaited.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::process::Output;

use proto::v1::{AwaitRequest, Diagnostic};
use rustix::process::Signal;
use tests::{App, Load, Mesh, Sidecar, eventually, within, yaml};

/// `shop`, whose route goes to `red`, and `blue` beside it.
struct Shop {
    mesh: Mesh,
    visitor: Sidecar,
    _apps: Vec<(App, Sidecar)>,
}

impl Shop {
    async fn start() -> Self {
        let services: String = ["shop", "red", "blue"]
            .iter()
            .map(|name| yaml::service(name, 80, "http"))
            .collect();
        let mesh = Mesh::with(&(services + &split(100, 0))).await;
        let mut apps = Vec::new();
        for name in ["red", "blue"] {
            let app = App::echo(name).await;
            let sidecar = mesh.workload(name).app(app.address).start().await;
            apps.push((app, sidecar));
        }
        let visitor = mesh.visitor().await;
        Self {
            mesh,
            visitor,
            _apps: apps,
        }
    }

    /// Who answers a call to `shop`.
    async fn answer(&self) -> String {
        self.visitor.get("http://shop/").await.header("x-app").to_owned()
    }

    /// Writes a file of its own and has `weft apply` take it.
    async fn weft_apply(&self, yaml: &str, flags: &[&str]) -> Output {
        std::fs::write(self.mesh.path().join("test.yaml"), yaml).unwrap();
        self.mesh
            .weft(&[&["apply", "-f", "test.yaml"], flags].concat())
            .await
    }
}

fn split(red: u32, blue: u32) -> String {
    yaml::http_route(
        "shop",
        &format!(
            "- backendRefs:\n    - {{name: red, port: 80, weight: {red}}}\n    - {{name: blue, port: 80, weight: {blue}}}"
        ),
    )
}

/// Line and column, from 1, of where `needle` begins.
fn place(yaml: &str, needle: &str) -> (u32, u32) {
    let at = yaml.find(needle).unwrap();
    let before = &yaml[..at];
    let column = at - before.rfind('\n').map_or(0, |end| end + 1) + 1;
    (
        u32::try_from(before.lines().count().max(1)).unwrap(),
        u32::try_from(column).unwrap(),
    )
}

fn out(output: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

const ROUTE: &str = r#"apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: default}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}]
  rules:
    - matches:
        - path: {type: PathPrefix, value: /}
      backendRefs:
        - name: blue
          port: 80
"#;

#[tokio::test]
async fn faults_are_shown_with_file_line_and_column_and_the_old_configuration_stays() {
    let shop = Shop::start().await;
    let before = shop.mesh.operator().status().await.generation;
    let path = "{type: PathPrefix, value: /}";
    for (from, to, needle, field, message) in [
        (
            "port: 80",
            "port: 80\n          wieght: 3",
            "wieght",
            "spec.rules[0].backendRefs[0].wieght",
            "no such field",
        ),
        (
            "port: 80",
            "port: 80\n          weight: -5",
            "-5",
            "spec.rules[0].backendRefs[0].weight",
            "negative",
        ),
        (
            "port: 80",
            "port: 99999",
            "99999",
            "spec.rules[0].backendRefs[0].port",
            "port",
        ),
        (
            "port: 80",
            "port: many",
            "many",
            "spec.rules[0].backendRefs[0].port",
            "many",
        ),
        (
            path,
            "{type: PathPrefix, value: \"a\"}",
            "\"a\"",
            "spec.rules[0].matches[0].path.value",
            "does not start with",
        ),
        (
            path,
            "{type: Prefix, value: /}",
            "Prefix",
            "spec.rules[0].matches[0].path.type",
            "Prefix",
        ),
        (
            "metadata: {name: shop",
            "metadata: {name: SHOP",
            "SHOP",
            "metadata.name",
            "SHOP",
        ),
    ] {
        let yaml = ROUTE.replace(from, to);
        let response = shop.mesh.operator().try_apply(&yaml).await;
        assert_eq!(response.errors.len(), 1, "{to}: {:#?}", response.errors);
        let Diagnostic {
            file,
            line,
            column,
            field: at,
            message: says,
        } = &response.errors[0];
        assert_eq!(
            (file.as_str(), (*line, *column)),
            ("test.yaml", place(&yaml, needle)),
            "{to}: {says}"
        );
        assert_eq!(at, field, "{to}: {says}");
        assert!(says.contains(message), "{to}: {says}");
        assert!(response.applied.is_empty());
    }
    // Not even what is right beside it is taken.
    let mixed = ROUTE.to_owned() + "---\n" + &ROUTE.replace("name: shop,", "name: other,").replace("80", "0");
    assert_eq!(shop.mesh.operator().try_apply(&mixed).await.errors.len(), 1);
    for broken in [
        "a: [",
        "\t- x",
        "kind: [1]\n",
        "apiVersion: v1\nkind: Nothing\nmetadata: {name: x}\n",
    ] {
        let errors = shop.mesh.operator().try_apply(broken).await.errors;
        assert!(!errors.is_empty() && errors[0].line > 0, "{broken:?}: {errors:?}");
    }
    assert_eq!(shop.mesh.operator().status().await.generation, before);
    assert_eq!(shop.answer().await, "red");
    shop.mesh.apply(ROUTE).await;
    assert_eq!(shop.answer().await, "blue");
}

#[tokio::test]
async fn await_names_who_is_behind_and_answers_when_nobody_is() {
    let shop = Shop::start().await;
    assert_eq!(shop.answer().await, "red");
    shop.visitor.process.signal(Signal::STOP);
    let generation = shop.mesh.operator().apply(ROUTE).await;
    let mut client = shop.mesh.operator().client.clone();
    let short = AwaitRequest {
        generation,
        timeout_ms: 300,
    };
    let answer = client.r#await(short).await.unwrap().into_inner();
    let behind: Vec<_> = answer
        .behind
        .iter()
        .map(|proxy| proxy.workload_id.as_str())
        .collect();
    assert_eq!(
        (answer.reached, behind),
        (false, vec![shop.visitor.workload.as_str()])
    );
    let status = shop.mesh.operator().proxy(&shop.visitor.workload).await.unwrap();
    assert!(!status.in_sync && status.generation < generation);
    shop.visitor.process.signal(Signal::CONT);
    let answer = shop.mesh.operator().reached(generation).await;
    assert!(
        answer.reached && answer.behind.is_empty() && answer.proxies == 3,
        "{answer:?}"
    );
    assert_eq!(shop.answer().await, "blue");
}

#[tokio::test]
async fn a_canary_moves_the_split_without_a_failed_request() {
    let shop = Shop::start().await;
    let load = Load::start(shop.visitor.outbound, "http://shop/");
    load.more(100).await;
    for (red, blue) in [(50, 50), (0, 100), (50, 50), (100, 0)] {
        let (success, _, errors) = out(&shop.weft_apply(&split(red, blue), &["--wait"]).await);
        assert!(success, "{errors}");
        let before = load.counts();
        load.more(200).await;
        let after = load.counts();
        let share = |name| after.by_app[name] - before.by_app.get(name).copied().unwrap_or_default();
        match (red, blue) {
            // Each of the two callers may have had one call on its way; all others see the new split.
            (0, _) => assert!(share("red") <= 2, "{before:?} {after:?}"),
            (_, 0) => assert!(share("blue") <= 2, "{before:?} {after:?}"),
            // Six standard deviations (7.1 each) of 200 calls.
            _ => assert!(share("red").abs_diff(share("blue")) < 86, "{before:?} {after:?}"),
        }
    }
    load.stop().await.assert_no_failure();
}

#[tokio::test]
async fn the_watched_folder_is_followed_and_a_bad_file_changes_nothing() {
    let services = ["shop", "red", "blue"]
        .iter()
        .map(|name| yaml::service(name, 80, "http"))
        .collect::<String>();
    let builder = Mesh::builder()
        .file("services.yaml", &services)
        .file("route.yaml", &split(100, 0));
    let mesh = builder.start().await;
    let mut apps = Vec::new();
    for name in ["red", "blue"] {
        let app = App::echo(name).await;
        apps.push((mesh.workload(name).app(app.address).start().await, app));
    }
    let visitor = mesh.visitor().await;
    let answer = || async { visitor.get("http://shop/").await.header("x-app").to_owned() };
    let until = |wanted: &'static str| {
        eventually(
            wanted,
            move || async move { (answer().await == wanted).then_some(()) },
        )
    };
    assert_eq!(answer().await, "red");
    let file = mesh.config_dir().join("route.yaml");
    std::fs::write(&file, ROUTE).unwrap();
    until("blue").await;

    let bad = ROUTE.replace("port: 80", "port: 80\n          wieght: 1");
    std::fs::write(&file, &bad).unwrap();
    let error = eventually("an error of the file", || async {
        mesh.operator().status().await.source_errors.into_iter().next()
    })
    .await;
    assert!(error.file.ends_with("route.yaml"), "{error:?}");
    assert_eq!((error.line, error.column), place(&bad, "wieght"), "{error:?}");
    assert_eq!(answer().await, "blue");

    // Editors write a new file and rename it over the old one.
    let new = mesh.path().join("new.yaml");
    std::fs::write(&new, split(100, 0)).unwrap();
    std::fs::rename(&new, &file).unwrap();
    until("red").await;
    assert!(mesh.operator().status().await.source_errors.is_empty());
    std::fs::remove_file(&file).unwrap();
    // Without its route the service has only its own endpoints: none.
    until("").await;
    assert!(mesh.operator().get("HTTPRoute", "").await.objects.is_empty());
}

#[tokio::test]
async fn the_weft_command_applies_gets_deletes_and_shows_the_status() {
    let shop = Shop::start().await;
    let mesh = &shop.mesh;
    let (success, stdout, errors) = out(&shop.weft_apply(ROUTE, &["--dry-run"]).await);
    assert!(
        success && stdout.contains("HTTPRoute/default/shop configured (dry run)"),
        "{stdout}{errors}"
    );
    assert_eq!(shop.answer().await, "red");
    let (success, stdout, errors) = out(&shop.weft_apply(ROUTE, &["--wait"]).await);
    assert!(
        success && stdout.contains("HTTPRoute/default/shop configured"),
        "{stdout}{errors}"
    );
    assert_eq!(shop.answer().await, "blue");
    let (success, stdout, _) = out(&shop.weft_apply(ROUTE, &[]).await);
    assert!(success && stdout.contains("unchanged"), "{stdout}");

    let bad = ROUTE.replace("port: 80", "port: 80\n          weight: -5");
    let (line, column) = place(&bad, "-5");
    let (success, stdout, errors) = out(&shop.weft_apply(&bad, &["--wait"]).await);
    assert!(!success && stdout.is_empty(), "{stdout}");
    assert!(
        errors.starts_with(&format!("test.yaml:{line}:{column}: error: ")),
        "{errors}"
    );
    assert!(
        errors.contains("weight: -5") && errors.contains("nothing was applied"),
        "{errors}"
    );

    let (success, stdout, _) = out(&mesh.weft(&["status"]).await);
    assert!(success && stdout.contains("all in sync"), "{stdout}");
    for part in [
        &shop.visitor.workload,
        &shop.visitor.spiffe_id().to_string(),
        "default/red",
    ] {
        assert!(stdout.contains(part), "{part} in {stdout}");
    }
    let (success, stdout, _) = out(&mesh.weft(&["status", "-o", "json"]).await);
    let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(success && status["allInSync"] == true, "{status}");
    assert_eq!(status["sidecars"].as_array().unwrap().len(), 3);

    let (success, stdout, _) = out(&mesh.weft(&["get", "httproutes"]).await);
    assert!(
        success && stdout.contains("shop") && stdout.contains("Accepted"),
        "{stdout}"
    );
    let (success, stdout, _) = out(&mesh.weft(&["get", "HTTPRoute", "shop", "-o", "yaml"]).await);
    assert!(success && stdout.contains("backendRefs"), "{stdout}");
    assert!(!mesh.weft(&["get", "HTTPRoute", "nothing"]).await.status.success());
    assert!(
        !mesh
            .weft(&["delete", "HTTPRoute", "nothing"])
            .await
            .status
            .success()
    );
    let (success, stdout, _) = out(&mesh.weft(&["delete", "HTTPRoute", "shop"]).await);
    assert!(
        success && stdout.contains("HTTPRoute/default/shop deleted"),
        "{stdout}"
    );
    assert!(mesh.operator().get("HTTPRoute", "shop").await.objects.is_empty());

    let (success, stdout, _) = out(&mesh.weft(&["token", "create", "--service-account", "late"]).await);
    assert!(success && stdout.starts_with("weft-join."), "{stdout}");
    let late = mesh
        .workload("late")
        .without_token()
        .env("WEFT_TOKEN", stdout.trim())
        .start()
        .await;
    assert_eq!(late.get("http://red/").await.status, 200);
}

#[tokio::test]
async fn nobody_operates_a_mesh_without_its_credential() {
    let (mesh, other) = (Mesh::start().await, Mesh::start().await);
    let address = mesh.grpc_address().to_string();
    let data = other.data_dir();
    let (credential, bundle) = (data.join("operator.pem"), data.join("bundle.pem"));
    let (credential, bundle) = (credential.to_str().unwrap(), bundle.to_str().unwrap());
    let flags = [
        "status",
        "--control-plane",
        &address,
        "--credential",
        credential,
        "--bundle",
        bundle,
    ];
    let (success, _, errors) = out(&other.weft(&flags).await);
    assert!(!success && !errors.is_empty(), "{errors}");
    // A workload's certificate is one of this mesh, but not an operator's.
    let peer = tests::peer::Peer::join(&mesh, "mallory").await;
    let mut client = within("a connection", peer.operator(&mesh)).await;
    let status = client.status(proto::v1::StatusRequest {}).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status:?}");
}
