//! Operators can ask before they apply: what is wrong, where a request goes and why, and what would be different.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use std::process::Output;

use serde_json::Value;
use tests::binaries::binary;
use tests::{App, Mesh, within, yaml};

/// A folder without a mesh, in which `weft` runs.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    /// Runs `weft` to its end, where it could find no mesh.
    async fn weft(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(binary("weft"));
        command.args(args).current_dir(self.0.path()).kill_on_drop(true);
        for name in [
            "WEFT_DATA",
            "WEFT_CONTROL_PLANE",
            "XDG_RUNTIME_DIR",
            "XDG_STATE_HOME",
            "HOME",
        ] {
            command.env_remove(name);
        }
        within(&format!("weft {args:?}"), command.output())
            .await
            .expect("weft runs")
    }
}

/// Exit status, standard output and standard error.
fn out(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// `shop`, whose orders are split over `red` and `blue`, and nothing else of it is served.
fn shop(red: u32, blue: u32) -> String {
    let services: String = ["shop", "red", "blue"]
        .iter()
        .map(|name| yaml::service(name, 80, "http"))
        .collect();
    let rules = format!(
        "- matches:
    - path: {{type: PathPrefix, value: /orders}}
      method: POST
  filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {{set: [{{name: x-order, value: \"1\"}}], remove: [x-debug]}}
  backendRefs:
    - {{name: red, port: 80, weight: {red}}}
    - {{name: blue, port: 80, weight: {blue}}}
  timeouts: {{request: 2s}}
- matches:
    - path: {{type: Exact, value: /orders/help}}
  backendRefs:
    - {{name: red, port: 80}}"
    );
    services + &yaml::http_route("shop", &rules)
}

#[tokio::test]
async fn validate_shows_faults_with_their_line_and_what_would_be_of_no_effect() {
    let bad = shop(1, 1).replace("weight: 1", "wieght: 1");
    let unresolved = shop(1, 1).replace("name: blue, port: 80, weight", "name: green, port: 80, weight");
    let folder = Folder::with(&[
        ("good.yaml", &shop(1, 1)),
        ("bad.yaml", &bad),
        ("unresolved.yaml", &unresolved),
    ]);
    let (code, stdout, stderr) = out(&folder.weft(&["validate", "-f", "good.yaml"]).await);
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (0, "4 objects, 0 errors, 0 warnings\n", "")
    );

    let (code, _, stderr) = out(&folder.weft(&["validate", "-f", "bad.yaml"]).await);
    assert_eq!(code, 1);
    let line = bad.lines().position(|line| line.contains("wieght")).unwrap() + 1;
    assert!(stderr.contains(&format!("bad.yaml:{line}:")), "{stderr}");
    assert!(
        stderr.contains("^^^^^^") && stderr.contains("no such field"),
        "{stderr}"
    );

    let (code, stdout, stderr) = out(&folder.weft(&["validate", "-f", "unresolved.yaml"]).await);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("error: HTTPRoute/default/shop: ResolvedRefs=False (BackendNotFound: "),
        "{stderr}"
    );
    assert!(stdout.ends_with("1 error, 0 warnings\n"), "{stdout}");

    // What is hardly meant is a warning, and only with --strict an error.
    let hidden = shop(1, 1)
        .replace(
            "path: {type: Exact, value: /orders/help}",
            "path: {type: PathPrefix, value: /orders}",
        )
        .replace("\n          method: POST", "");
    std::fs::write(folder.0.path().join("hidden.yaml"), &hidden).unwrap();
    let line = hidden
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("- matches:"))
        .last()
        .unwrap()
        .0
        + 1;
    for (flags, code) in [(&[][..], 0), (&["--strict"], 1)] {
        let output = folder
            .weft(&[&["validate", "-f", "hidden.yaml"], flags].concat())
            .await;
        let (is, stdout, stderr) = out(&output);
        assert_eq!(
            (is, stdout.as_str()),
            (code, "4 objects, 0 errors, 1 warning\n"),
            "{stderr}"
        );
        let start = format!("hidden.yaml:{line}:");
        let end = "warning: HTTPRoute/default/shop: is never followed: HTTPRoute/default/shop#0 takes every request that it \
                   matches (field spec.rules[1])\n";
        assert!(stderr.starts_with(&start) && stderr.ends_with(end), "{stderr}");
    }

    // Two files that give the same object are no mesh.
    let (code, _, stderr) = out(&folder
        .weft(&["validate", "-f", "good.yaml", "unresolved.yaml"])
        .await);
    assert_eq!(code, 1);
    assert!(stderr.contains("is already given in good.yaml"), "{stderr}");
}

#[tokio::test]
async fn explain_tells_each_rule_why_it_is_not_the_one() {
    let folder = Folder::with(&[("mesh.yaml", &shop(9, 1))]);
    let post = [
        "explain",
        "POST",
        "http://shop/orders/1",
        "-f",
        "mesh.yaml",
        "-H",
        "X-Debug: on",
    ];
    let (code, stdout, stderr) = out(&folder.weft(&post).await);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let expected = "\
POST http://shop/orders/1 from any workload of default

destination  default/shop:80 (http; port because the URL names none)
matches, by precedence
   RULE                      MATCH
   HTTPRoute/default/shop#1  Exact /orders/help               no: the path is /orders/1
>  HTTPRoute/default/shop#0  PathPrefix /orders, method POST  chosen
rule         HTTPRoute/default/shop#0
filter       request headers: remove x-debug, set x-order: 1
timeouts     request 2s
backends
   BACKEND          WEIGHT  SHARE  ENDPOINTS
   default/red:80   9       90 %   not known without a mesh
   default/blue:80  1       10 %   not known without a mesh
request      x-order: 1 is set, x-debug is removed
";
    assert_eq!(stdout, expected);

    let help = [
        "explain",
        "POST",
        "http://shop/orders/help",
        "-f",
        "mesh.yaml",
        "-o",
        "json",
    ];
    let (code, stdout, _) = out(&folder.weft(&help).await);
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, 0);
    assert_eq!(told["rule"]["name"], "HTTPRoute/default/shop#1");
    assert_eq!(told["matches"][1]["verdict"], "hidden");
    let why = "HTTPRoute/default/shop#1 takes precedence: its path is of a more specific kind";
    assert_eq!(told["matches"][1]["why"][0], why);
    assert_eq!(told["outcome"]["backends"][0]["backend"], "default/red:80");

    let nowhere = ["explain", "GET", "http://shop/", "-f", "mesh.yaml", "-o", "json"];
    let told: Value = serde_json::from_str(&out(&folder.weft(&nowhere).await).1).unwrap();
    assert_eq!(told["outcome"]["answer"]["status"], 404);
    assert_eq!(told["outcome"]["answer"]["reason"], "no_route");

    // The caller's namespace is where a bare name is looked for.
    let elsewhere = [
        "explain",
        "GET",
        "http://shop/",
        "-f",
        "mesh.yaml",
        "--from",
        "other/web",
        "-o",
        "json",
    ];
    let told: Value = serde_json::from_str(&out(&folder.weft(&elsewhere).await).1).unwrap();
    assert_eq!(
        told["outcome"]["answer"]["why"],
        "Service other/shop does not exist"
    );

    let (code, _, stderr) = out(&folder
        .weft(&["explain", "GET", "ftp://shop/", "-f", "mesh.yaml"])
        .await);
    assert_eq!(
        (code, stderr.contains("is not http://host/path")),
        (1, true),
        "{stderr}"
    );
}

#[tokio::test]
async fn what_comes_through_a_gateway_can_be_asked_too() {
    let gateway = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: weft
  listeners: [{name: web, port: 80, protocol: HTTP, hostname: '*.example.com'}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: edge}
spec:
  parentRefs: [{name: edge}]
  hostnames: [www.example.com]
  rules: [{matches: [{path: {value: /orders}}], backendRefs: [{name: red, port: 80}]}]
---
";
    let tests = "config: [mesh.yaml]
tests:
  - name: orders are red
    request: {url: http://www.example.com/orders/1, gateway: edge}
    expect: {backend: red:80, rule: HTTPRoute/default/edge#0}
  - name: nobody else is served
    request: {url: http://www.example.org/orders/1, gateway: default/edge}
    expect: {status: 404}
";
    let folder = Folder::with(&[("mesh.yaml", &(shop(1, 1) + gateway)), ("tests.yaml", tests)]);
    let (code, stdout, stderr) = out(&folder.weft(&["route", "test", "-f", "tests.yaml"]).await);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let explain = [
        "explain",
        "GET",
        "http://www.example.com/",
        "--gateway",
        "edge",
        "-f",
        "mesh.yaml",
    ];
    let (_, stdout, _) = out(&folder.weft(&explain).await);
    let expected = "\
GET http://www.example.com/ through Gateway default/edge

listener     web (port 80, host *.example.com, HTTP)
matches, by precedence
   RULE                      MATCH
   HTTPRoute/default/edge#0  www.example.com, PathPrefix /orders  no: the path is /
answer       404 no_route: no rule of the listener's routes matches
";
    assert_eq!(stdout, expected);
}

/// What is explained is what happens.
#[tokio::test]
async fn explain_asks_the_mesh_that_runs_and_is_right() {
    let mesh = Mesh::with(&shop(1, 0)).await;
    let red = App::echo("red").await;
    let _red = mesh.workload("red").app(red.address).start().await;
    let visitor = mesh.visitor().await;
    for (method, path) in [
        ("GET", "/orders/help"),
        ("GET", "/orders"),
        ("GET", "/"),
        ("GET", "/orders/help/x"),
    ] {
        let url = format!("http://shop{path}");
        let output = mesh.weft(&["explain", method, &url, "-o", "json"]).await;
        let (code, stdout, stderr) = out(&output);
        assert_eq!(code, 0, "{stderr}");
        let told: Value = serde_json::from_str(&stdout).unwrap();
        let answer = visitor.get(&url).await;
        match told["outcome"]["answer"]["status"].as_u64() {
            Some(status) => assert_eq!(u64::from(answer.status.as_u16()), status, "{url}"),
            None => {
                let backend = &told["outcome"]["backends"][0];
                assert_eq!(answer.header("x-app"), "red", "{url}");
                assert_eq!(backend["backend"], "default/red:80");
                assert_eq!(backend["endpoints"].as_array().map(Vec::len), Some(1), "{stdout}");
            }
        }
    }
}

const TESTS: &str = r#"config: [mesh.yaml]
tests:
  - name: orders are split
    request: {method: POST, url: http://shop/orders/1, headers: {x-debug: "on"}}
    expect:
      rule: HTTPRoute/default/shop#0
      route: HTTPRoute/default/shop
      backends: {red: 90, default/blue:80: 10}
      headers: {set: {x-order: "1"}, removed: [x-debug]}
  - name: help is red
    request: {url: http://shop/orders/help}
    expect: {backend: red}
  - name: nothing else is served
    request: {url: http://shop/}
    expect: {status: 404}
"#;

#[tokio::test]
async fn route_tests_pass_or_say_what_they_got() {
    let folder = Folder::with(&[("mesh.yaml", &shop(9, 1)), ("tests.yaml", TESTS)]);
    let (code, stdout, stderr) = out(&folder.weft(&["route", "test", "-f", "tests.yaml"]).await);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert_eq!(
        stdout,
        "PASS orders are split\nPASS help is red\nPASS nothing else is served\n3 passed, 0 failed\n"
    );

    let wrong = TESTS
        .replace("red: 90", "red: 80")
        .replace("{backend: red}", "{backend: blue:80}");
    let folder = Folder::with(&[("mesh.yaml", &shop(9, 1)), ("tests.yaml", &wrong)]);
    let (code, stdout, _) = out(&folder.weft(&["route", "test", "-f", "tests.yaml"]).await);
    assert_eq!(code, 1);
    let expected = "\
FAIL orders are split
     tests.yaml:3: POST http://shop/orders/1
     backends: expected default/blue:80 10 %, red 80 %
               got      default/red:80 90 %, default/blue:80 10 %
FAIL help is red
     tests.yaml:10: GET http://shop/orders/help
     backend: expected blue:80
              got      default/red:80 100 %
PASS nothing else is served
1 passed, 2 failed
";
    assert_eq!(stdout, expected);
}

#[tokio::test]
async fn a_file_of_tests_that_is_wrong_is_shown_with_its_place() {
    for (from, to, place, message) in [
        ("method: POST", "metod: POST", "tests.yaml:4:15", "metod"),
        (
            "method: POST",
            "method: \"P T\"",
            "tests.yaml:4:23",
            "is not a method",
        ),
        (
            "http://shop/orders/help",
            "ftp://shop/",
            "tests.yaml:11:20",
            "is not http://host/path",
        ),
        ("{status: 404}", "{}", "tests.yaml:15:13", "expects nothing"),
        ("{status: 404}", "{status: many}", "tests.yaml:15:22", "many"),
        ("red: 90", "red: 190", "tests.yaml:8:23", "is not 0-100 percent"),
        ("help is red", "orders are split", "tests.yaml:10:11", "is called"),
        ("tests:", "test:", "tests.yaml:2:1", "test"),
    ] {
        let tests = TESTS.replace(from, to);
        let folder = Folder::with(&[("mesh.yaml", &shop(9, 1)), ("tests.yaml", &tests)]);
        let (code, _, stderr) = out(&folder.weft(&["route", "test", "-f", "tests.yaml"]).await);
        assert_eq!(code, 2, "{to}: {stderr}");
        assert!(
            stderr.contains(place) && stderr.contains(message),
            "{to}: {stderr}"
        );
    }
    let folder = Folder::with(&[("tests.yaml", &TESTS.replace("config: [mesh.yaml]\n", ""))]);
    let (code, _, stderr) = out(&folder.weft(&["route", "test", "-f", "tests.yaml"]).await);
    assert_eq!(
        (code, stderr.contains("names no configuration")),
        (2, true),
        "{stderr}"
    );
}

#[tokio::test]
async fn diff_says_which_rules_change_and_which_requests_move() {
    let mesh = Mesh::with(&shop(1, 0)).await;
    let diff = async |yaml: &str, flags: &[&str]| {
        std::fs::write(mesh.path().join("next.yaml"), yaml).unwrap();
        out(&mesh.weft(&[&["diff", "-f", "next.yaml"], flags].concat()).await)
    };
    assert_eq!(diff(&shop(1, 0), &[]).await, (0, String::new(), String::new()));

    let (code, stdout, stderr) = diff(&shop(3, 1), &[]).await;
    assert_eq!((code, stderr.as_str()), (1, ""));
    let expected = "\
~ HTTPRoute/default/shop

rules of default/shop:80
  ~ HTTPRoute/default/shop#0
      backends: default/red:80 weight 1, default/blue:80 weight 0 → default/red:80 weight 3, default/blue:80 weight 1

requests that go elsewhere
  POST http://shop.default/orders
      before: default/red:80 100 %
      after:  default/red:80 75 %, default/blue:80 25 %
";
    assert_eq!(stdout, expected);
    assert_eq!(diff(&shop(3, 1), &["--exit-zero"]).await.0, 0);

    // The files are the whole mesh: what is in none of them goes.
    let (code, stdout, _) = diff(&yaml::service("shop", 80, "http"), &["--whole"]).await;
    assert_eq!(code, 1);
    for line in [
        "- HTTPRoute/default/shop",
        "- Service/default/red",
        "- Service/default/blue",
    ] {
        assert!(stdout.contains(line), "{stdout}");
    }
    let moved =
        "  GET http://shop.default/\n      before: 404 no_route\n      after:  default/shop:80 100 %\n";
    assert!(stdout.contains(moved), "{stdout}");

    let (code, _, stderr) = diff("kind: [", &[]).await;
    assert_eq!(code, 2, "{stderr}");
    let folder = Folder::with(&[("next.yaml", &shop(1, 0))]);
    let (code, _, stderr) = out(&folder.weft(&["diff", "-f", "next.yaml"]).await);
    assert_eq!((code, stderr.contains("no control plane")), (2, true), "{stderr}");
}

/// What policies say is told by explain, in the mesh as in files, and what of it changes by diff.
#[tokio::test]
async fn policies_are_told_by_their_fields() {
    let policies = |requests: u32, percent: u32| {
        let fault = format!(
            "apiVersion: weft.dev/v1alpha1\nkind: FaultInjectionPolicy\nmetadata: {{name: chaos}}\n\
             spec: {{targetRefs: [{{kind: Service, name: red}}], abort: {{httpStatus: 418, percentage: {percent}}}}}\n---\n"
        );
        let limit = format!("circuitBreaker: {{maxParallelRequests: {requests}}}");
        yaml::traffic_policy("red", &limit) + &fault
    };
    let text = shop(1, 0) + &policies(2, 5);
    let mesh = Mesh::with(&text).await;
    let call = [
        "explain",
        "GET",
        "http://shop/orders/help",
        "--from",
        "default/web",
    ];
    let live = out(&mesh.weft(&call).await);
    let folder = Folder::with(&[("mesh.yaml", &text)]);
    let offline = out(&folder.weft(&[&call[..], &["-f", "mesh.yaml"]].concat()).await);
    for (code, stdout, stderr) in [live, offline] {
        assert_eq!((code, stderr.as_str()), (0, ""));
        for line in [
            "\npolicy       BackendTrafficPolicy/default/red for default/red:80\n",
            "\n             circuitBreaker.maxParallelRequests: 2\n",
            "\nfault        FaultInjectionPolicy/default/chaos: abort 418 for 5 % (default/red:80)\n",
        ] {
            assert!(stdout.contains(line), "{stdout}");
        }
    }

    std::fs::write(mesh.path().join("next.yaml"), policies(3, 30)).unwrap();
    let (code, stdout, stderr) = out(&mesh.weft(&["diff", "-f", "next.yaml"]).await);
    assert_eq!((code, stderr.as_str()), (1, ""));
    let expected = "\
~ BackendTrafficPolicy/default/red
~ FaultInjectionPolicy/default/chaos

policies
  ~ default/red:80
      circuitBreaker.maxParallelRequests: 2 → 3
      FaultInjectionPolicy/default/chaos: abort 418 for 5 % → abort 418 for 30 %
";
    assert_eq!(stdout, expected);
}
