//! Sees what an HTTP/2 codec has already dropped when it hands over a request: the `#` in a `:path`.
//!
//! It follows a connection's HPACK state (RFC 7541) and decodes nothing that it need not: no text is kept, an entry
//! is a size and one bit, and an indexed field costs one look.

use std::collections::VecDeque;

/// `SETTINGS_HEADER_TABLE_SIZE` where an endpoint announces none, in bytes.
pub const DEFAULT_TABLE_BYTES: usize = 4096;

/// RFC 7541 section 4.1, in bytes.
const ENTRY_OVERHEAD: usize = 32;
/// `:path` as a plain string and as a Huffman-coded one.
const PATH: &[u8] = b":path";
const PATH_HUFFMAN: &[u8] = &[0xb9, 0x58, 0xd3, 0x3f];

/// What is wrong with a header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockFault {
    /// A `:path` with a `#` in it.
    Fragment,
    /// It is no HPACK, so that nobody can tell what follows.
    Compression,
}

/// One direction of one connection.
#[derive(Debug)]
pub struct PathWatch {
    /// Newest first.
    entries: VecDeque<Entry>,
    bytes: usize,
    max_bytes: usize,
    announced_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// RFC 7541 section 4.1.
    bytes: usize,
    name: Name,
}

#[derive(Debug, Clone, Copy)]
struct Name {
    bytes: usize,
    path: bool,
}

impl PathWatch {
    /// `announced_bytes`: the `SETTINGS_HEADER_TABLE_SIZE` of the endpoint that decodes.
    pub fn new(announced_bytes: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            max_bytes: announced_bytes,
            announced_bytes,
        }
    }

    /// Reads one whole header block. After a fault the state is worthless.
    ///
    /// # Errors
    /// [`BlockFault`].
    pub fn block(&mut self, block: &[u8]) -> Result<(), BlockFault> {
        let mut rest = Rest(block);
        while let Some(first) = rest.peek() {
            match first {
                0b1000_0000.. => {
                    // No entry holds a `#`: the block that brought it was refused.
                    self.name(rest.integer(7)?)?;
                }
                0b0100_0000.. => self.literal(&mut rest, 6, true)?,
                0b0010_0000.. => {
                    let bytes = rest.integer(5)?;
                    if bytes > self.announced_bytes {
                        return Err(BlockFault::Compression);
                    }
                    self.max_bytes = bytes;
                    self.evict(0);
                }
                _ => self.literal(&mut rest, 4, false)?,
            }
        }
        Ok(())
    }

    fn literal(&mut self, rest: &mut Rest<'_>, prefix: u32, indexed: bool) -> Result<(), BlockFault> {
        let name = match rest.integer(prefix)? {
            0 => {
                let text = rest.string()?;
                Name {
                    bytes: text.decoded()?.bytes,
                    path: text.is_path(),
                }
            }
            index => self.name(index)?,
        };
        let value = rest.string()?;
        if !name.path && !indexed {
            return Ok(());
        }
        let value = value.decoded()?;
        if name.path && value.hash_sign {
            return Err(BlockFault::Fragment);
        }
        if indexed {
            let bytes = ENTRY_OVERHEAD + name.bytes + value.bytes;
            self.evict(bytes);
            if bytes <= self.max_bytes {
                self.bytes += bytes;
                self.entries.push_front(Entry { bytes, name });
            }
        }
        Ok(())
    }

    fn name(&self, index: usize) -> Result<Name, BlockFault> {
        let index = index.checked_sub(1).ok_or(BlockFault::Compression)?;
        if let Some(name) = STATIC_NAMES.get(index) {
            return Ok(Name {
                bytes: name.len(),
                path: *name == ":path",
            });
        }
        let entry = self
            .entries
            .get(index - STATIC_NAMES.len())
            .ok_or(BlockFault::Compression)?;
        Ok(entry.name)
    }

    /// Makes room for so many bytes.
    fn evict(&mut self, bytes: usize) {
        while self.bytes + bytes > self.max_bytes {
            let Some(oldest) = self.entries.pop_back() else {
                return;
            };
            self.bytes -= oldest.bytes;
        }
    }
}

/// What is left of a block.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Result<u8, BlockFault> {
        let (first, rest) = self.0.split_first().ok_or(BlockFault::Compression)?;
        self.0 = rest;
        Ok(*first)
    }

    /// RFC 7541 section 5.1, in at most 5 bytes.
    fn integer(&mut self, prefix: u32) -> Result<usize, BlockFault> {
        let mask = (1_usize << prefix) - 1;
        let mut number = usize::from(self.byte()?) & mask;
        if number < mask {
            return Ok(number);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(BlockFault::Compression)
    }

    /// RFC 7541 section 5.2.
    fn string(&mut self) -> Result<Text<'a>, BlockFault> {
        let huffman = self.peek().is_some_and(|byte| byte & 0x80 != 0);
        let length = self.integer(7)?;
        let (raw, rest) = self.0.split_at_checked(length).ok_or(BlockFault::Compression)?;
        self.0 = rest;
        Ok(Text { raw, huffman })
    }
}

/// A string as it was sent.
struct Text<'a> {
    raw: &'a [u8],
    huffman: bool,
}

/// What must be known of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decoded {
    bytes: usize,
    hash_sign: bool,
}

impl Text<'_> {
    fn is_path(&self) -> bool {
        // A text has exactly one Huffman code.
        self.raw == if self.huffman { PATH_HUFFMAN } else { PATH }
    }

    fn decoded(&self) -> Result<Decoded, BlockFault> {
        if self.huffman {
            return huffman(self.raw);
        }
        Ok(Decoded {
            bytes: self.raw.len(),
            hash_sign: self.raw.contains(&b'#'),
        })
    }
}

/// How many symbols have a code of so many bits (RFC 7541 appendix B). The code is canonical: codes of one length
/// are consecutive numbers, in the order of their symbols, and follow those of the length before.
const SYMBOLS_OF_LENGTH: [u32; 31] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4,
];
/// `#` is the first symbol with 12 bits; the last one with 30 bits ends a string and may not be in one.
const HASH_SIGN: (usize, u32) = (12, 0);
const END_OF_STRING: (usize, u32) = (30, 3);

fn huffman(raw: &[u8]) -> Result<Decoded, BlockFault> {
    let mut decoded = Decoded {
        bytes: 0,
        hash_sign: false,
    };
    // The code so far, its length, and the first code of that length.
    let (mut code, mut length, mut first) = (0_u32, 0_usize, 0_u32);
    for byte in raw {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            first = (first + SYMBOLS_OF_LENGTH.get(length).copied().unwrap_or(0)) << 1;
            length += 1;
            let nth = code.wrapping_sub(first);
            if nth
                >= SYMBOLS_OF_LENGTH
                    .get(length)
                    .copied()
                    .ok_or(BlockFault::Compression)?
            {
                continue;
            }
            if (length, nth) == END_OF_STRING {
                return Err(BlockFault::Compression);
            }
            decoded.hash_sign |= (length, nth) == HASH_SIGN;
            decoded.bytes += 1;
            (code, length, first) = (0, 0, 0);
        }
    }
    // Padding is less than a byte of ones (RFC 7541 section 5.2).
    if length < 8 && code + 1 == 1 << length {
        Ok(decoded)
    } else {
        Err(BlockFault::Compression)
    }
}

/// RFC 7541 appendix A, from index 1.
const STATIC_NAMES: [&str; 61] = [
    ":authority",
    ":method",
    ":method",
    ":path",
    ":path",
    ":scheme",
    ":scheme",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];

#[cfg(test)]
mod tests;
