//! What is refused, and where the complaint points.

use super::*;

#[test]
fn what_is_wrong_in_a_rule_is_found_at_its_place() {
    let table = [
        ("      wieght: 1\n", "12:7: spec.rules[0].wieght: no such field"),
        (
            "      backendRefs:\n        - name: a\n          port: 80\n          weight: -1\n",
            "15:19: spec.rules[0].backendRefs[0].weight: -1 is negative",
        ),
        (
            "      backendRefs: [{name: a, port: 80, weight: 1000001}]\n",
            "12:49: spec.rules[0].backendRefs[0].weight: 1000001 is over 1000000",
        ),
        (
            "      backendRefs: [{name: a, port: 80, weight: ten}]\n",
            "12:49: spec.rules[0].backendRefs[0].weight: invalid type: string \"ten\", expected i32",
        ),
        (
            "      backendRefs: [{name: a, port: 0}]\n",
            "12:37: spec.rules[0].backendRefs[0].port: 0 is not a port (1-65535)",
        ),
        (
            "      backendRefs: [{name: a}]\n",
            "12:21: spec.rules[0].backendRefs[0]: port is missing, which a Service needs",
        ),
        (
            "      backendRefs: [{name: A_b, port: 80}]\n",
            "12:28: spec.rules[0].backendRefs[0].name: \"A_b\" is not a DNS label \
             (1-63 of a-z, 0-9 and '-', not at either end)",
        ),
        (
            "      backendRefs: {name: a}\n",
            "12:7: spec.rules[0].backendRefs: invalid type: map, expected a sequence",
        ),
        (
            "      matches: [{path: {type: Prefix, value: /}}]\n",
            "12:31: spec.rules[0].matches[0].path.type: unknown variant `Prefix`, \
             expected one of `Exact`, `PathPrefix`, `RegularExpression`",
        ),
        (
            "      matches: [{path: {value: cart}}]\n",
            "12:32: spec.rules[0].matches[0].path.value: \"cart\" does not start with '/'",
        ),
        (
            "      matches: [{headers: [{name: x y, value: v}]}]\n",
            "12:35: spec.rules[0].matches[0].headers[0].name: \"x y\" is not a header's name",
        ),
        (
            "      matches: [{headers: [{name: x, value: 2}]}]\n",
            "12:45: spec.rules[0].matches[0].headers[0].value: invalid type: integer `2`, \
             expected a string (put it in quotes)",
        ),
        (
            "      timeouts: {request: 10s, backendRequest: 1m}\n",
            "12:48: spec.rules[0].timeouts.backendRequest: is longer than request",
        ),
        (
            "      timeouts: {request: 10x}\n",
            "12:27: spec.rules[0].timeouts.request: \"10x\" is not a duration \
             (GEP-2257: up to four of h, m, s, ms, such as 1m30s or 250ms)",
        ),
        (
            "      retry: {codes: [503, 200]}\n",
            "12:28: spec.rules[0].retry.codes[1]: 200 is not a status of 400-599",
        ),
        (
            "      retry: {codes: [-1]}\n",
            "12:23: spec.rules[0].retry.codes[0]: -1 is not a status of 400-599",
        ),
        (
            "    - name: only\n",
            "12:13: spec.rules[1].name: is the same as item 0",
        ),
        (
            "      retry: {attempts: -1}\n",
            "12:25: spec.rules[0].retry.attempts: -1 is not 0-20",
        ),
        (
            "      filters: [{type: ExtensionRef}]\n",
            "12:17: spec.rules[0].filters[0]: extensionRef is missing, which the filter's type asks for",
        ),
        (
            "      filters: [{type: RequestHeaderModifier}]\n",
            "12:17: spec.rules[0].filters[0]: requestHeaderModifier is missing, which the filter's type asks for",
        ),
        (
            "      filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: a, value: \"x\\ny\"}]}}]\n",
            "12:96: spec.rules[0].filters[0].responseHeaderModifier.set[0].value: \
             \"x\\ny\" is not a header's value (visible ASCII)",
        ),
    ];
    for (lines, expected) in table {
        assert_eq!(complaints(&rule(lines)), [expected], "{lines}");
    }
}

#[test]
fn what_is_wrong_in_a_service_is_found_at_its_place() {
    let table = [
        (
            "  ports: []\n",
            "5:1: spec: a Service has at least one port in ports",
        ),
        (
            "  ports: [{port: 70000}]\n",
            "6:18: spec.ports[0].port: 70000 is not a port (1-65535)",
        ),
        (
            "  ports: [{port: 80, targetPort: 0}]\n",
            "6:34: spec.ports[0].targetPort: 0 is not a port (1-65535)",
        ),
        (
            "  ports: [{port: 80, targetPort: Web}]\n",
            "6:34: spec.ports[0].targetPort: \"Web\" is not a port's name \
             (1-15 of a-z, 0-9 and '-', one letter at least) nor a number",
        ),
        (
            "  ports: [{port: 80, protocol: SCTP}]\n",
            "6:32: spec.ports[0].protocol: \"SCTP\" is not supported (supported: TCP, UDP)",
        ),
        (
            "  ports: [{port: 80, appProtocol: gopher}]\n",
            "6:35: spec.ports[0].appProtocol: \"gopher\" is not a known appProtocol \
             (http, kubernetes.io/h2c, http2, grpc, kubernetes.io/ws, tcp, tls, or of protocols such as mysql and redis)",
        ),
        (
            "  ports: [{name: a, port: 80}, {name: b, port: 80}]\n",
            "6:48: spec.ports[1].port: is the same as item 0",
        ),
        (
            "  ports: [{name: a, port: 80}, {port: 81}]\n",
            "6:32: spec.ports[1]: every port has a name where there are several",
        ),
        (
            "  type: ExternalName\n  ports: [{port: 80}]\n",
            "6:9: spec.type: \"ExternalName\" is not supported yet (supported: ClusterIP, NodePort, LoadBalancer)",
        ),
        (
            "  selector: {version: 1}\n  ports: [{port: 80}]\n",
            "6:23: spec.selector.version: invalid type: integer `1`, expected a string (put it in quotes)",
        ),
        (
            "  selector: {a: b, a: c}\n  ports: [{port: 80}]\n",
            "6:20: spec.selector.a: the key is given twice, first at line 6",
        ),
    ];
    for (lines, expected) in table {
        assert_eq!(complaints(&service(lines)), [expected], "{lines}");
    }
}

#[test]
fn what_is_wrong_with_a_document_is_found_at_its_place() {
    let not_one = "a document is a mapping with apiVersion, kind, metadata and spec";
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec:\n  parentRefs: ";
    let table = [
        ("hello".to_owned(), vec![format!("1:1: {not_one}")]),
        ("\n\n- a\n".to_owned(), vec![format!("3:1: {not_one}")]),
        (
            "kind: Service\n".to_owned(),
            vec!["1:1: apiVersion is missing".to_owned()],
        ),
        (
            "apiVersion: v1\nkind: Pod\n".to_owned(),
            vec![
                "2:7: kind: kind \"Pod\" is not supported (supported: GatewayClass, Gateway, ListenerSet, HTTPRoute, \
                 GRPCRoute, TLSRoute, TCPRoute, UDPRoute, BackendTLSPolicy, ReferenceGrant, Service, EndpointSlice, \
                 Secret, ConfigMap, Namespace, BackendTrafficPolicy, \
                 FaultInjectionPolicy)"
                    .to_owned(),
            ],
        ),
        (
            "apiVersion: v2\nkind: Service\n".to_owned(),
            vec!["1:13: apiVersion: \"v2\" is not the apiVersion of Service (v1)".to_owned()],
        ),
        (
            "apiVersion: v1\nkind: Service\nspec: {ports: [{port: 80}]}\n".to_owned(),
            vec!["1:1: metadata: name is missing".to_owned()],
        ),
        (
            format!(
                "{route}[{{group: '', kind: Service, name: a}}, {{group: '', kind: Service, name: a}}]\n"
            ),
            vec!["5:53: spec.parentRefs[1]: is the same as item 0".to_owned()],
        ),
        (
            format!("{route}[{{group: acme.io, kind: Gateway, name: edge}}]\n"),
            vec![
                "5:24: spec.parentRefs[0].group: Gateway of group \"acme.io\" is not supported \
                 (supported: gateway.networking.k8s.io)"
                    .to_owned(),
            ],
        ),
        (
            format!("{route}[{{name: edge, port: 80}}, {{name: edge, sectionName: web}}]\n"),
            vec![
                "5:40: spec.parentRefs[1]: sectionName and port are given in all references to one parent, or in none"
                    .to_owned(),
            ],
        ),
        (
            format!("{route}[{{kind: Service, name: a}}]\n"),
            vec![
                "5:16: spec.parentRefs[0]: group is missing, which means gateway.networking.k8s.io; \
                 a Service has group: \"\""
                    .to_owned(),
            ],
        ),
        (
            "a: [1\n".to_owned(),
            vec!["2:1: while parsing a flow sequence, expected ',' or ']'".to_owned()],
        ),
        (
            "a: !!python/object x\n".to_owned(),
            vec![
                "1:4: a: the tag !!python/object is not supported".to_owned(),
                "1:1: apiVersion is missing".to_owned(),
                "1:1: kind is missing".to_owned(),
            ],
        ),
    ];
    for (text, mut expected) in table {
        let mut told = complaints(&text);
        told.sort();
        expected.sort();
        assert_eq!(told, expected, "{text}");
    }
}

#[test]
fn all_problems_of_all_documents_are_told_in_their_order() {
    let first = service("  colour: red\n  ports:\n    - port: x\n      targetPort: [1]\n      shade: 1\n");
    let text = format!("{first}---\na: [\n---\n{}", service("  ports: [{port: 0}]\n"));
    let places: Vec<String> = complaints(&text)
        .iter()
        .map(|told| told.split(": ").take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        places,
        [
            "6:3 spec.colour",
            "8:13 spec.ports[0].port",
            "9:7 spec.ports[0].targetPort",
            "10:7 spec.ports[0].shade",
            "13:1 while parsing a node, did not find expected node content",
            "19:18 spec.ports[0].port",
        ]
    );
    let many = "---\n- a\n".repeat(MAX_DIAGNOSTICS + 50);
    assert_eq!(complaints(&many).len(), MAX_DIAGNOSTICS);
}

#[test]
fn an_object_given_twice_is_refused_at_the_second() {
    let one = service("  ports: [{port: 80}]\n");
    assert_eq!(
        complaints(&format!("{one}---\n{one}")),
        ["8:1: Service/default/checkout is already given at line 1"]
    );
}

#[test]
fn limits_hold() {
    let bomb = (1..20).fold("a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned(), |text, n| {
        let aliases = vec![format!("*a{}", n - 1); 8].join(", ");
        format!("{text}a{n}: &a{n} [{aliases}]\n")
    });
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(100_000),
        vec!["*a"; 100].join(", ")
    );
    let deep_by_alias = (1..100).fold("- &a0 [x]\n".to_owned(), |text, n| {
        format!("{text}- &a{n} [*a{}]\n", n - 1)
    });
    let table = [
        (bomb, "has more than 100000 values"),
        (long, "is over 4194304 bytes with its aliases resolved"),
        (deep_by_alias, "is nested deeper than 64"),
        ("- ".repeat(65), "is nested deeper than 64"),
        ("[".repeat(100_000), "recursion limit exceeded"),
        ("- a\n".repeat(100_000), "has more than 100000 values"),
        (format!("? {}", "k".repeat(2000)), "a key is over 1024 bytes"),
        (
            "&a [*a]".to_owned(),
            "refers to no value that is complete before it",
        ),
        (
            format!("a: {}", "x".repeat(MAX_DOCUMENT_BYTES)),
            "the document is over 1048576 bytes",
        ),
        ("#\n".repeat(MAX_FILE_BYTES), "the file is over 4194304 bytes"),
    ];
    for (text, expected) in table {
        let told = complaints(&text);
        assert!(
            told.len() == 1 && told[0].contains(expected),
            "{expected}: {told:?}"
        );
    }
}
