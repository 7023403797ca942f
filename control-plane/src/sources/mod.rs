//! The YAML door: text becomes validated objects, or a list of what is wrong, each with its line and column.
//!
//! A file is split into documents, each read as a tree that remembers places (`build`), checked against the
//! Kubernetes type of its kind (`typed`), and then against what the mesh understands (`service`, `endpoint_slice`, `route`).

mod backend_tls;
mod build;
mod check;
mod core_v1;
mod diagnostic;
mod endpoint_slice;
mod fault;
mod files;
mod filter;
mod folder;
mod gateway;
mod grant;
mod grpc_route;
mod http_route;
mod kind;
mod listener;
mod object;
mod reference;
mod route;
mod scalar;
mod selector;
mod service;
mod session;
mod shadow;
mod split;
mod stream_route;
#[cfg(test)]
mod tests;
mod traffic_policy;
mod tree;
mod typed;
mod written;

use std::collections::BTreeMap;

use model::FieldPath;
use serde::de::DeserializeOwned;

use self::diagnostic::Fault;
use self::tree::{Node, Place};

pub use backend_tls::{BackendTlsPolicy, PolicyTarget, Trusts};
pub use build::{MAX_DEPTH, MAX_EXPANDED_BYTES, MAX_NODES};
pub use core_v1::{ConfigMap, Namespace, Secret};
pub use diagnostic::Diagnostic;
pub use fault::FaultPolicy;
pub use files::{FileDocument, Unusable, parse_files};
pub use folder::{DEBOUNCE, MAX_FILES, MAX_FOLDER_BYTES, WatchError, Watcher, read_folder};
pub use gateway::{
    Address, CONTROLLER_NAME, DEFAULT_CLASS, Frontend, GatewayClass, GatewayObject, UnservableGateway,
    Validation,
};
pub use grant::{GrantFrom, GrantTo, ReferenceGrant};
pub use kind::{DEFAULT_NAMESPACE, Kind, KindRow, ObjectKey, ObjectName};
pub use listener::{ListenerObject, ListenerSet, ListenerTls, Protocol};
pub use object::{
    BackendRef, BackendTarget, EndpointSlice, Object, Parent, ParentRef, RouteObject, RouteRule,
    SliceEndpoint, SlicePort, StreamRoute,
};
pub use reference::{GATEWAY_GROUP, ObjectRef};
pub use selector::{From as NamespacesFrom, LabelSelector};
pub use shadow::Shadow;
pub use traffic_policy::{TrafficPolicyObject, TrafficTarget};
pub use written::{Places, value_of, yaml_of};

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

/// As [`parse_documents`], where a rule that cannot be followed is a problem as well.
///
/// # Errors
/// As for [`parse_documents`].
pub fn parse_whole_documents(file: &str, text: &str) -> Result<Vec<Document>, Vec<Diagnostic>> {
    let documents = parse_documents(file, text)?;
    let unusable = documents.iter().flat_map(|document| document.unusable(file));
    let unusable: Vec<Diagnostic> = unusable.take(MAX_DIAGNOSTICS).collect();
    if unusable.is_empty() {
        Ok(documents)
    } else {
        Err(unusable)
    }
}

/// Reads every document of a YAML file; `file` is its name in messages. Empty documents are skipped.
///
/// # Errors
/// All problems of all documents, in the order of their lines, at most [`MAX_DIAGNOSTICS`]. Where there is
/// one, no document counts as read. A rule that cannot be followed is none by itself ([`Document::unusable`]), since what was
/// applied in part is read again as it was.
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
    let mut problems: Vec<Diagnostic> = faults.into_iter().map(|fault| fault.in_file(file)).collect();
    problems.extend(documents.iter().flat_map(|document| document.unusable(file)));
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems.truncate(MAX_DIAGNOSTICS);
    Err(problems)
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
    shadow::refuse(root, kind, faults);
    match kind {
        Kind::GatewayClass => parsed(root, faults, gateway::class).map(Object::GatewayClass),
        Kind::Gateway => parsed(root, faults, gateway::gateway),
        Kind::ListenerSet => {
            parsed(root, faults, listener::set).map(|read| Object::ListenerSet(Box::new(read)))
        }
        Kind::HttpRoute => parsed(root, faults, http_route::route).map(Object::Route),
        Kind::GrpcRoute => parsed(root, faults, grpc_route::route).map(Object::Route),
        Kind::TlsRoute => stream_route(root, faults, stream_route::tls),
        Kind::TcpRoute => stream_route(root, faults, stream_route::tcp),
        Kind::UdpRoute => stream_route(root, faults, stream_route::udp),
        Kind::BackendTlsPolicy => parsed(root, faults, backend_tls::policy).map(Object::BackendTlsPolicy),
        Kind::ReferenceGrant => parsed(root, faults, grant::grant).map(Object::ReferenceGrant),
        Kind::Service => parsed(root, faults, service::service).map(Object::Service),
        Kind::EndpointSlice => parsed(root, faults, endpoint_slice::slice).map(Object::EndpointSlice),
        Kind::Secret => parsed(&core_v1::unwrapped(root), faults, core_v1::secret).map(Object::Secret),
        Kind::ConfigMap => parsed(root, faults, core_v1::config_map).map(Object::ConfigMap),
        Kind::Namespace => parsed(root, faults, core_v1::namespace).map(Object::Namespace),
        Kind::FaultInjectionPolicy => parsed(root, faults, fault::policy).map(Object::FaultPolicy),
        Kind::BackendTrafficPolicy => parsed(root, faults, traffic_policy::policy).map(Object::TrafficPolicy),
    }
}

/// Reads the Kubernetes type, and then what the mesh understands of it.
fn parsed<K: DeserializeOwned, T>(
    root: &Node,
    faults: &mut Vec<Fault>,
    read: impl FnOnce(&check::At<'_>, K) -> Option<T>,
) -> Option<T> {
    let typed = typed::read(root, faults)?;
    check::all(root, faults, |at| read(at, typed))
}

/// These have more rules in the versions before `v1`.
fn stream_route<K: DeserializeOwned>(
    root: &Node,
    faults: &mut Vec<Fault>,
    read: impl FnOnce(&check::At<'_>, bool, K) -> Option<StreamRoute>,
) -> Option<Object> {
    let version = root.entry("apiVersion").map(|entry| entry.value.to_json());
    let is_v1 = version.is_some_and(|version| version.as_str().is_some_and(|text| text.ends_with("/v1")));
    parsed(root, faults, |at, typed| read(at, is_v1, typed)).map(Object::StreamRoute)
}
