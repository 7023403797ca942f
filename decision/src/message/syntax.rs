//! The grammar of RFC 9110 section 5 in bytes: lines, tokens, field values, lists and numbers.

use std::ops::Range;

use http::{HeaderMap, Version};

/// One field as it stands in a head: its name and its value without the surrounding white space.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// A line that is no field: a name that is no token, a control byte, a fold, or a wrong line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedField;

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// A token has at least one byte (RFC 9110 section 5.6.2).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// Printable ASCII, space, tab and bytes over 127: no CR, LF, NUL or other control byte.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    none_is(bytes, |byte| ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f))
}

/// Whether no byte is bad. `bad` has no branch, so that the compiler makes vector code of it.
#[inline]
pub(crate) fn none_is(bytes: &[u8], bad: impl Fn(u8) -> bool + Copy) -> bool {
    // Whole chunks, of which the last may overlap the one before: no byte is looked at alone but in the shortest.
    if let (chunks, Some(last)) = (bytes.as_chunks::<16>().0, bytes.last_chunk::<16>()) {
        chunks.iter().all(|chunk| none_of_chunk_is(chunk, bad)) && none_of_chunk_is(last, bad)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        none_of_chunk_is(first, bad) & none_of_chunk_is(last, bad)
    } else {
        !bytes.iter().any(|byte| bad(*byte))
    }
}

#[inline]
fn none_of_chunk_is<const N: usize>(chunk: &[u8; N], bad: impl Fn(u8) -> bool) -> bool {
    !chunk.iter().fold(false, |found, byte| found | bad(*byte))
}

/// Removes optional white space at both ends.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    trim_start(trim_end(bytes))
}

fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The elements of a comma-separated list, trimmed, empty ones included.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}

/// An unsigned decimal number of digits alone.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Splits one line of a head, without its CRLF, into name and value.
pub(crate) fn field(line: &[u8]) -> Result<Field<'_>, MalformedField> {
    let (colon, value) = split_field(line)?;
    let part = |range: Range<usize>| line.get(range).ok_or(MalformedField);
    Ok((part(0..colon)?, part(value)?))
}

/// Where the name ends in a line of a head, and where its value stands.
pub(crate) fn split_field(line: &[u8]) -> Result<(usize, Range<usize>), MalformedField> {
    let colon = line.iter().position(|byte| !is_token_byte(*byte));
    let colon = colon.filter(|colon| *colon > 0 && line.get(*colon) == Some(&b':'));
    let colon = colon.ok_or(MalformedField)?;
    let behind = line.get(colon + 1..).unwrap_or_default();
    let value = trim_end(behind);
    let end = colon + 1 + value.len();
    let value = trim_start(value);
    if is_text(value) {
        Ok((colon, end - value.len()..end))
    } else {
        Err(MalformedField)
    }
}

/// The field lines of an HTTP/1 head or trailer section, up to its empty line.
#[derive(Debug, Clone)]
pub struct FieldLines<'a> {
    rest: &'a [u8],
}

impl<'a> FieldLines<'a> {
    /// Of the bytes after the start line, or of a trailer section, with the empty line.
    pub fn new(lines: &'a [u8]) -> Self {
        Self { rest: lines }
    }
}

impl<'a> Iterator for FieldLines<'a> {
    type Item = Result<Field<'a>, MalformedField>;

    fn next(&mut self) -> Option<Self::Item> {
        match first_line(self.rest) {
            Some(([], _)) => None,
            Some((line, rest)) => {
                self.rest = rest;
                Some(field(line))
            }
            None => {
                self.rest = b"\r\n";
                Some(Err(MalformedField))
            }
        }
    }
}

/// Splits the first line off, without its CRLF.
pub(crate) fn first_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = bytes.split_at_checked(memchr::memchr(b'\n', bytes)? + 1)?;
    Some((line.strip_suffix(b"\r\n")?, rest))
}

/// The versions that HTTP/1 start lines may carry.
pub(crate) fn http1_version(text: &[u8]) -> Option<Version> {
    match text {
        b"HTTP/1.1" => Some(Version::HTTP_11),
        b"HTTP/1.0" => Some(Version::HTTP_10),
        _ => None,
    }
}

/// Decoded fields in the shape of raw ones.
pub(crate) fn map_fields(headers: &HeaderMap) -> impl Iterator<Item = Result<Field<'_>, MalformedField>> {
    headers
        .iter()
        .map(|(name, value)| Ok((name.as_str().as_bytes(), value.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_within_64_bits() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for text in [
            "",
            "+1",
            "-1",
            "0x10",
            "1 2",
            "1,1",
            "18446744073709551616",
            "1.0",
            "\u{663}",
        ] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn fields_are_tokens_and_text() {
        assert_eq!(field(b"a: \t b c\t "), Ok((&b"a"[..], &b"b c"[..])));
        assert_eq!(field(b"a:"), Ok((&b"a"[..], &b""[..])));
        for line in [
            "",
            ":",
            ": b",
            "a",
            "a : b",
            " a: b",
            "\ta: b",
            "a\0: b",
            "a: \0",
            "a: b\rc",
            "a: b\x7f",
            "(a): b",
            "\u{e9}: b",
        ] {
            assert_eq!(field(line.as_bytes()), Err(MalformedField), "{line:?}");
        }
    }
}
