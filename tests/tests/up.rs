//! `weft up` starts a whole mesh from one folder, with traffic, and says at the end whether it worked.
//!
//! The shop of `examples/` builds itself in release; that demo is run by `.ci/run`. Here its like, built already.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::path::Path;
use std::process::Output;

use rustix::process::{Pid, Signal};
use tests::binaries::binary;
use tests::process::Process;
use tests::{within, yaml};

/// One service, whose application is this program again (see [`serve`]), and a visitor that calls it.
const UP: &str = r#"
name: small
config: mesh
workloads:
  - name: frontend
    command: ["${TEST}", serve, --exact, --ignored, --nocapture]
    env: {SERVE_ON: "${APP}"}
  - name: visitor
traffic:
  from: visitor
  requestsPerSecond: 50
  requests:
    - {method: GET, url: "http://frontend/", weight: 1}
"#;

/// The application of the mesh below: not a test, but this program in another role.
#[tokio::test]
#[ignore = "is started by the others"]
async fn serve() {
    let Ok(address) = std::env::var("SERVE_ON") else {
        return;
    };
    let status = std::env::var("SERVE_STATUS").map_or(200, |status| status.parse().unwrap());
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    println!("serving {}", std::process::id());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |_| async move {
                Ok::<_, std::convert::Infallible>(tests::text(status, "hello"))
            });
            let stream = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(stream, service)
                .await;
        });
    }
}

fn folder(up: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("mesh")).unwrap();
    std::fs::write(
        folder.path().join("mesh/services.yaml"),
        yaml::service("frontend", 80, "http"),
    )
    .unwrap();
    let test = std::env::current_exe().unwrap();
    std::fs::write(
        folder.path().join("up.yaml"),
        up.replace("${TEST}", test.to_str().unwrap()),
    )
    .unwrap();
    folder
}

async fn up(folder: &Path, flags: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(binary("weft"));
    command
        .arg("up")
        .arg(folder)
        .args(flags)
        .env("XDG_RUNTIME_DIR", folder)
        .env("XDG_STATE_HOME", folder);
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("OTEL_") || name.starts_with("WEFT_"))
    {
        command.env_remove(name);
    }
    within("weft up", command.kill_on_drop(true).output())
        .await
        .unwrap()
}

#[tokio::test]
async fn it_ends_well_where_the_calls_did() {
    let folder = folder(UP);
    let output = up(folder.path(), &["--for", "3s"]).await;
    let (shown, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{shown}\n{errors}");
    assert!(shown.contains("100.00 %"), "{shown}\n{errors}");
}

#[tokio::test]
async fn it_ends_badly_where_the_calls_failed() {
    let folder = folder(&UP.replace("SERVE_ON", "SERVE_STATUS: \"500\", SERVE_ON"));
    let output = up(folder.path(), &["--for", "3s"]).await;
    assert!(
        !output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[tokio::test]
async fn ctrl_c_leaves_no_process_behind() {
    let folder = folder(UP);
    let args = ["up".to_owned(), folder.path().display().to_string()];
    let env = ["XDG_RUNTIME_DIR", "XDG_STATE_HOME"]
        .map(|name| (name.to_owned(), folder.path().display().to_string()));
    let mut process = Process::start("weft up", &binary("weft"), &args, &env);
    let child = tests::eventually("the application", || async { child_of(process.pid()) }).await;
    process.signal(Signal::INT);
    process.ended().await;
    tests::eventually("the end of the application", || async {
        // Where nobody collects orphans, a dead one stays listed as a zombie.
        let is_gone = stat(child).is_none_or(|(state, _)| state == "Z");
        is_gone.then_some(())
    })
    .await;
}

/// A process whose parent is `parent`.
fn child_of(parent: Pid) -> Option<Pid> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.find(|pid| stat(*pid).is_some_and(|(_, its_parent)| its_parent == Some(parent)))
}

/// A process's state and parent; `None` where it does not exist.
fn stat(pid: Pid) -> Option<(String, Option<Pid>)> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name before them stands in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((
        fields.next()?.to_owned(),
        Pid::from_raw(fields.next()?.parse().ok()?),
    ))
}
