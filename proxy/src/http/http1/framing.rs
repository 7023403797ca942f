//! How a message's body is written on an HTTP/1 connection, and that it is written whole (RFC 9112 section 6).

use std::fmt::Write as _;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};

use super::head;
use super::wire::Wire;

/// What is still to be written of a body.
pub(crate) enum Framing {
    /// Nothing, whatever the fields say of a length.
    None,
    /// So many bytes.
    Length(u64),
    Chunked {
        with_trailers: bool,
    },
    /// The connection's end is the body's.
    UntilClose,
}

/// A body that is longer or shorter than its head said; the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a body does not have the length that its head said")]
pub(crate) struct WrongLength;

impl Framing {
    /// Writes what frames a request's body, and the empty line. `exact` is the body's length where that is known.
    pub(crate) fn of_request(
        out: &mut BytesMut,
        method: &Method,
        headers: &HeaderMap,
        exact: Option<u64>,
    ) -> Self {
        let framing = match (declared(headers), exact) {
            (Some(length), _) => Self::Length(length),
            (None, Some(0)) => {
                // RFC 9110 section 8.6: a method that has a meaning for content says that there is none.
                if !matches!(
                    *method,
                    Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE | Method::TRACE
                ) {
                    head::write_field(out, &CONTENT_LENGTH, b"0");
                }
                Self::Length(0)
            }
            (None, Some(length)) => Self::length(out, length),
            (None, None) => Self::chunked(out, true),
        };
        out.put_slice(b"\r\n");
        framing
    }

    /// Writes what frames a response's body, and the empty line. `to` is what the client asked with.
    pub(crate) fn of_response(
        out: &mut BytesMut,
        (to, version): (&Method, Version),
        status: StatusCode,
        headers: &HeaderMap,
        exact: Option<u64>,
        with_trailers: bool,
    ) -> Self {
        let bodiless =
            status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let framing = if bodiless || to == Method::HEAD {
            Self::None
        } else {
            match (declared(headers), exact) {
                (Some(length), _) => Self::Length(length),
                (None, Some(length)) => Self::length(out, length),
                (None, None) if version == Version::HTTP_11 => Self::chunked(out, with_trailers),
                (None, None) => Self::UntilClose,
            }
        };
        out.put_slice(b"\r\n");
        framing
    }

    fn length(out: &mut BytesMut, length: u64) -> Self {
        let _ = write!(out, "{CONTENT_LENGTH}: {length}\r\n");
        Self::Length(length)
    }

    fn chunked(out: &mut BytesMut, with_trailers: bool) -> Self {
        head::write_field(out, &TRANSFER_ENCODING, b"chunked");
        Self::Chunked { with_trailers }
    }

    /// Whether there is no body, whatever the message has of one.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Writes content.
    pub(crate) fn data(&mut self, wire: &mut Wire, data: Bytes) -> Result<(), WrongLength> {
        if data.is_empty() {
            // An empty chunk would end the body.
            return Ok(());
        }
        match self {
            Self::None => Err(WrongLength),
            Self::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
                wire.put(data, b"");
                Ok(())
            }
            Self::Chunked { .. } => {
                put_chunk_size(wire.head(), data.len());
                wire.put(data, b"\r\n");
                Ok(())
            }
            Self::UntilClose => {
                wire.put(data, b"");
                Ok(())
            }
        }
    }

    /// Writes the end of the body.
    pub(crate) fn end(&mut self, wire: &mut Wire, trailers: Option<&HeaderMap>) -> Result<(), WrongLength> {
        match std::mem::replace(self, Self::None) {
            Self::None | Self::Length(0) | Self::UntilClose => Ok(()),
            Self::Length(_) => Err(WrongLength),
            Self::Chunked { with_trailers } => {
                let out = wire.head();
                out.put_slice(b"0\r\n");
                if let Some(trailers) = trailers.filter(|_| with_trailers) {
                    head::write_fields(out, trailers);
                }
                out.put_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

/// The length that the head says; the validator has seen that it is one number.
fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn put_chunk_size(out: &mut BytesMut, size: usize) {
    // Writing to memory cannot fail.
    let _ = write!(out, "{size:x}\r\n");
}
