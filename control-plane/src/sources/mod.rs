//! The YAML door: text becomes validated objects, or a list of what is wrong, each with its line and column.
//!
//! A file is split into documents, each read as a tree that remembers places (`build`), checked against the
//! Kubernetes type of its kind (`typed`), and then against what the mesh understands (`service`, `endpoint_slice`, `route`).

mod build;
mod check;
mod diagnostic;
mod endpoint_slice;
mod files;
mod filter;
mod folder;
mod grpc_route;
mod http_route;
mod object;
mod route;
mod scalar;
mod service;
mod session;
mod split;
#[cfg(test)]
mod tests;
mod tree;
mod typed;

use std::collections::BTreeMap;

use model::FieldPath;

use self::diagnostic::Fault;
use self::tree::{Node, Place};

pub use build::{MAX_DEPTH, MAX_EXPANDED_BYTES, MAX_NODES};
pub use diagnostic::Diagnostic;
pub use files::{FileDocument, parse_files};
pub use folder::{DEBOUNCE, MAX_FILES, MAX_FOLDER_BYTES, WatchError, Watcher, read_folder};
pub use object::{
    BackendRef, DEFAULT_NAMESPACE, EndpointSlice, Kind, Object, ObjectKey, ParentRef, RouteObject, RouteRule,
    SliceEndpoint, SlicePort,
};

/// Largest text of one file, in bytes.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;
/// Largest text of one document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
/// Diagnostics of one file that are told; what is beyond them is left out.
pub const MAX_DIAGNOSTICS: usize = 100;

/// One object, with the text that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub object: Object,
    /// The document as it was written, comments included. Read alone, it gives the same object.
    pub text: String,
    /// The line of the file on which the object begins, from 1.
    pub line: u32,
}

/// Reads every document of a YAML file; `file` is its name in messages. Empty documents are skipped.
///
/// # Errors
/// All problems of all documents, in the order of their lines, at most [`MAX_DIAGNOSTICS`]. Where there is
/// one, no document counts as read.
pub fn parse_documents(file: &str, text: &str) -> Result<Vec<Document>, Vec<Diagnostic>> {
    if text.len() > MAX_FILE_BYTES {
        return Err(vec![Diagnostic::of_file(
            file,
            format!("the file is over {MAX_FILE_BYTES} bytes"),
        )]);
    }
    let mut documents = Vec::new();
    let mut faults = Vec::new();
    let mut first_seen: BTreeMap<ObjectKey, u32> = BTreeMap::new();
    for part in split::documents(text) {
        if faults.len() >= MAX_DIAGNOSTICS {
            break;
        }
        let Some(document) = read(&part, &mut faults) else {
            continue;
        };
        let key = document.object.key();
        if let Some(line) = first_seen.get(&key) {
            let why = format!("{key} is already given at line {line}");
            let place = Place {
                line: document.line,
                column: 1,
            };
            faults.push(Fault {
                place,
                path: FieldPath::default(),
                why,
            });
        } else {
            first_seen.insert(key, document.line);
            documents.push(document);
        }
    }
    if faults.is_empty() {
        return Ok(documents);
    }
    faults.sort_by_key(|fault| fault.place);
    Err(faults
        .into_iter()
        .take(MAX_DIAGNOSTICS)
        .map(|fault| fault.in_file(file))
        .collect())
}

/// `None` for an empty document, and where something is wrong, which then stands in `faults`.
fn read(part: &split::Part<'_>, faults: &mut Vec<Fault>) -> Option<Document> {
    if part.text.len() > MAX_DOCUMENT_BYTES {
        let place = Place {
            line: part.line,
            column: 1,
        };
        let why = format!("the document is over {MAX_DOCUMENT_BYTES} bytes");
        faults.push(Fault {
            place,
            path: FieldPath::default(),
            why,
        });
        return None;
    }
    let before = faults.len();
    let root = build::tree(part, faults)?;
    let object = object(&root, faults);
    if faults.len() > before {
        return None;
    }
    Some(Document {
        object: object?,
        text: part.text.to_owned(),
        line: root.place.line,
    })
}

/// Reads the object by its kind.
fn object(root: &Node, faults: &mut Vec<Fault>) -> Option<Object> {
    let kind = typed::kind(root, faults)?;
    match kind {
        Kind::Service => {
            let service = typed::read(root, faults)?;
            check::all(root, faults, |at| service::service(at, service)).map(Object::Service)
        }
        Kind::EndpointSlice => {
            let slice = typed::read(root, faults)?;
            check::all(root, faults, |at| endpoint_slice::slice(at, slice)).map(Object::EndpointSlice)
        }
        Kind::HttpRoute => {
            let route = typed::read(root, faults)?;
            check::all(root, faults, |at| http_route::route(at, route)).map(Object::Route)
        }
        Kind::GrpcRoute => {
            let route = typed::read(root, faults)?;
            check::all(root, faults, |at| grpc_route::route(at, route)).map(Object::Route)
        }
    }
}
