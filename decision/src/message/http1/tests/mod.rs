//! Messages fed whole: what passes, and what is refused for which reason.

mod properties;
mod reference;
mod requests;
mod responses;

use super::*;

const GET: ResponseTo = ResponseTo {
    head: false,
    upgrade: None,
};

/// Feeds all of `input` at once: the bytes that passed, and the last answer.
fn run(reader: &mut Http1Reader, input: &[u8]) -> (usize, Option<Reason>) {
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
