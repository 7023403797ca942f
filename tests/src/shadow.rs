//! What is in shadow, as `weft diff --live` tells it.

use serde_json::Value;

use crate::Mesh;
use crate::wait::eventually;

/// What it says, and its exit status.
pub async fn live(mesh: &Mesh) -> (i32, Value) {
    let output = mesh.weft(&["diff", "--live", "-o", "json"]).await;
    let told = serde_json::from_slice(&output.stdout);
    let told = told.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().expect("no signal"), told)
}

/// Waits until so many requests are known to have been compared.
pub async fn compared(mesh: &Mesh, requests: u64) -> (i32, Value) {
    eventually(&format!("{requests} requests that were compared"), || async {
        let (code, told) = live(mesh).await;
        let known: u64 = places(&told).map(|place| number(&place["requests"])).sum();
        (known == requests).then_some((code, told))
    })
    .await
}

/// Waits until so many requests are known that would fare differently, and tells each kind of them: the last part of the
/// caller's identity, what is now, what would be, and how many.
pub async fn differences(mesh: &Mesh, requests: u64) -> Vec<(String, String, String, u64)> {
    eventually(
        &format!("{requests} requests that would fare differently"),
        || async {
            let (_, told) = live(mesh).await;
            let mut all = Vec::new();
            for caller in told["callers"].as_array().into_iter().flatten() {
                let name = text(&caller["caller"]);
                let name = name.rsplit('/').next().unwrap_or_default();
                for place in caller["destinations"].as_array().into_iter().flatten() {
                    for difference in place["differences"].as_array().into_iter().flatten() {
                        let (from, to) = (text(&difference["from"]), text(&difference["to"]));
                        all.push((name.to_owned(), from, to, number(&difference["requests"])));
                    }
                }
            }
            let sum: u64 = all.iter().map(|(.., requests)| requests).sum();
            (sum == requests).then_some(all)
        },
    )
    .await
}

fn places(told: &Value) -> impl Iterator<Item = &Value> {
    let callers = told["callers"].as_array().into_iter().flatten();
    callers.flat_map(|caller| caller["destinations"].as_array().into_iter().flatten())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
