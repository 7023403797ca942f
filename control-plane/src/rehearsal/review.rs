//! What is wrong with configuration that is understood: conditions that would be false.

use std::fmt;

use super::Configuration;
use crate::sources::FileDocument;
use crate::view;

/// One thing to know about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub file: String,
    /// Where the object begins, from 1.
    pub line: u32,
    pub message: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The object does what it says, which may not be what is meant.
    Warning,
    /// Part of the object is of no effect.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Looks at each object in the mesh that these files are alone, in the order of the files.
pub fn review(configuration: &Configuration) -> Vec<Finding> {
    let state = configuration.state();
    let documents = configuration.documents.iter();
    let findings = documents.flat_map(|FileDocument { file, document }| {
        let key = document.object.key();
        let conditions = view::conditions(&state, &key);
        let failed = conditions.into_iter().filter(|condition| !condition.status);
        failed.map(move |condition| Finding {
            severity: Severity::Error,
            file: file.clone(),
            line: document.line,
            message: format!(
                "{key}: {}=False ({}: {})",
                condition.type_, condition.reason, condition.message
            ),
        })
    });
    findings.collect()
}
