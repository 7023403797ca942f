//! Where a message ends (RFC 9112 section 6): the fields that frame it, folded one by one, never repaired.

use super::syntax;

/// How a message's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// HTTP/1.1 chunks.
    Chunked,
    /// HTTP/2 DATA frames, until END_STREAM. A declared length must be kept, which the h2 codec checks.
    Frames(Option<u64>),
    /// Of a response: everything until the connection closes, which can then not be used again.
    UntilClose,
}

/// What is wrong with the framing fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FramingFault {
    /// Several lengths, one that is no number, or a length beside a transfer coding.
    Length,
    /// `Transfer-Encoding` that is not exactly one `chunked`, though nothing else is named.
    Coding,
    /// A transfer coding that is not `chunked`.
    UnknownCoding,
    /// `Connection` that is no list of tokens, or that names a field which frames or routes.
    Connection,
}

/// The framing and connection fields of one head.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
    /// `Connection: close`.
    pub(crate) close: bool,
    /// `Connection: keep-alive`.
    pub(crate) keep_alive: bool,
    /// `Connection: upgrade`.
    pub(crate) upgrade: bool,
}

impl Framing {
    /// One `Content-Length`. A second one is refused even where it repeats the first.
    pub(crate) fn length(&mut self, value: &[u8]) -> Result<(), FramingFault> {
        let length = syntax::decimal(value).ok_or(FramingFault::Length)?;
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(FramingFault::Length),
        }
    }

    /// One `Transfer-Encoding`.
    pub(crate) fn coding(&mut self, value: &[u8]) -> Result<(), FramingFault> {
        let mut fault = None;
        for coding in syntax::list(value) {
            if coding.eq_ignore_ascii_case(b"chunked") {
                if self.chunked {
                    fault = fault.or(Some(FramingFault::Coding));
                }
                self.chunked = true;
            } else if syntax::is_token(coding) {
                return Err(FramingFault::UnknownCoding);
            } else {
                fault = Some(FramingFault::Coding);
            }
        }
        fault.map_or(Ok(()), Err)
    }

    /// One `Connection`.
    pub(crate) fn connection(&mut self, value: &[u8]) -> Result<(), FramingFault> {
        for option in syntax::list(value).filter(|option| !option.is_empty()) {
            if !syntax::is_token(option) || may_not_be_an_option(option) {
                return Err(FramingFault::Connection);
            }
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
        Ok(())
    }
}

/// Fields that `Connection` may not name, because a hop that removes them makes another message of it.
pub(crate) fn may_not_be_an_option(name: &[u8]) -> bool {
    const NAMES: [&str; 12] = [
        "host",
        "content-length",
        "transfer-encoding",
        "content-type",
        "content-encoding",
        "content-range",
        "authorization",
        "cookie",
        "set-cookie",
        "expect",
        "connection",
        "cache-control",
    ];
    NAMES
        .iter()
        .any(|refused| name.eq_ignore_ascii_case(refused.as_bytes()))
}
