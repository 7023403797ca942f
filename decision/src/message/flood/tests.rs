use super::*;
use crate::Reason;
use proptest::prelude::*;
use std::time::Duration;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = crate::message::detect::HTTP2_PREFACE;
/// `:method: GET`, `:path: /`.
const BLOCK: &[u8] = &[0x82, 0x84];

fn fed(frames: &[Vec<u8>]) -> Result<(), Excess> {
    let mut meter = FrameMeter::of_client(FrameLimits::default());
    meter.feed(&[PREFACE.to_vec(), frames.concat()].concat(), Instant::now())
}

fn open(stream: u32) -> Vec<u8> {
    frame(0x1, 0x5, stream, BLOCK)
}

#[test]
fn each_kind_has_its_allowance() {
    for (one, allowed, excess) in [
        (frame(0x4, 0, 0, &[]), 100, Excess::Settings),
        (frame(0x4, 1, 0, &[]), 100, Excess::Settings),
        (frame(0x6, 0, 0, &[0; 8]), 200, Excess::Pings),
        (frame(0x2, 0, 1, &[0; 5]), 1_000, Excess::Priorities),
        (frame(0x3, 0, 1, &[0; 4]), 500, Excess::Resets),
        (frame(0x8, 0, 0, &[0, 0, 0, 255]), 2_000, Excess::WindowUpdates),
        (frame(0x0, 0, 1, &[]), 100, Excess::EmptyFrames),
        (frame(0x0, 0x8, 1, &[3, 0, 0, 0]), 100, Excess::EmptyFrames),
        (frame(0x1, 0, 1, &[]), 100, Excess::EmptyFrames),
        (
            frame(0x1, 0x28, 1, &[1, 0, 0, 0, 0, 0, 0]),
            100,
            Excess::EmptyFrames,
        ),
        (frame(0x7, 0, 0, &[0; 8]), 200, Excess::Others),
        (frame(0xff, 0, 0, &[]), 200, Excess::Others),
        (frame(0x9, 0, 1, &[0x82]), 16, Excess::Continuations),
        (frame(0x5, 0x4, 1, BLOCK), 0, Excess::Push),
    ] {
        assert_eq!(fed(&vec![one.clone(); allowed]), Ok(()), "{excess}");
        assert_eq!(fed(&vec![one; allowed + 1]), Err(excess));
    }
}

#[test]
fn useful_work_pays_for_control_frames() {
    let ping = frame(0x6, 0, 0, &[0; 8]);
    let pairs = |useful: &dyn Fn(u32) -> Vec<u8>| {
        (0..1_000)
            .flat_map(|n| [useful(n), ping.clone()])
            .collect::<Vec<_>>()
    };
    assert_eq!(fed(&pairs(&|n| open(2 * n + 1))), Ok(()));
    assert_eq!(fed(&pairs(&|_| frame(0x0, 0, 1, b"x"))), Ok(()));
    assert_eq!(fed(&pairs(&|_| frame(0x0, 1, 1, b""))), Err(Excess::Pings));
    assert_eq!(
        fed(&vec![frame(0x8, 0, 0, &[0, 0, 1, 0]); 5_000]),
        Ok(()),
        "real window updates are free"
    );

    let mut meter = FrameMeter::of_server(FrameLimits::default());
    let now = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(meter.feed(&ping, now), Ok(()));
        assert_eq!(
            meter.wrote(
                Written {
                    useful: 1,
                    provoked_resets: 0
                },
                now
            ),
            Ok(())
        );
    }
}

#[test]
fn opening_streams_does_not_pay_for_resetting_them() {
    let reset = |stream| frame(0x3, 0, stream, &[0, 0, 0, 8]);
    let rapid: Vec<_> = (0..1_100)
        .flat_map(|n| [open(2 * n + 1), reset(2 * n + 1)])
        .collect();
    assert_eq!(fed(&rapid), Err(Excess::Resets));
    let with_trailers: Vec<_> = (0..1_100)
        .flat_map(|n| [open(2 * n + 1), open(2 * n + 1), reset(2 * n + 1)])
        .collect();
    assert_eq!(fed(&with_trailers), Err(Excess::Resets));
    let every_third: Vec<_> = (0..9_000)
        .flat_map(|n| {
            if n % 3 == 0 {
                vec![open(2 * n + 1), reset(2 * n + 1)]
            } else {
                vec![open(2 * n + 1)]
            }
        })
        .collect();
    assert_eq!(fed(&every_third), Ok(()));
}

#[test]
fn resets_that_we_are_made_to_send_are_counted() {
    let (mut meter, mut written) = (
        FrameMeter::of_client(FrameLimits::default()),
        FrameBoundary::of_server(),
    );
    let now = Instant::now();
    let mut answer = |code: u8| {
        written.feed(&frame(0x3, 0, 1, &[0, 0, 0, code]));
        meter.wrote(written.take_written(), now)
    };
    for _ in 0..200 {
        assert_eq!(answer(0x1), Ok(()));
        assert_eq!(answer(0x0), Ok(()));
        assert_eq!(answer(0x8), Ok(()));
    }
    assert_eq!(answer(0x3), Err(Excess::ProvokedResets));
}

#[test]
fn a_window_ends_and_a_refusal_does_not() {
    let mut meter = FrameMeter::of_server(FrameLimits::default());
    let (begin, settings) = (Instant::now(), frame(0x4, 0, 0, &[]));
    for second in 0..30 {
        let now = begin + Duration::from_secs(second);
        assert_eq!(
            meter.feed(&settings.repeat(10), now),
            Ok(()),
            "10 a second are allowed"
        );
    }
    let now = begin + Duration::from_secs(30);
    assert_eq!(meter.feed(&settings.repeat(101), now), Err(Excess::Settings));
    assert_eq!(
        meter.feed(&[], now + Duration::from_secs(100)),
        Err(Excess::Settings)
    );
}

#[test]
fn header_blocks_are_bounded_and_paths_are_watched() {
    let big = [
        vec![frame(0x1, 0, 1, &[0x82; 16_000])],
        vec![frame(0x9, 0, 1, &[0x82; 16_000]); 3],
    ]
    .concat();
    assert_eq!(fed(&big), Ok(()));
    assert_eq!(
        fed(&[big, vec![frame(0x9, 0, 1, &[0x82; 2_000])]].concat()),
        Err(Excess::HeaderBlock)
    );

    let path = b"\x82\x44\x04/a#b";
    assert_eq!(fed(&[frame(0x1, 0x5, 1, path)]), Err(Excess::PathFragment));
    assert_eq!(
        fed(&[frame(0x1, 0x1, 1, &path[..5]), frame(0x9, 0x4, 1, &path[5..])]),
        Err(Excess::PathFragment)
    );
    let padded = [&[2, 0, 0, 0, 0, 0][..], path, b"##"].concat();
    assert_eq!(fed(&[frame(0x1, 0x2d, 1, &padded)]), Err(Excess::PathFragment));
    assert_eq!(fed(&[frame(0x1, 0x5, 1, b"\x82\x44\x03/ab"), open(3)]), Ok(()));
    assert_eq!(fed(&[frame(0x1, 0x5, 1, &[0xff])]), Err(Excess::Compression));
    let mut meter = FrameMeter::of_client(FrameLimits::default());
    let _ = meter.feed(
        &[PREFACE.to_vec(), open(1), open(7), open(5)].concat(),
        Instant::now(),
    );
    assert_eq!(meter.last_stream(), 7);
}

#[test]
fn a_goaway_goes_between_frames() {
    let mut boundary = FrameBoundary::of_server();
    assert!(!boundary.at_boundary(), "SETTINGS come first");
    let settings = frame(0x4, 0, 0, &[0; 6]);
    for byte in &settings {
        assert!(!boundary.at_boundary());
        boundary.feed(&[*byte]);
    }
    assert!(boundary.at_boundary());
    boundary.feed(&frame(0x1, 0, 1, BLOCK));
    assert!(!boundary.at_boundary(), "inside a header block");
    boundary.feed(&frame(0x9, 0x4, 1, BLOCK));
    boundary.feed(&frame(0x0, 0, 1, b"x"));
    assert!(boundary.at_boundary());
    assert_eq!(
        boundary.take_written(),
        Written {
            useful: 2,
            provoked_resets: 0
        }
    );

    let mut client = FrameBoundary::of_client();
    client.feed(PREFACE);
    assert!(!client.at_boundary());
    client.feed(&settings);
    assert!(client.at_boundary());

    assert_eq!(
        goaway(7, Excess::Pings.code()).to_vec(),
        frame(0x7, 0, 0, &[0, 0, 0, 7, 0, 0, 0, 0xb])
    );
}

#[test]
fn a_farewell_answers_the_request_that_was_too_much() {
    let mut meter = FrameMeter::of_client(FrameLimits::default());
    assert_eq!(meter.farewell(&[]), b"");
    let long = "v".repeat(300);
    let request = frame(0x1, 0x5, 5, b"\x82\x44\x04/a#b");
    let excess = meter.feed(&[PREFACE, &request].concat(), Instant::now());
    assert_eq!(
        excess.map_err(|excess| (excess, excess.reason())),
        Err((Excess::PathFragment, Some(Reason::BadTarget)))
    );
    let block = [b"\x8c\x00\x01n\x7f\xad\x01", long.as_bytes()].concat();
    let expected = [frame(0x1, 0x5, 5, &block), goaway(5, 1).to_vec()].concat();
    assert_eq!(meter.farewell(&[("n", &long)]), expected);

    let mut meter = FrameMeter::of_server(FrameLimits::default());
    let _ = meter.feed(&frame(0x5, 0x4, 1, BLOCK), Instant::now());
    assert_eq!(meter.farewell(&[("n", "v")]), goaway(0, 1));
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..20);
    let any_frame = (0..12_u8, any::<u8>(), 0..9_u32, payload)
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload));
    proptest::collection::vec(any_frame, 0..60).prop_map(|frames| frames.concat())
}

proptest! {
    #[test]
    fn cutting_the_bytes_changes_nothing(bytes in frames(), cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..30)) {
        let limits = FrameLimits { pings: 3, settings: 3, resets: 3, empty: 3, others: 3, continuations: 2, header_block_bytes: 60, ..Default::default() };
        let now = Instant::now();
        let new = || (FrameMeter::of_server(limits), FrameBoundary::of_server());
        let (mut whole, mut whole_boundary) = new();
        let verdict = whole.feed(&bytes, now);
        whole_boundary.feed(&bytes);

        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]).collect();
        ends.sort_unstable();
        let (mut cut, mut boundary) = new();
        let mut at = 0;
        let mut last = Ok(());
        for end in ends {
            last = cut.feed(&bytes[at..end], now);
            boundary.feed(&bytes[at..end]);
            at = end;
        }
        prop_assert_eq!(last, verdict);
        prop_assert_eq!(cut.last_stream(), whole.last_stream());
        prop_assert_eq!((boundary.at_boundary(), boundary.take_written()), (whole_boundary.at_boundary(), whole_boundary.take_written()));
    }

    #[test]
    fn any_bytes_are_counted_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = FrameMeter::of_client(FrameLimits::default()).feed(&[PREFACE, &bytes].concat(), Instant::now());
        FrameBoundary::of_client().feed(&bytes);
    }
}

#[test]
fn interim_answers_are_paid_for_by_requests() {
    let interim = frame(0x1, 0x4, 1, &[0x88]);
    let now = Instant::now();
    let mut meter = FrameMeter::of_server(FrameLimits::default());
    let written = Written {
        useful: 10,
        provoked_resets: 0,
    };
    assert_eq!(meter.wrote(written, now), Ok(()));
    assert_eq!(meter.feed(&interim.repeat(1_080), now), Ok(()));
    assert_eq!(meter.feed(&interim, now), Err(Excess::Interim));
    assert_eq!(Excess::Interim.code(), 0xb);
}
