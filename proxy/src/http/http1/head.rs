//! Heads of HTTP/1 messages: from where the reader found their parts, and back to bytes.

use bytes::{BufMut, Bytes, BytesMut};
use decision::Reason;
use decision::message::http1::{FieldAt, RequestAt, ResponseAt};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version, request, response};

/// How many fields a proxy usually adds to a head.
const ADDED_FIELDS: usize = 2;
const LINE_END: &[u8] = b"\r\n";

/// The parts of an accepted request. `bytes` are those that `at` and `fields` count in.
///
/// # Errors
/// [`Reason::BadTarget`] and [`Reason::MalformedRequest`] where it cannot have been accepted.
pub(crate) fn request(bytes: &Bytes, at: &RequestAt, fields: &[FieldAt]) -> Result<request::Parts, Reason> {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    let method = bytes.get(at.method.clone()).unwrap_or_default();
    parts.method = Method::from_bytes(method).map_err(|_| Reason::MalformedRequest)?;
    let target = bytes.slice(at.target.clone());
    parts.uri = Uri::from_maybe_shared(target).map_err(|_| Reason::BadTarget)?;
    parts.version = at.version;
    parts.headers = headers(bytes, fields).ok_or(Reason::MalformedRequest)?;
    Ok(parts)
}

/// The parts of an accepted response, likewise.
///
/// # Errors
/// [`Reason::MalformedResponse`] where it cannot have been accepted.
pub(crate) fn response(
    bytes: &Bytes,
    at: &ResponseAt,
    fields: &[FieldAt],
) -> Result<response::Parts, Reason> {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.version = at.version;
    parts.status = StatusCode::from_u16(at.status).map_err(|_| Reason::MalformedResponse)?;
    parts.headers = headers(bytes, fields).ok_or(Reason::MalformedResponse)?;
    Ok(parts)
}

/// Fields as a map that shares their bytes.
pub(crate) fn headers(bytes: &Bytes, fields: &[FieldAt]) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(fields.len() + ADDED_FIELDS);
    for field in fields {
        let name = HeaderName::from_bytes(bytes.get(field.name())?).ok()?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(field.value())).ok()?;
        map.try_append(name, value).ok()?;
    }
    Some(map)
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
