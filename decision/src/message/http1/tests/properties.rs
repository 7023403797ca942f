//! The reader against the naive one, and against itself with the input cut anywhere.

use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::reference::{self, Fields, REQUEST_LINE, Verdict, fields_of, lines};
use super::run;
use crate::message::Upgrade;
use crate::message::http1::*;

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

/// What was read, in the words of whoever builds on the reader.
#[derive(Debug, PartialEq)]
enum Told {
    Head {
        line: Vec<String>,
        fields: Fields,
        body: Option<Body>,
    },
    Body(Vec<u8>),
    Trailers(Fields),
    Switched(Vec<u8>),
}

fn fields_at(reader: &Http1Reader, bytes: &[u8]) -> Fields {
    let name = |at: Range<usize>| String::from_utf8_lossy(&bytes[at]).to_lowercase();
    let fields = reader.fields().iter();
    fields
        .map(|field| (name(field.name()), bytes[field.value()].to_vec()))
        .collect()
}

/// Reads `input` unit by unit, as more and more of it arrives: what it was, how many bytes were released, and why
/// no more.
fn tell(reader: &mut Http1Reader, input: &[u8], ends: &[usize]) -> (Vec<Told>, usize, Option<Reason>) {
    let (mut told, mut passed) = (Vec::new(), 0);
    for &end in ends {
        loop {
            let bytes = &input[passed..end];
            let text = |at: Range<usize>| String::from_utf8_lossy(&bytes[at]).into_owned();
            passed += match reader.read(bytes) {
                Unit::Incomplete => break,
                Unit::Refused(reason) => return (told, passed, Some(reason)),
                Unit::Request(head) => {
                    let line = [head.method, head.target, head.authority].map(text);
                    let line = line.into_iter().chain([format!("{:?}", head.version)]).collect();
                    let (fields, body) = (fields_at(reader, bytes), Some(head.body));
                    told.push(Told::Head { line, fields, body });
                    head.bytes
                }
                Unit::Response(head) => {
                    let body = match head.accepted {
                        response::Accepted::Final { body, .. } => Some(body),
                        _ => None,
                    };
                    let line = vec![head.status.to_string()];
                    let fields = fields_at(reader, bytes);
                    told.push(Told::Head { line, fields, body });
                    head.bytes
                }
                Unit::Data(count) => {
                    match told.last_mut() {
                        Some(Told::Body(data)) => data.extend_from_slice(&bytes[..count]),
                        _ => told.push(Told::Body(bytes[..count].to_vec())),
                    }
                    count
                }
                Unit::Framing(count) => count,
                Unit::Trailers(count) => {
                    told.push(Told::Trailers(fields_at(reader, bytes)));
                    count
                }
                Unit::Switched(count) => {
                    match told.last_mut() {
                        Some(Told::Switched(data)) => data.extend_from_slice(&bytes[..count]),
                        _ => told.push(Told::Switched(bytes[..count].to_vec())),
                    }
                    count
                }
            };
        }
    }
    (told, passed, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn units_are_what_may_pass_however_the_input_is_cut(
        input in input(), cuts in proptest::collection::vec(any::<Index>(), 0..12), bytewise in any::<bool>(),
        to in proptest::option::of(response_to()), limits in limits(),
    ) {
        let (passed, refused) = run(&mut reader(to, limits), &input);
        let whole = tell(&mut reader(to, limits), &input, &[input.len()]);
        prop_assert_eq!((whole.1, whole.2), (passed, refused));

        let mut ends: Vec<usize> = if bytewise { (1..=input.len()).collect() } else { cuts.iter().map(|cut| cut.index(input.len() + 1)).collect() };
        ends.push(input.len());
        ends.sort_unstable();
        prop_assert_eq!(tell(&mut reader(to, limits), &input, &ends), whole);
    }

    #[test]
    fn requests_are_judged_as_by_the_naive_reader(input in input(), limits in limits()) {
        let (passed, refused) = run(&mut reader(None, limits), &input);
        let verdict = reference::requests(&input, &limits);
        prop_assert!(agrees(&verdict, passed, refused), "{verdict:?}, but {passed} passed and {refused:?}: {:?}", String::from_utf8_lossy(&input));
    }

    #[test]
    fn responses_are_judged_as_by_the_naive_reader(input in input(), to in response_to(), limits in limits()) {
        let (passed, refused) = run(&mut reader(Some(to), limits), &input);
        let verdict = reference::response(&input, to, &limits);
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
        let Unit::Request(head) = reader.read(&message) else { return Ok(()) };
        let mut slots = [httparse::EMPTY_HEADER; 100];
        let mut parsed = httparse::Request::new(&mut slots);
        let httparse::Status::Complete(size) = parsed.parse(&message).expect("httparse accepts it") else {
            return Err(TestCaseError::fail("httparse wants more"));
        };
        prop_assert_eq!(size, head.bytes);
        let start = if message.starts_with(b"\r\n") { 2 } else { 0 };
        let (split, _) = lines(&message[start..]).expect("right line ends").expect("whole");
        let line = REQUEST_LINE.captures(split[0]).expect("a request line");
        prop_assert_eq!((parsed.method.map(str::as_bytes), parsed.path.map(str::as_bytes)), (Some(&line[1]), Some(&line[2])));
        prop_assert_eq!((&message[head.method], &message[head.target]), (&line[1], &line[2]));
        let theirs: Fields = parsed.headers.iter().map(|field| (field.name.to_lowercase(), field.value.to_vec())).collect();
        prop_assert_eq!(&fields_at(&reader, &message), &theirs);
        prop_assert_eq!(Some(theirs), fields_of(&split[1..]));
    }
}
