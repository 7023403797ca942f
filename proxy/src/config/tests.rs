//! The config room, judged against a control plane that does what the test says.

mod shadow;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use model::{Generation, ServiceName, ServicePort, SpiffeId};
use proto::v1;
use proto::v1::proxy_message::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::identity::fake::{FakeControlPlane, ProxyStream, soon, workload};

/// Longer than any test, so that only an answer ends a wait.
const LONG: Duration = Duration::from_secs(60);

struct Room {
    fake: FakeControlPlane,
    config: ConfigHandle,
    task: JoinHandle<()>,
}

impl Room {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ConfigSettings)) -> Self {
        let fake = FakeControlPlane::start().await;
        let id = "checkout-1".parse().expect("valid");
        let inbound = "192.0.2.1:15008".parse().expect("valid");
        let mut settings = ConfigSettings::new(fake.address.clone(), id);
        settings.inbound = Some(inbound);
        settings.backoff = Backoff {
            first: Duration::from_millis(1),
            most: Duration::from_millis(5),
        };
        change(&mut settings);
        let control_plane = SpiffeId::control_plane(&workload().trust_domain);
        let cell = fake.workload_cell();
        let tls = certs::client_config(&cell, crate::identity::ALPN, &control_plane).expect("valid");
        let (config, task) = ConfigTask::new(settings, tls);
        Self {
            fake,
            config,
            task: tokio::spawn(task.run()),
        }
    }

    /// A stream whose Hello is read.
    async fn stream(&mut self) -> ProxyStream {
        let mut stream = self.fake.next_stream().await;
        stream.hello().await;
        stream
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn service(text: &str) -> ServiceName {
    text.parse().expect("valid")
}

fn destination(name: &str, rule: Option<v1::Rule>) -> v1::VersionedResource {
    let port = v1::DestinationPort {
        port: 8080,
        protocol: v1::AppProtocol::Http as i32,
        rules: rule.into_iter().collect(),
        streams: Vec::new(),
        shadow: None,
    };
    let content = v1::Destination {
        service: name.to_owned(),
        ports: vec![port],
    };
    versioned(
        &format!("destination/{name}"),
        v1::resource::Resource::Destination(content),
    )
}

fn endpoints(name: &str) -> v1::VersionedResource {
    let endpoint = v1::Endpoint {
        workload_id: "cart-1".to_owned(),
        address: "192.0.2.9:15008".to_owned(),
        spiffe_id: "spiffe://cluster.local/ns/shop/sa/cart".to_owned(),
        labels: [("app".to_owned(), "cart".to_owned())].into(),
    };
    let content = v1::EndpointSet {
        service: name.to_owned(),
        endpoints: vec![endpoint],
        outside: None,
        policies: Vec::new(),
        faults: Vec::new(),
        shadow: Vec::new(),
    };
    versioned(
        &format!("endpoints/{name}"),
        v1::resource::Resource::Endpoints(content),
    )
}

fn inbound() -> v1::VersionedResource {
    let served = v1::ServedPort {
        service_port: "shop/checkout:8080".to_owned(),
        app: "127.0.0.1:9000".to_owned(),
        protocol: v1::AppProtocol::Http as i32,
    };
    versioned(
        "inbound",
        v1::resource::Resource::Inbound(v1::Inbound {
            served: vec![served],
            ..v1::Inbound::default()
        }),
    )
}

fn versioned(name: &str, resource: v1::resource::Resource) -> v1::VersionedResource {
    v1::VersionedResource {
        name: name.to_owned(),
        version: "v1".to_owned(),
        resource: Some(v1::Resource {
            resource: Some(resource),
        }),
    }
}

fn update(nonce: u64, changed: Vec<v1::VersionedResource>, removed: &[&str]) -> v1::Update {
    let removed = removed.iter().map(|name| (*name).to_owned()).collect();
    v1::Update {
        nonce,
        generation: 100 + nonce,
        changed,
        removed,
    }
}

async fn acknowledged(stream: &mut ProxyStream, update: v1::Update) {
    let nonce = update.nonce;
    stream.send(update).await;
    assert_eq!(stream.read().await, Message::Ack(v1::Ack { nonce }));
}

async fn subscribed(stream: &mut ProxyStream) -> v1::Subscribe {
    match stream.read().await {
        Message::Subscribe(subscribe) => subscribe,
        other => panic!("{other:?} is not a Subscribe"),
    }
}

#[tokio::test]
async fn a_hello_says_what_the_workload_is_and_an_update_is_used_then_acknowledged() {
    let mut room = Room::with(|settings| {
        settings.labels = Labels::new([("app".to_owned(), "checkout".to_owned())].into()).expect("valid");
        let address = "127.0.0.1:9000".parse().expect("valid");
        settings.app_ports = vec![AppPort {
            name: Some("web".to_owned()),
            address,
        }];
    })
    .await;
    let mut stream = room.fake.next_stream().await;
    let hello = stream.hello().await;
    assert_eq!(
        (hello.workload_id.as_str(), hello.inbound.as_str()),
        ("checkout-1", "192.0.2.1:15008")
    );
    assert_eq!(hello.labels["app"], "checkout");
    assert_eq!(
        (
            hello.app_ports[0].name.as_str(),
            hello.app_ports[0].address.as_str()
        ),
        ("web", "127.0.0.1:9000")
    );
    assert!(!hello.ready && hello.generation == 0 && hello.versions.is_empty());

    acknowledged(&mut stream, update(1, vec![inbound()], &[])).await;
    assert!(room.config.configured(LONG).await);
    let snapshot = room.config.snapshot();
    assert_eq!(snapshot.generation, Generation(101));
    let served: ServicePort = "shop/checkout:8080".parse().expect("valid");
    assert!(snapshot.inbound.served.contains_key(&served));
    let status = room.config.status();
    assert!(status.connected_since.is_some() && status.resources == 1 && status.updates == 1);
}

#[tokio::test]
async fn a_wrong_field_refuses_the_whole_update_and_is_named() {
    let mut room = Room::start().await;
    let mut stream = room.stream().await;
    acknowledged(&mut stream, update(1, vec![inbound()], &[])).await;
    assert!(room.config.prefetch(&service("shop/cart").into()));
    subscribed(&mut stream).await;

    let mut rule = v1::Rule {
        name: "HTTPRoute/shop/cart#0".to_owned(),
        ..v1::Rule::default()
    };
    let path = Some(v1::path_match::Path::Prefix("/".to_owned()));
    let path = Some(v1::PathMatch { path });
    rule.matches.push(v1::RequestMatch {
        path,
        ..v1::RequestMatch::default()
    });
    rule.backends.push(v1::Backend {
        target: "shop/cart:8080".to_owned(),
        reference: "cart".to_owned(),
        weight: 2_000_000,
        filters: Vec::new(),
    });
    let bad = update(
        2,
        vec![endpoints("shop/cart"), destination("shop/cart", Some(rule))],
        &["inbound"],
    );
    stream.send(bad).await;
    let Message::Refuse(refuse) = stream.read().await else {
        panic!("it was accepted")
    };
    assert_eq!(
        (refuse.nonce, refuse.resource.as_str()),
        (2, "destination/shop/cart")
    );
    assert!(refuse.field.ends_with("backends[0].weight"), "{}", refuse.field);
    assert!(refuse.why.contains("1000000"), "{}", refuse.why);

    let snapshot = room.config.snapshot();
    assert_eq!(snapshot.generation, Generation(101));
    assert!(snapshot.endpoints.is_empty() && snapshot.inbound.served.len() == 1);
    let refused = room.config.status().refused.expect("shown");
    assert_eq!(
        (refused.generation, refused.refusal.resource),
        (Generation(102), refuse.resource)
    );

    acknowledged(&mut stream, update(3, vec![destination("shop/cart", None)], &[])).await;
    assert!(room.config.status().refused.is_none());
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let mut room = Room::start().await;
    let mut stream = room.stream().await;
    let mut unversioned = inbound();
    unversioned.version.clear();
    let mut long_version = inbound();
    long_version.version = "v".repeat(MAX_VERSION_BYTES + 1);
    let mut empty = inbound();
    empty.resource = Some(v1::Resource { resource: None });
    let mut missing = inbound();
    missing.resource = None;
    let mut misnamed = endpoints("shop/cart");
    misnamed.name = "endpoints/shop/other".to_owned();
    let mut unnamed = inbound();
    unnamed.name = "\u{1b}[31m\n".repeat(1000);
    let lone = [unversioned, long_version, empty, missing, misnamed, unnamed];
    let mut updates: Vec<_> = lone
        .into_iter()
        .map(|resource| update(7, vec![resource], &[]))
        .collect();
    updates.push(update(7, vec![inbound(), inbound()], &[]));
    updates.push(update(7, vec![inbound()], &["inbound"]));
    updates.push(update(7, vec![], &["what/is/this"]));
    for update in updates {
        stream.send(update).await;
        let answer = stream.read().await;
        let Message::Refuse(refuse) = answer else {
            panic!("it was accepted")
        };
        assert!(!refuse.why.is_empty() && refuse.resource.len() < 10_000 && !refuse.resource.contains('\n'));
    }
    assert_eq!(room.config.snapshot().generation, Generation(0));
}

#[tokio::test]
async fn more_resources_than_the_limit_are_refused() {
    let mut room = Room::with(|settings| settings.resources.resources = 2).await;
    let mut stream = room.stream().await;
    acknowledged(
        &mut stream,
        update(1, vec![endpoints("shop/a"), endpoints("shop/b")], &[]),
    )
    .await;
    acknowledged(
        &mut stream,
        update(2, vec![endpoints("shop/c")], &["endpoints/shop/a"]),
    )
    .await;
    stream.send(update(3, vec![endpoints("shop/a")], &[])).await;
    assert!(matches!(stream.read().await, Message::Refuse(_)));
    assert_eq!(room.config.status().resources, 2);
}

#[tokio::test]
async fn a_lost_stream_leaves_the_snapshot_and_the_next_one_goes_on_from_it() {
    let mut room = Room::start().await;
    let mut stream = room.stream().await;
    assert!(
        room.config.prefetch(&service("shop/cart").into())
            && room.config.prefetch(&service("shop/none").into())
    );
    let mut asked = Vec::new();
    while asked.len() < 2 {
        asked.extend(subscribed(&mut stream).await.destinations);
    }
    let changed = vec![destination("shop/cart", None), endpoints("shop/cart")];
    acknowledged(&mut stream, update(1, changed, &["destination/shop/none"])).await;
    let before = room.config.snapshot();
    drop(stream);

    let mut stream = room.fake.next_stream().await;
    let mut hello = stream.hello().await;
    hello.subscriptions.sort();
    assert_eq!(hello.subscriptions, ["shop/cart", "shop/none"]);
    assert_eq!(hello.versions.len(), 2);
    assert_eq!(hello.versions["destination/shop/cart"], "v1");
    assert_eq!(hello.generation, 101);
    assert!(Arc::ptr_eq(&before, &room.config.snapshot()));
    assert!(matches!(
        room.config.learn(&service("shop/cart"), Duration::ZERO).await,
        Learned::Exists(_)
    ));
    acknowledged(
        &mut stream,
        update(1, vec![], &["destination/shop/cart", "endpoints/shop/cart"]),
    )
    .await;
    assert!(matches!(
        room.config.learn(&service("shop/cart"), LONG).await,
        Learned::DoesNotExist(_)
    ));
}

#[tokio::test]
async fn learning_waits_for_the_answer_and_no_longer() {
    let mut room = Room::start().await;
    let mut stream = room.stream().await;
    let (cart, none) = (service("shop/cart"), service("shop/none"));
    assert!(matches!(
        room.config.learn(&cart, Duration::from_millis(1)).await,
        Learned::TimedOut
    ));
    assert_eq!(subscribed(&mut stream).await.destinations, ["shop/cart"]);

    let waiting = tokio::spawn({
        let config = room.config.clone();
        async move { tokio::join!(config.learn(&cart, LONG), config.learn(&none, LONG)) }
    });
    assert_eq!(subscribed(&mut stream).await.destinations, ["shop/none"]);
    let changed = vec![destination("shop/cart", None)];
    acknowledged(&mut stream, update(1, changed, &["destination/shop/none"])).await;
    let (cart, none) = soon(waiting).await.expect("no panic");
    assert!(matches!(cart, Learned::Exists(snapshot) if snapshot.generation == Generation(101)));
    assert!(matches!(none, Learned::DoesNotExist(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_first_requests_ask_once() {
    let mut room = Room::start().await;
    let mut stream = room.stream().await;
    let learners: Vec<_> = (0..1000)
        .map(|_| {
            let config = room.config.clone();
            tokio::spawn(async move { config.learn(&service("shop/cart"), LONG).await })
        })
        .collect();
    assert_eq!(subscribed(&mut stream).await.destinations, ["shop/cart"]);
    // Nothing else comes before the acknowledgement: there was one subscription.
    acknowledged(&mut stream, update(1, vec![destination("shop/cart", None)], &[])).await;
    for learned in soon(join_all(learners)).await {
        assert!(matches!(learned.expect("no panic"), Learned::Exists(_)));
    }
    acknowledged(&mut stream, update(2, vec![], &[])).await;
}

#[tokio::test]
async fn names_without_a_service_are_forgotten_beyond_their_limit() {
    let limits = InterestLimits {
        destinations: 3,
        absent: 1,
        absent_kept: Duration::ZERO,
    };
    let mut room = Room::with(|settings| settings.interest = limits).await;
    let mut stream = room.stream().await;
    for number in 0..20 {
        let name = format!("shop/s{number}");
        assert!(room.config.prefetch(&service(&name).into()));
        let mut asked = subscribed(&mut stream).await;
        while asked.destinations.is_empty() {
            asked = subscribed(&mut stream).await;
        }
        assert_eq!(asked.destinations, std::slice::from_ref(&name));
        acknowledged(&mut stream, update(1, vec![], &[&format!("destination/{name}")])).await;
        assert!(matches!(
            room.config.learn(&service(&name), LONG).await,
            Learned::DoesNotExist(_)
        ));
    }
    assert!(room.config.snapshot().destinations.len() <= 3);
    // Nobody asked for this one, or nobody does any more: it takes no room.
    acknowledged_between_subscriptions(&mut stream, update(2, vec![destination("shop/s0", None)], &[])).await;
    assert!(
        !room
            .config
            .snapshot()
            .destinations
            .contains_key(&service("shop/s0"))
    );
}

async fn acknowledged_between_subscriptions(stream: &mut ProxyStream, update: v1::Update) {
    let nonce = update.nonce;
    stream.send(update).await;
    loop {
        match stream.read().await {
            Message::Subscribe(subscribe) => assert!(subscribe.destinations.is_empty()),
            other => return assert_eq!(other, Message::Ack(v1::Ack { nonce })),
        }
    }
}

#[tokio::test]
async fn more_destinations_than_the_limit_are_refused_at_once() {
    let mut room = Room::with(|settings| settings.interest.destinations = 1).await;
    let mut stream = room.stream().await;
    assert!(room.config.prefetch(&service("shop/cart").into()));
    subscribed(&mut stream).await;
    let learned = room.config.learn(&service("shop/other"), LONG).await;
    assert!(matches!(learned, Learned::TooMany { limit: 1 }));
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_stream_and_nothing_else() {
    let mut room = Room::with(|settings| settings.max_message_bytes = 1024).await;
    let mut stream = room.stream().await;
    acknowledged(&mut stream, update(1, vec![inbound()], &[])).await;
    let names: Vec<String> = (0..1000)
        .map(|number| format!("endpoints/shop/s{number}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    stream.send(update(2, vec![], &names)).await;
    let mut stream = room.stream().await;
    assert_eq!(room.config.snapshot().generation, Generation(101));
    acknowledged(&mut stream, update(1, vec![], &[])).await;
}

#[tokio::test]
async fn leaving_tells_the_control_plane_and_ends_the_task() {
    let mut room = Room::start().await;
    let mut stream = room.stream().await;
    acknowledged(&mut stream, update(1, vec![inbound()], &[])).await;
    let left = tokio::spawn({
        let config = room.config.clone();
        async move { config.leave(LONG).await }
    });
    assert_eq!(stream.read().await, Message::Leaving(v1::Leaving {}));
    drop(stream);
    assert!(soon(left).await.expect("no panic"));
    soon(&mut room.task).await.expect("no panic");
    assert_eq!(room.config.snapshot().generation, Generation(101));
}

#[tokio::test]
async fn leaving_without_a_control_plane_takes_no_time() {
    let room = Room::with(|settings| {
        settings.control_plane = "127.0.0.1:1".parse().expect("valid");
        settings.backoff = Backoff {
            first: LONG,
            most: LONG,
        };
    })
    .await;
    assert!(!soon(room.config.leave(LONG)).await);
}

#[tokio::test]
async fn readiness_follows_the_application() {
    let mut room = Room::start().await;
    let mut stream = room.stream().await;
    // An address of its own: nobody else takes the port once it is closed.
    let app = TcpListener::bind("127.0.0.2:0").await.expect("a free port");
    let address = app.local_addr().expect("bound");
    let settings = ReadinessSettings {
        first_interval: Duration::from_millis(1),
        steady_interval: Duration::from_millis(1),
        ..ReadinessSettings::default()
    };
    let watching = tokio::spawn(AppReadiness::new(vec![address], room.config.clone(), settings).run());
    assert_eq!(
        stream.read().await,
        Message::Readiness(v1::Readiness { ready: true })
    );
    drop(app);
    assert_eq!(
        stream.read().await,
        Message::Readiness(v1::Readiness { ready: false })
    );
    watching.abort();

    drop(stream);
    let nothing_to_watch = AppReadiness::new(Vec::new(), room.config.clone(), settings);
    soon(nothing_to_watch.run()).await;
    assert!(room.config.is_ready());
    let mut stream = room.fake.next_stream().await;
    if !stream.hello().await.ready {
        assert_eq!(
            stream.read().await,
            Message::Readiness(v1::Readiness { ready: true })
        );
    }
}
