//! Who gets a certificate, and who may call what.

use tonic::Code;

use super::*;

#[tokio::test]
async fn a_token_brings_one_certificate_to_one_key() {
    let plane = Plane::start().await;
    let token = plane.token("cart").await;
    // What no certificate can be issued for does not use the token up.
    let refused = join(&plane, &token, b"no request".to_vec()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");

    let key = PrivateKey::generate().unwrap();
    let csr = key.csr().unwrap();
    let first = join(&plane, &token, csr.clone()).await.unwrap();
    assert_eq!(first.spiffe_id, "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(first.mesh_domain, "cluster.local");
    let own = join(&plane, &token, csr)
        .await
        .expect("the answer may have been lost");
    let cell = cell(key, own);
    assert_eq!(cell.current().unwrap().identity.id().to_string(), first.spiffe_id);

    let other = PrivateKey::generate().unwrap().csr().unwrap();
    let reused = join(&plane, &token, other).await.unwrap_err();
    assert_eq!(reused.code(), Code::Unauthenticated);
    assert!(reused.message().contains("used before"), "{reused}");
}

#[tokio::test]
async fn an_expired_token_and_one_of_another_mesh_bring_nothing() {
    let plane = Plane::with(|settings| settings.limits.token_lifetime = Duration::ZERO).await;
    let other = Plane::start().await;
    let csr = || PrivateKey::generate().unwrap().csr().unwrap();
    for (token, why) in [
        (plane.token("cart").await, "has expired"),
        (other.token("cart").await, "another mesh"),
        ("weft-join.AAAA".to_owned(), "no join token"),
    ] {
        let refused = join(&plane, &token, csr()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(refused.message().contains(why), "{refused}");
    }
    assert!(
        plane
            .running()
            .create_token("weft-system", "operator")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_certificate_is_renewed_for_whoever_holds_it() {
    let plane = Plane::start().await;
    let key = PrivateKey::generate().unwrap();
    let request = || v1::RenewRequest {
        csr: key.csr().unwrap(),
        workload_id: "cart-1".to_owned(),
    };
    let cart = plane.join("cart").await;
    let mut stream = plane.stream(&cart, hello("cart")).await.unwrap();
    stream.used().await;
    let dates = async || {
        let status = plane.status().await.proxies.remove(0);
        (status.certificate_not_before, status.certificate_not_after)
    };
    let first = dates().await;
    // Who is not that workload changes nothing about it.
    let mut other = IdentityClient::new(plane.channel(&plane.join("shop").await).await);
    soon(other.renew(request())).await.unwrap();
    assert_eq!(dates().await, first);
    let mut client = IdentityClient::new(plane.channel(&cart).await);
    let renewed = soon(client.renew(request())).await.unwrap().into_inner();
    assert_eq!(renewed.spiffe_id, "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(dates().await, (renewed.not_before, renewed.not_after));

    let mut anonymous = IdentityClient::new(plane.anonymous().await);
    let refused = soon(anonymous.renew(request())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn only_operators_operate() {
    let plane = Plane::start().await;
    let mut anonymous = OperatorClient::new(plane.anonymous().await);
    let refused = soon(anonymous.apply(v1::ApplyRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    let cart = plane.join("cart").await;
    let mut workload = OperatorClient::new(plane.channel(&cart).await);
    let refused = soon(workload.apply(v1::ApplyRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = Proxy::open(plane.anonymous().await, Message::Hello(hello("cart"))).await;
    assert_eq!(
        refused.err().map(|status| status.code()),
        Some(Code::Unauthenticated)
    );
}

#[tokio::test]
async fn what_the_data_folder_keeps_is_its_owner_s() {
    use std::os::unix::fs::PermissionsExt as _;
    let plane = Plane::start().await;
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in ["operator.pem", "weft.redb"] {
        assert_eq!(mode(plane.data(name)), 0o600, "{name}");
    }
    assert_eq!(mode(plane.settings.data.clone()), 0o700);
    let address = std::fs::read_to_string(plane.data("address")).unwrap();
    assert_eq!(address.trim(), plane.running().grpc_addr().to_string());
}

#[tokio::test]
async fn the_control_plane_and_the_operator_get_certificates_anew() {
    let plane = Plane::with(|settings| settings.limits.certificate_lifetime = Duration::from_secs(10)).await;
    let before = std::fs::read_to_string(plane.data("operator.pem")).unwrap();
    // At half of its 10 s.
    soon(async {
        while std::fs::read_to_string(plane.data("operator.pem")).unwrap() == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(plane.status().await.trust_domain, "cluster.local");
}
