//! What proxies are told, and what becomes of their answers.

use tonic::Code;

use super::*;

const CART_ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: cart}]
  rules: [{backendRefs: [{name: cart, port: 80, weight: WEIGHT}]}]
";

#[tokio::test]
async fn a_workload_is_an_endpoint_while_its_stream_lives() {
    let plane = Plane::start().await;
    plane.apply(CART).await;
    let mut shop = plane.workload("shop").await;
    shop.subscribe(&["cart", "nobody"]).await;
    let answer = shop.used().await;
    assert_eq!(
        changed(&answer),
        BTreeSet::from(["destination/shop/cart", "endpoints/shop/cart"])
    );
    assert_eq!(answer.removed, ["destination/shop/nobody"]);

    let mut cart = plane.workload("cart").await;
    shop.endpoints("cart", &["cart-1"]).await;
    cart.send(Message::Readiness(v1::Readiness { ready: false }))
        .await;
    shop.endpoints("cart", &[]).await;
    cart.send(Message::Readiness(v1::Readiness { ready: true })).await;
    shop.endpoints("cart", &["cart-1"]).await;

    cart.send(Message::Leaving(v1::Leaving {})).await;
    shop.endpoints("cart", &[]).await;
    assert!(cart.end().await.is_ok(), "it is told that its goodbye was heard");
    let cart = plane.workload("cart").await;
    shop.endpoints("cart", &["cart-1"]).await;
    drop(cart);
    shop.endpoints("cart", &[]).await;
}

#[tokio::test]
async fn a_workload_is_told_what_it_serves() {
    let plane = Plane::start().await;
    let mut cart = plane
        .stream(&plane.join("cart").await, hello("cart"))
        .await
        .unwrap();
    let first = cart.used().await;
    assert_eq!(changed(&first), BTreeSet::from(["inbound"]));
    let applied = plane.apply(CART).await;
    let update = cart.used().await;
    assert_eq!(update.generation, applied.generation);
    let resource = update.changed.into_iter().next().unwrap().resource.unwrap();
    let Resource::Inbound(inbound) = proto::convert::resource_from_wire(resource).unwrap() else {
        panic!("not what it serves");
    };
    assert_eq!(
        inbound.served[&service("cart").port(80)].app.to_string(),
        "127.0.0.1:8080"
    );
}

#[tokio::test]
async fn every_question_is_answered_and_what_is_forgotten_is_not_told() {
    let plane = Plane::start().await;
    plane.apply(CART).await;
    let mut shop = plane.workload("shop").await;
    for _ in 0..2 {
        shop.subscribe(&["cart"]).await;
        assert!(changed(&shop.used().await).contains("destination/shop/cart"));
    }
    let forget = vec!["shop/cart".to_owned()];
    let destinations = vec!["shop/nobody".to_owned()];
    shop.send(Message::Subscribe(v1::Subscribe { destinations, forget }))
        .await;
    let answer = shop.used().await;
    assert!(changed(&answer).is_empty());
    assert_eq!(answer.removed, ["endpoints/shop/cart", "destination/shop/nobody"]);
}

#[tokio::test]
async fn a_new_stream_begins_where_the_old_one_ended() {
    let plane = Plane::start().await;
    plane.apply(CART).await;
    let cell = plane.join("shop").await;
    let mut shop = plane.stream(&cell, hello("shop")).await.unwrap();
    shop.used().await;
    shop.subscribe(&["cart"]).await;
    shop.used().await;
    let again = v1::Hello {
        subscriptions: vec!["shop/cart".to_owned()],
        versions: shop.versions.clone(),
        ..hello("shop")
    };
    drop(shop);
    let mut shop = plane.stream(&cell, again).await.unwrap();
    // Nothing differs, so nothing is told until something does.
    plane.apply(&CART_ROUTE.replace("WEIGHT", "1")).await;
    assert_eq!(
        changed(&shop.used().await),
        BTreeSet::from(["destination/shop/cart"])
    );
}

#[tokio::test]
async fn one_bad_resource_is_held_back_and_nothing_else() {
    let plane = Plane::start().await;
    plane.apply(CART).await;
    let mut shop = plane.workload("shop").await;
    shop.subscribe(&["cart"]).await;
    shop.used().await;
    let applied = plane.apply(&CART_ROUTE.replace("WEIGHT", "1")).await;
    let update = shop.next().await;
    shop.refuse(&update, "destination/shop/cart").await;

    let arrival = plane.arrival(applied.generation).await;
    assert!(!arrival.reached, "it was refused");
    let refusal = arrival.behind[0].refusal.clone().unwrap();
    assert_eq!(
        (refusal.generation, refusal.field.as_str()),
        (applied.generation, "ports[0]")
    );
    assert_eq!(refusal.resource, "destination/shop/cart");

    // Endpoints come and go all the same, and the refused content is not told again.
    let cart = plane.workload("cart").await;
    let update = shop.used().await;
    assert_eq!(changed(&update), BTreeSet::from(["endpoints/shop/cart"]));
    assert!(
        !plane
            .status()
            .await
            .proxies
            .iter()
            .find(|proxy| proxy.refusal.is_some())
            .unwrap()
            .in_sync
    );

    let fixed = plane.apply(&CART_ROUTE.replace("WEIGHT", "2")).await;
    assert_eq!(
        changed(&shop.used().await),
        BTreeSet::from(["destination/shop/cart"])
    );
    let arrival = plane.arrival(fixed.generation).await;
    assert!(arrival.reached, "{:?}", arrival.behind);
    assert_eq!(arrival.proxies, 2);
    drop(cart);
}

#[tokio::test]
async fn while_an_update_is_out_changes_are_gathered() {
    let plane = Plane::start().await;
    plane.apply(CART).await;
    let mut shop = plane.workload("shop").await;
    shop.subscribe(&["cart"]).await;
    let first = shop.next().await;
    for weight in ["1", "2"] {
        plane.apply(&CART_ROUTE.replace("WEIGHT", weight)).await;
    }
    let newest = plane.apply(&CART_ROUTE.replace("WEIGHT", "3")).await;
    shop.send(Message::Ack(v1::Ack { nonce: first.nonce })).await;
    let second = shop.used().await;
    assert_eq!(
        (second.nonce, second.generation),
        (first.nonce + 1, newest.generation)
    );
    assert!(plane.arrival(newest.generation).await.reached);
}

#[tokio::test]
async fn a_change_that_does_not_concern_a_proxy_is_in_use_at_once() {
    let plane = Plane::start().await;
    let _shop = plane.workload("shop").await;
    let applied = plane.apply(CART).await;
    let arrival = plane.arrival(applied.generation).await;
    assert!(arrival.reached);
    let status = plane.status().await;
    let shop = &status.proxies[0];
    assert!(shop.in_sync && shop.generation == applied.generation, "{shop:?}");
}

#[tokio::test]
async fn a_newer_stream_of_a_workload_replaces_the_older() {
    let plane = Plane::start().await;
    plane.apply(CART).await;
    let mut shop = plane.workload("shop").await;
    let cell = plane.join("cart").await;
    let mut older = plane.stream(&cell, hello("cart")).await.unwrap();
    older.used().await;
    shop.subscribe(&["cart"]).await;
    shop.endpoints("cart", &["cart-1"]).await;

    let elsewhere = v1::Hello {
        inbound: "10.9.9.9:15008".to_owned(),
        ..hello("cart")
    };
    let mut newer = plane.stream(&cell, elsewhere).await.unwrap();
    newer.used().await;
    assert_eq!(older.end().await.unwrap_err().code(), Code::Aborted);
    shop.endpoints("cart", &["cart-1"]).await;

    let mut thief = plane
        .stream(&plane.join("thief").await, hello("cart"))
        .await
        .unwrap();
    assert_eq!(thief.end().await.unwrap_err().code(), Code::AlreadyExists);
    let status = plane.status().await;
    let cart = status
        .proxies
        .iter()
        .find(|proxy| proxy.workload_id == "cart-1")
        .unwrap();
    assert!(cart.connected && cart.inbound == "10.9.9.9:15008", "{cart:?}");
    assert_eq!(cart.serves, ["shop/cart"]);
}

#[tokio::test]
async fn a_large_difference_comes_in_parts() {
    let plane = Plane::with(|settings| settings.limits.update_bytes = 400).await;
    let names: Vec<String> = (0..10).map(|number| format!("cart{number}")).collect();
    let services: Vec<String> = names
        .iter()
        .map(|name| CART.replace("name: cart", &format!("name: {name}")))
        .collect();
    let applied = plane.apply(&services.join("---")).await;
    assert!(applied.errors.is_empty(), "{:?}", applied.errors);
    let mut shop = plane.workload("shop").await;
    shop.subscribe(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let mut parts = 0;
    while shop.versions.len() < 21 {
        let update = shop.used().await;
        assert!(prost::Message::encoded_len(&update) <= 400);
        parts += 1;
    }
    assert!(parts > 2, "{parts}");
    assert!(plane.arrival(plane.status().await.generation).await.reached);
}
