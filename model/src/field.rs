//! Errors that name the field that is wrong, in the notation people see in YAML: `spec.rules[0].retry.attempts`.

use std::fmt;

/// One thing that is wrong with configuration: where, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct FieldError {
    /// Where, from the root of the object.
    pub path: FieldPath,
    /// Why, as a clause without a capital or a full stop.
    pub why: String,
}

impl FieldError {
    /// An error at the value itself; callers add where that value stands with [`FieldError::within`].
    pub fn new(why: impl Into<String>) -> Self {
        Self {
            path: FieldPath::default(),
            why: why.into(),
        }
    }

    /// An error at a named field of the value.
    pub fn at(field: &str, why: impl Into<String>) -> Self {
        Self::new(why).within(field)
    }

    /// Puts a field name in front of the path: `attempts` within `retry` is `retry.attempts`.
    #[must_use]
    pub fn within(mut self, field: &str) -> Self {
        self.path.0.insert(0, Step::Field(field.to_owned()));
        self
    }

    /// Puts a list position in front of the path: `name` within item 2 is `[2].name`.
    #[must_use]
    pub fn within_item(mut self, index: usize) -> Self {
        self.path.0.insert(0, Step::Item(index));
        self
    }
}

/// A path from the root of an object to one of its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldPath(pub Vec<Step>);

/// One step of a [`FieldPath`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// A field of a mapping.
    Field(String),
    /// A position in a list, from 0.
    Item(usize),
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if position == 0 => write!(f, "{name}")?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_in_yaml() {
        let error = FieldError::at("weight", "is negative")
            .within_item(1)
            .within("backendRefs");
        assert_eq!(error.to_string(), "backendRefs[1].weight: is negative");
    }
}
