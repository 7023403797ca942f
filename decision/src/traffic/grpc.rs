//! What gRPC says of itself in HTTP fields: content type, `grpc-status`, `grpc-timeout` (gRPC over HTTP/2).

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use model::resilience::GRPC_STATUS_NAMES;

/// The status of a call, in the trailers or in a trailers-only answer.
pub static STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The time that the caller gives a call.
pub static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The status of a call whose time was over.
pub const DEADLINE_EXCEEDED: u8 = 4;
/// The longest `grpc-timeout` there is, over 11,000 years.
const LONGEST: &str = "99999999H";
/// Most digits of a `grpc-timeout`.
const MAX_DIGITS: usize = 8;
/// Units of `grpc-timeout`, finest first, in nanoseconds.
const UNITS: [(char, u128); 6] = [
    ('n', 1),
    ('u', 1_000),
    ('m', 1_000_000),
    ('S', 1_000_000_000),
    ('M', 60 * 1_000_000_000),
    ('H', 3_600 * 1_000_000_000),
];

/// The HTTP status that means the same, by gRPC status.
const HTTP_STATUSES: [u16; 17] = [
    200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
];

/// Whether the content type is `application/grpc`, with or without a `+codec` or parameters. gRPC-Web is
/// another.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const BASE: &[u8] = b"application/grpc";
    let Some(kind) = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) else {
        return false;
    };
    let Some((base, rest)) = kind.split_at_checked(BASE.len()) else {
        return false;
    };
    base.eq_ignore_ascii_case(BASE) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
}

/// The call's status, from trailers or from the head of a trailers-only answer. What is no status counts as
/// UNKNOWN (2); `None` where there is no such field.
pub fn status(fields: &HeaderMap) -> Option<u8> {
    const UNKNOWN: u8 = 2;
    let value = fields.get(&STATUS)?.as_bytes();
    let digits = value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok());
    Some(number.unwrap_or(UNKNOWN))
}

/// The HTTP status that means what a gRPC status means (`google.rpc.Code`), 500 for one that nobody knows.
pub fn http_status(grpc_status: u8) -> u16 {
    HTTP_STATUSES
        .get(usize::from(grpc_status))
        .copied()
        .unwrap_or(500)
}

/// The gRPC status that a caller is given for an HTTP status ("HTTP to gRPC Status Code Mapping").
pub fn of_http_status(status: StatusCode) -> u8 {
    const UNKNOWN: u8 = 2;
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => UNKNOWN,
    }
}

/// `grpc-message`: visible ASCII as it is, and all other bytes percent-encoded.
pub fn message(text: &[u8]) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b' '..=b'~' if *byte != b'%' => encoded.push(char::from(*byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static(""))
}

/// A gRPC status as it is written, `UNAVAILABLE` for 14; `None` for one that nobody knows.
pub fn status_name(grpc_status: u8) -> Option<&'static str> {
    GRPC_STATUS_NAMES.get(usize::from(grpc_status)).copied()
}

/// The time that the caller gives this call; `None` where it says nothing, or nothing readable.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    parse_timeout(headers.get(&TIMEOUT)?.to_str().ok()?)
}

/// Reads `grpc-timeout`: one to eight digits and one of `H M S m u n`. `None` for anything else.
pub fn parse_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let (_, nanos) = UNITS.iter().find(|(letter, _)| *letter == unit)?;
    let total = digits.parse::<u128>().ok()? * nanos;
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    Some(Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(total % 1_000_000_000).ok()?))
}

/// Writes `grpc-timeout` in the finest unit that eight digits hold, rounded down: never more time than there
/// is.
pub fn format_timeout(timeout: Duration) -> HeaderValue {
    let limit = 10u128.pow(MAX_DIGITS as u32);
    let fitting = UNITS
        .iter()
        .map(|(unit, nanos)| (timeout.as_nanos() / nanos, unit))
        .find(|(n, _)| *n < limit);
    fitting
        .and_then(|(number, unit)| HeaderValue::try_from(format!("{number}{unit}")).ok())
        .unwrap_or(HeaderValue::from_static(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(name: &HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(value))])
    }

    proptest! {
        #[test]
        fn a_timeout_is_written_exactly_or_a_little_short(nanos in any::<u64>(), shift in 0u32..64) {
            let timeout = Duration::from_nanos(nanos >> shift);
            let text = format_timeout(timeout);
            let text = text.to_str().expect("ascii");
            let read = parse_timeout(text).expect("readable");
            prop_assert!(text.len() <= 9 && read <= timeout);
            // Eight digits, of which the first may be small where the next unit is 60 or 1000 times greater.
            prop_assert!(timeout - read <= timeout / 100_000, "{text} for {timeout:?}");
        }

        #[test]
        fn every_well_formed_timeout_is_read(number in 0u64..100_000_000, unit in 0usize..6) {
            let letter = ['H', 'M', 'S', 'm', 'u', 'n'][unit];
            let read = parse_timeout(&format!("{number}{letter}")).expect("readable").as_secs_f64();
            let expected = number as f64 * [3600.0, 60.0, 1.0, 1e-3, 1e-6, 1e-9][unit];
            prop_assert!((read - expected).abs() <= expected * 1e-9);
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,12}") {
            let _ = parse_timeout(&text);
        }
    }

    #[test]
    fn other_timeouts_are_not_read() {
        for text in [
            "",
            "1",
            "S",
            "-1S",
            "+1S",
            "1.5S",
            "1s",
            "123456789S",
            "1 S",
            "1SS",
            "१S",
            "1ü",
        ] {
            assert_eq!(parse_timeout(text), None, "{text}");
        }
        assert_eq!(format_timeout(Duration::MAX), LONGEST);
        assert_eq!(format_timeout(Duration::ZERO), "0n");
    }

    #[test]
    fn content_types() {
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC;x=y",
        ] {
            assert!(is_grpc(&with(&CONTENT_TYPE, kind)), "{kind}");
        }
        for kind in [
            "",
            "application/grp",
            "application/grpc-web",
            "application/grpcx",
            "text/application/grpc",
        ] {
            assert!(!is_grpc(&with(&CONTENT_TYPE, kind)), "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn statuses() {
        for (text, expected) in [
            ("0", 0),
            ("14", 14),
            ("-1", 2),
            ("+3", 2),
            ("x", 2),
            ("", 2),
            ("300", 2),
        ] {
            assert_eq!(status(&with(&STATUS, text)), Some(expected), "{text}");
        }
        assert_eq!(status(&HeaderMap::new()), None);
        let codes = [200, 400, 401, 403, 404, 429, 503, 418];
        let codes = codes.map(|code| of_http_status(StatusCode::from_u16(code).expect("a status")));
        assert_eq!(codes, [2, 13, 16, 7, 12, 14, 14, 2]);
        assert_eq!(message("a%b\n é".as_bytes()), "a%25b%0A %C3%A9");
        assert_eq!(
            [0, 14, 4, 8, 13, 99].map(http_status),
            [200, 503, 504, 429, 500, 500]
        );
    }
}
