//! Every limit holds: who goes over it is told so, or is cut off with the right code, and memory stays bounded.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use tests::eventually;
use tests::hostile::{self, PATIENCE, Recorder, Wire};
use tests::hostile_h2::{self as h2, ENHANCE_YOUR_CALM, Ending, Frames, PROTOCOL_ERROR};
use tests::hostile_pair::{HTTP2, Pair};
use tests::{App, client};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

const GET: &str = "GET /right HTTP/1.1\r\nHost: server\r\n\r\n";
/// What an attack may cost a sidecar, whatever the attacker spends.
const MEMORY: u64 = 48 * 1024 * 1024;
/// Frames after which every flood below must have been stopped.
const FLOOD: u32 = 100_000;

async fn pair(flags: &[(&str, &str)]) -> (Pair, Recorder) {
    let app = Recorder::start().await;
    (Pair::start(app.address, flags).await, app)
}

#[tokio::test]
async fn a_head_must_be_over_in_time() {
    let (pair, app) = pair(&[("--header-timeout", "1s")]).await;

    // All at once and then silence; and byte by byte, which does not prolong it.
    let mut silent = Wire::connect(pair.outbound).await;
    silent.send(&GET.as_bytes()[..30]).await;
    let answer = silent.answer("GET").await.expect("an answer");
    assert_eq!(
        (answer.status(), &hostile::detail(&answer)[..]),
        (408, "header_timeout")
    );
    assert!(silent.rest().await.is_empty());

    let begun = Instant::now();
    let mut slow = Wire::connect(pair.outbound).await;
    slow.send(GET.trim_end().as_bytes()).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    while slow.send(b"a").await && slow.buffer.is_empty() {
        ticks.tick().await;
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(slow.answer("GET").await.map(|answer| answer.status()), Some(408));

    // Each head has its own time, and between them the clock stands still.
    let mut patient = Wire::connect(pair.outbound).await;
    for _ in 0..2 {
        patient.send(&GET.as_bytes()[..20]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        patient.send(&GET.as_bytes()[20..]).await;
        assert_eq!(
            patient.answer("GET").await.map(|answer| answer.status()),
            Some(200)
        );
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    assert!(app.record().requests.len() == 2);
    pair.assert_unharmed();
}

/// A client that keeps a connection ready is not one that waits for the server to speak.
#[tokio::test]
async fn a_connection_may_be_silent_before_its_first_request() {
    let (pair, app) = pair(&[]).await;
    let mut ready = Wire::connect(pair.outbound).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    ready.send(GET.as_bytes()).await;
    assert_eq!(ready.answer("GET").await.map(|answer| answer.status()), Some(200));
    assert_eq!(app.record().requests.len(), 1);
    pair.assert_unharmed();
}

#[tokio::test]
async fn a_header_block_must_be_over_in_time() {
    let (pair, app) = pair(&[("--header-timeout", "1s")]).await;
    let mut frames = Frames::open(Wire::connect(pair.outbound).await).await;
    // Its SETTINGS are acknowledged first: nothing may stand within a header block.
    frames.next().await.expect("SETTINGS");
    frames.send(h2::HEADERS, 0, 1, &h2::request("/right", &[])).await;
    assert_eq!(frames.farewell().await, Some(ENHANCE_YOUR_CALM));
    assert!(app.record().requests.is_empty());
    pair.assert_unharmed();
}

#[tokio::test]
async fn a_source_has_so_many_connections() {
    let (pair, _app) = pair(&[("--connections-per-source", "5")]).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut wire = Wire::connect(pair.outbound).await;
        wire.send(GET.as_bytes()).await;
        assert_eq!(wire.answer("GET").await.map(|answer| answer.status()), Some(200));
        open.push(wire);
    }
    let mut sixth = Wire::connect(pair.outbound).await;
    sixth.send(GET.as_bytes()).await;
    assert!(sixth.rest().await.is_empty());
    // Those that are there go on, and one that leaves makes room.
    let mut first = open.remove(0);
    first.send(GET.as_bytes()).await;
    assert_eq!(first.answer("GET").await.map(|answer| answer.status()), Some(200));
    drop(first);
    eventually("room for another connection", || async {
        let mut wire = Wire::connect(pair.outbound).await;
        wire.send(GET.as_bytes()).await;
        wire.answer("GET").await
    })
    .await;
    pair.assert_unharmed();
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let (pair, _app) = pair(&[("--idle-timeout", "500ms")]).await;
    let mut silent = Wire::connect(pair.outbound).await;
    let mut used = Wire::connect(pair.outbound).await;
    used.send(GET.as_bytes()).await;
    assert_eq!(used.answer("GET").await.map(|answer| answer.status()), Some(200));
    let mut frames = Frames::open(Wire::connect(pair.outbound).await).await;
    frames
        .send(
            h2::HEADERS,
            h2::END_HEADERS | h2::END_STREAM,
            1,
            &h2::request("/right", &[]),
        )
        .await;
    assert!(matches!(
        frames.ending(1).await,
        Ending::Answered { status: 200, .. }
    ));
    assert!(used.rest().await.is_empty());
    assert!(silent.rest().await.is_empty());
    assert_eq!(frames.farewell().await, Some(h2::NO_ERROR));
    pair.assert_unharmed();
}

#[tokio::test]
async fn a_connection_has_so_many_streams() {
    const STREAMS: u32 = 256;
    const REFUSED_STREAM: u32 = 0x7;
    let (pair, app) = pair(&[]).await;
    let mut frames = Frames::open(Wire::connect(pair.outbound).await).await;
    for number in 0..STREAMS + 50 {
        // Without an end: they stay open.
        frames
            .send(
                h2::HEADERS,
                h2::END_HEADERS,
                2 * number + 1,
                &h2::request("/open", &[]),
            )
            .await;
    }
    for number in STREAMS..STREAMS + 50 {
        assert_eq!(
            frames.ending(2 * number + 1).await,
            Ending::Reset(REFUSED_STREAM),
            "stream {number}"
        );
    }
    // Those that were accepted are served.
    frames.send(h2::DATA, h2::END_STREAM, 1, b"").await;
    assert_ne!(frames.ending(1).await, Ending::Closed);
    drop(frames);
    assert!(app.record().requests.len() <= 1);
    pair.assert_unharmed();
}

/// Sends frames until the connection is closed; the code of the GOAWAY.
async fn flood<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut Frames<S>,
    mut next: impl FnMut(u32) -> Vec<u8>,
) -> Option<u32> {
    let mut batch = Vec::new();
    for number in 0..FLOOD {
        batch.extend_from_slice(&next(number));
        if batch.len() >= 16 * 1024 || number + 1 == FLOOD {
            if !frames.0.send(&batch).await {
                break;
            }
            batch.clear();
        }
    }
    frames.farewell().await
}

/// What the codec does not answer with a reset, it answers by ending the connection at once.
fn is_cut_off(name: &str, code: Option<u32>) -> bool {
    code == Some(ENHANCE_YOUR_CALM) || (name.starts_with("made to reset") && code == Some(PROTOCOL_ERROR))
}

/// Makes the frame of a number.
type Next = Box<dyn FnMut(u32) -> Vec<u8>>;

/// What is sent first, and then for ever.
struct Flood {
    name: &'static str,
    first: Vec<u8>,
    next: Next,
}

fn floods() -> Vec<Flood> {
    let flood = |name, next: Next| Flood {
        name,
        first: Vec::new(),
        next,
    };
    let headers = |flags, stream| h2::frame(h2::HEADERS, flags, stream, &h2::request("/refused", &[]));
    let same = |frame: Vec<u8>| -> Next { Box::new(move |_| frame.clone()) };
    let odd = |number: u32| 2 * number + 1;
    vec![
        flood("PING", same(h2::frame(h2::PING, 0, 0, b"12345678"))),
        flood(
            "PING acknowledgements",
            same(h2::frame(h2::PING, h2::ACK, 0, b"12345678")),
        ),
        flood(
            "SETTINGS",
            same(h2::frame(h2::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ),
        flood("empty SETTINGS", same(h2::frame(h2::SETTINGS, 0, 0, &[]))),
        flood("PRIORITY", same(h2::frame(h2::PRIORITY, 0, 1, &[0, 0, 0, 0, 5]))),
        flood(
            "PRIORITY of other streams",
            Box::new(move |n| h2::frame(h2::PRIORITY, 0, odd(n), &[0, 0, 0, 0, 5])),
        ),
        flood("unknown frames", same(h2::frame(0xbe, 0, 0, b"?"))),
        flood(
            "WINDOW_UPDATE",
            same(h2::frame(h2::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ),
        Flood {
            first: headers(h2::END_HEADERS, 1),
            ..flood("empty DATA", same(h2::frame(h2::DATA, 0, 1, &[])))
        },
        Flood {
            first: headers(h2::END_HEADERS, 1),
            ..flood(
                "padding alone",
                same(h2::frame(h2::DATA, 0x8, 1, &[vec![200], vec![0; 200]].concat())),
            )
        },
        Flood {
            first: headers(0, 1),
            ..flood("empty CONTINUATION", same(h2::frame(h2::CONTINUATION, 0, 1, &[])))
        },
        Flood {
            first: headers(0, 1),
            ..flood(
                "CONTINUATION",
                same(h2::frame(
                    h2::CONTINUATION,
                    0,
                    1,
                    &h2::block(&[(b"x", &[b'a'; 1000])]),
                )),
            )
        },
        flood(
            "rapid reset",
            Box::new(move |n| {
                let reset = h2::frame(h2::RST_STREAM, 0, odd(n), &[0, 0, 0, 8]);
                [headers(h2::END_HEADERS | h2::END_STREAM, odd(n)), reset].concat()
            }),
        ),
        flood(
            "rapid reset of open streams",
            Box::new(move |n| {
                let reset = h2::frame(h2::RST_STREAM, 0, odd(n), &[0, 0, 0, 8]);
                [headers(h2::END_HEADERS, odd(n)), reset].concat()
            }),
        ),
        flood(
            "made to reset: DATA behind the end",
            Box::new(move |n| {
                let wrong = h2::frame(h2::DATA, 0, odd(n), b"more");
                [headers(h2::END_HEADERS | h2::END_STREAM, odd(n)), wrong].concat()
            }),
        ),
        flood(
            "made to reset: a window update of 0",
            Box::new(move |n| {
                let wrong = h2::frame(h2::WINDOW_UPDATE, 0, odd(n), &[0, 0, 0, 0]);
                [headers(h2::END_HEADERS, odd(n)), wrong].concat()
            }),
        ),
        flood(
            "made to reset: a window too large",
            Box::new(move |n| {
                let wrong = h2::frame(h2::WINDOW_UPDATE, 0, odd(n), &[0x7f, 0xff, 0xff, 0xff]);
                [headers(h2::END_HEADERS, odd(n)), wrong].concat()
            }),
        ),
        flood(
            "made to reset: malformed requests",
            Box::new(move |n| {
                let block = h2::request("/refused", &[(b"connection", b"close")]);
                h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, odd(n), &block)
            }),
        ),
        flood(
            "made to reset: a wrong length",
            Box::new(move |n| {
                let block = h2::request("/refused", &[(b"content-length", b"1")]);
                let head = h2::frame(h2::HEADERS, h2::END_HEADERS, odd(n), &block);
                [head, h2::frame(h2::DATA, h2::END_STREAM, odd(n), b"two")].concat()
            }),
        ),
    ]
}

#[tokio::test]
async fn floods_from_an_application_are_cut_off() {
    let (pair, app) = pair(&[]).await;
    hostile::ask(pair.outbound, GET).await;
    let before = pair.peak_bytes();
    let mut failures = Vec::new();
    for Flood { name, first, next } in floods() {
        let mut frames = Frames::open(Wire::connect(pair.outbound).await).await;
        frames.0.send(&first).await;
        let code = flood(&mut frames, next).await;
        println!("{name}: {code:?}");
        if !is_cut_off(name, code) {
            failures.push(format!("{name}: {code:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    hostile::ask(pair.outbound, GET).await;
    let grown = pair.peak_bytes() - before;
    println!("memory: {} KiB", grown / 1024);
    assert!(grown < MEMORY, "{} MiB more", grown >> 20);
    // Of all those requests only what was under the limits can have been tried.
    assert!(
        app.record().requests.len() < 5_000,
        "{} requests",
        app.record().requests.len()
    );
    pair.assert_unharmed();
}

#[tokio::test]
async fn floods_from_a_valid_peer_are_cut_off() {
    let (pair, _app) = pair(&[]).await;
    hostile::ask(pair.outbound, GET).await;
    let before = pair.peak_bytes();
    let mut failures = Vec::new();
    for Flood { name, first, next } in floods() {
        let mut frames = Frames::open(Wire::new(pair.tls(HTTP2).await)).await;
        frames.0.send(&first).await;
        let code = flood(&mut frames, next).await;
        if !is_cut_off(name, code) {
            failures.push(format!("{name}: {code:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    hostile::ask(pair.outbound, GET).await;
    let grown = pair.peak_bytes() - before;
    assert!(grown < MEMORY, "{} MiB more", grown >> 20);
    pair.assert_unharmed();
}

/// A block of 60 KiB in which each byte stands for a field: of the dynamic table, 4,000 bytes long, or a cookie.
fn amplified(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = h2::request("/refused", &[]);
    block.push(0x40);
    h2::integer(&mut block, 0, 7, name.len());
    block.extend_from_slice(name);
    h2::integer(&mut block, 0, 7, value.len());
    block.extend_from_slice(value);
    // The newest entry of the dynamic table.
    block.extend(std::iter::repeat_n(0x80 | 62, 60 * 1024));
    block
}

#[tokio::test]
async fn compressed_heads_are_counted_as_they_unfold() {
    let (pair, app) = pair(&[]).await;
    hostile::ask(pair.outbound, GET).await;
    let before = pair.peak_bytes();
    for (name, block) in [
        ("HPACK", amplified(b"x", &[b'a'; 4000])),
        ("cookies", amplified(b"cookie", b"a=b")),
        ("empty cookies", amplified(b"cookie", b"")),
    ] {
        for _ in 0..10 {
            let mut frames = Frames::open(Wire::connect(pair.outbound).await).await;
            let mut endings = Vec::new();
            for stream in (1..40).step_by(2) {
                let (first, rest) = block.split_at(16 * 1024);
                let mut sent = frames.send(h2::HEADERS, h2::END_STREAM, stream, first).await;
                for (index, piece) in rest.chunks(16 * 1024).enumerate() {
                    let end = if index == (rest.len() - 1) / (16 * 1024) {
                        h2::END_HEADERS
                    } else {
                        0
                    };
                    sent = frames.send(h2::CONTINUATION, end, stream, piece).await;
                }
                let ending = frames.ending(stream).await;
                let over = !sent || matches!(ending, Ending::GoAway(_) | Ending::Closed);
                endings.push(ending);
                if over {
                    break;
                }
            }
            let refused = Ending::Answered {
                status: 431,
                body: String::new(),
            };
            let right = endings[0] == refused || endings[0] == Ending::GoAway(ENHANCE_YOUR_CALM);
            assert!(right, "{name}: {endings:?}");
        }
    }
    let grown = pair.peak_bytes() - before;
    println!("memory: {} KiB", grown / 1024);
    assert!(grown < MEMORY, "{} MiB more", grown >> 20);
    assert!(
        app.record()
            .requests
            .iter()
            .all(|request| request.target() == "/right")
    );
    pair.assert_unharmed();
}

/// As much as 4 times the memory that a sidecar may use for it.
const MUCH: usize = 256 * 1024 * 1024;

#[tokio::test]
async fn an_upload_that_nobody_reads_waits() {
    let app = App::raw(|mut stream| async move {
        // Takes the head, and not the body.
        let _ = stream.read_u8().await;
        std::future::pending::<()>().await;
    })
    .await;
    let pair = Pair::start(app.address, &[]).await;
    let before = pair.peak_bytes();
    let upload = format!("POST / HTTP/1.1\r\nHost: server\r\nContent-Length: {MUCH}\r\n\r\n");
    let sent = stalls_after(&pair, upload.as_bytes()).await;
    println!("{} KiB were taken", sent / 1024);
    assert!(sent < MUCH, "the sidecars took all of it");
    let grown = pair.peak_bytes() - before;
    assert!(grown < MEMORY, "{} MiB more", grown >> 20);
    pair.assert_unharmed();
}

/// Sends a body until nobody takes more for a second: how much that was.
async fn stalls_after(pair: &Pair, head: &[u8]) -> usize {
    use tokio::io::AsyncWriteExt;
    let mut raw = client::Raw::connect(pair.outbound).await;
    raw.send(head).await;
    let piece = vec![0; 64 * 1024];
    let mut sent = 0;
    while sent < MUCH {
        match tokio::time::timeout(Duration::from_secs(1), raw.stream.write(&piece)).await {
            Ok(Ok(count)) => sent += count,
            Ok(Err(error)) => panic!("closed: {error}"),
            Err(_) => break,
        }
    }
    sent
}

#[tokio::test]
async fn a_download_that_nobody_reads_waits() {
    let app = App::http(|_| async {
        let pieces = futures_util::stream::repeat_with(|| {
            Ok::<_, tests::BoxError>(http_body::Frame::data(bytes::Bytes::from_static(&[0; 64 * 1024])))
        });
        http::Response::new(http_body_util::BodyExt::boxed_unsync(
            http_body_util::StreamBody::new(pieces),
        ))
    })
    .await;
    let pair = Pair::start(app.address, &[]).await;
    let before = pair.peak_bytes();
    let mut readers = Vec::new();
    for _ in 0..4 {
        let mut wire = Wire::connect(pair.outbound).await;
        wire.send(GET.as_bytes()).await;
        assert!(wire.more().await);
        readers.push(wire);
    }
    // Time enough to fetch gigabytes, if anybody did.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let grown = pair.peak_bytes() - before;
    println!("memory: {} KiB", grown / 1024);
    assert!(grown < MEMORY, "{} MiB more", grown >> 20);
    pair.assert_unharmed();
}
