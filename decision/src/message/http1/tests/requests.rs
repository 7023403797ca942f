//! Requests.

use std::ops::Range;

use super::run;
use crate::message::http1::*;

fn requests(input: &str) -> (usize, Option<Reason>) {
    run(
        &mut Http1Reader::requests(MessageLimits::default()),
        input.as_bytes(),
    )
}

#[test]
fn requests_that_pass_whole() {
    for input in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "X-y / HTTP/1.1\r\nHOST:a\r\nEmpty:\r\nUtf8: \u{e9}\r\n\r\n",
        "GET http://a/b HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tChunked \r\n\r\n5;a=\"b;c\"\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close,, x-b\r\nTE: trailers\r\n\r\n",
    ] {
        assert_eq!(requests(input), (input.len(), None), "{input:?}");
    }
}

#[test]
fn tunnels_where_they_are_served() {
    use Reason::*;
    let first = |input: &str| {
        let mut reader = Http1Reader::requests(MessageLimits::default()).with_tunnels();
        (reader.read(input.as_bytes()), reader)
    };
    for (target, fields) in [
        ("a:80", "Host: a:80\r\n"),
        // The target counts.
        (
            "a.b:443",
            "Host: elsewhere\r\nProxy-Connection: keep-alive\r\nConnection: close\r\n",
        ),
        ("[::1]:8080", "Host: [::1]:8080\r\nContent-Length: 0\r\n"),
        ("10.0.0.1:1", "Host: 10.0.0.1:1\r\nUpgrade: websocket\r\n"),
    ] {
        let head = format!("CONNECT {target} HTTP/1.1\r\n{fields}\r\n");
        let input = format!("{head}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (unit, mut reader) = first(&input);
        let Unit::Request(at) = unit else {
            panic!("{input:?}: {unit:?}");
        };
        assert!(at.tunnel && at.bytes == head.len(), "{at:?}");
        assert_eq!(&input[at.authority.clone()], target);
        // What follows is no request.
        assert!(reader.awaiting_upgrade() && !reader.mid_message());
        assert_eq!(reader.read(&input.as_bytes()[at.bytes..]), Unit::Incomplete);
    }
    let (unit, _) = first("CONNECT a:80 HTTP/1.0\r\n\r\n");
    assert!(matches!(unit, Unit::Request(RequestAt { tunnel: true, .. })));
    for (line, fields, reason) in [
        ("CONNECT a HTTP/1.1", "Host: a\r\n", BadTarget),
        ("CONNECT a:0 HTTP/1.1", "Host: a\r\n", BadTarget),
        ("CONNECT a:080 HTTP/1.1", "Host: a\r\n", BadTarget),
        ("CONNECT ::1:80 HTTP/1.1", "Host: a\r\n", BadTarget),
        ("CONNECT u@a:80 HTTP/1.1", "Host: a\r\n", BadTarget),
        ("CONNECT / HTTP/1.1", "Host: a\r\n", BadTarget),
        ("CONNECT http://a:80/ HTTP/1.1", "Host: a:80\r\n", BadTarget),
        ("CONNECT a:80 HTTP/1.1", "", BadHost),
        ("CONNECT a:80 HTTP/1.1", "Host: a\r\nHost: a\r\n", BadHost),
        ("CONNECT a:80 HTTP/1.1", "Host: a b\r\n", BadHost),
        (
            "CONNECT a:80 HTTP/1.1",
            "Host: a\r\nContent-Length: 1\r\n",
            AmbiguousLength,
        ),
        (
            "CONNECT a:80 HTTP/1.1",
            "Host: a\r\nTransfer-Encoding: chunked\r\n",
            AmbiguousLength,
        ),
        (
            "CONNECT a:80 HTTP/1.1",
            "Host: a\r\nContent-Length: x\r\n",
            AmbiguousLength,
        ),
    ] {
        let (unit, _) = first(&format!("{line}\r\n{fields}\r\n"));
        assert_eq!(unit, Unit::Refused(reason), "{line} {fields:?}");
    }
    // Its name is case-sensitive, and nothing else is judged otherwise than where there are no tunnels.
    for input in [
        "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "connect a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(first(input).0, Unit::Refused(BadTarget), "{input:?}");
    }
}

#[test]
fn requests_of_which_nothing_passes() {
    use Reason::*;
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    for (input, reason) in [
        // Lengths and codings.
        (
            get("Content-Length: 1\r\nTransfer-Encoding: chunked"),
            AmbiguousLength,
        ),
        (
            get("Transfer-Encoding: chunked\r\nContent-Length: 1"),
            AmbiguousLength,
        ),
        (get("Content-Length: 1\r\nContent-Length: 2"), AmbiguousLength),
        (get("Content-Length: 1\r\nContent-Length: 1"), AmbiguousLength),
        (get("Content-Length: 5, 5"), AmbiguousLength),
        (get("Content-Length: +5"), AmbiguousLength),
        (get("Content-Length: -5"), AmbiguousLength),
        (get("Content-Length: 0x5"), AmbiguousLength),
        (get("Content-Length: 5a"), AmbiguousLength),
        (get("Content-Length: 5 5"), AmbiguousLength),
        (get("Content-Length:"), AmbiguousLength),
        (get("Content-Length: 18446744073709551616"), AmbiguousLength),
        (get("Transfer-Encoding: chunked, chunked"), BadTransferEncoding),
        (
            get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            BadTransferEncoding,
        ),
        (get("Transfer-Encoding:"), BadTransferEncoding),
        (get("Transfer-Encoding: chunked,"), BadTransferEncoding),
        (get("Transfer-Encoding: chunked;q=1"), BadTransferEncoding),
        (get("Transfer-Encoding: \"chunked\""), BadTransferEncoding),
        (get("Transfer-Encoding: chun ked"), BadTransferEncoding),
        (get("Transfer-Encoding: gzip, chunked"), UnknownTransferCoding),
        (get("Transfer-Encoding: chunked, gzip"), UnknownTransferCoding),
        (
            get("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
            UnknownTransferCoding,
        ),
        (get("Transfer-Encoding: identity"), UnknownTransferCoding),
        (get("Transfer-Encoding: xchunked"), UnknownTransferCoding),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            BadTransferEncoding,
        ),
        // Lines, names and values.
        (get("A: b\rc"), MalformedRequest),
        (get("A: b\r"), MalformedRequest),
        (get("A: b\nC: d"), MalformedRequest),
        ("GET / HTTP/1.1\nHost: a\n\n".into(), MalformedRequest),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".into(), MalformedRequest),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n".into(), MalformedRequest),
        (get("A: b\0c"), MalformedRequest),
        (get("A\0: b"), MalformedRequest),
        (get("A: b\x01"), MalformedRequest),
        (get("A: b\x7f"), MalformedRequest),
        (get("A: b\r\n c"), MalformedRequest),
        (get("A: b\r\n\tc"), MalformedRequest),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(), MalformedRequest),
        (get("A : b"), MalformedRequest),
        (get("A b: c"), MalformedRequest),
        (get("(A): b"), MalformedRequest),
        (get("\u{e9}: b"), MalformedRequest),
        (get(": b"), MalformedRequest),
        (get("A"), MalformedRequest),
        // Request lines.
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n".into(), MalformedRequest),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("GET / x HTTP/1.1\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("GET /\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("GET\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("GET / http/1.1\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), MalformedRequest),
        (
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            MalformedRequest,
        ),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), MalformedRequest),
        ("\u{16}\u{3}\u{1}\u{2}".into(), MalformedRequest),
        ("x".repeat(65), MalformedRequest),
        // Whom it is for.
        ("GET / HTTP/1.1\r\n\r\n".into(), BadHost),
        ("GET / HTTP/1.0\r\n\r\n".into(), BadHost),
        (get("Host: a"), BadHost),
        (get("hOST: b"), BadHost),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(), BadHost),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), BadHost),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into(), BadHost),
        ("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n".into(), BadHost),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), BadHost),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n".into(), BadHost),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".into(), BadTarget),
        ("REFUSED * HTTP/1.1\r\n\r\n".into(), BadTarget),
        ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n".into(), BadTarget),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n".into(), BadTarget),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".into(), BadMethod),
        // What it asks for.
        (get("Expect: 200-ok"), BadExpectation),
        (
            get("Expect: 100-continue\r\nExpect: 100-continue"),
            BadExpectation,
        ),
        (get("Connection: upgrade"), BadUpgrade),
        (get("Connection: upgrade\r\nUpgrade:"), BadUpgrade),
        (get("Connection: upgrade\r\nUpgrade: websocket, h2c"), BadUpgrade),
        (
            get("Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket"),
            BadUpgrade,
        ),
        (
            get("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5"),
            BadUpgrade,
        ),
        (
            get("Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked"),
            BadUpgrade,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".into(),
            BadUpgrade,
        ),
        (get("Connection: host"), MalformedRequest),
        (get("Connection: close, Content-Length"), MalformedRequest),
        (get("Connection: transfer-encoding"), MalformedRequest),
        (get("Connection: a b"), MalformedRequest),
    ] {
        let mut reader = Http1Reader::requests(MessageLimits::default());
        assert_eq!(run(&mut reader, input.as_bytes()), (0, Some(reason)), "{input:?}");
        assert!(reader.mid_head() && reader.mid_message());
        assert_eq!(
            reader.advance(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Progress::Refuse(reason),
            "refusal is for good"
        );
        assert_eq!(reader.end_of_input(), Err(reason));
    }
}

#[test]
fn request_bodies_that_are_refused() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (good, bad, reason) in [
        ("", "+5\r\nhello\r\n", Reason::BadChunk),
        ("", " 5\r\nhello\r\n", Reason::BadChunk),
        ("", "0x5\r\nhello\r\n", Reason::BadChunk),
        ("", "5\nhello\r\n", Reason::BadChunk),
        ("", "5 ;a\r\nhello\r\n", Reason::BadChunk),
        ("", "10000000000000005\r\nhello\r\n", Reason::BadChunk),
        ("5\r\nhello", "\nx", Reason::BadChunk),
        ("5\r\nhello", "x\r\n", Reason::BadChunk),
        ("5\r\nhello", "\rx", Reason::BadChunk),
        ("5\r\nhello\r\n", "\r\n", Reason::BadChunk),
        ("5\r\nhello\r\n0\r\n", "\n", Reason::BadTrailer),
        ("0\r\n", "a b: c\r\n\r\n", Reason::BadTrailer),
        ("0\r\n", "a: b\n\r\n", Reason::BadTrailer),
        ("0\r\n", "a: b\r\n c\r\n\r\n", Reason::BadTrailer),
        ("0\r\n", "Content-Length: 5\r\n\r\n", Reason::BadTrailer),
        (
            "0\r\n",
            "a: b\r\nTransfer-Encoding: chunked\r\n\r\n",
            Reason::BadTrailer,
        ),
        ("0\r\n", "hOsT: a\r\n\r\n", Reason::BadTrailer),
        ("0\r\n", "Authorization: a\r\n\r\n", Reason::BadTrailer),
        ("0\r\n", &"a: b\r\n".repeat(101), Reason::BadTrailer),
    ] {
        let input = format!("{head}{good}{bad}");
        let mut reader = Http1Reader::requests(MessageLimits::default());
        assert_eq!(
            run(&mut reader, input.as_bytes()),
            (head.len() + good.len(), Some(reason)),
            "{input:?}"
        );
        assert!(!reader.mid_head() && reader.mid_message());
    }
}

#[test]
fn limits_decide_before_the_head_is_whole() {
    for (input, reason) in [
        (format!("GET /{}", "a".repeat(16 * 1024)), Reason::TargetTooLong),
        (
            format!("GET / HTTP/1.1\r\nHost: {}", "a".repeat(64 * 1024)),
            Reason::HeadTooLarge,
        ),
        (
            format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(101)),
            Reason::TooManyFields,
        ),
    ] {
        let mut reader = Http1Reader::requests(MessageLimits::default());
        assert_eq!(run(&mut reader, input.as_bytes()), (0, Some(reason)));
    }
    for input in [
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(16 * 1024 - 1)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(99)),
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nb: {}\r\n\r\n",
            "a".repeat(64 * 1024 - 32)
        ),
    ] {
        assert_eq!(requests(&input), (input.len(), None));
    }
}

#[test]
fn pipelined_requests_pass_one_by_one() {
    let first = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let second = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let input = format!("{first}{second}GET");
    let mut reader = Http1Reader::requests(MessageLimits::default());
    assert_eq!(reader.advance(input.as_bytes()), Progress::Release(first.len()));
    assert!(!reader.mid_message());
    assert_eq!(
        reader.advance(&input.as_bytes()[first.len()..]),
        Progress::Release(second.len())
    );
    assert_eq!(reader.advance(b"GET"), Progress::Hold);
    assert!(reader.mid_head() && reader.mid_message());
    assert_eq!(reader.end_of_input(), Err(Reason::RequestAborted));
}

#[test]
fn an_upgrade_holds_what_follows_until_it_is_answered() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    let next = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let held = || {
        let mut reader = Http1Reader::requests(MessageLimits::default());
        assert_eq!(
            run(&mut reader, format!("{head}{next}").as_bytes()),
            (head.len(), None)
        );
        assert!(reader.awaiting_upgrade() && !reader.mid_message());
        reader
    };
    let mut reader = held();
    reader.upgraded();
    assert_eq!(run(&mut reader, b"\x81\x05\n\0"), (4, None));
    let mut reader = held();
    reader.not_upgraded();
    assert_eq!(run(&mut reader, next.as_bytes()), (next.len(), None));
    assert_eq!(
        run(&mut reader, b"\x81\x05\n\0"),
        (0, Some(Reason::MalformedRequest))
    );
}

#[test]
fn a_codec_is_told_where_the_parts_stand() {
    let input = b"\r\nPOST http://b:81/x?y HTTP/1.0\r\nhost: \t b:81 \r\nEmpty:\r\nExpect: 100-continue\r\n\
        Content-Length: 7\r\nConnection: Keep-Alive\r\n\r\nhello, POST";
    let mut reader = Http1Reader::requests(MessageLimits::default());
    let Unit::Request(head) = reader.read(input) else {
        panic!("no head");
    };
    let part = |at: Range<usize>| std::str::from_utf8(&input[at]).expect("text");
    assert_eq!(part(head.method), "POST");
    assert_eq!(part(head.target), "http://b:81/x?y");
    assert_eq!(part(head.authority), "b:81");
    assert_eq!(part(head.bytes..input.len()), "hello, POST");
    assert!(head.expects_continue && head.persistent && !head.head);
    let fields: Vec<_> = reader
        .fields()
        .iter()
        .map(|field| (part(field.name()), part(field.value())))
        .collect();
    assert_eq!(
        fields,
        [
            ("host", "b:81"),
            ("Empty", ""),
            ("Expect", "100-continue"),
            ("Content-Length", "7"),
            ("Connection", "Keep-Alive"),
        ]
    );
    assert_eq!(reader.read(&input[head.bytes..]), Unit::Data(7));
    assert!(!reader.mid_message());
}

#[test]
fn connections_that_persist() {
    for (line, expected) in [
        ("HTTP/1.1\r\n", true),
        ("HTTP/1.1\r\nConnection: x, Close\r\n", false),
        ("HTTP/1.0\r\n", false),
        ("HTTP/1.0\r\nConnection: keep-alive\r\n", true),
        ("HTTP/1.0\r\nConnection: keep-alive, close\r\n", false),
    ] {
        let input = format!("GET / {line}Host: a\r\n\r\n");
        let mut reader = Http1Reader::requests(MessageLimits::default());
        let Unit::Request(head) = reader.read(input.as_bytes()) else {
            panic!("no head");
        };
        assert_eq!(head.persistent, expected, "{line:?}");
    }
}
