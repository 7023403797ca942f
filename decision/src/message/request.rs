//! The one request validator: every request passes it, HTTP/1 as raw bytes and HTTP/2 as decoded fields.

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri, Version, header};

use super::framing::{Framing, FramingFault};
use super::host::Authority;
use super::syntax;
use super::{Body, Field, FieldLines, MalformedField, MessageLimits, Upgrade, fields};
use crate::Reason;

/// A request's head, ready to be judged.
#[derive(Debug)]
pub struct RequestHead<'a, F> {
    version: Version,
    method: &'a [u8],
    target: Target<'a>,
    fields: F,
}

#[derive(Debug)]
enum Target<'a> {
    /// Of an HTTP/1 request line.
    Line(&'a [u8]),
    /// Of HTTP/2 pseudo-fields.
    Pseudo {
        scheme: Option<&'a str>,
        authority: Option<&'a str>,
        path: &'a str,
    },
}

/// What the validator found in a request that it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// Whom the request is for: the target's authority, else Host. A valid host with an optional port.
    pub authority: &'a str,
    pub body: Body,
    /// The switch of protocols that the request asks for. Other protocols than these are not passed on.
    pub upgrade: Option<Upgrade>,
    /// Whether the method is HEAD, whose response has no body.
    pub head: bool,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
    /// Whether the client may send another request on its connection.
    pub persistent: bool,
}

impl<'a> RequestHead<'a, FieldLines<'a>> {
    /// Reads a whole HTTP/1 head, from the first byte of the request line to the end of the empty line.
    ///
    /// # Errors
    /// [`Reason::MalformedRequest`] where the first line is not `method SP target SP HTTP/1.0` or `HTTP/1.1`.
    pub fn http1(head: &'a [u8]) -> Result<Self, Reason> {
        let (line, lines) = syntax::first_line(head).ok_or(Reason::MalformedRequest)?;
        Self::of_lines(line, FieldLines::new(lines))
    }
}

impl<'a, F> RequestHead<'a, F> {
    /// Reads a request line without its CRLF; the fields are split already.
    pub(super) fn of_lines(line: &'a [u8], fields: F) -> Result<Self, Reason> {
        let (rest, version) = line
            .split_last_chunk::<{ b" HTTP/1.1".len() }>()
            .ok_or(Reason::MalformedRequest)?;
        let version = match version {
            b" HTTP/1.1" => Version::HTTP_11,
            b" HTTP/1.0" => Version::HTTP_10,
            _ => return Err(Reason::MalformedRequest),
        };
        let method_end = memchr::memchr(b' ', rest).ok_or(Reason::MalformedRequest)?;
        let (method, target) = rest
            .split_at_checked(method_end)
            .ok_or(Reason::MalformedRequest)?;
        let target = target.get(1..).unwrap_or_default();
        if target.is_empty() || !syntax::none_is(target, |byte| (byte <= b' ') | (byte == 0x7f)) {
            return Err(Reason::MalformedRequest);
        }
        Ok(Self {
            version,
            method,
            target: Target::Line(target),
            fields,
        })
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn method(&self) -> &'a [u8] {
        self.method
    }

    /// The target of a request line, in whatever form.
    pub(super) fn target(&self) -> &'a [u8] {
        match self.target {
            Target::Line(target) => target,
            Target::Pseudo { path, .. } => path.as_bytes(),
        }
    }
}

/// A request as an HTTP/2 codec hands it over: method, URI and fields.
///
/// A codec that builds [`Uri`] has already dropped what follows a `#` in `:path`; [`super::hpack`] sees it before.
pub fn http2<'a>(
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
) -> RequestHead<'a, impl Iterator<Item = Result<Field<'a>, MalformedField>>> {
    let target = Target::Pseudo {
        scheme: uri.scheme_str(),
        authority: uri.authority().map(|authority| authority.as_str()),
        path: uri.path_and_query().map_or("", PathAndQuery::as_str),
    };
    RequestHead {
        version: Version::HTTP_2,
        method: method.as_str().as_bytes(),
        target,
        fields: syntax::map_fields(headers),
    }
}

/// Judges a request by its head. Ambiguity is refused, never repaired.
///
/// # Errors
/// The [`Reason`] whose documentation names what is wrong.
pub fn validate<'a, F>(head: RequestHead<'a, F>, limits: &MessageLimits) -> Result<Accepted<'a>, Reason>
where
    F: Iterator<Item = Result<Field<'a>, MalformedField>>,
{
    if !syntax::is_token(head.method) {
        return Err(Reason::MalformedRequest);
    }
    if head.method == b"CONNECT" {
        return Err(Reason::BadMethod);
    }
    let authority = target_authority(head.method, &head.target, limits)?;
    let mut found = Found::new(head.version);
    for field in head.fields {
        let (name, value) = field.map_err(|MalformedField| Reason::MalformedRequest)?;
        found.field(name, value, limits)?;
    }
    found.judge(head.method, authority)
}

/// Judges a CONNECT request, where tunnels are served. Returns where the tunnel is to lead: a valid host and a port.
///
/// What follows the head is the tunnel's (RFC 9110 section 9.3.6), so that a length is refused unless it is 0, and
/// whether the client keeps its connection does not matter.
///
/// # Errors
/// The [`Reason`] whose documentation names what is wrong.
pub fn tunnel<'a, F>(head: RequestHead<'a, F>, limits: &MessageLimits) -> Result<&'a str, Reason>
where
    F: Iterator<Item = Result<Field<'a>, MalformedField>>,
{
    let authority = match head.target {
        Target::Line(line) if line.len() > limits.target_bytes => return Err(Reason::TargetTooLong),
        Target::Line(line) => line,
        // RFC 9113 section 8.5: the scheme and the path are left out.
        Target::Pseudo {
            scheme: None,
            authority: Some(authority),
            path: "" | "/",
        } => authority.as_bytes(),
        Target::Pseudo { .. } => return Err(Reason::BadTarget),
    };
    match Authority::parse(authority) {
        Some(Authority { port: Some(_), .. }) => {}
        // No port is implied: RFC 9112 section 3.2.3.
        _ => return Err(Reason::BadTarget),
    }
    let mut found = Found::new(head.version);
    for field in head.fields {
        let (name, value) = field.map_err(|MalformedField| Reason::MalformedRequest)?;
        found.field(name, value, limits)?;
    }
    match (found.framing.chunked, found.framing.length) {
        (false, None | Some(0)) => {}
        _ => return Err(Reason::AmbiguousLength),
    }
    match found.host {
        // The target says it; what the client wrote beside that is not passed on.
        Some(host) => drop(Authority::parse(host).ok_or(Reason::BadHost)?),
        None if found.version == Version::HTTP_11 => return Err(Reason::BadHost),
        None => {}
    }
    std::str::from_utf8(authority).map_err(|_| Reason::BadTarget)
}

/// Whom a request is for and what it asks for, as both versions mean it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective<'a> {
    /// The target's authority, else Host.
    pub authority: &'a str,
    /// The target in origin form, or `*`.
    pub path_and_query: PathAndQuery,
}

/// The effective authority and origin-form target of a request that [`validate`] accepted, of either version.
///
/// # Errors
/// [`Reason::BadHost`] and [`Reason::BadTarget`] where the request cannot have been accepted.
pub fn effective<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<Effective<'a>, Reason> {
    let authority = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .ok_or(Reason::BadHost)?,
    };
    let path_and_query = match uri.path_and_query() {
        // An absolute URI may have a query and no path (RFC 9112 section 3.2.1).
        Some(target) if target.as_str().starts_with('?') => {
            PathAndQuery::try_from(format!("/{}", target.as_str())).map_err(|_| Reason::BadTarget)?
        }
        Some(target) => target.clone(),
        None => PathAndQuery::from_static("/"),
    };
    Ok(Effective {
        authority,
        path_and_query,
    })
}

/// Judges the target and returns the authority in it, where it has one.
fn target_authority<'a>(
    method: &[u8],
    target: &Target<'a>,
    limits: &MessageLimits,
) -> Result<Option<&'a [u8]>, Reason> {
    let (authority, path) = match *target {
        Target::Line(line) => {
            if line.len() > limits.target_bytes {
                return Err(Reason::TargetTooLong);
            }
            match line.split_at_checked(b"http://".len()) {
                Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"http://") => {
                    let end = rest
                        .iter()
                        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
                        .unwrap_or(rest.len());
                    let (authority, path) = rest.split_at_checked(end).ok_or(Reason::BadTarget)?;
                    if authority.is_empty() {
                        return Err(Reason::BadTarget);
                    }
                    (Some(authority), if path.is_empty() { &b"/"[..] } else { path })
                }
                _ if line.starts_with(b"?") => return Err(Reason::BadTarget),
                _ => (None, line),
            }
        }
        Target::Pseudo {
            scheme,
            authority,
            path,
        } => {
            if path.len() > limits.target_bytes {
                return Err(Reason::TargetTooLong);
            }
            if scheme.is_some_and(|scheme| scheme != "http" && scheme != "https") || path.starts_with('?') {
                return Err(Reason::BadTarget);
            }
            (authority.map(str::as_bytes), path.as_bytes())
        }
    };
    let asterisk = path == b"*" && method == b"OPTIONS";
    if asterisk || is_path_and_query(path) {
        Ok(authority)
    } else {
        Err(Reason::BadTarget)
    }
}

/// A path with an optional query, in the printable ASCII that `http::Uri` takes without changing it: RFC 3986 and,
/// as browsers send them raw, `|`, `^`, `[`, `]`, in a path also `"`, `{`, `}`, in a query also `` ` `` and `\`.
fn is_path_and_query(target: &[u8]) -> bool {
    if !matches!(target, [b'/' | b'?', ..]) {
        return false;
    }
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    let Some((path, query)) = target.split_at_checked(end) else {
        return false;
    };
    let is_hidden = |byte: u8| (byte <= b' ') | (byte >= 0x7f);
    syntax::none_is(path, |byte| {
        is_hidden(byte) | (byte == b'#') | (byte == b'<') | (byte == b'>') | (byte == b'`') | (byte == b'\\')
    }) && syntax::none_is(query, |byte| {
        is_hidden(byte) | (byte == b'#') | (byte == b'<') | (byte == b'>') | (byte == b'"')
    })
}

/// What the fields said, one by one.
struct Found<'a> {
    version: Version,
    fields: usize,
    bytes: usize,
    framing: Framing,
    host: Option<&'a [u8]>,
    upgrade: fields::UpgradeList,
    expects: bool,
}

impl<'a> Found<'a> {
    fn new(version: Version) -> Self {
        Self {
            version,
            fields: 0,
            bytes: 0,
            framing: Framing::default(),
            host: None,
            upgrade: fields::UpgradeList::default(),
            expects: false,
        }
    }

    fn field(&mut self, name: &[u8], value: &'a [u8], limits: &MessageLimits) -> Result<(), Reason> {
        self.fields += 1;
        if self.fields > limits.head_fields {
            return Err(Reason::TooManyFields);
        }
        if self.version == Version::HTTP_2 {
            // As many bytes as the field would take in an HTTP/1 head; the reader of those counts for itself.
            self.bytes += name.len() + value.len() + 4;
            if self.bytes > limits.head_bytes {
                return Err(Reason::HeadTooLarge);
            }
            if fields::is_connection_specific(name) || (is(name, "te") && !is(value, "trailers")) {
                return Err(Reason::MalformedRequest);
            }
        }
        match name.len() {
            4 if is(name, "host") => match self.host.replace(value) {
                None => Ok(()),
                Some(_) => Err(Reason::BadHost),
            },
            6 if is(name, "expect") => {
                let known = is(value, "100-continue") && !self.expects;
                self.expects = true;
                if known {
                    Ok(())
                } else {
                    Err(Reason::BadExpectation)
                }
            }
            7 if is(name, "upgrade") => {
                self.upgrade.add(value);
                Ok(())
            }
            10 if is(name, "connection") => self.framing.connection(value).map_err(reason),
            14 if is(name, "content-length") => self.framing.length(value).map_err(reason),
            17 if is(name, "transfer-encoding") => match self.version {
                Version::HTTP_11 => self.framing.coding(value).map_err(reason),
                _ => Err(Reason::BadTransferEncoding),
            },
            _ => Ok(()),
        }
    }

    fn judge(self, method: &[u8], target_authority: Option<&'a [u8]>) -> Result<Accepted<'a>, Reason> {
        if self.framing.chunked && self.framing.length.is_some() {
            return Err(Reason::AmbiguousLength);
        }
        let authority = self.authority(target_authority)?;
        let body = match (self.version, self.framing.length) {
            (Version::HTTP_2, length) => Body::Frames(length),
            _ if self.framing.chunked => Body::Chunked,
            (_, None | Some(0)) => Body::None,
            (_, Some(length)) => Body::Length(length),
        };
        let upgrade = self.upgrade(method, body)?;
        Ok(Accepted {
            authority,
            body,
            upgrade,
            head: method == b"HEAD",
            expects_continue: self.expects,
            persistent: !self.framing.close && (self.version != Version::HTTP_10 || self.framing.keep_alive),
        })
    }

    fn authority(&self, target_authority: Option<&'a [u8]>) -> Result<&'a str, Reason> {
        let host = match self.host {
            Some(host) => Some(Authority::parse(host).ok_or(Reason::BadHost)?),
            // In HTTP/2, `:authority` says it. HTTP/1.0 knows no Host, but names no service without one either.
            None if self.version == Version::HTTP_2 => None,
            None => return Err(Reason::BadHost),
        };
        let target = match target_authority {
            Some(authority) => Some(Authority::parse(authority).ok_or(Reason::BadHost)?),
            None => None,
        };
        if let (Some(host), Some(target)) = (&host, &target)
            && !host.same(target)
        {
            return Err(Reason::BadHost);
        }
        let authority = target_authority.or(self.host).ok_or(Reason::BadHost)?;
        std::str::from_utf8(authority).map_err(|_| Reason::BadHost)
    }

    /// `Upgrade` counts on HTTP/1.1 where `Connection` names it; elsewhere it is noise that the next hop never sees.
    fn upgrade(&self, method: &[u8], body: Body) -> Result<Option<Upgrade>, Reason> {
        if self.version != Version::HTTP_11 || !self.framing.upgrade {
            return Ok(None);
        }
        let upgrade = self
            .upgrade
            .protocol()
            .map_err(|fields::BadUpgrade| Reason::BadUpgrade)?;
        match upgrade {
            // The bytes after the head would be both a body and the new protocol (RFC 6455 section 4.1: GET).
            Some(_) if body != Body::None || method != b"GET" => Err(Reason::BadUpgrade),
            upgrade => Ok(upgrade),
        }
    }
}

fn is(bytes: &[u8], lower: &str) -> bool {
    bytes.eq_ignore_ascii_case(lower.as_bytes())
}

fn reason(fault: FramingFault) -> Reason {
    match fault {
        FramingFault::Length => Reason::AmbiguousLength,
        FramingFault::Coding => Reason::BadTransferEncoding,
        FramingFault::UnknownCoding => Reason::UnknownTransferCoding,
        FramingFault::Connection => Reason::MalformedRequest,
    }
}

#[cfg(test)]
mod tests;
