//! Finds the end of a head and its lines as its bytes arrive, each byte once, and refuses early what can never
//! become one.

use super::lines::{self, Lines};
use crate::message::{MessageLimits, syntax};

/// Longest method that is waited for, in bytes. Registered ones have at most 17.
const MAX_METHOD_BYTES: usize = 64;
const STATUS_LINE_START: &[u8] = b"HTTP/1.";

/// How far a head, or a trailer section, has been read.
#[derive(Debug)]
pub(super) struct HeadScan {
    stage: Stage,
    /// Where the head begins: behind one empty line that may precede a request (RFC 9112 section 2.2).
    start: usize,
    /// Every byte before this one has been looked at.
    at: usize,
    /// Where the current line begins.
    line: usize,
    /// Complete lines, the start line among them.
    lines: usize,
    /// Lines that are no fields: 1 with a start line, 0 without.
    start_lines: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    BeforeRequest,
    Method,
    /// The request target, which begins here.
    Target(usize),
    BeforeStatus,
    Lines,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// The beginning of a head.
    More,
    /// A whole head up to this byte, with right line ends. Its lines are not judged yet.
    Whole(usize),
    Refused(HeadFault),
}

/// Why bytes can never become a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadFault {
    Malformed,
    TargetTooLong,
    TooLarge,
    TooManyFields,
}

impl HeadScan {
    pub(super) fn request() -> Self {
        Self::new(Stage::BeforeRequest, 1)
    }

    pub(super) fn response() -> Self {
        Self::new(Stage::BeforeStatus, 1)
    }

    pub(super) fn trailers() -> Self {
        Self::new(Stage::Lines, 0)
    }

    fn new(stage: Stage, start_lines: usize) -> Self {
        Self {
            stage,
            start: 0,
            at: 0,
            line: 0,
            lines: 0,
            start_lines,
        }
    }

    /// Whether a byte of the head itself has been seen.
    pub(super) fn begun(&self) -> bool {
        self.at > self.start
    }

    /// Reads on, and adds to the lines. `bytes` begins with the same bytes as at the last call.
    pub(super) fn scan(&mut self, bytes: &[u8], lines: &mut Lines, limits: &MessageLimits) -> Scanned {
        if self.at == 0 {
            lines.clear();
        }
        match self.stages(bytes, lines, limits) {
            Ok(Some(end)) => Scanned::Whole(end),
            Ok(None) if bytes.len() > self.most(limits) => Scanned::Refused(HeadFault::TooLarge),
            Ok(None) => Scanned::More,
            Err(fault) => Scanned::Refused(fault),
        }
    }

    /// Bytes up to the end of the longest head.
    fn most(&self, limits: &MessageLimits) -> usize {
        let most = self.start.saturating_add(limits.head_bytes);
        most.min(lines::MAX_BYTES)
    }

    fn stages(
        &mut self,
        bytes: &[u8],
        lines: &mut Lines,
        limits: &MessageLimits,
    ) -> Result<Option<usize>, HeadFault> {
        loop {
            // No byte behind the limit may decide anything, or the verdict would depend on how bytes are cut.
            let within = bytes.get(..self.most(limits)).unwrap_or(bytes);
            let step = match self.stage {
                Stage::BeforeRequest => self.before_request(bytes)?,
                Stage::Method => self.method(within)?,
                Stage::Target(from) => self.target(within, from, limits)?,
                Stage::BeforeStatus => self.before_status(within)?,
                Stage::Lines => return self.lines(within, lines, limits),
            };
            match step {
                Some(next) => self.stage = next,
                None => return Ok(None),
            }
        }
    }

    fn before_request(&mut self, bytes: &[u8]) -> Result<Option<Stage>, HeadFault> {
        match bytes {
            [] | [b'\r'] => Ok(None),
            [b'\r', b'\n', ..] => {
                (self.start, self.at, self.line) = (2, 2, 2);
                Ok(Some(Stage::Method))
            }
            [b'\r', ..] => Err(HeadFault::Malformed),
            _ => Ok(Some(Stage::Method)),
        }
    }

    fn method(&mut self, bytes: &[u8]) -> Result<Option<Stage>, HeadFault> {
        let method = bytes.get(self.start..).unwrap_or_default();
        match method
            .iter()
            .take(MAX_METHOD_BYTES + 1)
            .position(|byte| !syntax::is_token_byte(*byte))
        {
            Some(end) if end > 0 && method.get(end) == Some(&b' ') => {
                self.at = self.start + end + 1;
                Ok(Some(Stage::Target(self.at)))
            }
            None if method.len() <= MAX_METHOD_BYTES => {
                self.at = bytes.len().max(self.start);
                Ok(None)
            }
            _ => Err(HeadFault::Malformed),
        }
    }

    fn target(
        &mut self,
        bytes: &[u8],
        from: usize,
        limits: &MessageLimits,
    ) -> Result<Option<Stage>, HeadFault> {
        let rest = bytes.get(self.at..).unwrap_or_default();
        let end = memchr::memchr2(b' ', b'\n', rest).map(|end| self.at + end);
        self.at = end.unwrap_or(bytes.len());
        if self.at.saturating_sub(from) > limits.target_bytes {
            return Err(HeadFault::TargetTooLong);
        }
        Ok(end.map(|_| Stage::Lines))
    }

    fn before_status(&mut self, bytes: &[u8]) -> Result<Option<Stage>, HeadFault> {
        let begun = bytes.get(..STATUS_LINE_START.len()).unwrap_or(bytes);
        if !STATUS_LINE_START.starts_with(begun) {
            return Err(HeadFault::Malformed);
        }
        self.at = begun.len();
        Ok((begun.len() == STATUS_LINE_START.len()).then_some(Stage::Lines))
    }

    fn lines(
        &mut self,
        bytes: &[u8],
        lines: &mut Lines,
        limits: &MessageLimits,
    ) -> Result<Option<usize>, HeadFault> {
        while let Some(length) = memchr::memchr(b'\n', bytes.get(self.at..).unwrap_or_default()) {
            let end = self.at + length + 1;
            let begin = self.line;
            let Some([line @ .., b'\r', b'\n']) = bytes.get(begin..end) else {
                return Err(HeadFault::Malformed);
            };
            (self.at, self.line) = (end, end);
            if line.is_empty() && self.lines >= self.start_lines {
                return Ok(Some(end));
            }
            self.lines += 1;
            if self.lines > limits.head_fields.saturating_add(self.start_lines) {
                return Err(HeadFault::TooManyFields);
            }
            if self.lines <= self.start_lines {
                lines.set_start_line(begin, line);
            } else {
                lines.add_field(begin, line);
            }
        }
        self.at = bytes.len();
        Ok(None)
    }
}
