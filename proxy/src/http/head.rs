//! A request's head between the two legs: judged as it came, written as it goes on.

use decision::Reason;
use decision::message::{MessageLimits, fields, request};
use http::header::{CONNECTION, HOST, HeaderValue, TE, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, Version};

use crate::upstream::Spoken;

/// What the steps need to know of an accepted head.
pub(crate) struct Head {
    /// Whom the request is for, as the client wrote it.
    pub(crate) authority: String,
    target: PathAndQuery,
    /// The client asks for a WebSocket.
    pub(crate) upgrade: bool,
}

impl Head {
    /// Passes the head through the one request validator. HTTP/1 passed it as raw bytes, in the guard.
    pub(crate) fn judge(parts: &Parts, limits: &MessageLimits) -> Result<Self, Reason> {
        if parts.version == Version::HTTP_2 {
            request::validate(request::http2(&parts.method, &parts.uri, &parts.headers), limits)?;
        }
        let effective = request::effective(&parts.uri, &parts.headers)?;
        Ok(Self {
            authority: effective.authority.to_owned(),
            target: effective.path_and_query,
            upgrade: fields::upgrade_protocol(parts.version, &parts.headers).is_some(),
        })
    }

    /// The head for the next leg: hop-by-hop fields are gone, the authority stands where that leg has it.
    pub(crate) fn upstream_parts(&self, mut parts: Parts, spoken: Spoken) -> Result<Parts, Reason> {
        fields::remove_hop_by_hop(&mut parts.headers);
        match spoken {
            Spoken::Http2 => {
                parts.version = Version::HTTP_2;
                parts.headers.remove(HOST);
                let authority = match parts.uri.authority() {
                    Some(authority) => authority.clone(),
                    None => Authority::try_from(self.authority.as_str()).map_err(|_| Reason::BadHost)?,
                };
                let mut uri = http::uri::Parts::default();
                uri.scheme = Some(Scheme::HTTP);
                uri.authority = Some(authority);
                uri.path_and_query = Some(self.target.clone());
                parts.uri = Uri::from_parts(uri).map_err(|_| Reason::BadTarget)?;
            }
            Spoken::Http1 | Spoken::Tcp => {
                parts.version = Version::HTTP_11;
                fields::join_cookies(&mut parts.headers);
                let host = HeaderValue::try_from(&self.authority).map_err(|_| Reason::BadHost)?;
                parts.headers.insert(HOST, host);
                parts.uri = Uri::from(self.target.clone());
                // RFC 9110 section 10.1.4: TE is this hop's own, and Connection has to say so.
                let connection = match (self.upgrade, parts.headers.contains_key(TE)) {
                    (true, true) => Some("te, upgrade"),
                    (true, false) => Some("upgrade"),
                    (false, true) => Some("te"),
                    (false, false) => None,
                };
                if let Some(connection) = connection {
                    parts
                        .headers
                        .insert(CONNECTION, HeaderValue::from_static(connection));
                }
                if self.upgrade {
                    parts
                        .headers
                        .insert(UPGRADE, HeaderValue::from_static("websocket"));
                }
            }
        }
        Ok(parts)
    }
}
