//! What the schema of Gateway API lets pass, and yet cannot be done: the object is read, and knows what of it that is.

use model::filter::Filter;

use super::*;

#[test]
fn a_rule_with_a_value_that_cannot_be_used_is_read_and_knows_why() {
    let filter = |of_type: &str, fields: &str| format!("      filters: [{{type: {of_type}, {fields}}}]\n");
    let table = [
        (
            "      matches: [{path: {type: RegularExpression, value: '(?!a)b'}}]\n".to_owned(),
            "matches[0].path.value: is not a regular expression: \
             look-around, including look-ahead and look-behind, is not supported",
        ),
        (
            "      matches: [{headers: [{name: x, type: RegularExpression, value: '('}]}]\n".to_owned(),
            "matches[0].headers[0].value: is not a regular expression: unclosed group",
        ),
        (
            "      matches: [{queryParams: [{name: x, type: RegularExpression, value: '('}]}]\n".to_owned(),
            "matches[0].queryParams[0].value: is not a regular expression: unclosed group",
        ),
        (
            "      retry: {attempts: 21}\n".to_owned(),
            "retry.attempts: 21 is over 20",
        ),
        (
            "      retry: {attempts: 300}\n".to_owned(),
            "retry.attempts: 300 is not 0-20",
        ),
        (
            "      retry: {backoff: 2m}\n".to_owned(),
            "retry.backoff: is over 60s",
        ),
        (
            filter("RequestHeaderModifier", "requestHeaderModifier: {remove: [host]}"),
            "filters[0].requestHeaderModifier.remove[0]: host carries framing or routing and cannot be changed by a route",
        ),
        (
            filter(
                "ResponseHeaderModifier",
                "responseHeaderModifier: {remove: [a b]}",
            ),
            "filters[0].responseHeaderModifier.remove[0]: \"a b\" is not a header's name",
        ),
        (
            filter(
                "RequestRedirect",
                "requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: '/a?b'}}",
            ),
            "filters[0].requestRedirect.path.replaceFullPath: \"/a?b\" has what no path has: \
             it is percent-encoded, without query and fragment",
        ),
        (
            filter(
                "ExternalAuth",
                "externalAuth: {protocol: HTTP, http: {}, backendRef: {name: a, port: 1}, forwardBody: {maxSize: 1048577}}",
            ),
            "filters[0].externalAuth.forwardBody.maxSize: 1048577 is over 1048576",
        ),
    ];
    for (lines, expected) in table {
        // The other rule is untouched.
        let text = rule(&(lines.clone() + "    - name: other\n"));
        let route = only_route(&text);
        let unusable = |at: usize| -> Vec<String> {
            let errors = &route.rules[at].unusable;
            errors.iter().map(ToString::to_string).collect()
        };
        assert_eq!(unusable(0), [format!("spec.rules[0].{expected}")], "{lines}");
        assert!(unusable(1).is_empty(), "{lines}");
    }
}

#[test]
fn what_is_no_part_of_a_rule_cannot_be_left_out_alone() {
    let told = complaints(
        "apiVersion: weft.dev/v1alpha1\nkind: FaultInjectionPolicy\nmetadata: {name: a}\nspec:\n\
         \x20 targetRefs: [{group: '', kind: Service, name: a}]\n  abort: {httpStatus: 500}\n\
         \x20 matches: [{path: {type: RegularExpression, value: (}}]\n",
    );
    assert_eq!(
        told,
        ["7:53: spec.matches[0].path.value: is not a regular expression: unclosed group"]
    );
}

#[test]
fn filters_of_unknown_kinds_are_read_by_name() {
    let read = only_route(&rule(
        "      filters:
        - {type: ExtensionRef, extensionRef: {group: acme.io, kind: Lua, name: one}}
        - {type: ExtensionRef, extensionRef: {group: '', kind: ConfigMap, name: two}}
        - {type: RequestMirror, requestMirror: {backendRef: {group: acme.io, kind: Queue, name: q}}}
        - {type: ExternalAuth, externalAuth: {protocol: GRPC, grpc: {}, backendRef: {group: acme.io, kind: Door, name: d}}}
      backendRefs:
        - {name: a, port: 1, filters: [{type: RequestMirror, requestMirror: {backendRef: {kind: Pod, name: p}}}]}
",
    ));
    let rule = &read.rules[0];
    assert_eq!(
        rule.filters[..2],
        [
            Filter::Unresolved("Lua.acme.io default/one".into()),
            Filter::Unresolved("ConfigMap default/two".into())
        ]
    );
    assert!(matches!(&rule.filters[2], Filter::Auth(auth) if auth.target.is_none()));
    assert_eq!(rule.filters.len(), 3);
    let mut unknown: Vec<&str> = rule.unknown_kinds().collect();
    unknown.sort_unstable();
    assert_eq!(
        unknown,
        [
            "ConfigMap default/two",
            "Door.acme.io default/d",
            "Lua.acme.io default/one",
            "Pod default/p",
            "Queue.acme.io default/q",
        ]
    );
    let grpc = "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: a}\n\
                spec: {rules: [{filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}]}]}\n";
    assert_eq!(
        only_route(grpc).rules[0].filters,
        [Filter::Unresolved("B.a default/c".into())]
    );
    // Mirrors that are left out do not move the places of what stands behind them.
    let told = complaints(&super::rule(
        "      filters:
        - {type: RequestMirror, requestMirror: {backendRef: {kind: Pod, name: p}}}
        - {type: CORS, cors: {}}
        - {type: CORS, cors: {}}
",
    ));
    assert_eq!(told, ["15:11: spec.rules[0].filters[2]: is the same as item 1"]);
}
