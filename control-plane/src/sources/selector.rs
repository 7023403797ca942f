//! Which namespaces something is allowed to come from.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as k8s;
use model::FieldError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::check::At;
use super::route::same_shape;

/// Most requirements of one selector, and values of one requirement.
const MAX_REQUIREMENTS: usize = 64;

/// `from` and `selector` of `allowedRoutes.namespaces` and `allowedListeners.namespaces`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    All,
    Same,
    Selector(LabelSelector),
    None,
}

/// A Kubernetes label selector: every requirement must hold. Without any it selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.rule {
                Rule::In(values) => value.is_some_and(|value| values.contains(value)),
                // Kubernetes: what does not have the label is selected too.
                Rule::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Rule::Exists => value.is_some(),
                Rule::DoesNotExist => value.is_none(),
            }
        })
    }
}

/// The one shape that `gateway-api` has several types for.
#[derive(Debug, Default, Deserialize)]
struct Namespaces {
    from: Option<String>,
    selector: Option<k8s::LabelSelector>,
}

/// Reads it; `default` is what `from` means where it is not written.
pub(super) fn from(at: &At<'_>, given: impl Serialize, default: From) -> From {
    let given: Namespaces = same_shape(at, given).unwrap_or_default();
    match (given.from.as_deref(), given.selector) {
        (None, _) => default,
        (Some("All"), _) => From::All,
        (Some("Same"), _) => From::Same,
        (Some("None"), _) => From::None,
        (Some("Selector"), Some(selector)) => From::Selector(label_selector(&at.field("selector"), selector)),
        (Some("Selector"), None) => {
            at.refuse("selector is missing, which from: Selector needs");
            default
        }
        (Some(other), _) => {
            at.field("from").refuse(format!("{other:?} is not known"));
            default
        }
    }
}

pub(super) fn label_selector(at: &At<'_>, selector: k8s::LabelSelector) -> LabelSelector {
    let labels = selector.match_labels.unwrap_or_default();
    let mut requirements: Vec<Requirement> = labels
        .into_iter()
        .map(|(key, value)| Requirement {
            key,
            rule: Rule::In(vec![value]),
        })
        .collect();
    let given = at
        .field("matchExpressions")
        .items(selector.match_expressions, MAX_REQUIREMENTS);
    for (at, given) in given {
        let values = given.values.unwrap_or_default();
        let rule = match (given.operator.as_str(), values.is_empty()) {
            ("In", false) => Ok(Rule::In(values)),
            ("NotIn", false) => Ok(Rule::NotIn(values)),
            ("Exists", true) => Ok(Rule::Exists),
            ("DoesNotExist", true) => Ok(Rule::DoesNotExist),
            ("In" | "NotIn", true) => Err(FieldError::at("values", "has at least one entry")),
            ("Exists" | "DoesNotExist", false) => Err(FieldError::at("values", "is empty for this operator")),
            (other, _) => Err(FieldError::at(
                "operator",
                format!("{other:?} is not known (In, NotIn, Exists, DoesNotExist)"),
            )),
        };
        requirements.extend(at.keep(rule).map(|rule| Requirement { key: given.key, rule }));
    }
    LabelSelector(requirements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_must_hold() {
        let labels = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
        let one = |rule| {
            LabelSelector(vec![Requirement {
                key: "team".to_owned(),
                rule,
            }])
        };
        let shop = || vec!["shop".to_owned()];
        let table = [
            (LabelSelector::default(), true, true),
            (one(Rule::In(shop())), true, false),
            (one(Rule::NotIn(shop())), false, true),
            (one(Rule::Exists), true, false),
            (one(Rule::DoesNotExist), false, true),
        ];
        for (selector, with, without) in table {
            assert_eq!(selector.selects(&labels), with, "{selector:?}");
            assert_eq!(selector.selects(&BTreeMap::new()), without, "{selector:?}");
        }
    }
}
