//! Several files that are one configuration: an object stands in one of them.

use std::collections::BTreeMap;

use super::{Diagnostic, Document, ObjectKey, parse_documents, parse_whole_documents};

/// A document, and the name of the file that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDocument {
    pub file: String,
    pub document: Document,
}

/// What becomes of a route with a rule that cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    Refused,
    /// The route is taken without it.
    LeftOut,
}

/// Reads all documents of files, given as name and text, in their order.
///
/// # Errors
/// Everything that is wrong with any of them, and each object that is given twice. Where there is one, no document
/// counts as read.
pub fn parse_files<'t>(
    files: impl IntoIterator<Item = (&'t str, &'t str)>,
    unusable: Unusable,
) -> Result<Vec<FileDocument>, Vec<Diagnostic>> {
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    let mut seen: BTreeMap<ObjectKey, &str> = BTreeMap::new();
    for (file, text) in files {
        let parse = match unusable {
            Unusable::Refused => parse_whole_documents,
            Unusable::LeftOut => parse_documents,
        };
        let found = match parse(file, text) {
            Ok(found) => found,
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        for document in found {
            let key = document.object.key();
            if let Some(other) = seen.insert(key.clone(), file) {
                let why = format!("{key} is already given in {other}");
                problems.push(Diagnostic {
                    line: document.line,
                    column: 1,
                    ..Diagnostic::of_file(file, why)
                });
            }
            documents.push(FileDocument {
                file: file.to_owned(),
                document,
            });
        }
    }
    if problems.is_empty() {
        Ok(documents)
    } else {
        Err(problems)
    }
}
