//! An authorization service is asked over HTTP or gRPC whether a request may go on; without an answer it may not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use proto::authz::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use proto::authz::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use proto::authz::envoy::service::auth::v3::check_response::HttpResponse;
use proto::authz::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use proto::authz::envoy::r#type::v3::HttpStatus;
use proto::authz::google::rpc::Status as RpcStatus;
use tests::client::{request, trickling};
use tests::echo::{self, EchoClient, words};
use tests::{Answer, App, Mesh, Sidecar, yaml};
use tokio::sync::watch;
use tonic::transport::Endpoint;

/// The service `shop` with `red` behind it, which is called after `auth` said yes.
struct Shop {
    mesh: Mesh,
    visitor: Sidecar,
    red: App,
    _sidecars: Vec<Sidecar>,
}

impl Shop {
    async fn start(auth: &App, protocol: &str, rules: &str) -> Self {
        let services = ["shop", "red", "nobody"]
            .map(|name| yaml::service(name, 80, "http"))
            .concat();
        let mesh = Mesh::with(&(services + &yaml::service("auth", 9000, protocol))).await;
        let red = App::answering(|request| {
            let answer = Response::builder().header("x-app", "red");
            answer.body(request.body.clone()).unwrap()
        })
        .await;
        let sidecars = vec![
            mesh.workload("red").app(red.address).start().await,
            mesh.workload("auth").app(auth.address).start().await,
        ];
        let visitor = mesh.visitor().await;
        mesh.apply(&yaml::http_route("shop", rules)).await;
        Self {
            mesh,
            visitor,
            red,
            _sidecars: sidecars,
        }
    }

    async fn call(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut call = request(method, &format!("http://shop{target}"));
        for (name, value) in headers {
            call = call.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        self.visitor.http1().await.send(call.body(body).unwrap()).await
    }
}

fn ask(protocol: &str) -> String {
    format!("{{type: ExternalAuth, externalAuth: {{backendRef: {{name: auth, port: 9000}}, {protocol}}}}}")
}

#[tokio::test]
async fn over_http_200_is_a_yes_and_everything_else_an_answer() {
    let auth = App::answering(|request| {
        let answer = Response::builder()
            .header("x-user", "42")
            .header("x-other", "told");
        match request.header("authorization") {
            "good" => answer.body(Bytes::from("welcome")).unwrap(),
            "late" => answer
                .status(429)
                .header("retry-after", "7")
                .body(Bytes::from("wait"))
                .unwrap(),
            _ => answer
                .status(401)
                .header("www-authenticate", "Basic")
                .body(Bytes::from("who are you?"))
                .unwrap(),
        }
    })
    .await;
    let rules = format!(
        "- matches: [{{path: {{value: /listed}}}}]\n  filters:\n    - {}\n    - {}\n  backendRefs: [{{name: red, port: 80}}]\n\
         - matches: [{{path: {{value: /all}}}}]\n  filters: [{}]\n  backendRefs: [{{name: red, port: 80}}]\n\
         - matches: [{{path: {{value: /backend}}}}]\n  backendRefs: [{{name: red, port: 80, filters: [{}]}}]\n\
         - matches: [{{path: {{value: /moved}}}}]\n  filters:\n    - {}\n    - {{type: RequestRedirect, requestRedirect: {{hostname: a.b}}}}\n",
        ask(
            "protocol: HTTP, http: {path: /check/, allowedHeaders: [x-in], allowedResponseHeaders: [x-user]}"
        ),
        "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [authorization]}}",
        ask("protocol: HTTP, http: {}"),
        ask("protocol: HTTP, http: {}, forwardBody: {maxSize: 10}"),
        ask("protocol: HTTP, http: {}"),
    );
    let shop = Shop::start(&auth, "http", &rules).await;
    let forged = [
        ("authorization", "good"),
        ("x-in", "1"),
        ("x-out", "2"),
        ("x-user", "root"),
        ("x-other", "mine"),
    ];
    let answer = shop.call("POST", "/listed/x?y=z", &forged, "the body").await;
    assert_eq!(
        (answer.status, answer.header("x-app"), answer.text()),
        (StatusCode::OK, "red", "the body")
    );
    let arrived = shop.red.arrived(1).await.remove(0);
    assert_eq!(
        (arrived.header("x-user"), arrived.header("x-other")),
        ("42", "mine")
    );
    assert_eq!(
        arrived.header("authorization"),
        "",
        "the filter behind it takes it off"
    );
    let asked = auth.arrived(1).await.remove(0);
    assert_eq!(
        (
            asked.method.as_str(),
            asked.uri.path_and_query().unwrap().as_str()
        ),
        ("POST", "/check/listed/x?y=z")
    );
    for (name, value) in [
        ("host", "shop"),
        ("authorization", "good"),
        ("x-in", "1"),
        ("x-out", ""),
        ("content-length", "0"),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    assert!(asked.body.is_empty());

    shop.call("GET", "/all", &forged, "").await;
    let arrived = shop.red.arrived(2).await.remove(1);
    assert_eq!(
        (arrived.header("x-user"), arrived.header("x-other")),
        ("42", "told")
    );
    // A client cannot have a field of the authorization's taken off as one of its own hop.
    let hop = [
        ("authorization", "good"),
        ("connection", "x-user"),
        ("x-user", "root"),
    ];
    shop.call("GET", "/all", &hop, "").await;
    assert_eq!(shop.red.arrived(3).await[2].header("x-user"), "42");

    for (headers, status, text, told) in [
        (&[][..], 401, "who are you?", ("www-authenticate", "Basic")),
        (&[("authorization", "late")], 429, "wait", ("retry-after", "7")),
    ] {
        for target in ["/listed", "/all", "/backend", "/moved"] {
            let answer = shop.call("GET", target, headers, "").await;
            assert_eq!(
                (answer.status.as_u16(), answer.text()),
                (status, text),
                "{target}"
            );
            assert_eq!(answer.header(told.0), told.1, "{target}");
        }
    }
    assert_eq!(
        shop.call("GET", "/moved", &[("authorization", "good")], "")
            .await
            .header("location"),
        "http://a.b/moved"
    );

    // The body is shown whole, or the request does not go on.
    let before = auth.requests().len();
    let good = [("authorization", "good")];
    assert_eq!(
        shop.call("POST", "/backend", &good, "0123456789").await.text(),
        "0123456789"
    );
    let asked = auth.arrived(before + 1).await.remove(before);
    assert_eq!(
        (asked.header("content-length"), asked.body.as_ref()),
        ("10", &b"0123456789"[..])
    );
    let answer = shop.call("POST", "/backend", &good, "0123456789a").await;
    assert_eq!(answer.verdict(), (413, "auth_body_too_large"));
    assert_eq!(shop.red.requests().len(), 4);
}

#[tokio::test]
async fn a_body_is_measured_by_its_bytes_and_not_by_its_pieces() {
    let auth = App::answering(|_| Response::new(Bytes::new())).await;
    let rules = format!(
        "- filters: [{}]\n  backendRefs: [{{name: red, port: 80}}]\n",
        ask("protocol: HTTP, http: {}, forwardBody: {maxSize: 20000}")
    );
    let shop = Shop::start(&auth, "http", &rules).await;
    for (size, verdict) in [(20_000, (200, "")), (20_001, (413, "auth_body_too_large"))] {
        let body: Bytes = (0..size).map(|at| (at % 251) as u8).collect();
        let call = request("POST", "http://shop/").body(trickling(&body)).unwrap();
        let answer = shop.visitor.http1().await.send(call).await;
        assert_eq!(answer.verdict(), verdict);
        assert!(answer.status != 200 || answer.body == body);
    }
    assert_eq!(auth.requests()[0].body.len(), 20_000);
}

#[tokio::test]
async fn without_an_answer_nothing_goes_on() {
    let auth = App::answering(|_| Response::new(Bytes::new())).await;
    let refer = |name: &str, port: u16| {
        format!(
            "{{type: ExternalAuth, externalAuth: {{protocol: HTTP, http: {{}}, backendRef: {{name: {name}, port: {port}}}}}}}"
        )
    };
    let rule = |path: &str, filter: &str| {
        format!(
            "- matches: [{{path: {{value: {path}}}}}]\n  filters: [{filter}]\n  backendRefs: [{{name: red, port: 80}}]\n"
        )
    };
    let rules = rule("/nobody", &refer("nobody", 80))
        + &rule("/missing", &refer("missing", 80))
        + &rule("/port", &refer("auth", 1))
        + &rule("/grpc", &ask("protocol: GRPC, grpc: {}"));
    let mut auth = auth;
    let shop = Shop::start(&auth, "http", &rules).await;
    for (target, verdict) in [
        ("/nobody", (503, "auth_unavailable")),
        ("/missing", (500, "backend_not_found")),
        ("/port", (500, "backend_not_found")),
        ("/grpc", (503, "auth_unavailable")),
    ] {
        assert_eq!(
            shop.call("GET", target, &[], "").await.verdict(),
            verdict,
            "{target}"
        );
    }
    let object = shop
        .mesh
        .operator()
        .get("HTTPRoute", "shop")
        .await
        .objects
        .remove(0);
    let resolved = object
        .conditions
        .iter()
        .find(|one| one.r#type == "ResolvedRefs")
        .unwrap();
    assert!(
        !resolved.status && resolved.reason == "BackendNotFound",
        "{resolved:?}"
    );
    shop.mesh
        .apply(&yaml::http_route(
            "shop",
            &rule("/", &ask("protocol: HTTP, http: {}")),
        ))
        .await;
    assert_eq!(shop.call("GET", "/", &[], "").await.status, 200);
    auth.stop().await;
    assert_eq!(
        shop.call("GET", "/", &[], "").await.verdict(),
        (503, "auth_unavailable")
    );
    assert_eq!(shop.red.requests().len(), 1);
}

/// An authorization service of gRPC, and what it was asked.
struct Guard {
    app: App,
    asked: watch::Receiver<Vec<CheckRequest>>,
}

#[derive(Clone)]
struct Judge(std::sync::Arc<watch::Sender<Vec<CheckRequest>>>);

fn header(key: &str, value: &str, append: Option<bool>) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            ..HeaderValue::default()
        }),
        append,
        ..HeaderValueOption::default()
    }
}

#[tonic::async_trait]
impl Authorization for Judge {
    async fn check(
        &self,
        question: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
        let question = question.into_inner();
        let http = question
            .attributes
            .as_ref()
            .unwrap()
            .request
            .as_ref()
            .unwrap()
            .http
            .clone()
            .unwrap();
        self.0.send_modify(|asked| asked.push(question));
        let status = |code| {
            Some(RpcStatus {
                code,
                message: String::new(),
            })
        };
        let word = http.headers.get("authorization").map_or("", String::as_str);
        let answer = match word {
            "good" => CheckResponse {
                status: status(0),
                http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
                    headers: vec![header("x-user", "42", None), header("x-list", "b", Some(true))],
                    headers_to_remove: vec!["authorization".to_owned(), "host".to_owned()],
                    response_headers_to_add: vec![header("x-told", "client", None)],
                })),
            },
            "broken" => return Err(tonic::Status::internal("broken")),
            "plain" => CheckResponse {
                status: status(7),
                http_response: None,
            },
            _ => CheckResponse {
                status: status(16),
                http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
                    status: Some(HttpStatus { code: 401 }),
                    headers: vec![header("x-why", "because", None)],
                    body: "no way".to_owned(),
                })),
            },
        };
        Ok(tonic::Response::new(answer))
    }
}

impl Guard {
    async fn start() -> Self {
        let (note, asked) = watch::channel(Vec::new());
        let service = AuthorizationServer::new(Judge(note.into()));
        let app = App::http(move |request| {
            let mut service = service.clone();
            async move {
                use http_body_util::BodyExt;
                use tower::Service;
                let answer = service.call(request).await.unwrap_or_else(|never| match never {});
                answer.map(|body| body.map_err(Into::into).boxed_unsync())
            }
        })
        .await;
        Self { app, asked }
    }
}

#[tokio::test]
async fn over_grpc_it_is_envoys_ext_authz() {
    let guard = Guard::start().await;
    let rules = format!(
        "- matches: [{{path: {{value: /body}}}}]\n  filters: [{}]\n  backendRefs: [{{name: red, port: 80}}]\n\
         - filters: [{}]\n  backendRefs: [{{name: red, port: 80}}]\n",
        ask("protocol: GRPC, grpc: {}, forwardBody: {maxSize: 100}"),
        ask("protocol: GRPC, grpc: {allowedHeaders: [authorization, x-in]}"),
    );
    let shop = Shop::start(&guard.app, "kubernetes.io/h2c", &rules).await;
    let headers = [
        ("authorization", "good"),
        ("x-in", "1"),
        ("x-out", "2"),
        ("x-list", "a"),
        ("x-user", "root"),
    ];
    let answer = shop.call("POST", "/x?y", &headers, "secret").await;
    assert_eq!((answer.text(), answer.header("x-told")), ("secret", "client"));
    let arrived = shop.red.arrived(1).await.remove(0);
    for (name, value) in [
        ("x-user", "42"),
        ("x-list", "a,b"),
        ("authorization", ""),
        ("host", "shop"),
    ] {
        assert_eq!(arrived.header(name), value, "{name}");
    }
    let asked = guard.asked.borrow().first().cloned().unwrap().attributes.unwrap();
    assert_eq!(
        asked.source.unwrap().principal,
        shop.visitor.spiffe_id().to_string()
    );
    let http = asked.request.unwrap().http.unwrap();
    assert_eq!(
        (http.method.as_str(), http.path.as_str(), http.host.as_str()),
        ("POST", "/x?y", "shop")
    );
    assert_eq!((http.size, http.body.as_str()), (6, ""));
    let told: Vec<_> = http.headers.keys().map(String::as_str).collect();
    assert_eq!(told, ["authorization", "x-in"]);

    shop.call("POST", "/body", &headers, "secret").await;
    let http = guard.asked.borrow()[1]
        .clone()
        .attributes
        .unwrap()
        .request
        .unwrap()
        .http
        .unwrap();
    assert_eq!(http.body, "secret");
    assert!(http.headers.contains_key("x-out"), "all where none is listed");

    let answer = shop.call("GET", "/", &[("authorization", "bad")], "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text(), answer.header("x-why")),
        (401, "no way", "because")
    );
    let answer = shop.call("GET", "/", &[("authorization", "plain")], "").await;
    assert_eq!(answer.verdict(), (403, "auth_denied"));
    let answer = shop.call("GET", "/", &[("authorization", "broken")], "").await;
    assert_eq!(answer.verdict(), (503, "auth_unavailable"));
    assert_eq!(shop.red.requests().len(), 2);
}

#[tokio::test]
async fn a_caller_of_grpc_is_denied_in_grpc() {
    let guard = Guard::start().await;
    let services =
        yaml::service("echo", 50051, "kubernetes.io/h2c") + &yaml::service("auth", 9000, "kubernetes.io/h2c");
    let mesh = Mesh::with(&services).await;
    let app = echo::app().await;
    let _echo = mesh.workload("echo").app(app.address).start().await;
    let _auth = mesh.workload("auth").app(guard.app.address).start().await;
    let visitor = mesh.workload("visitor").local("echo:50051").start().await;
    let rules = format!(
        "- filters: [{}]\n  backendRefs: [{{name: echo, port: 50051}}]",
        ask("protocol: GRPC, grpc: {}")
    );
    mesh.apply(&yaml::http_route("echo", &rules)).await;
    let address = Endpoint::from_shared(format!("http://{}", visitor.local("echo:50051"))).unwrap();
    let client = EchoClient::new(address.connect().await.unwrap());
    let call = |word: &str| {
        let mut call = tonic::Request::new(words("hello"));
        call.metadata_mut().insert("authorization", word.parse().unwrap());
        let mut client = client.clone();
        async move { client.say(call).await }
    };
    assert_eq!(call("good").await.unwrap().into_inner().text, "hello");
    let denied = call("bad").await.unwrap_err();
    assert_eq!(
        (denied.code(), denied.message()),
        (tonic::Code::Unauthenticated, "no way")
    );
    assert_eq!(denied.metadata().get("x-why").unwrap(), "because");
    let denied = call("plain").await.unwrap_err();
    assert_eq!(
        (denied.code(), denied.message()),
        (tonic::Code::PermissionDenied, "auth_denied")
    );
    assert_eq!(app.requests().len(), 1);
}
