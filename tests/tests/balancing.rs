//! A BackendTrafficPolicy says which endpoint a request goes to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tests::client::{Answer, nothing, request};
use tests::{App, Mesh, Sidecar, yaml};

const POLICY: &str = "loadBalancer:";

/// `pay` at so many applications outside the mesh under a policy, and a sidecar to call it from.
async fn pay(count: usize, policy: &str) -> (Vec<App>, Mesh, Sidecar) {
    let mut apps = Vec::new();
    for number in 0..count {
        apps.push(App::echo(&format!("pay-{number}")).await);
    }
    let addresses: Vec<SocketAddr> = apps.iter().map(|app| app.address).collect();
    let mesh =
        Mesh::with(&(yaml::outside("pay", 80, "http", &addresses) + &yaml::traffic_policy("pay", policy)))
            .await;
    let visitor = mesh.visitor().await;
    (apps, mesh, visitor)
}

/// How many of `calls` answers came from each application.
async fn spread(visitor: &Sidecar, calls: usize) -> BTreeMap<String, usize> {
    let mut client = visitor.http1().await;
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        *counts
            .entry(app_of(&client.get("http://pay/").await))
            .or_default() += 1;
    }
    counts
}

fn app_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{:?}", answer.verdict());
    answer.header("x-app").to_owned()
}

async fn call(visitor: &Sidecar, name: &str, value: &str) -> Answer {
    let request = request("GET", "http://pay/")
        .header(name, value)
        .body(nothing())
        .unwrap();
    visitor.http1().await.send(request).await
}

#[tokio::test]
async fn in_turn_everyone_gets_the_same() {
    let (_apps, _mesh, visitor) = pay(4, &format!("{POLICY} {{type: RoundRobin}}")).await;
    let counts = spread(&visitor, 40).await;
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10; 4]);
}

#[tokio::test]
async fn who_is_chosen_by_dice_or_by_requests_in_hand_is_everyone() {
    let (_apps, mesh, visitor) = pay(3, &format!("{POLICY} {{type: Random}}")).await;
    for kind in ["Random", "LeastRequest"] {
        mesh.apply(&yaml::traffic_policy(
            "pay",
            &format!("{POLICY} {{type: {kind}}}"),
        ))
        .await;
        let counts = spread(&visitor, 150).await;
        assert_eq!(counts.len(), 3, "{kind}: {counts:?}");
    }
}

#[tokio::test]
async fn equal_headers_go_to_one_endpoint_also_from_another_sidecar() {
    let hash = "{type: Header, header: {name: x-user}}";
    let (_apps, mesh, visitor) = pay(4, &format!("{POLICY} {{type: Maglev, consistentHash: {hash}}}")).await;
    let other = mesh.workload("other").start().await;
    for kind in ["Maglev", "RingHash", "ConsistentHash"] {
        let policy = format!("{POLICY} {{type: {kind}, consistentHash: {hash}}}");
        mesh.apply(&yaml::traffic_policy("pay", &policy)).await;
        let mut homes = BTreeMap::new();
        for user in 0..24 {
            let user = format!("user-{user}");
            let home = app_of(&call(&visitor, "x-user", &user).await);
            assert_eq!(app_of(&call(&other, "x-user", &user).await), home, "{kind}");
            *homes.entry(home).or_insert(0) += 1;
        }
        assert!(homes.len() >= 3, "{kind}: {homes:?}");
    }
}

#[tokio::test]
async fn when_an_endpoint_leaves_only_its_own_keys_move() {
    let hash = "{type: Header, header: {name: x-user}}";
    let policy = format!("{POLICY} {{type: RingHash, consistentHash: {hash}}}");
    let (apps, mesh, visitor) = pay(5, &policy).await;
    let mut homes = Vec::new();
    for user in 0..40 {
        homes.push(app_of(&call(&visitor, "x-user", &user.to_string()).await));
    }
    let left: Vec<SocketAddr> = apps[1..].iter().map(|app| app.address).collect();
    mesh.operator().delete("EndpointSlice", "pay-4").await;
    mesh.apply(&yaml::outside("pay", 80, "http", &left)).await;
    for (user, home) in homes.iter().enumerate() {
        let now = app_of(&call(&visitor, "x-user", &user.to_string()).await);
        assert_eq!(now == *home, *home != "pay-0", "{user} went from {home} to {now}");
    }
}

#[tokio::test]
async fn who_has_no_cookie_is_given_one_that_leads_back() {
    let hash = "{type: Cookie, cookie: {name: session, ttl: 1h, attributes: {SameSite: Strict}}}";
    let policy = format!("{POLICY} {{type: Maglev, consistentHash: {hash}}}");
    let (_apps, _mesh, visitor) = pay(4, &policy).await;
    for _ in 0..10 {
        let first = visitor.get("http://pay/").await;
        let given = first.header("set-cookie").to_owned();
        let (cookie, rest) = given.split_once("; ").unwrap();
        assert!(cookie.starts_with("session="), "{given}");
        assert_eq!(rest, "Path=/; HttpOnly; Max-Age=3600; SameSite=Strict");
        for _ in 0..3 {
            let again = call(&visitor, "cookie", &format!("other=1; {cookie}")).await;
            assert_eq!(app_of(&again), app_of(&first));
            assert_eq!(again.header("set-cookie"), "", "it has one already");
        }
    }
}

#[tokio::test]
async fn one_source_goes_to_one_endpoint() {
    let policy = format!("{POLICY} {{type: Maglev, consistentHash: {{type: SourceIP}}}}");
    let (_apps, _mesh, visitor) = pay(4, &policy).await;
    assert_eq!(spread(&visitor, 20).await.len(), 1);
}

/// A workload of `pay` in a zone of the region eu.
async fn pay_in(mesh: &Mesh, zone: &str, app: &App) -> Sidecar {
    let workload = mesh.workload("pay").app(app.address);
    let workload = workload.label("topology.kubernetes.io/region", "eu");
    workload.label("topology.kubernetes.io/zone", zone).start().await
}

#[tokio::test]
async fn the_own_zone_comes_first_and_another_takes_over_when_it_cannot_be_reached() {
    let policy = format!("{POLICY} {{zoneAware: {{preferLocal: {{}}}}}}");
    let mesh = Mesh::with(&(yaml::service("pay", 80, "http") + &yaml::traffic_policy("pay", &policy))).await;
    let (near, far) = (App::echo("near").await, App::echo("far").await);
    let mut near_sidecar = pay_in(&mesh, "a", &near).await;
    let _far = pay_in(&mesh, "b", &far).await;
    let visitor = mesh
        .workload("visitor")
        .label("topology.kubernetes.io/region", "eu");
    let visitor = visitor.label("topology.kubernetes.io/zone", "a").start().await;
    assert_eq!(spread(&visitor, 30).await, [("near".to_owned(), 30)].into());
    near_sidecar.kill().await;
    // No outlier detection: a connection that cannot be made is enough, and no caller notices.
    assert_eq!(spread(&visitor, 30).await, [("far".to_owned(), 30)].into());
}

#[tokio::test]
async fn a_policy_of_a_route_stands_over_that_of_its_service_for_its_own_requests() {
    let (_apps, mesh, visitor) = pay(3, &format!("{POLICY} {{type: RoundRobin}}")).await;
    let rules = "- matches: [{path: {value: /kept}}]\n  backendRefs: [{name: pay, port: 80}]";
    let rest = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: rest}\nspec:\n  \
                parentRefs: [{group: '', kind: Service, name: pay}]\n  rules: [{backendRefs: [{name: pay, port: 80}]}]\n---\n";
    let of_route = "apiVersion: weft.dev/v1alpha1\nkind: BackendTrafficPolicy\nmetadata: {name: kept}\nspec:\n  \
                    targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: pay}]\n  \
                    loadBalancer: {type: Maglev, consistentHash: {type: SourceIP}}\n---\n";
    mesh.apply(&(yaml::http_route("pay", rules) + rest + of_route))
        .await;
    let mut client = visitor.http1().await;
    let mut kept = BTreeMap::<String, usize>::new();
    let mut others = BTreeMap::<String, usize>::new();
    for _ in 0..12 {
        *kept
            .entry(app_of(&client.get("http://pay/kept").await))
            .or_default() += 1;
        *others
            .entry(app_of(&client.get("http://pay/").await))
            .or_default() += 1;
    }
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(others.into_values().collect::<Vec<_>>(), [4; 3]);
}

#[tokio::test]
async fn what_a_route_says_beside_endpoints_does_not_begin_the_turns_anew() {
    let (_apps, mesh, visitor) = pay(3, &format!("{POLICY} {{type: RoundRobin}}")).await;
    let rules = "- matches: [{path: {value: /slow}}]\n  backendRefs: [{name: pay, port: 80}]";
    let policy = "apiVersion: weft.dev/v1alpha1\nkind: BackendTrafficPolicy\nmetadata: {name: route}\n\
                  spec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: slow}]\n  \
                  timeout: {http: {requestTimeout: 9s}}\n---\n";
    let slow = yaml::http_route("pay", rules).replace("metadata: {name: pay,", "metadata: {name: slow,");
    let fast = yaml::http_route("pay", "- backendRefs: [{name: pay, port: 80}]");
    mesh.apply(&(slow + &fast + policy)).await;
    let mut client = visitor.http1().await;
    let mut counts = BTreeMap::<String, usize>::new();
    for turn in 0..30 {
        let path = if turn % 2 == 0 { "slow" } else { "fast" };
        let answer = client.get(&format!("http://pay/{path}")).await;
        *counts.entry(app_of(&answer)).or_default() += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10; 3]);
}
