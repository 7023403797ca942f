//! What is different between two meshes.

use super::*;

#[test]
fn a_difference_is_told_by_rule_and_by_the_requests_that_move() {
    let matched = "matches: [{path: {type: RegularExpression, value: '/o[0-9]+'}, method: POST}]";
    let rules = |weight: u32| {
        format!(
            "[{{{matched}, backendRefs: [{{name: v2, port: 8080, weight: {weight}}}, {{name: cart, port: 80, weight: 9}}]}}, \
              {{backendRefs: [{{name: cart, port: 80}}]}}]"
        )
    };
    let (before, after) = (
        read(&(SERVICES.to_owned() + &route("cart", &rules(0)))).state(),
        read(&(SERVICES.to_owned() + &route("cart", &rules(1)))).state(),
    );
    let domain = MeshDomain::default();
    let of = |state| Rehearsed {
        state,
        domain: &domain,
        serving: None,
    };
    let difference = diff(&of(&before), &of(&after));
    assert_eq!(difference.objects.len(), 1);
    let rules: Vec<_> = difference
        .rules
        .iter()
        .map(|rule| (rule.rule.as_str(), rule.change, rule.what.clone()))
        .collect();
    let what = "backends: default/v2:8080 weight 0, default/cart:80 weight 9 → default/v2:8080 weight 1, default/cart:80 weight 9";
    assert_eq!(
        rules,
        [("HTTPRoute/default/cart#0", Change::Changed, vec![what.to_owned()])]
    );
    assert_eq!(difference.moved.len(), 1, "{:?}", difference.moved);
    let moved = &difference.moved[0];
    assert_eq!(moved.request, "POST http://cart.default/o0");
    assert_eq!(end(&moved.before), ["default/v2:8080 0", "default/cart:80 100"]);
    assert_eq!(end(&moved.after), ["default/v2:8080 10", "default/cart:80 90"]);
    assert!(diff(&of(&after), &of(&after)).is_nothing());

    // Without the routes, everything but the first rule's requests goes where it went.
    let none = read(SERVICES).state();
    let difference = diff(&of(&after), &of(&none));
    let requests: Vec<_> = difference
        .moved
        .iter()
        .map(|moved| moved.request.as_str())
        .collect();
    assert_eq!(requests, ["POST http://cart.default/o0"]);
    assert!(difference.rules.iter().all(|rule| rule.change == Change::Removed));
}

#[test]
fn what_came_from_a_file_and_is_no_longer_in_it_is_gone() {
    let object = |name: &str, source: &str, from_file| proto::v1::Object {
        yaml: format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n"
        ),
        source: source.to_owned(),
        created: 3,
        from_file,
        ..Default::default()
    };
    let answer = proto::v1::GetResponse {
        objects: vec![
            object("a", "mesh.yaml", true),
            object("b", "mesh.yaml", true),
            object("c", "apply", false),
        ],
        generation: 7,
    };
    let live = Live::read(&answer, &proto::v1::StatusResponse::default()).expect("understood");
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec: {ports: [{port: 80}]}\n";
    let given = |name: &str| text.replace("NAME", name);
    let (a, d) = (given("a"), given("d"));
    let names = |state: &MeshState| -> Vec<String> {
        state
            .objects
            .iter()
            .map(|(key, stored)| format!("{} {}", key.name, stored.created))
            .collect()
    };
    let of_mesh = Configuration::read([("some/mesh.yaml", &*a)]).expect("valid");
    assert_eq!(names(&live.with(&of_mesh, false)), ["a 3", "c 3"]);
    let other = Configuration::read([("other.yaml", &*d)]).expect("valid");
    assert_eq!(names(&live.with(&other, false)), ["a 3", "b 3", "c 3", "d 8"]);
    assert_eq!(names(&live.with(&other, true)), ["d 8"]);
}

/// A policy of ours for this target.
fn policy(kind: &str, name: &str, target: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}}}, \
         spec: {{targetRefs: [{target}], {spec}}}}}\n---\n"
    )
}

#[test]
fn policies_are_told_by_the_fields_that_change() {
    const V2: &str = "{kind: Service, name: v2}";
    const ROUTE: &str = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: cart}";
    let base = SERVICES.to_owned() + &route("cart", "[{backendRefs: [{name: v2, port: 8080}]}]");
    let traffic =
        |target: &str, spec: &str| base.clone() + &policy("BackendTrafficPolicy", "limits", target, spec);
    let uses = |before: &str, after: &str| {
        let told = compared(before, after).uses.into_iter();
        told.map(|of| (of.service, of.change, of.what))
            .collect::<Vec<_>>()
    };
    let two = traffic(
        V2,
        "circuitBreaker: {maxParallelRequests: 2}, timeout: {http: {requestTimeout: 90s}}",
    );
    let three = traffic(
        V2,
        "circuitBreaker: {maxParallelRequests: 3}, loadBalancer: {type: Random}",
    );
    let v2 = || "default/v2:8080".to_owned();
    let what = [
        "circuitBreaker.maxParallelRequests: 2 → 3",
        "timeout.http.requestTimeout: 1m30s → none",
        "loadBalancer.type: none → Random",
    ];
    let what = what.map(str::to_owned).to_vec();
    assert_eq!(uses(&two, &three), [(v2(), Change::Changed, what)]);
    let [(_, Change::Added, added)] = &uses(&base, &three)[..] else {
        panic!("one of them");
    };
    assert!(
        added.contains(&"loadBalancer.type: Random".to_owned()),
        "{added:?}"
    );

    // Those of a route stand with its rules.
    let of_rule = |before: &str, after: &str| {
        let told = compared(before, after);
        assert!(told.uses.is_empty(), "{:?}", told.uses);
        told.rules
            .into_iter()
            .flat_map(|rule| rule.what)
            .collect::<Vec<_>>()
    };
    let hedged = |delay: &str| traffic(ROUTE, &format!("hedging: {{delay: {delay}}}"));
    assert_eq!(
        of_rule(&hedged("10ms"), &hedged("1s")),
        ["policy hedging.delay: 10ms → 1s"]
    );

    // Faults of a Service, and those of a route.
    let fault = |target: &str, percent: u8| {
        let abort = format!(
            "matches: [{{path: {{value: /charge}}}}], abort: {{grpcStatus: 14, percentage: {percent}}}"
        );
        base.clone() + &policy("FaultInjectionPolicy", "chaos", target, &abort)
    };
    let words =
        |percent: u8| format!("abort with gRPC status UNAVAILABLE for {percent} %, where PathPrefix /charge");
    let what = format!("FaultInjectionPolicy/default/chaos: {} → {}", words(5), words(30));
    assert_eq!(
        uses(&fault(V2, 5), &fault(V2, 30)),
        [(v2(), Change::Changed, vec![what.clone()])]
    );
    assert_eq!(of_rule(&fault(ROUTE, 5), &fault(ROUTE, 30)), [what]);

    // In shadow nothing changes but that.
    let shadow = policy("BackendTrafficPolicy", "next", V2, "circuitBreaker: {}").replace(
        "{name: next}",
        "{name: next, annotations: {weft.dev/shadow: 'true', weft.dev/shadow-replaces: limits}}",
    );
    let what = "in shadow: none → BackendTrafficPolicy/default/next".to_owned();
    assert_eq!(
        uses(&two, &(two.clone() + &shadow)),
        [(v2(), Change::Changed, vec![what])]
    );
}
