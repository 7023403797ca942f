//! The one response validator: every answer of an upstream passes it, HTTP/1 as raw bytes and HTTP/2 as fields.

use http::{HeaderMap, StatusCode, Version};

use super::framing::{Framing, FramingFault};
use super::syntax;
use super::{Body, Field, FieldLines, MalformedField, MessageLimits, Upgrade, fields};
use crate::Reason;

/// What a response must fit: the request that it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseTo {
    /// The method was HEAD: the response has no body, whatever its fields say.
    pub head: bool,
    /// The switch of protocols that the request asked for.
    pub upgrade: Option<Upgrade>,
}

/// A response's head, ready to be judged.
#[derive(Debug)]
pub struct ResponseHead<F> {
    version: Version,
    status: u16,
    fields: F,
}

/// What the validator found in a response that it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// 1xx other than 101: the final response is still to come.
    Interim,
    /// 101: from here on the connection speaks this protocol.
    Switched(Upgrade),
    /// The final response. Where `reusable` is false, nothing can follow it on its connection.
    Final { body: Body, reusable: bool },
}

impl<'a> ResponseHead<FieldLines<'a>> {
    /// Reads a whole HTTP/1 head, from the first byte of the status line to the end of the empty line.
    ///
    /// # Errors
    /// [`Reason::MalformedResponse`] where the first line is no status line of HTTP/1.0 or HTTP/1.1. The space
    /// before an empty reason may be missing, as several servers write it.
    pub fn http1(head: &'a [u8]) -> Result<Self, Reason> {
        let (line, lines) = syntax::first_line(head).ok_or(Reason::MalformedResponse)?;
        Self::of_lines(line, FieldLines::new(lines))
    }
}

impl<F> ResponseHead<F> {
    /// Reads a status line without its CRLF; the fields are split already.
    pub(super) fn of_lines(line: &[u8], fields: F) -> Result<Self, Reason> {
        let (version, status, reason) = match line {
            [version @ .., b' ', a, b, c] if version.len() == 8 => (version, [*a, *b, *c], &[][..]),
            line => {
                let (start, reason) = line.split_at_checked(13).ok_or(Reason::MalformedResponse)?;
                match start {
                    [version @ .., b' ', a, b, c, b' '] => (version, [*a, *b, *c], reason),
                    _ => return Err(Reason::MalformedResponse),
                }
            }
        };
        let version = syntax::http1_version(version).ok_or(Reason::MalformedResponse)?;
        let status = syntax::decimal(&status).and_then(|status| u16::try_from(status).ok());
        let status = status
            .filter(|status| (100..=599).contains(status))
            .ok_or(Reason::MalformedResponse)?;
        if !syntax::is_text(reason) {
            return Err(Reason::MalformedResponse);
        }
        Ok(Self {
            version,
            status,
            fields,
        })
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }
}

/// A response as an HTTP/2 codec hands it over: status and fields.
pub fn http2(
    status: StatusCode,
    headers: &HeaderMap,
) -> ResponseHead<impl Iterator<Item = Result<Field<'_>, MalformedField>>> {
    ResponseHead {
        version: Version::HTTP_2,
        status: status.as_u16(),
        fields: syntax::map_fields(headers),
    }
}

/// Judges a response by its head, for the request that it answers. Ambiguity is refused, never repaired.
///
/// # Errors
/// The [`Reason`] whose documentation names what is wrong.
pub fn validate<'a, F>(
    head: ResponseHead<F>,
    to: &ResponseTo,
    limits: &MessageLimits,
) -> Result<Accepted, Reason>
where
    F: Iterator<Item = Result<Field<'a>, MalformedField>>,
{
    let mut found = Found::default();
    for field in head.fields {
        let (name, value) = field.map_err(|MalformedField| Reason::MalformedResponse)?;
        found.field(head.version, name, value, limits)?;
    }
    found.judge(head.version, head.status, to)
}

/// What the fields said, one by one.
#[derive(Default)]
struct Found {
    fields: usize,
    bytes: usize,
    framing: Framing,
    upgrade: fields::UpgradeList,
}

impl Found {
    fn field(
        &mut self,
        version: Version,
        name: &[u8],
        value: &[u8],
        limits: &MessageLimits,
    ) -> Result<(), Reason> {
        self.fields += 1;
        if version == Version::HTTP_2 {
            self.bytes += name.len() + value.len() + 4;
            if fields::is_connection_specific(name) {
                return Err(Reason::MalformedResponse);
            }
        }
        if self.fields > limits.head_fields || self.bytes > limits.head_bytes {
            return Err(Reason::ResponseHeadTooLarge);
        }
        match name.len() {
            7 if is(name, "upgrade") => {
                self.upgrade.add(value);
                Ok(())
            }
            10 if is(name, "connection") => self.framing.connection(value).map_err(reason),
            14 if is(name, "content-length") => self.framing.length(value).map_err(reason),
            17 if is(name, "transfer-encoding") => match version {
                Version::HTTP_11 => self.framing.coding(value).map_err(reason),
                _ => Err(Reason::BadResponseCoding),
            },
            _ => Ok(()),
        }
    }

    fn judge(&self, version: Version, status: u16, to: &ResponseTo) -> Result<Accepted, Reason> {
        let Framing {
            length,
            chunked,
            close,
            keep_alive,
            upgrade,
        } = self.framing;
        if chunked && length.is_some() {
            return Err(Reason::AmbiguousResponseLength);
        }
        if matches!(status, 100..=199 | 204) && (chunked || length.is_some_and(|length| length > 0)) {
            return Err(Reason::ExcessResponse);
        }
        match status {
            101 => {
                let switched = self.upgrade.protocol().ok().flatten();
                let switched =
                    switched.filter(|_| upgrade && version == Version::HTTP_11 && switched == to.upgrade);
                return switched.map(Accepted::Switched).ok_or(Reason::UnaskedUpgrade);
            }
            100..=199 => return Ok(Accepted::Interim),
            _ => {}
        }
        let body = match length {
            _ if to.head || matches!(status, 204 | 304) => Body::None,
            length if version == Version::HTTP_2 => Body::Frames(length),
            _ if chunked => Body::Chunked,
            Some(0) => Body::None,
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        };
        let persistent = version != Version::HTTP_10 || keep_alive;
        Ok(Accepted::Final {
            body,
            reusable: persistent && !close && body != Body::UntilClose,
        })
    }
}

fn is(bytes: &[u8], lower: &str) -> bool {
    bytes.eq_ignore_ascii_case(lower.as_bytes())
}

fn reason(fault: FramingFault) -> Reason {
    match fault {
        FramingFault::Length => Reason::AmbiguousResponseLength,
        FramingFault::Coding | FramingFault::UnknownCoding => Reason::BadResponseCoding,
        FramingFault::Connection => Reason::MalformedResponse,
    }
}

#[cfg(test)]
mod tests;
