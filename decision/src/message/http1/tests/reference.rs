//! A naive reader that has the whole input, written from the RFCs with regular expressions and string functions.

use std::sync::LazyLock;

use regex::bytes::Regex;

use crate::message::http1::ResponseTo;
use crate::message::{MessageLimits, fields};

/// What a whole input is: so many good bytes, and then perhaps a fault. What is cut off before its end is undecided.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good(usize),
    Bad(usize),
    Undecided(usize),
}

const TCHAR: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]";
pub(super) static REQUEST_LINE: LazyLock<Regex> =
    LazyLock::new(|| regex(&format!("^({TCHAR}{{1,64}}) ([!-~]+) HTTP/1\\.([01])$")));
static STATUS_LINE: LazyLock<Regex> =
    LazyLock::new(|| regex("^HTTP/1\\.([01]) ([1-5][0-9][0-9])( [\\t\\x20-\\x7e\\x80-\\xff]*)?$"));
static FIELD: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        "^({TCHAR}+):[\\t ]*([\\t\\x20-\\x7e\\x80-\\xff]*?)[\\t ]*$"
    ))
});
static TARGET: LazyLock<Regex> = LazyLock::new(|| {
    regex(r#"^(?:(?i:http)://([^/?]+)(?:/[!"$-;=@-\[\]-_a-~]*)?|/[!"$-;=@-\[\]-_a-~]*)(\?[!$-;=?-~]*)?$"#)
});
static HOST: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^([A-Za-z0-9_~-]+(?:\.[A-Za-z0-9_~-]+)*\.?|\[::1\])(?::([1-9][0-9]{0,4}))?$"));
static CHUNK: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        "^([0-9A-Fa-f]{{1,16}})((?:;{TCHAR}+(?:=(?:{TCHAR}+|\"(?:[\\t !#-\\x5b\\x5d-~\\x80-\\xff]|\\\\[\\t -~\\x80-\\xff])*\"))?)*)$"
    ))
});

fn regex(pattern: &str) -> Regex {
    Regex::new(&format!("(?s-u){pattern}")).expect("a pattern")
}

pub(super) type Fields = Vec<(String, Vec<u8>)>;

/// Lines without their ends, and the length of all of them with the empty line.
pub(super) type Section<'a> = (Vec<&'a [u8]>, usize);

/// The head or section at the beginning of `input`: its lines and its length. `Err`: a bare LF. `None`: no end yet.
pub(super) fn lines(input: &[u8]) -> Result<Option<Section<'_>>, ()> {
    let mut lines = Vec::new();
    let mut rest = input;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = rest[..end].strip_suffix(b"\r").ok_or(())?;
        rest = &rest[end + 1..];
        if line.is_empty() {
            return Ok(Some((lines, input.len() - rest.len())));
        }
        lines.push(line);
    }
    Ok(None)
}

pub(super) fn fields_of(lines: &[&[u8]]) -> Option<Fields> {
    lines
        .iter()
        .map(|line| {
            let found = FIELD.captures(line)?;
            Some((
                String::from_utf8_lossy(&found[1]).to_lowercase(),
                found[2].to_vec(),
            ))
        })
        .collect()
}

fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a [u8]> {
    fields
        .iter()
        .filter(|(field, _)| field == name)
        .map(|(_, value)| value.as_slice())
        .collect()
}

fn elements(fields: &Fields, name: &str) -> Vec<String> {
    let joined = values(fields, name).join(&b","[..]);
    String::from_utf8_lossy(&joined)
        .split(',')
        .map(|element| element.trim_matches([' ', '\t']).to_lowercase())
        .collect()
}

/// `None`: refused.
fn framing(fields: &Fields, http10: bool) -> Option<(Option<u64>, bool)> {
    let (lengths, codings) = (
        values(fields, "content-length"),
        values(fields, "transfer-encoding"),
    );
    let length = match lengths.as_slice() {
        [] => None,
        [digits] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            Some(std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?)
        }
        _ => return None,
    };
    let chunked = match codings.as_slice() {
        [] => false,
        [coding] if coding.eq_ignore_ascii_case(b"chunked") && !http10 && length.is_none() => true,
        _ => return None,
    };
    let options = elements(fields, "connection");
    let token = regex(&format!("^{TCHAR}*$"));
    let forbidden = [
        "host",
        "content-length",
        "transfer-encoding",
        "expect",
        "cookie",
        "authorization",
        "content-type",
    ];
    let fine = options
        .iter()
        .all(|option| token.is_match(option.as_bytes()) && !forbidden.contains(&option.as_str()));
    fine.then_some((length, chunked))
}

fn same_authority(one: &[u8], two: &[u8]) -> bool {
    let normal = |authority: &[u8]| {
        let text = String::from_utf8_lossy(authority).to_lowercase();
        text.strip_suffix(":80").map(str::to_owned).unwrap_or(text)
    };
    normal(one) == normal(two)
}

fn host_is_fine(host: &[u8]) -> bool {
    HOST.captures(host).is_some_and(|found| {
        found
            .get(2)
            .is_none_or(|port| String::from_utf8_lossy(port.as_bytes()).parse::<u16>().is_ok())
    })
}

/// What follows the head of a request.
enum After {
    Length(u64),
    Chunked,
    Upgrade,
}

fn request(lines: &[&[u8]], size: usize, limits: &MessageLimits) -> Option<After> {
    let (first, rest) = lines.split_first()?;
    let found = REQUEST_LINE.captures(first)?;
    let (method, target, http10) = (&found[1], &found[2], &found[3] == b"0");
    let fields = fields_of(rest)?;
    let within = size <= limits.head_bytes
        && fields.len() <= limits.head_fields
        && target.len() <= limits.target_bytes;
    let hosts = values(&fields, "host");
    let asterisk = method == b"OPTIONS" && target == b"*";
    let target_is_fine = asterisk
        || TARGET.captures(target).is_some_and(|found| {
            found.get(1).is_none_or(|authority| {
                host_is_fine(authority.as_bytes())
                    && hosts
                        .iter()
                        .all(|host| same_authority(host, authority.as_bytes()))
            })
        });
    let expects = values(&fields, "expect");
    let expects_fine = expects.len() <= 1
        && expects
            .iter()
            .all(|value| value.eq_ignore_ascii_case(b"100-continue"));
    if !within
        || method == b"CONNECT"
        || hosts.len() != 1
        || !host_is_fine(hosts[0])
        || !target_is_fine
        || !expects_fine
    {
        return None;
    }
    let (length, chunked) = framing(&fields, http10)?;
    if !http10 && elements(&fields, "connection").contains(&"upgrade".to_owned()) {
        let protocols = elements(&fields, "upgrade");
        let token = regex(&format!("^{TCHAR}+(/{TCHAR}+)?$"));
        if !protocols
            .iter()
            .all(|protocol| token.is_match(protocol.as_bytes()))
        {
            return None;
        }
        if protocols.contains(&"websocket".to_owned()) {
            let alone = protocols.len() == 1 && method == b"GET" && !chunked && length.unwrap_or(0) == 0;
            return alone.then_some(After::Upgrade);
        }
    }
    Some(if chunked {
        After::Chunked
    } else {
        After::Length(length.unwrap_or(0))
    })
}

fn chunked_body(input: &[u8], limits: &MessageLimits) -> Verdict {
    let mut at = 0;
    loop {
        let rest = &input[at..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return Verdict::Undecided(at);
        };
        let Some(found) = rest[..end]
            .strip_suffix(b"\r")
            .and_then(|line| CHUNK.captures(line))
        else {
            return Verdict::Bad(at);
        };
        if found[2].len() > 256 {
            return Verdict::Bad(at);
        }
        let size = u64::from_str_radix(&String::from_utf8_lossy(&found[1]), 16).expect("16 digits fit");
        at += end + 1;
        if size == 0 {
            break;
        }
        let left = (input.len() - at) as u64;
        if left < size {
            return Verdict::Undecided(input.len());
        }
        at += size as usize;
        match &input[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [] | [b'\r'] => return Verdict::Undecided(at),
            _ => return Verdict::Bad(at),
        }
    }
    let Ok(section) = lines(&input[at..]) else {
        return Verdict::Bad(at);
    };
    let Some((lines, size)) = section else {
        return Verdict::Undecided(at);
    };
    let allowed = fields_of(&lines).is_some_and(|fields| {
        fields.len() <= limits.head_fields
            && fields
                .iter()
                .all(|(name, _)| fields::may_be_a_trailer(name.as_bytes()))
    });
    if allowed && size <= limits.head_bytes {
        Verdict::Good(at + size)
    } else {
        Verdict::Bad(at)
    }
}

pub(super) fn requests(input: &[u8], limits: &MessageLimits) -> Verdict {
    let mut at = 0;
    loop {
        let rest = &input[at..];
        let skipped = if rest.starts_with(b"\r\n") { 2 } else { 0 };
        let rest = &rest[skipped..];
        if rest.is_empty() {
            return Verdict::Undecided(at);
        }
        let Ok(head) = lines(rest) else {
            return Verdict::Bad(at);
        };
        let Some((lines, size)) = head else {
            return Verdict::Undecided(at);
        };
        let Some(after) = request(&lines, size, limits) else {
            return Verdict::Bad(at);
        };
        at += skipped + size;
        match after {
            After::Upgrade => return Verdict::Good(at),
            After::Length(length) if length > (input.len() - at) as u64 => {
                return Verdict::Undecided(input.len());
            }
            After::Length(length) => at += length as usize,
            After::Chunked => match chunked_body(&input[at..], limits) {
                Verdict::Good(size) => at += size,
                Verdict::Bad(size) => return Verdict::Bad(at + size),
                Verdict::Undecided(size) => return Verdict::Undecided(at + size),
            },
        }
        if at == input.len() {
            return Verdict::Good(at);
        }
    }
}

/// One final response, its interim ones before it, and nothing behind it.
pub(super) fn response(input: &[u8], to: ResponseTo, limits: &MessageLimits) -> Verdict {
    let (mut at, mut interim) = (0, 0);
    loop {
        let Ok(head) = lines(&input[at..]) else {
            return Verdict::Bad(at);
        };
        let Some((lines, size)) = head else {
            return Verdict::Undecided(at);
        };
        let judged = (|| {
            let (first, rest) = lines.split_first()?;
            let found = STATUS_LINE.captures(first)?;
            let status: u16 = String::from_utf8_lossy(&found[2]).parse().ok()?;
            let fields = fields_of(rest)?;
            let http10 = &found[1] == b"0";
            let (length, chunked) = framing(&fields, http10)?;
            let within = size <= limits.head_bytes && fields.len() <= limits.head_fields;
            let empty = !(matches!(status, 100..=199 | 204) && (chunked || length.unwrap_or(0) > 0));
            let switched = elements(&fields, "upgrade") == ["websocket"]
                && elements(&fields, "connection").contains(&"upgrade".to_owned())
                && !http10
                && to.upgrade.is_some();
            (within && empty && (status != 101 || switched)).then_some((status, length, chunked))
        })();
        let Some((status, length, chunked)) = judged else {
            return Verdict::Bad(at);
        };
        at += size;
        let body = match status {
            101 => return Verdict::Good(input.len()),
            100..=199 => {
                interim += 1;
                if interim > limits.interim_responses {
                    return Verdict::Bad(at - size);
                }
                continue;
            }
            _ if to.head || matches!(status, 204 | 304) => Verdict::Good(0),
            _ if chunked => chunked_body(&input[at..], limits),
            _ => match length {
                None => return Verdict::Good(input.len()),
                Some(length) if length > (input.len() - at) as u64 => return Verdict::Undecided(input.len()),
                Some(length) => Verdict::Good(length as usize),
            },
        };
        return match body {
            Verdict::Good(size) if at + size < input.len() => Verdict::Bad(at + size),
            Verdict::Good(size) => Verdict::Good(at + size),
            Verdict::Bad(size) => Verdict::Bad(at + size),
            Verdict::Undecided(size) => Verdict::Undecided(at + size),
        };
    }
}
