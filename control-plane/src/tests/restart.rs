//! What survives a restart, and what the configuration folder changes.

use tonic::Code;

use super::*;

#[tokio::test]
async fn workloads_stay_endpoints_over_a_restart() {
    let mut plane = Plane::start().await;
    plane.apply(CART).await;
    let not_ready = v1::Hello {
        ready: false,
        ..hello("cart")
    };
    let cell = plane.join("cart").await;
    let mut cart = plane.stream(&cell, not_ready).await.unwrap();
    cart.used().await;
    let mut shop = plane.workload("shop").await;
    shop.subscribe(&["cart"]).await;
    cart.send(Message::Readiness(v1::Readiness { ready: true })).await;
    shop.endpoints("cart", &["cart-1"]).await;
    let before = plane.status().await.generation;

    plane.stop().await;
    assert_eq!(shop.end().await.unwrap_err().code(), Code::Unavailable);
    plane.start_again().await.unwrap();

    assert_eq!(plane.status().await.generation, before);
    let mut shop = plane.workload("shop").await;
    shop.subscribe(&["cart"]).await;
    shop.endpoints("cart", &["cart-1"]).await;
    let status = plane.status().await;
    let away = status
        .proxies
        .iter()
        .find(|proxy| proxy.workload_id == "cart-1")
        .unwrap();
    assert!(!away.connected && away.ready && !away.in_sync, "{away:?}");
    // Only who was it before can be it again.
    let mut thief = plane
        .stream(&plane.join("thief").await, hello("cart"))
        .await
        .unwrap();
    assert_eq!(thief.end().await.unwrap_err().code(), Code::AlreadyExists);
    let mut cart = plane.stream(&cell, hello("cart")).await.unwrap();
    cart.used().await;
}

#[tokio::test]
async fn who_does_not_come_back_is_no_endpoint_any_more() {
    let mut plane = Plane::start().await;
    plane.apply(CART).await;
    let (cart, shop) = (plane.workload("cart").await, plane.join("shop").await);
    plane.stop().await;
    drop(cart);
    plane.settings.limits.restart_grace = Duration::from_millis(500);
    plane.start_again().await.unwrap();
    let subscribed = v1::Hello {
        subscriptions: vec!["shop/cart".to_owned()],
        ..hello("shop")
    };
    let mut shop = plane.stream(&shop, subscribed).await.unwrap();
    shop.endpoints("cart", &[]).await;
    let proxies = plane.status().await.proxies;
    assert!(
        proxies.iter().all(|proxy| proxy.workload_id == "shop-1"),
        "{proxies:?}"
    );
}

#[tokio::test]
async fn the_trust_domain_is_for_ever() {
    let mut plane = Plane::with(|settings| settings.trust_domain = Some("mesh.test".parse().unwrap())).await;
    let root = plane.bundle();
    plane.stop().await;
    plane.settings.trust_domain = Some("other.test".parse().unwrap());
    let refused = plane.start_again().await.unwrap_err().to_string();
    assert!(
        refused.contains("mesh.test") && refused.contains("other.test"),
        "{refused}"
    );
    plane.settings.trust_domain = None;
    plane.start_again().await.unwrap();
    assert_eq!(plane.bundle(), root);
}

#[tokio::test]
async fn a_folder_is_read_watched_and_overridden() {
    let mut plane = Plane::with_file("cart.yaml", CART).await;
    let mut shop = plane.workload("shop").await;
    shop.subscribe(&["cart"]).await;
    shop.used().await;
    // An operator's change stays over a restart, until the file changes.
    let port = |number: &str| CART.replace("80", number);
    plane.apply(&port("81")).await;
    assert_eq!(ports(&shop.used().await), [81]);
    plane.stop().await;
    plane.start_again().await.unwrap();
    let mut shop = plane.workload("shop").await;
    shop.subscribe(&["cart"]).await;
    assert_eq!(ports(&shop.used().await), [81]);
    plane.write("cart.yaml", &port("82"));
    assert_eq!(ports(&shop.used().await), [82]);

    // A bad file changes nothing, and is told of; the next good one counts.
    plane.write("cart.yaml", "kind: Service\nwhat: is this\n");
    plane.write("more.yaml", &CART.replace("name: cart", "name: more"));
    shop.subscribe(&["more"]).await;
    while !shop.versions.contains_key("destination/shop/more") {
        shop.used().await;
    }
    let errors = plane.status().await.source_errors;
    assert!(
        errors[0].file.ends_with("cart.yaml") && errors[0].line > 0,
        "{errors:?}"
    );
    std::fs::remove_file(plane.config().join("cart.yaml")).unwrap();
    while shop.versions.contains_key("destination/shop/cart") {
        shop.used().await;
    }
    assert!(plane.status().await.source_errors.is_empty());
}

fn ports(update: &v1::Update) -> Vec<u16> {
    let resources = update
        .changed
        .iter()
        .map(|resource| proto::convert::resource_from_wire(resource.resource.clone().unwrap()).unwrap());
    let ports = resources.filter_map(|resource| match resource {
        Resource::Destination(destination) => Some(destination.ports.into_keys()),
        _ => None,
    });
    ports.flatten().collect()
}
