//! What the control plane is told of routes in shadow, and when.

use decision::traffic::shadow::{Example, Governed, Place};

use super::*;

/// `shop/cart`, to which a route in shadow without a rule would be attached.
fn in_shadow(version: &str) -> v1::VersionedResource {
    let mut resource = destination("shop/cart", None);
    resource.version = version.to_owned();
    if let Some(v1::Resource {
        resource: Some(v1::resource::Resource::Destination(cart)),
    }) = &mut resource.resource
    {
        cart.ports[0].shadow = Some(v1::ShadowRules::default());
        cart.ports[0].port = 80;
    }
    resource
}

async fn report(stream: &mut ProxyStream) -> Vec<v1::ShadowedDestination> {
    match stream.read().await {
        Message::Shadow(report) => report.destinations,
        other => panic!("{other:?} is no report"),
    }
}

#[tokio::test]
async fn what_is_compared_is_told_before_it_is_acknowledged_then_as_it_is_counted_and_on_every_new_stream() {
    let mut room = Room::start().await;
    let mut stream = room.stream().await;
    assert!(room.config.prefetch(&service("shop/cart").into()));
    subscribed(&mut stream).await;
    stream.send(update(1, vec![in_shadow("v1")], &[])).await;
    let nothing_yet = v1::ShadowedDestination {
        destination: "shop/cart:80".to_owned(),
        ..Default::default()
    };
    assert_eq!(report(&mut stream).await, [nothing_yet]);
    assert_eq!(stream.read().await, Message::Ack(v1::Ack { nonce: 1 }));

    let place = Place {
        called: "shop/cart:80".parse().expect("a service"),
        listener: None,
    };
    let ledger = room.config.ledger();
    let watch = ledger.watch(&place, &room.config.snapshot()).expect("in shadow");
    let example = || Example::new("PUT", "cart:80", "/a");
    ledger.compare(&watch, &Governed::Service, &Governed::NoRoute, example);
    let unrouted = |how: v1::governor::Unrouted| v1::Governor {
        governor: Some(v1::governor::Governor::Unrouted(how.into())),
    };
    let counted = v1::ShadowedDestination {
        destination: "shop/cart:80".to_owned(),
        listener: String::new(),
        requests: 1,
        differences: vec![v1::ShadowDifference {
            now: Some(unrouted(v1::governor::Unrouted::Service)),
            then: Some(unrouted(v1::governor::Unrouted::NoRoute)),
            requests: 1,
            method: "PUT".to_owned(),
            authority: "cart:80".to_owned(),
            path: "/a".to_owned(),
        }],
        others: 0,
    };
    assert_eq!(report(&mut stream).await, std::slice::from_ref(&counted));
    drop(stream);

    let mut stream = room.stream().await;
    assert_eq!(
        report(&mut stream).await,
        [counted],
        "whoever reads may have just begun"
    );
    // What stays the same is told no more; what is gone is.
    acknowledged(&mut stream, update(1, vec![in_shadow("v2")], &[])).await;
    stream
        .send(update(2, vec![destination("shop/cart", None)], &[]))
        .await;
    assert_eq!(report(&mut stream).await, []);
    assert_eq!(stream.read().await, Message::Ack(v1::Ack { nonce: 2 }));
}
