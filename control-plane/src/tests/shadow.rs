//! What proxies report of routes in shadow is kept while they are connected.

use super::*;

fn difference(to: &str) -> v1::ShadowDifference {
    v1::ShadowDifference {
        then: Some(v1::Governor {
            governor: Some(v1::governor::Governor::Rule(to.to_owned())),
        }),
        requests: 3,
        path: "/orders\u{1b}[2J".to_owned(),
        ..Default::default()
    }
}

fn report(differences: Vec<v1::ShadowDifference>) -> Message {
    Message::Shadow(v1::ShadowReport {
        destinations: vec![v1::ShadowedDestination {
            destination: "shop/cart:80".to_owned(),
            requests: 9,
            differences,
            ..Default::default()
        }],
    })
}

/// Asks until the answer is as wanted.
async fn until(plane: &Plane, wanted: impl Fn(&v1::ShadowResponse) -> bool) -> v1::ShadowResponse {
    let mut operator = plane.operator().await;
    let asked = async {
        loop {
            let answer = operator.shadow(v1::ShadowRequest {}).await.unwrap().into_inner();
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(asked).await
}

#[tokio::test]
async fn a_report_is_kept_within_bounds_by_caller_while_its_stream_lives() {
    let plane = Plane::start().await;
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: next, namespace: shop, annotations: {weft.dev/shadow: 'true'}}
spec: {parentRefs: [{group: '', kind: Service, name: cart}]}
";
    plane.apply(CART).await;
    assert!(until(&plane, |_| true).await.routes.is_empty());
    plane.apply(route).await;
    let (web, other) = (plane.workload("web").await, plane.workload("other").await);
    web.send(report(vec![difference("a")])).await;
    let many = decision::traffic::shadow::MAX_DIFFERENCES + 1;
    other.send(report(vec![difference("b"); many])).await;

    let answer = until(&plane, |answer| answer.callers.len() == 2).await;
    assert_eq!(answer.routes, ["HTTPRoute/shop/next"]);
    let [of_other, of_web] = &answer.callers[..] else {
        panic!("two callers")
    };
    let places = |caller: &v1::ShadowCaller| caller.report.clone().unwrap().destinations;
    assert_eq!((&*of_web.workload_id, of_web.is_gateway), ("web-1", false));
    assert!(of_web.spiffe_id.ends_with("/ns/shop/sa/web"), "{of_web:?}");
    assert_eq!(places(of_web)[0].requests, 9);
    assert_eq!(
        places(of_web)[0].differences[0].path,
        "/orders[2J",
        "terminals obey letters"
    );
    assert_eq!(places(of_other)[0].differences.len(), many - 1);

    web.send(Message::Shadow(v1::ShadowReport::default())).await;
    until(&plane, |answer| answer.callers.len() == 1).await;
    drop(other);
    until(&plane, |answer| answer.callers.is_empty()).await;
}
