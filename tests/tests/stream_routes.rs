//! TCPRoutes and TLSRoutes of a Service: where a caller's opaque connections go.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures
)]

use tests::edge::{Authority, Client, behind_tls};
use tests::{App, Mesh, Raw, Sidecar, yaml};
use tokio::io::AsyncWriteExt;

/// Says its name and closes.
async fn named(name: &'static str) -> App {
    App::raw(move |mut stream| async move {
        let _ = stream.write_all(name.as_bytes()).await;
    })
    .await
}

/// A route of the Service `db`.
fn route(kind: &str, name: &str, rest: &str) -> String {
    yaml::object(
        kind,
        name,
        &format!("{{parentRefs: [{{group: '', kind: Service, name: db}}], {rest}}}"),
    )
}

async fn said(visitor: &Sidecar) -> String {
    let mut raw = Raw::connect(visitor.local("db:5432")).await;
    String::from_utf8(raw.read_to_end().await).unwrap()
}

#[tokio::test]
async fn connections_go_to_backends_by_weight_in_and_outside_the_mesh() {
    let (db, inside, outside) = (named("db").await, named("inside").await, named("outside").await);
    let yaml = yaml::service("db", 5432, "tcp")
        + &yaml::service("inside", 5432, "tcp")
        + &yaml::outside("outside", 5432, "tcp", &[outside.address]);
    let mesh = Mesh::with(&yaml).await;
    let _db = mesh.workload("db").app(db.address).start().await;
    let _inside = mesh.workload("inside").app(inside.address).start().await;
    let visitor = mesh.workload("visitor").local("db:5432").start().await;
    assert_eq!(said(&visitor).await, "db");
    let rule = "rules: [{backendRefs: [{name: inside, port: 5432, weight: 3}, {name: outside, port: 5432}]}]";
    mesh.apply(&route("TCPRoute", "split", rule)).await;
    let mut counts = [0, 0];
    for _ in 0..40 {
        match &*said(&visitor).await {
            "inside" => counts[0] += 1,
            "outside" => counts[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((8..=12).contains(&counts[1]), "{counts:?}");
    let nowhere = "rules: [{backendRefs: [{name: nowhere, port: 5432}]}]";
    mesh.apply(&route("TCPRoute", "split", nowhere)).await;
    assert_eq!(said(&visitor).await, "", "closed");
    let generation = mesh.operator().delete("TCPRoute", "split").await;
    mesh.operator().in_use(generation).await;
    assert_eq!(said(&visitor).await, "db");
}

#[tokio::test]
async fn tls_goes_by_its_name_and_what_no_rule_fits_is_closed() {
    let (authority, app) = (Authority::new("test"), App::echo("app").await);
    let [one, two] = ["one", "two"].map(|name| authority.certificate(&[&format!("{name}.example.com")]));
    let (first, _first) = behind_tls(&app, &one, &[]).await;
    let (second, _second) = behind_tls(&app, &two, &[]).await;
    let yaml = yaml::service("db", 5432, "tls")
        + &yaml::outside("one", 443, "tls", &[first])
        + &yaml::outside("two", 443, "tls", &[second])
        + &route(
            "TLSRoute",
            "one",
            "hostnames: [one.example.com], rules: [{backendRefs: [{name: one, port: 443}]}]",
        )
        + &route(
            "TLSRoute",
            "two",
            "hostnames: ['*.example.com'], rules: [{backendRefs: [{name: two, port: 443}]}]",
        );
    let mesh = Mesh::with(&yaml).await;
    let visitor = mesh.workload("visitor").local("db:5432").start().await;
    let client = Client::trusting(&authority);
    for (name, shown) in [("one.example.com", &one), ("two.example.com", &two)] {
        let stream = client.connect(visitor.local("db:5432"), name).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], shown.der());
    }
    let refused = client
        .connect(visitor.local("db:5432"), "example.org")
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::UnexpectedEof, "{refused}");
    let mut plain = Raw::connect(visitor.local("db:5432")).await;
    plain.send("no TLS").await;
    assert_eq!(plain.read_to_end().await, b"");
}
