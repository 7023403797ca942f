//! What is wrong with configuration that is understood: conditions that would be false, and what is hardly meant.

use std::cell::LazyCell;
use std::fmt;

use super::Configuration;
use crate::sources::FileDocument;
use crate::view::Judge;

/// One thing to know about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub file: String,
    /// From 1: of the field, else of where the object begins.
    pub line: u32,
    /// From 1; 0 where it is about the object as a whole.
    pub column: u32,
    /// As in `spec.rules[0]`; empty where it is about the object as a whole.
    pub field: String,
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
    let judge = Judge::of_configuration(&state);
    let findings = documents.flat_map(|FileDocument { file, document }| {
        let key = document.object.key();
        let finding = |severity, message| Finding {
            severity,
            file: file.clone(),
            line: document.line,
            column: 0,
            field: String::new(),
            message: format!("{key}: {message}"),
        };
        let failed = judge
            .conditions(&key)
            .into_iter()
            .filter(|condition| !condition.status);
        let failed = failed.map(|condition| {
            let (type_, reason, message) = (condition.type_, condition.reason, condition.message);
            let message = format!("{type_}=False ({reason}: {message})");
            finding(Severity::Error, message)
        });
        // Most documents have nothing to warn of.
        let places = LazyCell::new(|| document.places());
        let warnings = judge.warnings(&key).into_iter().map(|warning| {
            let (line, column) = places.of(&warning.path);
            Finding {
                line,
                column,
                field: warning.path.to_string(),
                ..finding(Severity::Warning, warning.message)
            }
        });
        failed.chain(warnings).collect::<Vec<_>>()
    });
    findings.collect()
}
