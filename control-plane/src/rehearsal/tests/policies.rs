//! Which policies count for a request, and what they say.

use super::*;

#[test]
fn policies_are_named_with_what_of_them_counts() {
    let policy = |name: &str, target: &str, spec: &str| {
        format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: BackendTrafficPolicy, metadata: {{name: {name}}}, \
             spec: {{targetRefs: [{target}], {spec}}}}}\n---\n"
        )
    };
    let of_route = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: cart}";
    let mesh = SERVICES.to_owned()
        + &route("cart", "[{backendRefs: [{name: v2, port: 8080}]}]")
        + &policy("ours", of_route, "loadBalancer: {type: Random}")
        + &policy(
            "theirs",
            "{kind: Service, name: v2}",
            "loadBalancer: {type: RoundRobin}, circuitBreaker: {maxParallelRetries: 3}",
        );
    let governing = |url: &str| {
        let told = explained(&mesh, "GET", url, &[]);
        let Outcome::Backends(shares) = told.outcome else {
            panic!("backends");
        };
        let policies = shares[0].policies.iter();
        policies
            .map(|governing| format!("{} {}", governing.policy, governing.sections.join(" ")))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        governing("http://cart/"),
        [
            "BackendTrafficPolicy/default/ours loadBalancer",
            "BackendTrafficPolicy/default/theirs circuitBreaker",
        ]
    );
    let own = "BackendTrafficPolicy/default/theirs loadBalancer circuitBreaker";
    assert_eq!(governing("http://v2/"), [own]);
    assert_eq!(governing("http://cart:9000/"), [] as [&str; 0]);
    let Outcome::Backends(shares) = explained(&mesh, "GET", "http://cart/", &[]).outcome else {
        panic!("backends");
    };
    let said: Vec<&String> = shares[0]
        .policies
        .iter()
        .flat_map(|policy| &policy.says)
        .collect();
    let [first, .., last] = &said[..] else {
        panic!("several fields");
    };
    assert_eq!(*first, "loadBalancer.type: Random");
    assert_eq!(*last, "circuitBreaker.maxParallelRetries: 3");
}

#[test]
fn the_fault_that_fits_a_request_is_told_by_backend() {
    let fault = |name: &str, target: &str, spec: &str| {
        format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: FaultInjectionPolicy, metadata: {{name: {name}}}, \
             spec: {{targetRefs: [{target}], {spec}}}}}\n---\n"
        )
    };
    let of_route = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: cart}";
    let mesh = SERVICES.to_owned()
        + &route("cart", "[{backendRefs: [{name: v2, port: 8080}]}]")
        + &fault(
            "ours",
            of_route,
            "matches: [{path: {value: /slow}}], delay: {fixedDelay: 1500ms, percentage: 2.5}",
        )
        + &fault("theirs", "{kind: Service, name: v2}", "abort: {httpStatus: 503}");
    for (url, expected) in [
        (
            "http://cart/slow/1",
            Some("FaultInjectionPolicy/default/ours: delay 1s500ms for 2.5 %, where PathPrefix /slow"),
        ),
        (
            "http://cart/",
            Some("FaultInjectionPolicy/default/theirs: abort 503"),
        ),
        (
            "http://v2/slow",
            Some("FaultInjectionPolicy/default/theirs: abort 503"),
        ),
        ("http://cart:9000/slow", None),
    ] {
        let Outcome::Backends(shares) = explained(&mesh, "GET", url, &[]).outcome else {
            panic!("backends");
        };
        assert_eq!(shares[0].fault.as_deref(), expected, "{url}");
    }
}
