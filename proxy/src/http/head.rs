//! A request's head between the two legs: judged as it came, written as it goes on.

use decision::Reason;
use decision::message::{MessageLimits, fields, request};
use decision::traffic::{forwarded, path};
use http::header::{CONNECTION, HOST, HeaderValue, TE, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, Version};
use model::filter::Rewrite;

use crate::downstream::Downstream;
use crate::upstream::Spoken;

/// What the steps need to know of an accepted head.
pub(crate) struct Head {
    /// The target in origin form, where the client wrote it otherwise.
    target: Option<PathAndQuery>,
    /// The client asks for a WebSocket.
    pub(crate) upgrade: bool,
}

impl Head {
    /// Passes the head through the one request validator. HTTP/1 passed it as raw bytes, in the reader.
    pub(crate) fn judge(parts: &Parts, limits: &MessageLimits) -> Result<Self, Reason> {
        if parts.version == Version::HTTP_2 {
            request::validate(request::http2(&parts.method, &parts.uri, &parts.headers), limits)?;
        }
        let is_origin_form = parts.uri.authority().is_none() && parts.uri.path_and_query().is_some();
        let target = if is_origin_form {
            None
        } else {
            Some(request::effective(&parts.uri, &parts.headers)?.path_and_query)
        };
        Ok(Self {
            target,
            upgrade: fields::upgrade_protocol(parts.version, &parts.headers).is_some(),
        })
    }

    /// Whom the request is for, as the client wrote it; nothing where the head cannot have been accepted.
    pub(crate) fn authority<'p>(&self, parts: &'p Parts) -> &'p str {
        match parts.uri.authority() {
            Some(authority) => authority.as_str(),
            None => parts
                .headers
                .get(HOST)
                .and_then(|host| host.to_str().ok())
                .unwrap_or_default(),
        }
    }

    /// The head for the next leg: hop-by-hop fields are gone, the authority stands where that leg has it. `known` is
    /// that authority, where somebody has it already.
    pub(crate) fn upstream_parts(
        self,
        mut parts: Parts,
        spoken: Spoken,
        known: Option<&Authority>,
    ) -> Result<Parts, Reason> {
        fields::remove_hop_by_hop(&mut parts.headers);
        match spoken {
            Spoken::Http2 => {
                let authority = match (parts.uri.authority(), known) {
                    (Some(authority), _) => authority.clone(),
                    (None, Some(known)) => known.clone(),
                    (None, None) => {
                        Authority::try_from(self.authority(&parts)).map_err(|_| Reason::BadHost)?
                    }
                };
                parts.version = Version::HTTP_2;
                parts.headers.remove(HOST);
                let mut uri = parts.uri.into_parts();
                uri.scheme = Some(Scheme::HTTP);
                uri.authority = Some(authority);
                uri.path_and_query = self.target.or(uri.path_and_query);
                parts.uri = Uri::from_parts(uri).map_err(|_| Reason::BadTarget)?;
            }
            Spoken::Http1 | Spoken::Tcp | Spoken::Tls => {
                parts.version = Version::HTTP_11;
                fields::join_cookies(&mut parts.headers);
                if let Some(authority) = parts.uri.authority() {
                    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::BadHost)?;
                    parts.headers.insert(HOST, host);
                }
                if let Some(target) = self.target {
                    parts.uri = Uri::from(target);
                }
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

/// A head for one leg as another one has it, on which `spoken` is spoken. It is no upgrade.
pub(crate) fn respoken(parts: &Parts, spoken: Spoken) -> Result<Parts, Reason> {
    let head = Head {
        target: None,
        upgrade: false,
    };
    head.upstream_parts(parts.clone(), spoken, None)
}

/// Puts what a route wants in place of the host and the path of a head for the next leg.
pub(crate) fn rewrite(parts: &mut Parts, rewrite: &Rewrite) -> Result<(), Reason> {
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    if let Some(change) = &rewrite.path {
        let target = uri.path_and_query.take();
        let (path, query) = target
            .as_ref()
            .map_or(("/", None), |target| (target.path(), target.query()));
        let mut changed = path::changed(change, path).into_owned();
        if let Some(query) = query {
            changed.push('?');
            changed.push_str(query);
        }
        uri.path_and_query = Some(PathAndQuery::try_from(changed).map_err(|_| Reason::BadTarget)?);
    }
    if let Some(name) = &rewrite.hostname {
        if uri.authority.is_some() {
            uri.authority = Some(name.clone());
        } else {
            let host = HeaderValue::from_str(name.as_str()).map_err(|_| Reason::BadHost)?;
            parts.headers.insert(HOST, host);
        }
    }
    parts.uri = Uri::from_parts(uri).map_err(|_| Reason::BadTarget)?;
    Ok(())
}

/// Says in a head for the next leg that its connection is TLS, where that is said: in `:scheme`.
pub(crate) fn sent_by_tls(parts: &mut Parts) -> Result<(), Reason> {
    if parts.uri.scheme().is_some() {
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.scheme = Some(Scheme::HTTPS);
        parts.uri = Uri::from_parts(uri).map_err(|_| Reason::BadTarget)?;
    }
    Ok(())
}

/// Takes off the head of whoever is outside what only proxies say.
pub(crate) fn disbelieve(parts: &mut Parts, downstream: &Downstream) {
    if downstream.front.port.is_some() {
        forwarded::disbelieve(&mut parts.headers);
    }
}

/// Says in a head for the next leg who called at the gateway.
pub(crate) fn tell_of_client(parts: &mut Parts, downstream: &Downstream) {
    let host = match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(HOST).cloned(),
    };
    let (client, scheme) = (downstream.client.ip(), downstream.front.scheme());
    forwarded::tell(&mut parts.headers, client, scheme, host);
}
