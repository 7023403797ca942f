//! Responses.

use super::{GET, run};
use crate::message::Upgrade;
use crate::message::http1::*;

fn responses(input: &str, to: ResponseTo) -> (usize, Option<Reason>) {
    let mut reader = Http1Reader::responses(MessageLimits::default());
    reader.expect_response(to);
    run(&mut reader, input.as_bytes())
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
fn limits_decide_before_the_head_is_whole() {
    let input = format!("HTTP/1.1 200 OK\r\na: {}", "a".repeat(64 * 1024));
    assert_eq!(responses(&input, GET), (0, Some(Reason::ResponseHeadTooLarge)));
    let input = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(101));
    assert_eq!(responses(&input, GET), (0, Some(Reason::ResponseHeadTooLarge)));
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
fn a_second_request_before_the_first_is_answered_is_a_fault_of_our_own() {
    let mut reader = Http1Reader::responses(MessageLimits::default());
    reader.expect_response(GET);
    reader.expect_response(GET);
    assert_eq!(
        reader.advance(b"HTTP/1.1 200 OK\r\n"),
        Progress::Refuse(Reason::Internal)
    );
}
