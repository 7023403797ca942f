//! The annotations that put an object in shadow.

use super::*;

fn annotated(kind: &str, annotations: &str) -> String {
    let (api, spec) = match kind {
        "Service" => ("v1", "{selector: {app: a}, ports: [{port: 80}]}"),
        "HTTPRoute" => ("gateway.networking.k8s.io/v1", "{}"),
        _ => (
            "gateway.networking.k8s.io/v1",
            "{rules: [{backendRefs: [{name: a, port: 80}]}]}",
        ),
    };
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: next\n  annotations:\n    {annotations}\nspec: {spec}\n"
    )
}

#[test]
fn routes_are_in_shadow_where_they_say_so() {
    let shadow = |kind: &str, annotations: &str| only_route(&annotated(kind, annotations)).shadow;
    let replacing = |name: Option<&str>| {
        let replaces = name.map(|name| name.parse().expect("a name"));
        Some(Shadow { replaces })
    };
    for kind in ["HTTPRoute", "GRPCRoute"] {
        assert_eq!(shadow(kind, "weft.dev/shadow: 'true'"), replacing(None));
        assert_eq!(shadow(kind, "weft.dev/shadow: 'false'"), None);
        assert_eq!(shadow(kind, "example.com/shadow: 'true'"), None);
        let both = "weft.dev/shadow: 'true'\n    weft.dev/shadow-replaces: old.v1";
        assert_eq!(shadow(kind, both), replacing(Some("old.v1")));
    }
}

#[test]
fn what_cannot_be_in_shadow_is_told_at_the_annotation() {
    let of_kind = |kind: &str| {
        format!(
            "6:5: metadata.annotations.weft.dev/shadow: has no meaning on a {kind} (supported: HTTPRoute, GRPCRoute, \
             BackendTrafficPolicy, FaultInjectionPolicy)"
        )
    };
    for kind in ["Service", "TCPRoute"] {
        assert_eq!(
            complaints(&annotated(kind, "weft.dev/shadow: 'true'")),
            [of_kind(kind)]
        );
    }
    let table = [
        (
            "weft.dev/shadow: maybe",
            "6:22: metadata.annotations.weft.dev/shadow: \"maybe\" is not \"true\" or \"false\"",
        ),
        (
            "weft.dev/shadow: true",
            "6:22: metadata.annotations.weft.dev/shadow: invalid type: boolean `true`, expected a string (put it in quotes)",
        ),
        (
            "weft.dev/shadow-replaces: old",
            "6:31: metadata.annotations.weft.dev/shadow-replaces: has a meaning only beside weft.dev/shadow: \"true\"",
        ),
        (
            "{weft.dev/shadow: 'true', weft.dev/shadow-replaces: next}",
            "6:57: metadata.annotations.weft.dev/shadow-replaces: is the object's own name, and it cannot replace itself",
        ),
        (
            "{weft.dev/shadow: 'true', weft.dev/shadow-replaces: Next}",
            "6:57: metadata.annotations.weft.dev/shadow-replaces: \"Next\" is not an object's name (1-253 of a-z, 0-9, '-' \
             and '.', a letter or digit at either end)",
        ),
    ];
    for (annotations, complaint) in table {
        assert_eq!(complaints(&annotated("HTTPRoute", annotations)), [complaint]);
    }
}
