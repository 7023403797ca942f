//! What a route changes in a request or a response on its way.

use http::{HeaderName, HeaderValue};

use crate::FieldError;

/// Changes to header fields, applied in the order remove, set, add (Gateway API `HTTPHeaderFilter`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    pub remove: Vec<HeaderName>,
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// One filter of a rule or of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
}

impl HeaderModifier {
    /// Refuses fields that carry framing or routing, which no route may change: it would make requests ambiguous.
    pub fn new(
        remove: Vec<HeaderName>,
        set: Vec<(HeaderName, HeaderValue)>,
        add: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Self, FieldError> {
        let named = |list: &'static str, name: &HeaderName, index: usize| {
            if is_reserved(name) {
                let why = format!("{name} carries framing or routing and cannot be changed by a route");
                return Err(FieldError::new(why).within_item(index).within(list));
            }
            Ok(())
        };
        for (index, name) in remove.iter().enumerate() {
            named("remove", name, index)?;
        }
        for (list, fields) in [("set", &set), ("add", &add)] {
            for (index, (name, _)) in fields.iter().enumerate() {
                named(list, name, index)?;
            }
        }
        Ok(Self { remove, set, add })
    }
}

/// Fields that say where a message ends, whom it is for, or which hop it is meant for.
pub fn is_reserved(name: &HeaderName) -> bool {
    use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
    [
        CONNECTION,
        CONTENT_LENGTH,
        HOST,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
    .contains(name)
        || matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "http2-settings"
        )
}
