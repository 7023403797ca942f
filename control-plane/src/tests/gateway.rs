//! A Gateway's proxies: who may be one, what they are told, and what they say.

use tonic::Code;

use super::*;

const EDGE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {gatewayClassName: weft, listeners: [{name: web, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
";

fn gateway(name: &str) -> v1::Hello {
    v1::Hello {
        workload_id: format!("{name}-1"),
        gateway: name.to_owned(),
        ready: true,
        ..v1::Hello::default()
    }
}

#[tokio::test]
async fn a_gateway_is_told_its_listeners_and_the_endpoints_behind_them() {
    let plane = Plane::start().await;
    let mut edge = plane
        .stream(&plane.join("edge").await, gateway("edge"))
        .await
        .unwrap();
    let first = edge.used().await;
    assert_eq!(changed(&first), BTreeSet::from(["inbound"]));
    assert_eq!(first.removed, ["gateway/shop/edge"], "there is none yet");

    plane.apply(CART).await;
    plane.apply(EDGE).await;
    let update = edge.used().await;
    assert_eq!(
        changed(&update),
        BTreeSet::from(["gateway/shop/edge", "endpoints/shop/cart"])
    );
    let _cart = plane.workload("cart").await;
    edge.endpoints("cart", &["cart-1"]).await;
}

#[tokio::test]
async fn nobody_else_is_told_of_a_gateway_because_it_has_keys() {
    let plane = Plane::start().await;
    plane.apply(EDGE).await;
    for (account, name) in [("cart", "edge"), ("edge", "cart")] {
        let hello = gateway(name);
        let opened = plane.stream(&plane.join(account).await, hello).await;
        let refused = match opened {
            Ok(mut proxy) => proxy.end().await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
        let told = format!("only service account {name} may serve Gateway shop/{name}");
        assert!(refused.message().starts_with(&told), "{refused:?}");
    }
}
