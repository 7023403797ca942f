//! Cause and effect of the YAML door: this text, these objects; that text, those complaints at those places.

mod any_text;
mod endpoint_slice;
mod fault;
mod filter;
mod folder;
mod gateway;
mod read;
mod refused;
mod shadow;
mod traffic_policy;
mod unusable;

use super::*;

/// A route around some lines of its only rule, which begin on line 12.
fn rule(lines: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: checkout
spec:
  parentRefs:
    - group: ''
      kind: Service
      name: checkout
  rules:
    - name: only
{lines}"
    )
}

fn service(lines: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: checkout\nspec:\n{lines}")
}

/// Each complaint as `line:column field: message`.
fn complaints(text: &str) -> Vec<String> {
    let problems = parse_documents("f.yaml", text).expect_err("is refused");
    problems
        .iter()
        .map(|problem| problem.to_string().replacen("f.yaml:", "", 1))
        .collect()
}

fn only(text: &str) -> Object {
    let mut documents = parse_documents("f.yaml", text).expect("valid");
    assert_eq!(documents.len(), 1);
    documents.remove(0).object
}

fn only_route(text: &str) -> RouteObject {
    match only(text) {
        Object::Route(route) => route,
        other => panic!("a route, not {other:?}"),
    }
}
