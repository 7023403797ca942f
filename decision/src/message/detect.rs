//! Which protocol a connection speaks, told by its first bytes.

/// What a client sends first on an HTTP/2 connection (RFC 9113 section 3.4).
pub const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many bytes [`detect`] looks at; with so many it never answers [`Detected::NeedMore`].
pub const LOOK_BYTES: usize = HTTP2_PREFACE.len();

/// A protocol, as far as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// A method and a space.
    Http1,
    /// The whole connection preface.
    Http2,
    /// A TLS handshake record.
    Tls,
    /// None of these.
    Opaque,
    /// The bytes so far begin one of these.
    NeedMore,
}

/// Tells the protocol by the first bytes. The answer to a longer input only ever replaces [`Detected::NeedMore`].
///
/// A method is told by 1 to 23 of `A-Z` and `-`, as all registered methods are; text protocols that begin in lower
/// case stay opaque.
pub fn detect(first: &[u8]) -> Detected {
    let look = first.get(..LOOK_BYTES).unwrap_or(first);
    if look == HTTP2_PREFACE {
        return Detected::Http2;
    }
    if HTTP2_PREFACE.starts_with(look) {
        return Detected::NeedMore;
    }
    match look {
        [0x16] => return Detected::NeedMore,
        [0x16, 0x03, ..] => return Detected::Tls,
        _ => {}
    }
    match look
        .iter()
        .position(|byte| !(byte.is_ascii_uppercase() || *byte == b'-'))
    {
        Some(end) if end > 0 && look.get(end) == Some(&b' ') => Detected::Http1,
        None if look.len() < LOOK_BYTES => Detected::NeedMore,
        _ => Detected::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn protocols_by_their_first_bytes() {
        for (first, detected) in [
            (&b""[..], Detected::NeedMore),
            (b"GET / HTTP/1.1\r\n", Detected::Http1),
            (b"VERSION-CONTROL ", Detected::Http1),
            (b"PRI", Detected::NeedMore),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Detected::NeedMore),
            (HTTP2_PREFACE, Detected::Http2),
            (b"PRI * HTTP/1.1\r\n", Detected::Http1),
            (b"PRINT", Detected::NeedMore),
            (b"\x16", Detected::NeedMore),
            (b"\x16\x03\x01\x02\x00", Detected::Tls),
            (b"\x16\x02", Detected::Opaque),
            (b"get / HTTP/1.1\r\n", Detected::Opaque),
            (b" GET / HTTP/1.1", Detected::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Detected::Opaque),
            (b"AAAAAAAAAAAAAAAAAAAAAAAA", Detected::Opaque),
            (b"\0\0\0", Detected::Opaque),
        ] {
            assert_eq!(detect(first), detected, "{:?}", String::from_utf8_lossy(first));
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_an_answer(bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            "[A-Z-]{0,30}[ /a-z]{0,3}".prop_map(String::into_bytes),
            (0..=24_usize, any::<u8>()).prop_map(|(n, byte)| [&HTTP2_PREFACE[..n], &[byte]].concat()),
        ]) {
            let whole = detect(&bytes);
            for end in 0..bytes.len() {
                let part = detect(&bytes[..end]);
                prop_assert!(part == whole || part == Detected::NeedMore);
            }
            prop_assert!(bytes.len() < LOOK_BYTES || whole != Detected::NeedMore);
        }
    }
}
