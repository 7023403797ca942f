//! The protocol detector, and the frame meter behind an HTTP/2 preface.
#![no_main]

use std::time::Instant;

use decision::message::detect::{Detected, HTTP2_PREFACE, LOOK_BYTES, detect};
use decision::message::flood::{FrameBoundary, FrameLimits, FrameMeter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = detect(input);
    for end in 0..input.len().min(LOOK_BYTES) {
        let part = detect(&input[..end]);
        assert!(part == whole || part == Detected::NeedMore);
    }
    assert!(input.len() < LOOK_BYTES || whole != Detected::NeedMore);
    if whole == Detected::Http2 {
        frames(input);
    }
});

fn frames(input: &[u8]) {
    let limits = FrameLimits {
        settings: 3,
        pings: 3,
        priorities: 3,
        resets: 3,
        window_updates: 3,
        empty: 3,
        others: 3,
        continuations: 3,
        header_block_bytes: 300,
        ..FrameLimits::default()
    };
    let now = Instant::now();
    let meter = || FrameMeter::of_client(limits);
    let (mut whole, mut pieces) = (meter(), meter());
    let verdict = whole.feed(input, now);
    let size = usize::from(input[input.len() - 1] % 29) + 1;
    let last = input.chunks(size).map(|piece| pieces.feed(piece, now)).last();
    assert_eq!(last, Some(verdict));
    assert_eq!(pieces.last_stream(), whole.last_stream());

    let (mut whole, mut pieces) = (FrameBoundary::of_client(), FrameBoundary::of_client());
    whole.feed(input);
    input.chunks(size).for_each(|piece| pieces.feed(piece));
    assert_eq!(pieces.at_boundary(), whole.at_boundary());
    assert_eq!(pieces.take_written(), whole.take_written());
    assert!(input.len() > HTTP2_PREFACE.len() || !whole.at_boundary());
}
