//! Applications that speak HTTP/2 and break its rules: refused as those of HTTP/1 are, and nobody else notices.
#![allow(clippy::expect_used, clippy::panic)]

use tests::hostile::{self, Wire};
use tests::hostile_h2::{self as h2, Http2App};
use tests::hostile_pair::Pair;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: server\r\n\r\n";
/// What an attack may cost a sidecar, whatever the attacker spends.
const MEMORY: u64 = 48 * 1024 * 1024;

type Fields<'a> = &'a [(&'a [u8], &'a [u8])];

fn head(stream: u32, flags: u8, fields: Fields<'_>) -> Vec<u8> {
    h2::frame(h2::HEADERS, h2::END_HEADERS | flags, stream, &h2::block(fields))
}

fn whole(stream: u32, fields: Fields<'_>, body: &[u8]) -> Vec<u8> {
    [
        head(stream, 0, fields),
        h2::frame(h2::DATA, h2::END_STREAM, stream, body),
    ]
    .concat()
}

/// What a caller gets: status, reason and body; `None` where the answer broke off.
async fn gets(pair: &Pair) -> Option<(u16, String, Vec<u8>)> {
    let mut wire = Wire::connect(pair.outbound).await;
    wire.send(GET).await;
    let answer = wire.answer("GET").await?;
    Some((answer.status(), hostile::detail(&answer), answer.body))
}

/// A 502 or 503 of the proxy's own, or an answer that broke off.
fn is_refused(got: &Option<(u16, String, Vec<u8>)>) -> bool {
    match got {
        None => true,
        Some((status, detail, _)) => (502..=504).contains(status) && !detail.is_empty(),
    }
}

#[tokio::test]
async fn ambiguous_answers_stay_here() {
    let app = Http2App::start().await;
    let pair = Pair::start_speaking(app.address, "kubernetes.io/h2c", &[]).await;
    assert_eq!(gets(&pair).await, Some((200, String::new(), b"clean".to_vec())));
    let ok: (&[u8], &[u8]) = (b":status", b"200");
    let many: Vec<(&[u8], &[u8])> = std::iter::once(ok)
        .chain(std::iter::repeat_n((&b"x"[..], &b"1"[..]), 101))
        .collect();
    let heads: &[(&str, Fields<'_>)] = &[
        (
            "two lengths",
            &[ok, (b"content-length", b"5"), (b"content-length", b"5")],
        ),
        (
            "other lengths",
            &[ok, (b"content-length", b"5"), (b"content-length", b"6")],
        ),
        ("a signed length", &[ok, (b"content-length", b"+5")]),
        (
            "a length of 65 bits",
            &[ok, (b"content-length", b"18446744073709551621")],
        ),
        ("a length that is too small", &[ok, (b"content-length", b"4")]),
        ("a length that is too large", &[ok, (b"content-length", b"6")]),
        ("a coding", &[ok, (b"transfer-encoding", b"chunked")]),
        ("connection", &[ok, (b"connection", b"close")]),
        ("upgrade", &[ok, (b"upgrade", b"websocket")]),
        ("101", &[(b":status", b"101")]),
        (
            "204 with a body",
            &[(b":status", b"204"), (b"content-length", b"5")],
        ),
        ("no status", &[(b"x", b"1")]),
        ("two statuses", &[ok, ok]),
        ("a status of two digits", &[(b":status", b"20")]),
        ("a status that is no number", &[(b":status", b"2x0")]),
        ("a name in upper case", &[ok, (b"X", b"1")]),
        ("a new line in a value", &[ok, (b"x", b"1\r\nset-cookie: a=b")]),
        ("a new line in a name", &[ok, (b"x\r\ny", b"1")]),
        ("NUL in a value", &[ok, (b"x", b"a\0b")]),
        ("101 fields", &many),
    ];
    let mut failures = Vec::new();
    let mut judge = async |name: &str| {
        let before = app.asked();
        let got = gets(&pair).await;
        println!("{name}: {got:?}");
        let asked = app.asked() - before;
        let next = gets(&pair).await;
        if !is_refused(&got) || asked != 1 || next != Some((200, String::new(), b"clean".to_vec())) {
            failures.push(format!("{name}: {got:?}, asked {asked} times, then {next:?}"));
        }
    };
    for (name, fields) in heads {
        let fields: Vec<(Vec<u8>, Vec<u8>)> = fields.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
        app.prepare(move |stream| {
            whole(
                stream,
                &fields.iter().map(|(n, v)| (&n[..], &v[..])).collect::<Vec<_>>(),
                b"hello",
            )
        });
        judge(name).await;
    }
    let status = |code: &'static [u8]| [(&b":status"[..], code)];
    app.prepare(|stream| {
        let block = h2::block(&[(b":status", b"200"), (b"x", &[b'a'; 70 * 1024])]);
        let (first, rest) = block.split_at(60 * 1024);
        [
            h2::frame(h2::HEADERS, h2::END_STREAM, stream, first),
            h2::frame(h2::CONTINUATION, h2::END_HEADERS, stream, rest),
        ]
        .concat()
    });
    judge("70 KiB").await;
    app.prepare(move |stream| h2::frame(h2::DATA, h2::END_STREAM, stream, b"hello"));
    judge("a body without a head").await;
    app.prepare(|stream| h2::frame(h2::RST_STREAM, 0, stream, &[0, 0, 0, 2]));
    judge("reset").await;
    app.prepare(move |stream| {
        [
            head(stream, 0, &status(b"200")),
            h2::frame(h2::RST_STREAM, 0, stream, &[0, 0, 0, 2]),
        ]
        .concat()
    });
    judge("reset in the body").await;
    app.prepare(move |stream| {
        let start = [
            head(stream, 0, &status(b"200")),
            h2::frame(h2::DATA, 0, stream, b"hello"),
        ]
        .concat();
        [start, head(stream, h2::END_STREAM, &[(b"content-length", b"5")])].concat()
    });
    judge("a length in a trailer").await;
    app.prepare(|_| vec![0xff; 64]);
    judge("noise").await;
    app.prepare(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected".to_vec());
    judge("HTTP/1.1").await;
    app.prepare(move |stream| {
        h2::frame(
            0x5,
            h2::END_HEADERS,
            stream,
            &[&[0, 0, 0, 2][..], &h2::request("/", &[])].concat(),
        )
    });
    judge("a push").await;
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    pair.assert_unharmed();
}

#[tokio::test]
async fn floods_are_cut_off() {
    let app = Http2App::start().await;
    let pair = Pair::start_speaking(app.address, "kubernetes.io/h2c", &[]).await;
    gets(&pair).await;
    let before = pair.peak_bytes();
    let judge = |name: &str, got: Option<(u16, String, Vec<u8>)>| {
        println!("{name}: {got:?}");
        assert!(is_refused(&got), "{name}: {got:?}");
    };
    let same = |frame: Vec<u8>| move |_: u32| frame.repeat(100);
    app.prepare_for_ever(same(h2::frame(h2::PING, 0, 0, b"12345678")));
    judge("PING", gets(&pair).await);
    app.prepare_for_ever(same(h2::frame(h2::SETTINGS, 0, 0, &[])));
    judge("SETTINGS", gets(&pair).await);
    app.prepare_for_ever(same(h2::frame(0xbe, 0, 0, b"?")));
    judge("unknown frames", gets(&pair).await);
    app.prepare_for_ever(|stream| head(stream, 0, &[(b":status", b"103")]).repeat(100));
    judge("103", gets(&pair).await);
    let mut begun = false;
    app.prepare_for_ever(move |stream| {
        if std::mem::replace(&mut begun, true) {
            return h2::frame(h2::DATA, 0, stream, &[]).repeat(100);
        }
        head(stream, 0, &[(b":status", b"200")])
    });
    judge("empty DATA", gets(&pair).await);
    let mut begun = false;
    app.prepare_for_ever(move |stream| {
        let kind = if std::mem::replace(&mut begun, true) {
            h2::CONTINUATION
        } else {
            h2::HEADERS
        };
        h2::frame(kind, 0, stream, &h2::block(&[(b"x", &[b'a'; 1000])]))
    });
    judge("CONTINUATION", gets(&pair).await);
    assert_eq!(gets(&pair).await, Some((200, String::new(), b"clean".to_vec())));
    let grown = pair.peak_bytes() - before;
    assert!(grown < MEMORY, "{} MiB more", grown >> 20);
    pair.assert_unharmed();
}
