//! What a route changes in a request or a response on its way.

mod auth;
mod cors;
mod mirror;
mod path;

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::{FieldError, ServicePort};

pub use auth::{AuthChanges, AuthDenial, AuthProtocol, AuthVerdict, ExternalAuth, FieldChange, FieldMode};
pub use cors::{Allowed, Cors, OriginPattern};
pub use mirror::{Fraction, Mirror};
pub use path::{PathChange, Redirect, Rewrite, Scheme, precise_hostname};

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
    Redirect(Redirect),
    Rewrite(Rewrite),
    Mirror(Mirror),
    Cors(Cors),
    Auth(ExternalAuth),
    /// One that refers to something that nobody here knows, by the name as written. It cannot be done and must not be left
    /// out, so its requests are refused (Gateway API `HTTPRouteFilter.type`).
    Unresolved(Arc<str>),
}

impl Filter {
    /// The service that the filter itself sends to, beside the rule's backends.
    pub fn target(&self) -> Option<&ServicePort> {
        match self {
            Self::Mirror(mirror) => Some(&mirror.target),
            Self::Auth(auth) => auth.target.as_ref(),
            Self::RequestHeaders(_)
            | Self::ResponseHeaders(_)
            | Self::Redirect(_)
            | Self::Rewrite(_)
            | Self::Cors(_)
            | Self::Unresolved(_) => None,
        }
    }

    /// Whether the filters of one rule, or of one backend, go together: mirrors, authorizations and what is not
    /// known may be repeated and the others not, and a redirect and a rewrite exclude each other (Gateway API `HTTPRouteRule.filters`).
    ///
    /// # Errors
    /// At the item that cannot stand behind those before it.
    pub fn compatible(filters: &[Self]) -> Result<(), FieldError> {
        for (index, filter) in filters.iter().enumerate() {
            for (first, earlier) in filters.iter().take(index).enumerate() {
                let why = match (earlier, filter) {
                    (Self::Redirect(_), Self::Rewrite(_)) | (Self::Rewrite(_), Self::Redirect(_)) => {
                        format!("cannot stand beside item {first}: a request is redirected or rewritten")
                    }
                    (Self::Mirror(_) | Self::Auth(_) | Self::Unresolved(_), _) => continue,
                    _ if std::mem::discriminant(earlier) == std::mem::discriminant(filter) => {
                        format!("is the same as item {first}")
                    }
                    _ => continue,
                };
                return Err(FieldError::new(why).within_item(index));
            }
        }
        Ok(())
    }
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
