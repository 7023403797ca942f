//! Sessions: requests of one client that keep going to one endpoint (Gateway API `SessionPersistence`, GEP-1619).

use std::time::Duration;

use crate::FieldError;

/// How a client's requests are kept together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPersistence {
    pub carrier: SessionCarrier,
    /// Of the cookie or of the header: 1–128 characters of an HTTP token.
    pub name: String,
    /// A session ends so long after it began. `None`: never.
    pub absolute_timeout: Option<Duration>,
    /// A session ends so long after its latest request. `None`: never.
    pub idle_timeout: Option<Duration>,
}

/// What carries the session's token between client and proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionCarrier {
    /// A cookie that the browser forgets at its end.
    Cookie,
    /// A cookie that the browser keeps for the absolute timeout.
    PermanentCookie,
    /// A header of the answer, which the client sends back in its requests.
    Header,
}

impl SessionPersistence {
    /// Longest name (Gateway API).
    pub const MAX_NAME_BYTES: usize = 128;

    pub fn new(
        carrier: SessionCarrier,
        name: &str,
        absolute_timeout: Option<Duration>,
        idle_timeout: Option<Duration>,
    ) -> Result<Self, FieldError> {
        let is_token = http::HeaderName::try_from(name).is_ok();
        if !is_token || name.len() > Self::MAX_NAME_BYTES {
            let why = format!("{name:?} is not the name of a cookie or header (1-128 characters of a token)");
            return Err(FieldError::at("sessionName", why));
        }
        // As everywhere in Gateway API, zero disables a timeout.
        let [absolute_timeout, idle_timeout] =
            [absolute_timeout, idle_timeout].map(|time| time.filter(|time| !time.is_zero()));
        if carrier == SessionCarrier::PermanentCookie && absolute_timeout.is_none() {
            let why = "is missing, which a permanent cookie's lifetime is";
            return Err(FieldError::at("absoluteTimeout", why));
        }
        Ok(Self {
            carrier,
            name: name.to_owned(),
            absolute_timeout,
            idle_timeout,
        })
    }
}
