//! Documents as values without a type, and back as YAML: for showing what was written.

use model::FieldPath;
use serde_json::Value;
use serde_saphyr::SerializerOptions;

use super::tree::{Node, Place};
use super::{Diagnostic, Document, MAX_DIAGNOSTICS, Object, build, split};

/// What a text of exactly one document says, its comments left out. `None` for any other text.
pub fn value_of(text: &str) -> Option<Value> {
    tree(text).map(|root| root.to_json())
}

impl Document {
    /// What is wrong with rules that cannot be followed; `file` is what the document stands in.
    pub fn unusable(&self, file: &str) -> Vec<Diagnostic> {
        let Object::Route(route) = &self.object else {
            return Vec::new();
        };
        let errors = route
            .rules
            .iter()
            .flat_map(|rule| &rule.unusable)
            .take(MAX_DIAGNOSTICS);
        let places = self.places();
        let placed = errors.map(|error| {
            let (line, column) = places.of(&error.path);
            Diagnostic {
                file: file.to_owned(),
                line,
                column,
                field: error.path.to_string(),
                message: error.why.clone(),
            }
        });
        placed.collect()
    }

    /// Where its fields stand in its file. The document is read again for it, once for all fields.
    pub fn places(&self) -> Places {
        Places {
            line: self.line,
            root: tree(&self.text),
        }
    }
}

/// Where the fields of a document stand.
pub struct Places {
    /// Of the file, on which the document begins.
    line: u32,
    root: Option<Node>,
}

impl Places {
    /// The line and the column of a field in the document's file, or those of the nearest thing around it that there is.
    pub fn of(&self, path: &FieldPath) -> (u32, u32) {
        let Some(root) = &self.root else {
            return (self.line, 1);
        };
        let Place { line, column } = root.place_of(path);
        (
            self.line.saturating_add(line.saturating_sub(root.place.line)),
            column,
        )
    }
}

fn tree(text: &str) -> Option<Node> {
    let parts = split::documents(text);
    let [part] = parts.as_slice() else { return None };
    let mut faults = Vec::new();
    let root = build::tree(part, &mut faults)?;
    faults.is_empty().then_some(root)
}

/// The value as YAML, which gives the same value to whoever reads it as YAML 1.1 or 1.2.
pub fn yaml_of(value: &Value) -> String {
    let mut options = SerializerOptions::default();
    // A long line stays one: folded, its spaces at an end would not survive.
    options.folded_wrap_chars = usize::MAX;
    let mut yaml = String::new();
    match serde_saphyr::to_fmt_writer_with_options(&mut yaml, value, options) {
        Ok(()) => yaml,
        // JSON is YAML too.
        Err(_) => format!("{value}\n"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some_value() -> impl Strategy<Value = Value> {
        let text = "[ -~\u{e9}\u{2028}\n\t]{0,20}|yes|null|1e3|0x1F|- a|a: b|---|'|\"|.{0,100}";
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |value| {
            prop_oneof![
                proptest::collection::vec(value.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z./]{1,8}|no|1|[ -~]{1,6}", value, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_as_the_same(value in some_value()) {
            let object = serde_json::json!({"spec": value});
            let yaml = yaml_of(&object);
            prop_assert_eq!(value_of(&yaml), Some(object), "{}", yaml);
        }
    }
}
