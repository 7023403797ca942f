//! `lastTransitionTime` is when a condition changed: neither when its object did, nor when somebody looked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tests::{Mesh, eventually, yaml};

/// How often a change that comes about while nobody looks is tried; a machine may be too busy to see one soon.
const TRIES: usize = 5;

fn now() -> SystemTime {
    SystemTime::now()
}

/// Waits for the clock: the times are in whole seconds.
async fn after(time: SystemTime) {
    eventually("the clock goes on", async || (now() > time).then_some(())).await;
}

/// `lastTransitionTime` and status of a condition of the route `cart`.
async fn since(mesh: &Mesh, wanted: &str) -> (SystemTime, bool) {
    let output = mesh.weft(&["get", "HTTPRoute", "cart", "-o", "yaml"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let route: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let conditions = route["status"]["parents"][0]["conditions"].as_array().unwrap();
    let condition = conditions.iter().find(|one| one["type"] == wanted).unwrap();
    let time = condition["lastTransitionTime"].as_str().unwrap();
    (
        humantime::parse_rfc3339(time).unwrap(),
        condition["status"] == "True",
    )
}

#[tokio::test]
async fn a_condition_is_dated_by_its_own_change() {
    const SECOND: Duration = Duration::from_secs(1);
    let rule = |path: &str| {
        format!("- {{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: gone, port: 80}}]}}")
    };
    let mesh =
        Mesh::with(&(yaml::service("cart", 80, "http") + &yaml::http_route("cart", &rule("/a")))).await;
    let accepted = since(&mesh, "Accepted").await;
    let unresolved = since(&mesh, "ResolvedRefs").await;
    assert!(accepted.1 && !unresolved.1);
    after(accepted.0 + SECOND).await;
    mesh.apply(&yaml::http_route("cart", &rule("/b"))).await;
    assert_eq!(
        since(&mesh, "Accepted").await,
        accepted,
        "another version, as accepted as before"
    );
    assert_eq!(since(&mesh, "ResolvedRefs").await, unresolved);
    mesh.apply(&yaml::service("gone", 80, "http")).await;
    let (resolved, is_resolved) = since(&mesh, "ResolvedRefs").await;
    assert!(is_resolved && resolved > unresolved.0, "nobody touched the route");
    assert_eq!(since(&mesh, "Accepted").await, accepted);
    // A change is seen although nobody asks.
    for _ in 0..TRIES {
        mesh.operator().delete("Service", "gone").await;
        let deleted = now();
        after(deleted + 4 * SECOND).await;
        let (lost, is_resolved) = since(&mesh, "ResolvedRefs").await;
        assert!(!is_resolved);
        if lost < deleted + 3 * SECOND {
            return;
        }
        mesh.apply(&yaml::service("gone", 80, "http")).await;
        since(&mesh, "ResolvedRefs").await;
    }
    panic!("the condition changed when it was looked at");
}
