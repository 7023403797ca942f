//! The reader against a naive one that has the whole input, and against itself with the input cut anywhere.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use regex::bytes::Regex;

use super::tests::run;
use super::*;
use crate::message::{Upgrade, fields};

/// What a whole input is: so many good bytes, and then perhaps a fault. What is cut off before its end is undecided.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Good(usize),
    Bad(usize),
    Undecided(usize),
}

const TCHAR: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]";
static REQUEST_LINE: LazyLock<Regex> =
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

type Fields = Vec<(String, Vec<u8>)>;

/// Lines without their ends, and the length of all of them with the empty line.
type Section<'a> = (Vec<&'a [u8]>, usize);

/// The head or section at the beginning of `input`: its lines and its length. `Err`: a bare LF. `None`: no end yet.
fn lines(input: &[u8]) -> Result<Option<Section<'_>>, ()> {
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

fn fields_of(lines: &[&[u8]]) -> Option<Fields> {
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

fn reference_requests(input: &[u8], limits: &MessageLimits) -> Verdict {
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
fn reference_response(input: &[u8], to: ResponseTo, limits: &MessageLimits) -> Verdict {
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

fn small_limits() -> MessageLimits {
    MessageLimits {
        head_bytes: 160,
        head_fields: 5,
        target_bytes: 20,
        interim_responses: 2,
    }
}

const LINES: &[&str] = &[
    "GET / HTTP/1.1",
    "POST /a?b HTTP/1.1",
    "HEAD / HTTP/1.0",
    "OPTIONS * HTTP/1.1",
    "GET http://a/ HTTP/1.1",
    "GET * HTTP/1.1",
    "GET http://a:80?q HTTP/1.1",
    "CONNECT a:80 HTTP/1.1",
    "GET /#x HTTP/1.1",
    "GET /0123456789012345678 HTTP/1.1",
    "GET / HTTP/2.0",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 100 Continue",
    "HTTP/1.1 204 No Content",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 304 x",
    "HTTP/1.1 101 x",
    "HTTP/1.1 200",
];
const FIELDS: &[&str] = &[
    "Host: a",
    "Host: a:80",
    "host: b.c",
    "Host: u@a",
    "Host:",
    "Content-Length: 5",
    "Content-Length: 0",
    "Content-Length: +5",
    "content-length: 5, 5",
    "Content-Length: 18446744073709551615",
    "Transfer-Encoding: chunked",
    "transfer-encoding: CHUNKED",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: gzip",
    "Connection: close",
    "Connection: upgrade",
    "Connection: Upgrade, x",
    "Connection: host",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Expect: 100-continue",
    "Expect: x",
    "X: y",
    "X:",
    "X : y",
    " X: y",
    "X: y\n",
    "X: \0",
    "\u{e9}: x",
    "TE: trailers",
];
const BODIES: &[&str] = &[
    "",
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "0\r\n\r\n",
    "0\r\nHost: a\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nhello",
    "10000000000000000\r\nhello",
    "5\r\nhello!\r\n",
    "\r\n",
    "a;b;c=d\r\n0123456789\r\n00\r\n\r\n",
];

/// A message of parts that are mostly good, sometimes with single bytes changed.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let good = (
        select(&LINES[..3]),
        select(
            &[
                "",
                "X: y\r\n",
                "Content-Length: 5\r\n",
                "Transfer-Encoding: chunked\r\n",
            ][..],
        ),
        select(BODIES),
    )
        .prop_map(|(line, field, body)| format!("{line}\r\nHost: a\r\n{field}\r\n{body}"));
    let framed = select(&[
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nX: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nx",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nx",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "\r\n",
    ][..]).prop_map(str::to_owned);
    let mixed = (
        select(LINES),
        proptest::collection::vec(select(FIELDS), 0..7),
        select(BODIES),
    )
        .prop_map(|(line, fields, body)| {
            let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
            format!("{line}\r\n{fields}\r\n{body}")
        });
    let change = (
        any::<Index>(),
        select(&b"\r\n\0 \t:;,#*0aA\"\\\xff\x7f5/"[..]),
        0..3_u8,
    );
    (
        prop_oneof![2 => good, 3 => framed, 2 => mixed],
        proptest::collection::vec(change, 0..3),
        any::<bool>(),
    )
        .prop_map(|(text, changes, change)| {
            let mut bytes = text.into_bytes();
            for (at, byte, how) in changes.into_iter().filter(|_| change) {
                let at = at.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
                match how {
                    0 if !bytes.is_empty() => bytes[at] = byte,
                    1 if !bytes.is_empty() => drop(bytes.remove(at)),
                    _ => bytes.insert(at, byte),
                }
            }
            bytes
        })
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        9 => proptest::collection::vec(message(), 0..4).prop_map(|messages| messages.concat()),
        1 => proptest::collection::vec(any::<u8>(), 0..100),
    ]
}

fn response_to() -> impl Strategy<Value = ResponseTo> {
    (any::<bool>(), any::<bool>()).prop_map(|(head, upgrade)| ResponseTo {
        head,
        upgrade: upgrade.then_some(Upgrade::WebSocket),
    })
}

fn reader(to: Option<ResponseTo>, limits: MessageLimits) -> Http1Reader {
    match to {
        None => Http1Reader::requests(limits),
        Some(to) => {
            let mut reader = Http1Reader::responses(limits);
            reader.expect_response(to);
            reader
        }
    }
}

fn agrees(verdict: &Verdict, passed: usize, refused: Option<Reason>) -> bool {
    match *verdict {
        Verdict::Good(good) => passed == good && refused.is_none(),
        Verdict::Bad(good) => passed == good && refused.is_some(),
        Verdict::Undecided(good) => passed == good,
    }
}

fn limits() -> impl Strategy<Value = MessageLimits> {
    select(vec![MessageLimits::default(), small_limits()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn requests_are_judged_as_by_the_naive_reader(input in input(), limits in limits()) {
        let (passed, refused) = run(&mut reader(None, limits), &input);
        let verdict = reference_requests(&input, &limits);
        prop_assert!(agrees(&verdict, passed, refused), "{verdict:?}, but {passed} passed and {refused:?}: {:?}", String::from_utf8_lossy(&input));
    }

    #[test]
    fn responses_are_judged_as_by_the_naive_reader(input in input(), to in response_to(), limits in limits()) {
        let (passed, refused) = run(&mut reader(Some(to), limits), &input);
        let verdict = reference_response(&input, to, &limits);
        prop_assert!(agrees(&verdict, passed, refused), "{verdict:?}, but {passed} passed and {refused:?}: {:?}", String::from_utf8_lossy(&input));
    }

    #[test]
    fn cutting_the_input_changes_nothing(
        input in input(), cuts in proptest::collection::vec(any::<Index>(), 0..12), bytewise in any::<bool>(),
        to in proptest::option::of(response_to()), limits in limits(),
    ) {
        let mut whole = reader(to, limits);
        let expected = run(&mut whole, &input);

        let mut ends: Vec<usize> = if bytewise { (1..=input.len()).collect() } else { cuts.iter().map(|cut| cut.index(input.len() + 1)).collect() };
        ends.push(input.len());
        ends.sort_unstable();
        let mut cut = reader(to, limits);
        let (mut passed, mut refused) = (0, None);
        for end in ends {
            let (more, reason) = run(&mut cut, &input[passed..end]);
            passed += more;
            refused = reason;
            if reason.is_some() {
                break;
            }
            prop_assert!(cut.awaiting_upgrade() || end - passed <= cut.max_held(), "{} bytes are held", end - passed);
        }
        prop_assert_eq!((passed, refused), expected);
        prop_assert_eq!((cut.mid_head(), cut.mid_message(), cut.reusable()), (whole.mid_head(), whole.mid_message(), whole.reusable()));
        prop_assert_eq!(cut.end_of_input(), whole.end_of_input());
    }

    /// The codec behind must see the same method, target and fields in a head that passes.
    #[test]
    fn heads_that_pass_are_read_the_same_by_httparse(message in message()) {
        let mut reader = reader(None, MessageLimits::default());
        let Progress::Release(passed) = reader.advance(&message) else { return Ok(()) };
        let mut slots = [httparse::EMPTY_HEADER; 100];
        let mut parsed = httparse::Request::new(&mut slots);
        let httparse::Status::Complete(size) = parsed.parse(&message).expect("httparse accepts it") else {
            return Err(TestCaseError::fail("httparse wants more"));
        };
        prop_assert!(size <= passed);
        let start = if message.starts_with(b"\r\n") { 2 } else { 0 };
        let (head, _) = lines(&message[start..]).expect("right line ends").expect("whole");
        let line = REQUEST_LINE.captures(head[0]).expect("a request line");
        prop_assert_eq!((parsed.method.map(str::as_bytes), parsed.path.map(str::as_bytes)), (Some(&line[1]), Some(&line[2])));
        let theirs: Fields = parsed.headers.iter().map(|field| (field.name.to_lowercase(), field.value.to_vec())).collect();
        prop_assert_eq!(Some(theirs), fields_of(&head[1..]));
    }
}
