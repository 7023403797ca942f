//! No text at all brings the door down.

use proptest::prelude::*;

use super::*;

/// Text that looks like YAML more often than chance would have it.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("- "),
        Just("a: "),
        Just("? "),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just("\n"),
        Just("\n  "),
        Just("---\n"),
        Just("...\n"),
        Just("&a "),
        Just("*a"),
        Just("!!str "),
        Just("!x "),
        Just("|\n"),
        Just(">2-\n"),
        Just("'"),
        Just("\""),
        Just("\\u12"),
        Just("#"),
        Just("%TAG ! x\n"),
        Just("\t"),
        Just("\r"),
        Just("\u{feff}"),
        Just("\u{2028}"),
        Just("\0"),
        Just("-1"),
        Just("é"),
        Just("apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec:\n  ports: "),
        Just(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, labels: \
             {kubernetes.io/service-name: x}}\naddressType: IPv4\nports: [{port: 1}]\nendpoints: "
        ),
        Just("apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: x}\ndata: "),
        Just(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: x}\nspec:\n  \
             gatewayClassName: weft\n  listeners: [{name: a, port: 1, protocol: HTTP}]\n  "
        ),
        Just(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x}\nspec:\n  rules: "
        ),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_places(text in prop_oneof![".{0,200}", yaml_like()]) {
        match parse_documents("f.yaml", &text) {
            Ok(documents) => for document in documents {
                let again = parse_documents("f.yaml", &document.text).expect("valid alone");
                prop_assert_eq!(&again[0].object, &document.object);
            },
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                prop_assert!(problems.iter().all(|problem| problem.line > 0 && problem.column > 0));
            }
        }
    }
}
