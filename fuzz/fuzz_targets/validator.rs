//! The HTTP/1 reader and the validators behind it, on whole input and on the same input in pieces.
#![no_main]

use decision::message::http1::{Http1Reader, Progress, ResponseTo};
use decision::message::{MessageLimits, Upgrade};
use decision::{Reason, message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [mode, cut, input @ ..] = input else { return };
    let mut whole = Scenario::new(*mode);
    let expected = whole.run(input, input.len().max(1));
    let mut pieces = Scenario::new(*mode);
    let found = pieces.run(input, usize::from(*cut % 61) + 1);
    assert_eq!(found, expected);
    assert_eq!(pieces.reader.mid_head(), whole.reader.mid_head());
    assert_eq!(pieces.reader.reusable(), whole.reader.reusable());
    assert_eq!(pieces.reader.end_of_input(), whole.reader.end_of_input());
});

struct Scenario {
    reader: Http1Reader,
    requests: bool,
    upgrade_accepted: bool,
    max_fields: usize,
}

impl Scenario {
    fn new(mode: u8) -> Self {
        let limits = match mode & 8 {
            0 => MessageLimits::default(),
            _ => MessageLimits { head_bytes: 200, head_fields: 4, target_bytes: 20, interim_responses: 1 },
        };
        let requests = mode & 1 == 0;
        let reader = if requests {
            Http1Reader::requests(limits)
        } else {
            let mut reader = Http1Reader::responses(limits);
            let upgrade = (mode & 4 != 0).then_some(Upgrade::WebSocket);
            reader.expect_response(ResponseTo { head: mode & 2 != 0, upgrade });
            reader
        };
        Self { reader, requests, upgrade_accepted: mode & 16 != 0, max_fields: limits.head_fields }
    }

    /// The bytes that pass when the input comes in pieces of this size, and the reason of a refusal.
    fn run(&mut self, input: &[u8], piece: usize) -> (usize, Option<Reason>) {
        let (mut passed, mut end) = (0, 0);
        loop {
            let between = !self.reader.mid_message() || self.reader.mid_head();
            match self.reader.advance(&input[passed..end]) {
                Progress::Refuse(reason) => return (passed, Some(reason)),
                Progress::Release(bytes) => {
                    if self.requests && between {
                        self.head(&input[passed..end]);
                    }
                    passed += bytes;
                }
                Progress::Hold if self.reader.awaiting_upgrade() => {
                    if !self.upgrade_accepted {
                        self.reader.not_upgraded();
                    } else {
                        // From here on nothing is judged.
                        self.reader.upgraded();
                        self.requests = false;
                    }
                }
                Progress::Hold if end == input.len() => return (passed, None),
                Progress::Hold => {
                    assert!(end - passed <= self.reader.max_held());
                    end = input.len().min(end + piece);
                }
            }
        }
    }

    /// What passes must be a head that the parser behind reads, with one Host and one framing at most.
    fn head(&self, bytes: &[u8]) {
        let mut slots = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut slots);
        let status = request.parse(bytes).expect("an accepted head is read by httparse");
        assert!(status.is_complete() && request.headers.len() <= self.max_fields);
        let count = |name: &str| request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
        assert_eq!(count("host"), 1);
        assert!(count("content-length") + count("transfer-encoding") <= 1);
        for field in request.headers.iter() {
            let (name, value) = (field.name, field.value);
            assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}");
            if name.eq_ignore_ascii_case("content-length") {
                assert!(!value.is_empty() && value.iter().all(u8::is_ascii_digit));
            }
            if name.eq_ignore_ascii_case("transfer-encoding") {
                assert!(value.eq_ignore_ascii_case(b"chunked"));
            }
        }
        let path = request.path.expect("a target");
        assert!(path.starts_with('/') || path == "*" || path[..7].eq_ignore_ascii_case("http://"));
        assert!(!path.contains('#'));
        let _ = message::detect::detect(bytes);
    }
}
