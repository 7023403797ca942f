//! Tables of what is refused; [`super::properties`] holds the reader against a naive one.

use super::*;
use crate::message::Upgrade;

/// Feeds all of `input` at once: the bytes that passed, and the last answer.
pub(super) fn run(reader: &mut Http1Reader, input: &[u8]) -> (usize, Option<Reason>) {
    let mut passed = 0;
    loop {
        match reader.advance(&input[passed..]) {
            Progress::Release(bytes) => {
                assert!(bytes > 0);
                passed += bytes;
            }
            Progress::Hold => return (passed, None),
            Progress::Refuse(reason) => return (passed, Some(reason)),
        }
    }
}

fn requests(input: &str) -> (usize, Option<Reason>) {
    run(
        &mut Http1Reader::requests(MessageLimits::default()),
        input.as_bytes(),
    )
}

fn responses(input: &str, to: ResponseTo) -> (usize, Option<Reason>) {
    let mut reader = Http1Reader::responses(MessageLimits::default());
    reader.expect_response(to);
    run(&mut reader, input.as_bytes())
}

const GET: ResponseTo = ResponseTo {
    head: false,
    upgrade: None,
};

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
    let input = format!("HTTP/1.1 200 OK\r\na: {}", "a".repeat(64 * 1024));
    assert_eq!(responses(&input, GET), (0, Some(Reason::ResponseHeadTooLarge)));
    let input = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(101));
    assert_eq!(responses(&input, GET), (0, Some(Reason::ResponseHeadTooLarge)));
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
fn responses_that_pass_whole() {
    let head = ResponseTo {
        head: true,
        upgrade: None,
    };
    let websocket = ResponseTo {
        head: false,
        upgrade: Some(Upgrade::WebSocket),
    };
    for (input, to, reusable) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", GET, true),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", GET, true),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
            GET,
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end\n\0", GET, false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", GET, false),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
            GET,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
            GET,
            false,
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            GET,
            true,
        ),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", GET, true),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            GET,
            true,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", head, true),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            head,
            true,
        ),
        (
            "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n\x01\x02\n",
            websocket,
            false,
        ),
        ("HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\nno", websocket, true),
    ] {
        let mut reader = Http1Reader::responses(MessageLimits::default());
        assert!(reader.reusable());
        reader.expect_response(to);
        assert!(!reader.reusable());
        assert_eq!(
            run(&mut reader, input.as_bytes()),
            (input.len(), None),
            "{input:?}"
        );
        assert_eq!(reader.reusable(), reusable, "{input:?}");
        assert_eq!(reader.end_of_input(), Ok(()), "{input:?}");
    }
}

#[test]
fn responses_of_which_nothing_passes() {
    use Reason::*;
    let websocket = ResponseTo {
        head: false,
        upgrade: Some(Upgrade::WebSocket),
    };
    let answer = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
    let switch = |fields: &str| format!("HTTP/1.1 101 Go\r\n{fields}\r\n\r\n");
    for (input, to, reason) in [
        (
            answer("Content-Length: 1\r\nContent-Length: 2"),
            GET,
            AmbiguousResponseLength,
        ),
        (
            answer("Content-Length: 1\r\nContent-Length: 1"),
            GET,
            AmbiguousResponseLength,
        ),
        (answer("Content-Length: 1, 1"), GET, AmbiguousResponseLength),
        (answer("Content-Length: -1"), GET, AmbiguousResponseLength),
        (
            answer("Content-Length: 1\r\nTransfer-Encoding: chunked"),
            GET,
            AmbiguousResponseLength,
        ),
        (
            answer("Transfer-Encoding: chunked, chunked"),
            GET,
            BadResponseCoding,
        ),
        (answer("Transfer-Encoding: gzip, chunked"), GET, BadResponseCoding),
        (answer("Transfer-Encoding: identity"), GET, BadResponseCoding),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            GET,
            BadResponseCoding,
        ),
        (answer("A: b\r\n c"), GET, MalformedResponse),
        (answer("A : b"), GET, MalformedResponse),
        (answer("A: b\nC: d"), GET, MalformedResponse),
        (answer("A: b\0"), GET, MalformedResponse),
        (answer("Connection: content-length"), GET, MalformedResponse),
        ("HTTP/1.1 200 OK\n\n".into(), GET, MalformedResponse),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n".into(), GET, MalformedResponse),
        ("SSH-2.0-x\r\n".into(), GET, MalformedResponse),
        ("HTTP/2".into(), GET, MalformedResponse),
        (
            switch("Connection: upgrade\r\nUpgrade: websocket"),
            GET,
            UnaskedUpgrade,
        ),
        (
            switch("Connection: upgrade\r\nUpgrade: h2c"),
            websocket,
            UnaskedUpgrade,
        ),
        (switch("Upgrade: websocket"), websocket, UnaskedUpgrade),
        (switch("Connection: upgrade"), websocket, UnaskedUpgrade),
        (
            switch("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5"),
            websocket,
            ExcessResponse,
        ),
        (
            "HTTP/1.0 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".into(),
            websocket,
            UnaskedUpgrade,
        ),
        (
            "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello".into(),
            GET,
            ExcessResponse,
        ),
        (
            "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            GET,
            ExcessResponse,
        ),
        (
            "HTTP/1.1 100 Go\r\nContent-Length: 5\r\n\r\nhello".into(),
            GET,
            ExcessResponse,
        ),
    ] {
        let mut reader = Http1Reader::responses(MessageLimits::default());
        reader.expect_response(to);
        assert_eq!(run(&mut reader, input.as_bytes()), (0, Some(reason)), "{input:?}");
        assert!(!reader.reusable());
    }
}

#[test]
fn what_follows_a_response_is_refused() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let input = format!("{answer}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(
            responses(&input, GET),
            (answer.len(), Some(Reason::ExcessResponse)),
            "{answer:?}"
        );
    }
    let mut reader = Http1Reader::responses(MessageLimits::default());
    assert_eq!(
        reader.advance(b"HTTP/1.1 200 OK\r\n"),
        Progress::Refuse(Reason::ExcessResponse)
    );
}

#[test]
fn interim_responses_are_counted_per_request() {
    let interim = "HTTP/1.1 102 Processing\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut reader = Http1Reader::responses(MessageLimits::default());
    for _ in 0..2 {
        reader.expect_response(GET);
        let input = format!("{}{last}", interim.repeat(8));
        assert_eq!(run(&mut reader, input.as_bytes()), (input.len(), None));
    }
    reader.expect_response(GET);
    let input = interim.repeat(9);
    assert_eq!(
        run(&mut reader, input.as_bytes()),
        (interim.len() * 8, Some(Reason::TooManyInterim))
    );
}

#[test]
fn input_that_ends_too_early() {
    let end = |input: &str| {
        let mut reader = Http1Reader::requests(MessageLimits::default());
        assert_eq!(run(&mut reader, input.as_bytes()).1, None);
        reader.end_of_input()
    };
    assert_eq!(end(""), Ok(()));
    assert_eq!(end("\r\n"), Ok(()));
    assert_eq!(end("G"), Err(Reason::RequestAborted));
    assert_eq!(
        end("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell"),
        Err(Reason::RequestAborted)
    );
    assert_eq!(
        end("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"),
        Err(Reason::RequestAborted)
    );

    let end = |input: &str| {
        let mut reader = Http1Reader::responses(MessageLimits::default());
        reader.expect_response(GET);
        assert_eq!(run(&mut reader, input.as_bytes()).1, None);
        reader.end_of_input()
    };
    assert_eq!(end(""), Err(Reason::ConnectionReset));
    assert_eq!(end("HTTP/1.1 100 Continue\r\n\r\n"), Err(Reason::ConnectionReset));
    assert_eq!(end("HTTP/1.1 200 OK\r\n"), Err(Reason::ConnectionReset));
    assert_eq!(
        end("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"),
        Err(Reason::ResponseIncomplete)
    );
    assert_eq!(
        end("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"),
        Err(Reason::ResponseIncomplete)
    );
    assert_eq!(
        Http1Reader::responses(MessageLimits::default()).end_of_input(),
        Ok(())
    );
}

#[test]
fn a_second_request_before_the_first_is_answered_is_a_fault_of_our_own() {
    let mut reader = Http1Reader::responses(MessageLimits::default());
    reader.expect_response(GET);
    reader.expect_response(GET);
    assert_eq!(
        reader.advance(b"HTTP/1.1 200 OK\r\n"),
        Progress::Refuse(Reason::Internal)
    );
}
