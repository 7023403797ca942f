//! What is wrong with a file, and where.

use std::fmt;

use model::FieldPath;

use super::tree::Place;

/// One problem of one file. Written `file:line:column: field: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub file: String,
    /// From 1; 0 where the problem has no place in the text.
    pub line: u32,
    /// In characters, from 1; 0 where the problem has no place in the text.
    pub column: u32,
    /// As in `spec.rules[0].retry.attempts`; empty where the problem is not one of a field.
    pub field: String,
    pub message: String,
}

impl Diagnostic {
    /// A problem of the file as a whole.
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            field: String::new(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A problem that is not yet one of a named file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) path: FieldPath,
    pub(super) why: String,
}

impl Fault {
    pub(super) fn in_file(self, file: &str) -> Diagnostic {
        Diagnostic {
            file: file.to_owned(),
            line: self.place.line,
            column: self.place.column,
            field: self.path.to_string(),
            message: self.why,
        }
    }
}
