//! Requests that two programs could read in two ways are refused, with the reason, and never forwarded.
#![allow(clippy::expect_used, clippy::panic)]

use tests::hostile::{self, Recorder, Wire};
use tests::hostile_cases::{Case, all_cases, tunnel};
use tests::hostile_cases_h2::http2_cases;
use tests::hostile_h2::{self as h2, Ending, Frames};
use tests::hostile_neighbours::accepted;
use tests::hostile_pair::{HTTP1, HTTP2, Pair};
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends one case and checks its answer and the connection's end.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut wire: Wire<S>, case: &Case) -> Result<(), String> {
    wire.send(&case.bytes).await;
    let answer = wire.answer("GET").await.ok_or("no answer")?;
    let detail = hostile::detail(&answer);
    if answer.status() != case.status || detail != case.detail {
        return Err(format!(
            "{} {detail:?} instead of {} {:?}",
            answer.status(),
            case.status,
            case.detail
        ));
    }
    // Not one byte more, though the client goes on to send nothing and does not close.
    match wire.rest().await {
        rest if rest.is_empty() => Ok(()),
        rest => Err(format!("then {:?}", String::from_utf8_lossy(&rest))),
    }
}

fn assert_no_failures(failures: &[String]) {
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// Everything that was refused is unknown to the application, even after a later request has reached it.
async fn assert_nothing_arrived(pair: &Pair, app: &Recorder) {
    let last = hostile::ask(
        pair.outbound,
        "GET /last HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(last.status(), 200);
    let record = app.record();
    let targets: Vec<&str> = record.requests.iter().map(|request| request.target()).collect();
    assert_eq!(targets, ["/last"]);
    assert!(
        record
            .unfinished
            .iter()
            .all(|request| request.target() == "/broken"),
        "{:?}",
        record.unfinished
    );
    assert!(record.faults.is_empty(), "{:?}", record.faults);
}

#[tokio::test]
async fn outbound_http1() {
    let app = Recorder::start().await;
    let pair = Pair::start(app.address, &[]).await;
    let mut failures = Vec::new();
    for case in all_cases() {
        if let Err(failure) = refuse(Wire::connect(pair.outbound).await, &case).await {
            failures.push(format!("{}: {failure}", case.name));
        }
    }
    assert_no_failures(&failures);
    assert_nothing_arrived(&pair, &app).await;
    pair.assert_unharmed();
}

#[tokio::test]
async fn inbound_http1_from_a_valid_peer() {
    let app = Recorder::start().await;
    let pair = Pair::start(app.address, &[]).await;
    let mut failures = Vec::new();
    for case in all_cases().chain([tunnel()]) {
        let wire = Wire::new(pair.tls(HTTP1).await);
        if let Err(failure) = refuse(wire, &case).await {
            failures.push(format!("{}: {failure}", case.name));
        }
    }
    assert_no_failures(&failures);
    assert_nothing_arrived(&pair, &app).await;
    pair.assert_unharmed();
}

#[tokio::test]
async fn their_neighbours_pass() {
    let app = Recorder::start().await;
    let pair = Pair::start(app.address, &[]).await;
    for (name, request) in accepted() {
        let outbound = hostile::ask(pair.outbound, &request).await;
        assert_eq!(
            outbound.status(),
            200,
            "{name}, outbound: {}",
            hostile::detail(&outbound)
        );
        let mut wire = Wire::new(pair.tls(HTTP1).await);
        wire.send(request.as_bytes()).await;
        let inbound = wire.answer(request.split(' ').next().unwrap_or_default()).await;
        assert_eq!(
            inbound.map(|answer| answer.status()),
            Some(200),
            "{name}, inbound"
        );
    }
    let record = app.record();
    assert_eq!(record.requests.len(), 2 * accepted().len());
    assert!(record.faults.is_empty(), "{:?}", record.faults);
    assert!(
        record
            .requests
            .iter()
            .all(|request| request.value("x-secret").is_none())
    );
    for path in ["/chunks", "/length"] {
        let bodies = record
            .requests
            .iter()
            .filter(|request| request.target() == path)
            .map(|request| &request.body);
        assert!(bodies.eq([b"hello", b"hello"]), "{path}");
    }
    pair.assert_unharmed();
}

#[tokio::test]
async fn what_follows_a_refused_request_is_never_read() {
    let app = Recorder::start().await;
    let pair = Pair::start(app.address, &[]).await;
    let good = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: server\r\n\r\n");
    let bad =
        "POST /refused HTTP/1.1\r\nHost: server\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";

    let mut wire = Wire::connect(pair.outbound).await;
    wire.send(format!("{}{}{bad}{}", good("/1"), good("/2"), good("/3")).as_bytes())
        .await;
    for status in [200, 200, 400] {
        assert_eq!(
            wire.answer("GET").await.map(|answer| answer.status()),
            Some(status)
        );
    }
    assert!(wire.rest().await.is_empty());

    // A request inside another one's body is body.
    let body = good("/smuggled");
    let mut wire = Wire::connect(pair.outbound).await;
    let post = format!(
        "POST /4 HTTP/1.1\r\nHost: server\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    wire.send(format!("{post}{}", good("/5")).as_bytes()).await;
    for path in ["POST /4", "GET /5"] {
        assert_eq!(
            wire.answer("GET").await.map(|answer| answer.body),
            Some(path.into())
        );
    }

    // A body that is shorter than its length, and then the end.
    let cut = b"POST /broken HTTP/1.1\r\nHost: server\r\nContent-Length: 50\r\n\r\nGET /6 HTTP/1.1\r\nHost: server\r\n\r\n";
    hostile::converse(pair.outbound, cut).await;

    let last = hostile::ask(pair.outbound, &good("/last")).await;
    assert_eq!(last.status(), 200);
    let record = app.record();
    let targets: Vec<&str> = record.requests.iter().map(|request| request.target()).collect();
    assert_eq!(targets, ["/1", "/2", "/4", "/5", "/last"]);
    assert!(record.faults.is_empty(), "{:?}", record.faults);
    pair.assert_unharmed();
}

/// Sends a header block, in as many frames as it takes.
async fn send_block<S: AsyncRead + AsyncWrite + Unpin>(frames: &mut Frames<S>, block: &[u8], flags: u8) {
    let pieces: Vec<&[u8]> = block.chunks(16 * 1024).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let kind = if index == 0 { h2::HEADERS } else { h2::CONTINUATION };
        let last = if index + 1 == pieces.len() {
            h2::END_HEADERS
        } else {
            0
        };
        let first = if index == 0 { flags } else { 0 };
        frames.send(kind, first | last, 1, piece).await;
    }
}

/// Every way to refuse that HTTP/2 has, none of them silent.
fn is_refusal(ending: &Ending) -> bool {
    match ending {
        Ending::Answered { status, .. } => matches!(status, 400 | 414 | 417 | 431),
        Ending::Reset(code) | Ending::GoAway(code) => *code == h2::PROTOCOL_ERROR,
        Ending::Closed => false,
    }
}

async fn refuse_http2<S, F>(open: impl Fn() -> F) -> Vec<String>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Wire<S>>,
{
    let mut failures = Vec::new();
    for (name, block) in http2_cases() {
        let mut frames = Frames::open(open().await).await;
        send_block(&mut frames, &block, h2::END_STREAM).await;
        let ending = frames.ending(1).await;
        println!("{name}: {ending:?}");
        if !is_refusal(&ending) {
            failures.push(format!("{name}: {ending:?}"));
        }
    }
    // What only a body makes wrong.
    for (name, fields, body, trailers) in [
        (
            "more than the length",
            &[(&b"content-length"[..], &b"3"[..])][..],
            &b"hello"[..],
            &[][..],
        ),
        (
            "less than the length",
            &[(b"content-length", b"9")],
            b"hello",
            &[],
        ),
        (
            "a length in a trailer",
            &[],
            b"hello",
            &[(&b"content-length"[..], &b"5"[..])],
        ),
        ("a host in a trailer", &[], b"hello", &[(b"host", b"other")]),
        (
            "a coding in a trailer",
            &[],
            b"hello",
            &[(b"transfer-encoding", b"chunked")],
        ),
        ("a new line in a trailer", &[], b"hello", &[(b"x", b"1\r\n\r\n")]),
    ] {
        let mut frames = Frames::open(open().await).await;
        send_block(&mut frames, &h2::request("/broken", fields), 0).await;
        let end = if trailers.is_empty() { h2::END_STREAM } else { 0 };
        frames.send(h2::DATA, end, 1, body).await;
        if !trailers.is_empty() {
            send_block(&mut frames, &h2::block(trailers), h2::END_STREAM).await;
        }
        let ending = frames.ending(1).await;
        println!("{name}: {ending:?}");
        if !is_refusal(&ending) {
            failures.push(format!("{name}: {ending:?}"));
        }
    }
    failures
}

#[tokio::test]
async fn outbound_http2() {
    let app = Recorder::start().await;
    let pair = Pair::start(app.address, &[]).await;
    assert_no_failures(&refuse_http2(|| Wire::connect(pair.outbound)).await);
    assert_nothing_arrived(&pair, &app).await;
    pair.assert_unharmed();
}

#[tokio::test]
async fn inbound_http2_from_a_valid_peer() {
    let app = Recorder::start().await;
    let pair = Pair::start(app.address, &[]).await;
    assert_no_failures(&refuse_http2(|| async { Wire::new(pair.tls(HTTP2).await) }).await);
    assert_nothing_arrived(&pair, &app).await;
    pair.assert_unharmed();
}

#[tokio::test]
async fn http2_neighbours_pass() {
    let app = Recorder::start().await;
    let pair = Pair::start(app.address, &[]).await;
    for (name, block) in [
        ("the plainest", h2::request("/right", &[])),
        ("te: trailers", h2::request("/right", &[(b"te", b"trailers")])),
        ("the same host", h2::request("/right", &[(b"host", b"server")])),
        (
            "cookie crumbs",
            h2::request("/right", &[(b"cookie", b"a=1"), (b"cookie", b"b=2")]),
        ),
        ("bytes over 127", h2::request("/right", &[(b"x", b"\xe9")])),
        (
            "60 KiB of fields",
            h2::request("/right", &[(b"x", &[b'a'; 60 * 1024])]),
        ),
    ] {
        for answer in [
            {
                let mut frames = Frames::open(Wire::connect(pair.outbound).await).await;
                send_block(&mut frames, &block, h2::END_STREAM).await;
                frames.ending(1).await
            },
            {
                let mut frames = Frames::open(Wire::new(pair.tls(HTTP2).await)).await;
                send_block(&mut frames, &block, h2::END_STREAM).await;
                frames.ending(1).await
            },
        ] {
            assert_eq!(
                answer,
                Ending::Answered {
                    status: 200,
                    body: "GET /right".into()
                },
                "{name}"
            );
        }
    }
    let record = app.record();
    assert!(record.faults.is_empty(), "{:?}", record.faults);
    let cookies: Vec<_> = record
        .requests
        .iter()
        .filter_map(|request| request.value("cookie"))
        .collect();
    assert_eq!(cookies, ["a=1; b=2", "a=1; b=2"]);
    pair.assert_unharmed();
}
