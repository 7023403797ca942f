//! Chunked transfer coding (RFC 9112 section 7.1), strictly: CRLF alone ends a line, and no size overflows.

use super::head::{HeadScan, Scanned};
use super::lines::Lines;
use crate::message::{MessageLimits, fields, syntax};

/// Longest chunk size, in hexadecimal digits.
const MAX_SIZE_DIGITS: usize = 16;
/// Most bytes of the extensions of one chunk.
const MAX_EXTENSION_BYTES: usize = 256;
/// Most bytes of the extensions of one whole body; the HTTP/1 codec behind this reader has the same limit.
const MAX_EXTENSIONS_BYTES: usize = 16 * 1024 - 1;
/// Longest chunk line with its CRLF, in bytes.
pub(super) const MAX_CHUNK_LINE_BYTES: usize = MAX_SIZE_DIGITS + MAX_EXTENSION_BYTES + 2;

/// How far a chunked body has been read.
#[derive(Debug)]
pub(super) struct Chunked {
    stage: Stage,
    extension_bytes: usize,
}

#[derive(Debug)]
enum Stage {
    Size,
    Data(u64),
    DataEnd,
    Trailers(HeadScan),
}

/// What the bytes so far are.
#[derive(Debug)]
pub(super) enum Chunk {
    /// The beginning of a unit.
    More,
    /// The first so many bytes are good and frame the body.
    Framing(usize),
    /// The first so many bytes are the body's.
    Data(usize),
    /// The first so many bytes are the trailer section, which ends the body.
    Trailers(usize),
    Refused(ChunkFault),
}

/// What is wrong with a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkFault {
    Framing,
    Trailer,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Size,
            extension_bytes: 0,
        }
    }

    /// Reads the next unit: a chunk line, data as far as they are there, the CRLF behind them, or all trailers.
    pub(super) fn advance(&mut self, bytes: &[u8], lines: &mut Lines, limits: &MessageLimits) -> Chunk {
        match &mut self.stage {
            Stage::Size => match chunk_line(bytes) {
                Ok(None) => Chunk::More,
                Ok(Some(line)) => {
                    self.extension_bytes += line.extension_bytes;
                    if self.extension_bytes > MAX_EXTENSIONS_BYTES {
                        return Chunk::Refused(ChunkFault::Framing);
                    }
                    self.stage = match line.size {
                        0 => Stage::Trailers(HeadScan::trailers()),
                        size => Stage::Data(size),
                    };
                    Chunk::Framing(line.bytes)
                }
                Err(fault) => Chunk::Refused(fault),
            },
            Stage::Data(left) => {
                if bytes.is_empty() {
                    return Chunk::More;
                }
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.stage = Stage::DataEnd;
                }
                Chunk::Data(taken)
            }
            Stage::DataEnd => match bytes {
                [] | [b'\r'] => Chunk::More,
                [b'\r', b'\n', ..] => {
                    self.stage = Stage::Size;
                    Chunk::Framing(2)
                }
                _ => Chunk::Refused(ChunkFault::Framing),
            },
            Stage::Trailers(scan) => match scan.scan(bytes, lines, limits) {
                Scanned::More => Chunk::More,
                Scanned::Whole(end) if trailers_allowed(lines, bytes) => Chunk::Trailers(end),
                Scanned::Whole(_) | Scanned::Refused(_) => Chunk::Refused(ChunkFault::Trailer),
            },
        }
    }
}

fn trailers_allowed(lines: &Lines, bytes: &[u8]) -> bool {
    lines
        .fields(bytes)
        .all(|field| field.is_ok_and(|(name, _)| fields::may_be_a_trailer(name)))
}

/// One chunk line that is complete.
#[derive(Debug, PartialEq, Eq)]
struct ChunkLine {
    size: u64,
    /// With its CRLF.
    bytes: usize,
    extension_bytes: usize,
}

/// Where in a chunk line the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    Size,
    /// Behind `;`: before and within the name.
    NameStart,
    Name,
    /// Behind `=`: before and within the value.
    ValueStart,
    Token,
    Quoted,
    Escape,
    QuotedEnd,
    LineFeed,
}

/// Reads `1*16HEXDIG *( ";" token [ "=" ( token / quoted-string ) ] ) CRLF`, without any white space around.
fn chunk_line(bytes: &[u8]) -> Result<Option<ChunkLine>, ChunkFault> {
    let (mut state, mut size, mut digits) = (In::Size, 0_u64, 0_usize);
    for (at, &byte) in bytes.iter().enumerate() {
        let ends =
            matches!(state, In::Size if digits > 0) || matches!(state, In::Name | In::Token | In::QuotedEnd);
        state = match (state, byte) {
            (In::LineFeed, b'\n') => {
                let extension_bytes = at - 1 - digits;
                return Ok(Some(ChunkLine {
                    size,
                    bytes: at + 1,
                    extension_bytes,
                }));
            }
            (_, b'\r') if ends => In::LineFeed,
            (_, b';') if ends => In::NameStart,
            (In::Size, byte) if digits < MAX_SIZE_DIGITS => {
                let digit = char::from(byte).to_digit(16).ok_or(ChunkFault::Framing)?;
                digits += 1;
                // At most 16 digits of 4 bits: nothing is shifted out.
                size = (size << 4) | u64::from(digit);
                In::Size
            }
            (In::Name, b'=') => In::ValueStart,
            (In::NameStart | In::Name, byte) if syntax::is_token_byte(byte) => In::Name,
            (In::ValueStart, b'"') => In::Quoted,
            (In::ValueStart | In::Token, byte) if syntax::is_token_byte(byte) => In::Token,
            (In::Quoted, b'"') => In::QuotedEnd,
            (In::Quoted, b'\\') => In::Escape,
            (In::Quoted | In::Escape, byte) if syntax::is_text(&[byte]) => In::Quoted,
            _ => return Err(ChunkFault::Framing),
        };
        if state != In::LineFeed && at + 1 > digits + MAX_EXTENSION_BYTES {
            return Err(ChunkFault::Framing);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_lines_that_are_read() {
        for (line, size, extension_bytes) in [
            ("0\r\n", 0, 0),
            ("5\r\nhello", 5, 0),
            ("aF\r\n", 0xaf, 0),
            ("ffffffffffffffff\r\n", u64::MAX, 0),
            ("000000000000000a\r\n", 10, 0),
            ("5;a\r\n", 5, 2),
            ("5;a=b;c=\"d;\\\" \t\"\r\n", 5, 15),
        ] {
            let read = chunk_line(line.as_bytes()).expect("accepted").expect("whole");
            assert_eq!(
                (read.size, read.extension_bytes),
                (size, extension_bytes),
                "{line:?}"
            );
            for end in 0..line.find('\n').expect("a line") {
                assert_eq!(
                    chunk_line(&line.as_bytes()[..end]),
                    Ok(None),
                    "{line:?} up to {end}"
                );
            }
        }
    }

    #[test]
    fn chunk_lines_that_are_refused() {
        for line in [
            "\r\n",
            "\n",
            "5\n",
            "5\r5",
            " 5\r\n",
            "5 \r\n",
            "5 ;a\r\n",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            "5g\r\n",
            "00000000000000005\r\n",
            "10000000000000000\r\n",
            "5;\r\n",
            "5;;a\r\n",
            "5; a\r\n",
            "5;a =b\r\n",
            "5;a=\r\n",
            "5;a=b c\r\n",
            "5;a=\"b\n",
            "5;a=\"b\r\n",
            "5;a=\"b\"c\r\n",
            "5;a=\"\0\"\r\n",
            "5;a\0\r\n",
            "5;=a\r\n",
            ";a\r\n",
            "5,5\r\n",
        ] {
            assert_eq!(chunk_line(line.as_bytes()), Err(ChunkFault::Framing), "{line:?}");
        }
    }

    #[test]
    fn extensions_are_bounded_per_chunk_and_per_body() {
        let line = |n: usize| format!("5;{}\r\n", "a".repeat(n));
        assert!(chunk_line(line(MAX_EXTENSION_BYTES - 1).as_bytes()).is_ok());
        assert_eq!(
            chunk_line(line(MAX_EXTENSION_BYTES).as_bytes()),
            Err(ChunkFault::Framing)
        );

        let chunk = format!("{}hello\r\n", line(255));
        let mut chunked = Chunked::new();
        let refused = (0..MAX_EXTENSIONS_BYTES).position(|_| {
            let mut rest = chunk.as_bytes();
            while !rest.is_empty() {
                match chunked.advance(rest, &mut Lines::default(), &MessageLimits::default()) {
                    Chunk::Framing(taken) | Chunk::Data(taken) => rest = &rest[taken..],
                    Chunk::Refused(ChunkFault::Framing) => return true,
                    other => panic!("{other:?}"),
                }
            }
            false
        });
        assert_eq!(refused, Some(63));
    }
}
