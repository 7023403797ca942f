//! What operators do and see.

use proto::v1::applied_object::Change;
use tonic::Code;

use super::*;

fn files(texts: &[&str]) -> Vec<v1::SourceFile> {
    let file = |(index, text): (usize, &&str)| v1::SourceFile {
        name: format!("{index}.yaml"),
        text: (*text).to_owned(),
    };
    texts.iter().enumerate().map(file).collect()
}

fn name(kind: &str, name: &str) -> v1::ObjectName {
    v1::ObjectName {
        kind: kind.to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

const DANGLING: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: cart}]
  rules: [{backendRefs: [{name: nobody, port: 80}]}]
";

#[tokio::test]
async fn all_is_applied_or_nothing() {
    let plane = Plane::start().await;
    let mut operator = plane.operator().await;
    let mut apply = async |texts: &[&str], dry_run| {
        let files = files(texts);
        soon(operator.apply(v1::ApplyRequest {
            files,
            dry_run,
            in_part: false,
        }))
        .await
        .unwrap()
        .into_inner()
    };
    let bad = apply(
        &[
            CART,
            "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {port: 80}\n",
        ],
        false,
    )
    .await;
    assert!(bad.applied.is_empty());
    let error = bad
        .errors
        .iter()
        .find(|error| error.field == "spec.port")
        .unwrap();
    assert_eq!(
        (error.file.as_str(), error.line, error.column),
        ("1.yaml", 4, 8),
        "{error:?}"
    );
    let twice = apply(&[CART, CART], false).await;
    assert!(
        twice.errors[0].message.contains("already given in 0.yaml"),
        "{:?}",
        twice.errors
    );

    let trial = apply(&[CART, DANGLING], true).await;
    assert_eq!(trial.applied[0].change(), Change::Created);
    let resolved = trial.applied[1]
        .conditions
        .iter()
        .find(|condition| condition.r#type == "ResolvedRefs");
    assert!(!resolved.unwrap().status, "it refers to nobody");
    assert_eq!((trial.generation, plane.status().await.generation), (0, 0));

    let first = apply(&[CART], false).await;
    assert_eq!(
        (first.generation, first.applied[0].change()),
        (1, Change::Created)
    );
    let same = apply(&[CART], false).await;
    assert_eq!(
        (same.generation, same.applied[0].change()),
        (1, Change::Unchanged)
    );
    let other = apply(&[&CART.replace("80", "81")], false).await;
    assert_eq!(
        (other.generation, other.applied[0].change()),
        (2, Change::Configured)
    );
}

#[tokio::test]
async fn what_is_shown_can_be_applied_again() {
    let plane = Plane::start().await;
    plane.apply(&format!("{CART}---{DANGLING}")).await;
    let mut operator = plane.operator().await;
    let shown = soon(operator.get(v1::GetRequest::default()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(shown.objects.len(), 2);
    let route = &shown.objects[0];
    assert_eq!(
        (route.name.as_ref(), route.source.as_str()),
        (Some(&name("HTTPRoute", "cart")), "apply")
    );
    for part in [
        "generation: 1",
        "creationTimestamp: \"20",
        "reason: BackendNotFound",
    ] {
        assert!(route.yaml.contains(part), "{part}: {}", route.yaml);
    }
    let again = plane
        .apply(
            &shown
                .objects
                .iter()
                .map(|object| object.yaml.as_str())
                .collect::<Vec<_>>()
                .join("---\n"),
        )
        .await;
    assert!(again.errors.is_empty(), "{:?}", again.errors);
    assert!(
        again
            .applied
            .iter()
            .all(|object| object.change() == Change::Unchanged)
    );

    let wanted = v1::GetRequest {
        kind: "Service".to_owned(),
        namespace: "shop".to_owned(),
        name: "cart".to_owned(),
        secrets: false,
    };
    assert_eq!(
        soon(operator.get(wanted))
            .await
            .unwrap()
            .into_inner()
            .objects
            .len(),
        1
    );
    let unknown = v1::GetRequest {
        kind: "Pod".to_owned(),
        ..v1::GetRequest::default()
    };
    assert_eq!(
        soon(operator.get(unknown)).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn what_is_deleted_is_gone() {
    let plane = Plane::start().await;
    plane.apply(CART).await;
    let names = vec![name("Service", "cart"), name("Service", "nobody")];
    let request = v1::DeleteRequest { names };
    let answer = soon(plane.operator().await.delete(request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (answer.generation, answer.deleted),
        (2, vec![name("Service", "cart")])
    );
    assert_eq!(answer.not_found, [name("Service", "nobody")]);
}

#[tokio::test]
async fn waiting_ends_with_who_is_behind() {
    let plane = Plane::start().await;
    let mut cart = plane.workload("cart").await;
    let applied = plane.apply(CART).await;
    let update = cart.next().await;
    let request = |generation, timeout_ms| v1::AwaitRequest {
        generation,
        timeout_ms,
    };
    let mut operator = plane.operator().await;
    let waited = soon(operator.r#await(request(applied.generation, 1)))
        .await
        .unwrap()
        .into_inner();
    assert!(!waited.reached);
    assert_eq!(waited.behind[0].workload_id, "cart-1");
    let mut waiting = plane.operator().await;
    let waiting = waiting.r#await(request(applied.generation, 600_000));
    cart.send(Message::Ack(v1::Ack { nonce: update.nonce })).await;
    assert!(soon(waiting).await.unwrap().into_inner().reached);
    let future = soon(operator.r#await(request(applied.generation + 1, 1)))
        .await
        .unwrap_err();
    assert_eq!(future.code(), Code::OutOfRange);
}

#[tokio::test]
async fn tokens_have_bounds() {
    let plane = Plane::with(|settings| settings.limits.join_tokens = 1).await;
    let mut operator = plane.operator().await;
    let mut create = async |namespace: &str, ttl_seconds| {
        let request = v1::CreateTokenRequest {
            namespace: namespace.to_owned(),
            service_account: "cart".to_owned(),
            ttl_seconds,
        };
        soon(operator.create_token(request))
            .await
            .map(tonic::Response::into_inner)
    };
    for (namespace, ttl) in [("weft-system", 0), ("Shop", 0), ("shop", 86_401)] {
        let refused = create(namespace, ttl).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert!(create("shop", 0).await.unwrap().token.starts_with("weft-join."));
    assert_eq!(
        create("shop", 0).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
}

#[tokio::test]
async fn objects_and_workloads_have_bounds() {
    let plane = Plane::with(|settings| {
        settings.limits.objects = 1;
        settings.limits.workloads = 1;
    })
    .await;
    let mut operator = plane.operator().await;
    let second = CART.replace("name: cart", "name: second");
    let request = v1::ApplyRequest {
        files: files(&[CART, &second]),
        dry_run: false,
        in_part: false,
    };
    let refused = soon(operator.apply(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(plane.status().await.generation, 0);
    plane.apply(CART).await;
    let _shop = plane.workload("shop").await;
    let mut cart = plane
        .stream(&plane.join("cart").await, hello("cart"))
        .await
        .unwrap();
    assert_eq!(cart.end().await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn counts_are_shown() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let plane = Plane::start().await;
    let _cart = plane.workload("cart").await;
    let mut page = TcpStream::connect(plane.running().admin_addr()).await.unwrap();
    page.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    soon(page.read_to_string(&mut text)).await.unwrap();
    for line in [
        "weft_control_plane_proxies_connected 1",
        "weft_control_plane_generation 1",
        "weft_control_plane_certificates_issued_total 1",
        "weft_control_plane_updates_sent_total 1",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
