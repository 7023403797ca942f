//! Heads of HTTP/1 messages: from bytes that the reader accepted, and back to bytes.

use bytes::{BufMut, Bytes, BytesMut};
use decision::Reason;
use decision::message::FieldLines;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version, request, response};

/// Fields for which a head's map has room from the start.
const USUAL_FIELDS: usize = 12;
const LINE_END: &[u8] = b"\r\n";

/// The parts of a request whose head was accepted.
///
/// # Errors
/// [`Reason::BadTarget`] and [`Reason::MalformedRequest`] where it cannot have been.
pub(crate) fn request(head: &Bytes) -> Result<request::Parts, Reason> {
    let (line, lines) = first_line(head).ok_or(Reason::MalformedRequest)?;
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(Reason::MalformedRequest);
    };
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(method).map_err(|_| Reason::MalformedRequest)?;
    parts.uri = Uri::from_maybe_shared(head.slice_ref(target)).map_err(|_| Reason::BadTarget)?;
    parts.version = version_of(version);
    parts.headers = fields(head, lines).ok_or(Reason::MalformedRequest)?;
    Ok(parts)
}

/// The parts of a response whose head was accepted.
///
/// # Errors
/// [`Reason::MalformedResponse`] where it cannot have been.
pub(crate) fn response(head: &Bytes) -> Result<response::Parts, Reason> {
    let read = || {
        let (line, lines) = first_line(head)?;
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.version = version_of(line.get(..8)?);
        parts.status = StatusCode::from_bytes(line.get(9..12)?).ok()?;
        parts.headers = fields(head, lines)?;
        Some(parts)
    };
    read().ok_or(Reason::MalformedResponse)
}

/// The trailers of a section that was accepted.
pub(crate) fn trailers(section: &Bytes) -> Option<HeaderMap> {
    fields(section, section)
}

/// Writes `METHOD target HTTP/1.1` and the fields; the empty line is still to come.
pub(crate) fn write_request(out: &mut BytesMut, parts: &request::Parts) {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    out.reserve(bytes_of(&parts.headers) + parts.method.as_str().len() + target.len() + 64);
    out.put_slice(parts.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    write_fields(out, &parts.headers);
}

/// Writes the status line and the fields; the empty line is still to come.
pub(crate) fn write_response(out: &mut BytesMut, version: Version, status: StatusCode, headers: &HeaderMap) {
    out.reserve(bytes_of(headers) + 128);
    out.put_slice(if version == Version::HTTP_10 {
        b"HTTP/1.0 "
    } else {
        b"HTTP/1.1 "
    });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(LINE_END);
    write_fields(out, headers);
}

/// Writes fields of the proxy's own.
pub(crate) fn write_field(out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    out.reserve(name.as_str().len() + value.len() + 4);
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(LINE_END);
}

pub(crate) fn write_fields(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        write_field(out, name, value.as_bytes());
    }
}

fn bytes_of(headers: &HeaderMap) -> usize {
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    headers.iter().map(field).sum()
}

fn first_line(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = head.windows(2).position(|bytes| bytes == LINE_END)?;
    let (line, rest) = head.split_at_checked(end)?;
    Some((line, rest.get(2..)?))
}

fn fields(head: &Bytes, lines: &[u8]) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(USUAL_FIELDS);
    for field in FieldLines::new(lines) {
        let (name, value) = field.ok()?;
        let name = HeaderName::from_bytes(name).ok()?;
        // Shares the head's bytes.
        let value = HeaderValue::from_maybe_shared(head.slice_ref(value)).ok()?;
        map.try_append(name, value).ok()?;
    }
    Some(map)
}

fn version_of(text: &[u8]) -> Version {
    if text == b"HTTP/1.0" {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    }
}
