//! Filters that send somewhere themselves: what they name is streamed, and what does not resolve is said.

use model::filter::Filter;

use super::*;

const FILTERS: &str = "
      filters:
        - {type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}}}
        - {type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 80}}}
        - {type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80, namespace: other}}}
        - {type: ExternalAuth, externalAuth: {protocol: HTTP, http: {}, backendRef: {name: auth, port: 80}}}
        - {type: ExternalAuth, externalAuth: {protocol: HTTP, http: {}, backendRef: {name: auth, port: 81}}}
";

#[test]
fn a_mirror_that_does_not_resolve_is_left_out_and_an_authorization_never_says_yes() {
    let rules = route(
        "HTTPRoute",
        "shop/r",
        "name: cart",
        &[
            "{name: cart, port: 80, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: deep, port: 80}}}]}",
        ],
    );
    let state = mesh(&[
        &service("shop/cart", HTTP),
        &service("shop/copy", HTTP),
        &service("shop/deep", HTTP),
        &service("shop/auth", HTTP),
        &service("other/copy", HTTP),
        &(rules.trim_end().to_owned() + FILTERS),
    ]);
    let cart = destination(&state, &name("shop/cart")).expect("exists");
    let rule = &cart.ports[&80].rules[0];
    let told: Vec<String> = rule
        .filters
        .iter()
        .map(|filter| match filter {
            Filter::Mirror(mirror) => format!("mirror {}", mirror.target),
            Filter::Auth(auth) => format!("ask {} {}", auth.reference, auth.target.is_some()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            "mirror shop/copy:80",
            "ask shop/auth:80 true",
            "ask shop/auth:81 false"
        ]
    );
    let reached: Vec<String> = reached_from(&cart).iter().map(ToString::to_string).collect();
    assert_eq!(reached, ["shop/auth", "shop/cart", "shop/copy", "shop/deep"]);
    assert_eq!(
        conditions_of(&state, "HTTPRoute/shop/r"),
        [
            "Accepted true Accepted: ",
            "ResolvedRefs false BackendNotFound: Service shop/gone does not exist; other/copy:80 is in another \
             namespace, and no ReferenceGrant there is for HTTPRoutes of namespace shop; Service shop/auth has no port 81",
        ]
    );
}

#[test]
fn what_filters_name_of_unknown_kinds_does_not_resolve() {
    let unknown = |filters: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: cart}}], \
             rules: [{{filters: [{filters}], backendRefs: [{{name: cart, port: 80}}]}}]}}\n"
        )
    };
    let queue = "backendRef: {group: acme.io, kind: Queue, name: q}";
    for (filters, named, is_followed) in [
        (
            "{type: ExtensionRef, extensionRef: {group: acme.io, kind: Lua, name: l}}".to_owned(),
            "Lua.acme.io shop/l",
            true,
        ),
        (
            format!("{{type: ExternalAuth, externalAuth: {{protocol: GRPC, grpc: {{}}, {queue}}}}}"),
            "Queue.acme.io shop/q",
            true,
        ),
        (
            format!("{{type: RequestMirror, requestMirror: {{{queue}}}}}"),
            "Queue.acme.io shop/q",
            false,
        ),
    ] {
        let state = mesh(&[&service("shop/cart", HTTP), &unknown(&filters)]);
        assert_eq!(
            conditions_of(&state, "HTTPRoute/shop/r"),
            [
                "Accepted true Accepted: ".to_owned(),
                format!(
                    "ResolvedRefs false InvalidKind: {named}, which a filter names, is of a kind that is not known"
                ),
            ]
        );
        let cart = destination(&state, &name("shop/cart")).expect("exists");
        assert_eq!(cart.ports[&80].rules[0].filters.len(), usize::from(is_followed));
    }
}
