//! A client that shows its session's token goes on being served by one endpoint, as long as that is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::collections::BTreeSet;

use tests::client::{nothing, request};
use tests::{Answer, App, Mesh, Sidecar, eventually, yaml};

/// The service `shop`, and as its backends `red`, of two workloads, and `blue`, of one.
struct Shop {
    mesh: Mesh,
    visitor: Sidecar,
    apps: Vec<App>,
    sidecars: Vec<Sidecar>,
}

impl Shop {
    async fn start(rules: &str) -> Self {
        let services = ["shop", "red", "blue"]
            .map(|name| yaml::service(name, 80, "http"))
            .concat();
        let mesh = Mesh::with(&services).await;
        let mut shop = Self {
            visitor: mesh.visitor().await,
            mesh,
            apps: Vec::new(),
            sidecars: Vec::new(),
        };
        for (service, name) in [("red", "red-1"), ("red", "red-2"), ("blue", "blue-1")] {
            shop.add(service, name).await;
        }
        shop.mesh.apply(&yaml::http_route("shop", rules)).await;
        shop
    }

    async fn add(&mut self, service: &str, name: &str) {
        let app = App::echo(name).await;
        let sidecar = self.mesh.workload(service).app(app.address).start().await;
        self.apps.push(app);
        self.sidecars.push(sidecar);
    }

    async fn call(&self, headers: &[(&str, &str)]) -> Answer {
        let mut call = request("GET", "http://shop/");
        for (name, value) in headers {
            call = call.header(*name, *value);
        }
        let mut client = self.visitor.http1().await;
        let answer = client.send(call.body(nothing()).unwrap()).await;
        assert_eq!(answer.status, 200);
        answer
    }

    /// Who serves these many calls with the same headers.
    async fn served(&self, calls: usize, headers: &[(&str, &str)]) -> BTreeSet<String> {
        let mut served = BTreeSet::new();
        for _ in 0..calls {
            served.insert(self.call(headers).await.header("x-app").to_owned());
        }
        served
    }
}

fn cookie_of(answer: &Answer) -> String {
    let set = answer.header("set-cookie");
    set.split(';').next().unwrap_or_default().to_owned()
}

const RED: &str = "backendRefs: [{name: red, port: 80}]";

#[tokio::test]
async fn a_cookie_keeps_a_client_at_its_endpoint_while_others_come_and_go() {
    let mut shop = Shop::start(&format!("- sessionPersistence: {{sessionName: cart}}\n  {RED}")).await;
    assert_eq!(
        shop.served(40, &[]).await.len(),
        2,
        "without a session both serve"
    );
    let first = shop.call(&[]).await;
    let told = first.header("set-cookie");
    assert!(
        told.starts_with("cart=") && told.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
        "{told}"
    );
    let token = told.split(['=', ';']).nth(1).unwrap();
    assert!(
        !token.contains("127") && !token.contains("red"),
        "nothing of an address or a name: {token}"
    );
    let cookie = cookie_of(&first);
    let name = first.header("x-app").to_owned();
    let again = shop.call(&[("cookie", &format!("a=b; {cookie}"))]).await;
    assert_eq!(
        (again.header("x-app"), again.header("set-cookie")),
        (name.as_str(), ""),
        "it is told once"
    );
    shop.add("red", "red-3").await;
    assert_eq!(
        shop.served(20, &[("cookie", &cookie)]).await,
        BTreeSet::from([name.clone()])
    );

    // Its endpoint goes: another one serves, and the client is told which.
    let gone = ["red-1", "red-2"].iter().position(|one| *one == name).unwrap();
    shop.sidecars[gone].terminate().await;
    let moved = shop.call(&[("cookie", &cookie)]).await;
    let (other, cookie) = (moved.header("x-app").to_owned(), cookie_of(&moved));
    assert_ne!(other, name);
    assert!(cookie.starts_with("cart="), "{cookie:?}");
    assert_eq!(
        shop.served(20, &[("cookie", &cookie)]).await,
        BTreeSet::from([other])
    );
    // What nobody gave out is no session.
    let strange = shop.call(&[("cookie", "cart=0123456789abcdef.0.0")]).await;
    assert!(cookie_of(&strange).starts_with("cart="));
}

#[tokio::test]
async fn a_session_stays_with_its_backend_whatever_the_weights_become() {
    let rules = |red: u32, blue: u32| {
        let backends =
            format!("[{{name: red, port: 80, weight: {red}}}, {{name: blue, port: 80, weight: {blue}}}]");
        format!("- sessionPersistence: {{type: Header, sessionName: X-Session}}\n  backendRefs: {backends}")
    };
    let shop = Shop::start(&rules(0, 1)).await;
    let first = shop.call(&[]).await;
    assert_eq!(
        (first.header("x-app"), first.header("set-cookie")),
        ("blue-1", "")
    );
    let token = first.header("x-session").to_owned();
    let session = [("x-session", token.as_str())];
    assert_eq!(
        shop.call(&session).await.header("x-session"),
        "",
        "it is told once"
    );
    shop.mesh.apply(&yaml::http_route("shop", &rules(1, 0))).await;
    assert_eq!(
        shop.served(20, &session).await,
        BTreeSet::from(["blue-1".to_owned()])
    );
    assert!(!shop.served(20, &[]).await.contains("blue-1"));
    // Any proxy of the mesh reads the token of any other.
    let other = shop.mesh.workload("other").start().await;
    let mut client = other.http1().await;
    for _ in 0..10 {
        let call = request("GET", "http://shop/").header("x-session", &token);
        let answer = client.send(call.body(nothing()).unwrap()).await;
        assert_eq!(answer.header("x-app"), "blue-1");
    }
}

#[tokio::test]
async fn sessions_end_by_their_timeouts() {
    let shop = Shop::start(&format!(
        "- matches: [{{path: {{value: /}}}}]\n  sessionPersistence: {{sessionName: cart, absoluteTimeout: 4s, cookieConfig: {{lifetimeType: Permanent}}}}\n  {RED}"
    ))
    .await;
    let first = shop.call(&[]).await;
    assert!(
        first.header("set-cookie").ends_with("; Max-Age=4"),
        "{}",
        first.header("set-cookie")
    );
    let cookie = cookie_of(&first);
    assert_eq!(shop.call(&[("cookie", &cookie)]).await.header("set-cookie"), "");
    eventually("the session's end", async || {
        let told = shop.call(&[("cookie", &cookie)]).await;
        told.headers.contains_key("set-cookie").then_some(())
    })
    .await;

    let idle = format!("- sessionPersistence: {{sessionName: cart, idleTimeout: 1h}}\n  {RED}");
    shop.mesh.apply(&yaml::http_route("shop", &idle)).await;
    let first = shop.call(&[]).await;
    let again = shop.call(&[("cookie", &cookie_of(&first))]).await;
    assert_eq!(again.header("x-app"), first.header("x-app"));
    assert!(
        cookie_of(&again).starts_with("cart="),
        "it is told again how long it was idle"
    );
}

/// One call of `url` with these headers, which must be served.
async fn call(from: &Sidecar, url: &str, headers: &[(&str, &str)]) -> Answer {
    let mut call = request("GET", url);
    for (name, value) in headers {
        call = call.header(*name, *value);
    }
    let answer = from.http1().await.send(call.body(nothing()).unwrap()).await;
    assert_eq!(answer.status, 200);
    answer
}

#[tokio::test]
async fn a_policy_keeps_sessions_of_calls_that_no_route_governs() {
    let mesh = Mesh::with(
        &(yaml::service("red", 80, "http")
            + &yaml::traffic_policy("red", "sessionPersistence: {sessionName: cart}")),
    )
    .await;
    let (apps, mut sidecars) = (
        [
            App::echo("red-1").await,
            App::echo("red-2").await,
            App::echo("red-3").await,
        ],
        Vec::new(),
    );
    for app in &apps[..2] {
        sidecars.push(mesh.workload("red").app(app.address).start().await);
    }
    let visitor = mesh.visitor().await;
    let served = async |calls: usize, cookie: &str| {
        let mut served = BTreeSet::new();
        for _ in 0..calls {
            let answer = call(&visitor, "http://red/", &[("cookie", cookie)]).await;
            served.insert(answer.header("x-app").to_owned());
        }
        served
    };
    eventually("both serve without a session", async || {
        (served(10, "a=b").await.len() == 2).then_some(())
    })
    .await;
    let first = call(&visitor, "http://red/", &[]).await;
    let (name, cookie) = (first.header("x-app").to_owned(), cookie_of(&first));
    assert!(cookie.starts_with("cart="), "{cookie:?}");
    sidecars.push(mesh.workload("red").app(apps[2].address).start().await);
    eventually("the third one is called", async || {
        served(1, "a=b").await.contains("red-3").then_some(())
    })
    .await;
    assert_eq!(served(30, &cookie).await, BTreeSet::from([name.clone()]));

    // Another caller's sidecar, which has never seen the session, keeps it as well.
    let other = mesh.workload("other").start().await;
    for _ in 0..10 {
        let answer = call(&other, "http://red/", &[("cookie", &cookie)]).await;
        assert_eq!(
            (answer.header("x-app"), answer.header("set-cookie")),
            (&*name, "")
        );
    }
    let gone = mesh.operator().delete("BackendTrafficPolicy", "red").await;
    mesh.operator().in_use(gone).await;
    eventually("nobody keeps it any more", async || {
        (served(10, &cookie).await.len() > 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_policys_session_goes_before_weights_and_a_rules_before_a_policys() {
    let weighted = |red: u32, blue: u32| {
        format!(
            "backendRefs: [{{name: red, port: 80, weight: {red}}}, {{name: blue, port: 80, weight: {blue}}}]"
        )
    };
    let shop = Shop::start(&format!("- {}", weighted(1, 1))).await;
    let by_header = |name: &str| {
        let keeps = format!("sessionPersistence: {{type: Header, sessionName: x-{name}}}");
        yaml::traffic_policy(name, &keeps)
    };
    shop.mesh.apply(&(by_header("red") + &by_header("blue"))).await;
    let token = async |backend: &str| {
        eventually("a session of each backend", async || {
            let answer = shop.call(&[]).await;
            let token = answer.header(&format!("x-{backend}")).to_owned();
            (!token.is_empty()).then(|| (answer.header("x-app").to_owned(), token))
        })
        .await
    };
    let (red, of_red) = token("red").await;
    let (blue, of_blue) = token("blue").await;
    assert!(red.starts_with("red") && blue == "blue-1");
    for weights in [(1, 1), (0, 1), (1, 0)] {
        let rule = format!("- {}", weighted(weights.0, weights.1));
        shop.mesh.apply(&yaml::http_route("shop", &rule)).await;
        let (red, blue) = (BTreeSet::from([red.clone()]), BTreeSet::from([blue.clone()]));
        assert_eq!(shop.served(20, &[("x-red", &of_red)]).await, red, "{weights:?}");
        assert_eq!(
            shop.served(20, &[("x-blue", &of_blue)]).await,
            blue,
            "{weights:?}"
        );
    }

    // The rule's own name is the one that counts.
    let own = format!(
        "- sessionPersistence: {{type: Header, sessionName: x-own}}\n  {}",
        weighted(1, 1)
    );
    shop.mesh.apply(&yaml::http_route("shop", &own)).await;
    let first = shop.call(&[]).await;
    assert_eq!((first.header("x-red"), first.header("x-blue")), ("", ""));
    let session = [("x-own", first.header("x-own"))];
    assert_eq!(shop.served(20, &session).await.len(), 1);
    eventually("the policy's session is nobody's", async || {
        (shop.served(10, &[("x-blue", &of_blue)]).await.len() > 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_routes_policy_keeps_the_sessions_of_its_rules_across_backends() {
    let weighted = |red: u32, blue: u32| {
        let backends =
            format!("[{{name: red, port: 80, weight: {red}}}, {{name: blue, port: 80, weight: {blue}}}]");
        yaml::http_route("shop", &format!("- backendRefs: {backends}"))
    };
    let shop = Shop::start(&format!("- {RED}")).await;
    let policy = "apiVersion: weft.dev/v1alpha1\nkind: BackendTrafficPolicy\nmetadata: {name: keep}\n\
                  spec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]\n  \
                  sessionPersistence: {type: Header, sessionName: x-shop}\n---\n";
    shop.mesh.apply(&(weighted(0, 1) + policy)).await;
    let first = shop.call(&[]).await;
    assert_eq!(first.header("x-app"), "blue-1");
    shop.mesh.apply(&weighted(1, 0)).await;
    let session = [("x-shop", first.header("x-shop"))];
    assert_eq!(
        shop.served(20, &session).await,
        BTreeSet::from(["blue-1".to_owned()])
    );
    assert!(!shop.served(10, &[]).await.contains("blue-1"));
}
