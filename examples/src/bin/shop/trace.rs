//! The one thing that a mesh asks of an application: pass the trace's headers from a request on to the calls it causes.

use http::{HeaderMap, HeaderName};

const HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
];

/// The headers of `incoming` that belong on every call made for it.
pub(crate) fn onward(incoming: &HeaderMap) -> HeaderMap {
    let mut outgoing = HeaderMap::new();
    for name in &HEADERS {
        for value in incoming.get_all(name) {
            outgoing.append(name, value.clone());
        }
    }
    outgoing
}
