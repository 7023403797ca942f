//! Whatever an application sends to its sidecar: what comes out beside the other one are requests that every
//! reader of HTTP/1 reads alike, each of them one that was sent, and none of them twice.
#![allow(clippy::expect_used, clippy::panic)]

use std::fmt;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{
    Config, FileFailurePersistence, RngAlgorithm, TestCaseError, TestRng, TestRunner,
};
use tests::hostile::{self, Recorder, Wire};
use tests::hostile_h2::{self as h2, Frames};
use tests::hostile_pair::Pair;
use tests::strict::{self, Message};
use tokio::runtime::Runtime;

/// Connections over HTTP/1.
const HTTP1_CASES: u32 = 3_000;
/// Connections over HTTP/2.
const HTTP2_CASES: u32 = 1_500;

struct World {
    runtime: Runtime,
    pair: Pair,
    app: Recorder,
    /// Requests that reached the application.
    passed: AtomicUsize,
}

impl World {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (pair, app) = runtime.block_on(async {
            let app = Recorder::start().await;
            (Pair::start(app.address, &[]).await, app)
        });
        Self {
            runtime,
            pair,
            app,
            passed: AtomicUsize::new(0),
        }
    }

    /// The same cases at every run: a failure is never a matter of luck.
    fn check<S: Strategy>(
        &self,
        cases: u32,
        strategy: S,
        judge: impl Fn(S::Value) -> Result<(), TestCaseError>,
    ) {
        let config = Config {
            cases,
            max_shrink_iters: 2_000,
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
                "tests/oracle.proptest-regressions",
            ))),
            ..Config::default()
        };
        let dice = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        if let Err(failure) = TestRunner::new_with_rng(config, dice).run(&strategy, judge) {
            panic!("{failure}");
        }
        self.pair.assert_unharmed();
        // Or the oracle had nothing to judge.
        let passed = self.passed.load(Ordering::Relaxed);
        assert!(
            passed * 2 > cases as usize,
            "only {passed} requests reached the application"
        );
    }

    /// Everything that the application got since the last time, once a later request has arrived there too.
    async fn arrived(&self) -> Result<Vec<Message>, TestCaseError> {
        let last = "GET /last HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n";
        let answer = hostile::ask(self.pair.outbound, last).await;
        prop_assert_eq!(answer.status(), 200, "the mesh does not work any more");
        let mut record = self.app.record();
        let faults = std::mem::take(&mut record.faults);
        record.unfinished.clear();
        let mut requests = std::mem::take(&mut record.requests);
        drop(record);
        requests.retain(|request| request.target() != "/last");
        self.passed.fetch_add(requests.len(), Ordering::Relaxed);
        prop_assert!(faults.is_empty(), "{:?}", faults);
        Ok(requests)
    }
}

/// `out` are some of `sent`, in the same order, none of them twice.
fn judge_forwarded(sent: &[Message], out: &[Message]) -> Result<(), TestCaseError> {
    let mut left = sent.iter();
    for message in out {
        let found = left.any(|candidate| is_same(candidate, message));
        prop_assert!(
            found,
            "nobody sent {:?}, or in another order; sent: {:?}",
            message,
            sent
        );
    }
    Ok(())
}

fn is_same(sent: &Message, out: &Message) -> bool {
    sent.method() == out.method()
        && origin_form(sent.target()) == out.target()
        && sent.body == out.body
        && !named_by_connection(sent).any(|name| out.values(&name).next().is_some())
}

/// What was for one hop only, but for fields that the next hop may have of its own.
fn named_by_connection(message: &Message) -> impl Iterator<Item = String> {
    let list = message
        .values("connection")
        .map(|value| String::from_utf8_lossy(value).to_ascii_lowercase());
    let names = list.flat_map(|list| {
        list.split(',')
            .map(|name| name.trim().to_owned())
            .collect::<Vec<_>>()
    });
    names.filter(|name| !["te", "upgrade"].contains(&name.as_str()))
}

/// The target as the next hop has it.
fn origin_form(target: &str) -> String {
    let Some(rest) = target
        .get(..7)
        .filter(|scheme| scheme.eq_ignore_ascii_case("http://"))
        .map(|_| &target[7..])
    else {
        return target.to_owned();
    };
    match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('?') => format!("/{}", &rest[at..]),
        Some(at) => rest[at..].to_owned(),
        None => "/".to_owned(),
    }
}

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(texts).prop_map(str::to_owned)
}

fn field() -> impl Strategy<Value = String> {
    let known = one_of(&[
        "Connection: close",
        "Connection: keep-alive, x-hop-1",
        "Connection: X-Hop-2\r\nX-Hop-2: secret",
        "connection: x-hop-3, ,\r\nx-hop-3: secret\r\nX-HOP-3: secret",
        "Connection: host",
        "Connection: content-length",
        "Connection: upgrade\r\nUpgrade: websocket",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eDp5",
        "TE: trailers",
        "TE: gzip, trailers;q=0.5",
        "Trailer: x-sum",
        "Expect: 100-continue",
        "Expect: nothing",
        "Cookie: a=b",
        "Content-Length: 0",
        "Content-Length: 5",
        "Content-Length : 5",
        "content-length:\t5 ",
        "Content-Length: +5",
        "Content-Length: 5, 5",
        "Content-Length: 0x5",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: chunked",
        "transfer-encoding:CHUNKED",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
        "Transfer-Encoding\t: chunked",
        " folded: value",
        "Host: other",
        "Host: server",
        "X: \u{e9}",
        "X: a\rb",
        "X: a\nb",
        "X: a\0b",
        "X\u{7f}: a",
        ": nothing",
        "nothing",
    ]);
    let usual = one_of(&[
        "Connection: keep-alive, x-hop-1\r\nX-Hop-1: secret",
        "Connection: close, x-hop-2\r\nx-hop-2: secret\r\nX-HOP-2: secret",
        "Keep-Alive: timeout=5",
        "TE: trailers, gzip;q=0.5",
        "Proxy-Authorization: Basic eDp5",
        "Cookie: a=b",
        "Upgrade: h2c",
        "X: \u{e9}",
    ]);
    let any_field = "[a-zA-Z!#$%&'*+.^_`|~-]{1,8}:[ \t]?[!-~ ]{0,12}";
    prop_oneof![4 => usual, 4 => any_field, 2 => known, 1 => "[ -~]{0,20}"]
}

/// The fields that frame a body, and the body; mostly they fit.
fn framed() -> impl Strategy<Value = (String, String)> {
    let chunks = (
        "[a-z]{1,20}",
        one_of(&["0\r\n\r\n", "0\r\nx-sum: 1\r\n\r\n", "00;end\r\n\r\n"]),
    );
    let chunked = chunks.prop_map(|(data, end)| {
        (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            format!("{:x};a=b\r\n{data}\r\n{end}", data.len()),
        )
    });
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: server\r\n\r\n";
    let length = prop_oneof![3 => "[ -~]{0,30}", 1 => Just(smuggled.to_owned())]
        .prop_map(|data| (format!("Content-Length: {}\r\n", data.len()), data));
    prop_oneof![
        6 => Just((String::new(), String::new())),
        4 => length,
        4 => chunked,
        4 => body().prop_map(|body| (String::new(), body)),
    ]
}

fn body() -> impl Strategy<Value = String> {
    let chunk = (
        0_usize..20,
        one_of(&["", ";a", ";a=b", ";a=\"b;c\"", " ", ";", ";a\n"]),
    )
        .prop_map(|(size, extension)| format!("{size:x}{extension}\r\n{}\r\n", "c".repeat(size)));
    let end = one_of(&[
        "0\r\n\r\n",
        "0\r\nx-sum: 1\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nHost: other\r\n\r\n",
        "00;end\r\n\r\n",
        "0\n\n",
        "0\r\n",
        "",
    ]);
    let chunks = (prop::collection::vec(chunk, 0..4), end).prop_map(|(chunks, end)| chunks.concat() + &end);
    prop_oneof![
        4 => Just(String::new()),
        3 => Just("hello".to_owned()),
        4 => chunks,
        1 => "[ -~]{0,30}",
        1 => Just("GET /smuggled HTTP/1.1\r\nHost: server\r\n\r\n".to_owned()),
        1 => Just("0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: server\r\n\r\n".to_owned()),
    ]
}

fn request() -> impl Strategy<Value = String> {
    let method = prop_oneof![
        20 => one_of(&["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS"]),
        1 => one_of(&["CONNECT", "PRI", "get", "G@T", "X-Y", "TRACE", ""]),
    ];
    let target = prop_oneof![
        12 => "/[a-z0-9]{0,8}(\\?[a-z=&%]{0,8})?",
        2 => "http://server(:80)?(/[a-z]{0,5})?(\\?[a-z]{0,3})?",
        1 => one_of(&["*", "/#x", "x", "http://user@server/", "https://server/", "http://other/", "/a b", "//server/x", "/..//x", "/\u{e9}"]),
    ];
    let version = prop_oneof![
        20 => Just("HTTP/1.1".to_owned()),
        1 => one_of(&["HTTP/1.0", "HTTP/2.0", "HTTP/1.2", "http/1.1", ""]),
    ];
    let host = prop_oneof![
        20 => one_of(&["Host: server\r\n", "host:SERVER\r\n", "Host: server:80\r\n", "Host: server.default.svc.cluster.local\r\n"]),
        1 => one_of(&["", "Host:\r\n", "Host: server\r\nHost: server\r\n", "Host: a@server\r\n", "Host: other\r\n", "Host : server\r\n"]),
    ];
    let end = prop_oneof![40 => Just("\r\n"), 1 => Just("\n")];
    let fields = prop::collection::vec(field(), 0..3);
    (method, target, version, host, fields, end, framed()).prop_map(
        |(method, target, version, host, fields, end, (framing, body))| {
            let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
            format!("{method} {target} {version}\r\n{host}{fields}{framing}{end}{body}")
        },
    )
}

/// A change of a few bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Insert(prop::sample::Index, &'static str),
    Remove(prop::sample::Index, usize),
    Flip(prop::sample::Index, u8),
    /// What follows here is cut off.
    Cut(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    let insert = prop::sample::select(
        &[
            "\r",
            "\n",
            "\r\n",
            "\r\n\r\n",
            "\0",
            " ",
            "\t",
            ":",
            ",",
            ";",
            "0",
            "\r\n0\r\n\r\n",
            "\u{b}",
            "\u{80}",
            "#",
        ][..],
    );
    prop_oneof![
        4 => (at(), insert).prop_map(|(at, text)| Mutation::Insert(at, text)),
        2 => (at(), 1_usize..8).prop_map(|(at, count)| Mutation::Remove(at, count)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Flip(at, byte)),
        1 => at().prop_map(Mutation::Cut),
    ]
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        if bytes.is_empty() {
            break;
        }
        match mutation {
            Mutation::Insert(at, text) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, text.bytes());
            }
            Mutation::Remove(at, count) => {
                let at = at.index(bytes.len());
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Mutation::Flip(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Mutation::Cut(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
    bytes
}

/// The bytes of one connection, and where they are cut into writes.
struct Conversation {
    bytes: Vec<u8>,
    cuts: Vec<prop::sample::Index>,
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" cut at {:?}", self.bytes.escape_ascii(), self.cuts)
    }
}

fn conversation() -> impl Strategy<Value = Conversation> {
    let requests = prop::collection::vec(request(), 1..5).prop_map(|requests| requests.concat().into_bytes());
    let mutations = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(mutation(), 1..4)];
    let mutated = (requests, mutations).prop_map(|(bytes, mutations)| mutate(bytes, &mutations));
    let anything = prop::collection::vec(any::<u8>(), 0..200);
    let behind = anything
        .clone()
        .prop_map(|bytes| [b"GET /first HTTP/1.1\r\nHost: server\r\n\r\n", &bytes[..]].concat());
    let bytes = prop_oneof![20 => mutated, 1 => anything, 1 => behind];
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    (bytes, cuts).prop_map(|(bytes, cuts)| Conversation { bytes, cuts })
}

async fn send_in_pieces(address: SocketAddr, bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<u8> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    let mut wire = Wire::connect(address).await;
    for piece in at.windows(2) {
        if !wire.send(&bytes[piece[0]..piece[1]]).await {
            break;
        }
        tokio::task::yield_now().await;
    }
    wire.finish().await;
    wire.rest().await
}

#[test]
fn http1_comes_out_unambiguous() {
    let world = LazyLock::new(World::new);
    world.check(HTTP1_CASES, conversation(), |Conversation { bytes, cuts }| {
        world.runtime.block_on(async {
            let answers = send_in_pieces(world.pair.outbound, &bytes, &cuts).await;
            let sent = strict::requests(&bytes);
            let out = world.arrived().await?;
            judge_forwarded(&sent.whole, &out)?;
            // And what comes back are answers, as many as there were requests and one more for the refused one.
            let mut rest = &answers[..];
            let mut count = 0;
            while !rest.is_empty() {
                let method = sent.whole.get(count).map_or("GET", Message::method);
                match strict::response(rest, method, true) {
                    Ok(Some((message, behind))) => {
                        count += 1;
                        rest = behind;
                        if message.status() == 101 {
                            break;
                        }
                    }
                    Ok(None) => break,
                    Err(fault) => {
                        let text = String::from_utf8_lossy(rest);
                        return Err(TestCaseError::fail(format!("{fault} in the answers: {text:?}")));
                    }
                }
            }
            prop_assert!(
                count <= sent.whole.len() + 1,
                "{} answers to {} requests",
                count,
                sent.whole.len()
            );
            Ok(())
        })
    });
}

type Field = (Vec<u8>, Vec<u8>);

/// One HTTP/2 request: its block, the frames of its body, its trailers.
struct Http2Request {
    fields: Vec<Field>,
    body: Vec<Vec<u8>>,
    trailers: Option<Vec<Field>>,
}

impl fmt::Debug for Http2Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = |fields: &[Field]| {
            let texts = fields
                .iter()
                .map(|(name, value)| format!("{}: {}", name.escape_ascii(), value.escape_ascii()));
            texts.collect::<Vec<_>>()
        };
        let body: Vec<String> = self
            .body
            .iter()
            .map(|data| data.escape_ascii().to_string())
            .collect();
        write!(
            f,
            "{:?} {body:?} {:?}",
            fields(&self.fields),
            self.trailers.as_deref().map(fields)
        )
    }
}

fn http2_field() -> impl Strategy<Value = Field> {
    let known = prop::sample::select(
        &[
            ("content-length", "0"),
            ("content-length", "5"),
            ("content-length", "+5"),
            ("content-length", "5, 5"),
            ("transfer-encoding", "chunked"),
            ("connection", "close"),
            ("connection", "x-hop-1"),
            ("keep-alive", "5"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("te", "gzip"),
            ("host", "server"),
            ("host", "other"),
            ("cookie", "a=b"),
            ("cookie", "c=d"),
            ("expect", "100-continue"),
            (":path", "/second"),
            (":authority", "other"),
            ("x", "a\r\nb: c"),
            ("x", "a\0b"),
            ("x y", "a"),
            ("X", "a"),
        ][..],
    )
    .prop_map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let value = prop_oneof![12 => "[!-~ ]{0,12}".prop_map(String::into_bytes), 1 => prop::collection::vec(any::<u8>(), 0..12)];
    let any_field = ("[a-z!#$%&'*+.^_`|~-]{1,8}", value).prop_map(|(name, value)| (name.into_bytes(), value));
    prop_oneof![1 => known, 2 => any_field]
}

fn http2_request() -> impl Strategy<Value = Http2Request> {
    let pseudo = |name: &'static str, usual: &'static [&'static str], odd: &'static [&'static str]| {
        let value = prop_oneof![40 => prop::sample::select(usual), 1 => prop::sample::select(odd)];
        let field = value.prop_map(move |value| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        prop_oneof![100 => field.prop_map(Some), 1 => Just(None)]
    };
    let start = (
        pseudo(
            ":method",
            &["GET", "POST", "PUT", "HEAD"],
            &["CONNECT", "", "G T", "GET / HTTP/1.1\r\nx: y\r\n\r\nGET"],
        ),
        pseudo(":scheme", &["http", "https"], &["ftp", "", "h t"]),
        pseudo(
            ":authority",
            &["server", "server:80"],
            &["", "a@server", "server/x", "other", "server\r\nx: y", "ser ver"],
        ),
        pseudo(
            ":path",
            &["/", "/a", "/b?c", "/c?d=%20"],
            &[
                "",
                "*",
                "#",
                "/#x",
                "a",
                "?x",
                "/a b",
                "http://server/",
                "/\r\n",
                "/\u{e9}",
                "//x",
            ],
        ),
    );
    let fields = prop::collection::vec(http2_field(), 0..3);
    let body = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..4);
    let trailers =
        prop_oneof![4 => Just(None), 1 => prop::collection::vec(http2_field(), 0..3).prop_map(Some)];
    (start, fields, body, trailers).prop_map(|((method, scheme, authority, path), fields, body, trailers)| {
        let start = [method, scheme, authority, path].into_iter().flatten();
        Http2Request {
            fields: start.chain(fields).collect(),
            body,
            trailers,
        }
    })
}

fn block(fields: &[Field]) -> Vec<u8> {
    h2::block(
        &fields
            .iter()
            .map(|(name, value)| (&name[..], &value[..]))
            .collect::<Vec<_>>(),
    )
}

/// What a request of HTTP/2 should be in HTTP/1, as far as it is compared.
fn as_sent(Http2Request { fields, body, .. }: &Http2Request) -> Message {
    let value = |name: &str| {
        let field = fields.iter().find(|(known, _)| known == name.as_bytes());
        field
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .unwrap_or_default()
    };
    let start = format!("{} {} HTTP/1.1", value(":method"), value(":path"));
    let mut body = body.concat();
    // The application may have the whole body before the byte arrives that is one too many.
    if let Ok(length) = value("content-length").parse() {
        body.truncate(length);
    }
    Message {
        start,
        body,
        ..Message::default()
    }
}

#[test]
fn http2_comes_out_unambiguous() {
    let world = LazyLock::new(World::new);
    world.check(
        HTTP2_CASES,
        prop::collection::vec(http2_request(), 1..4),
        |requests| {
            world.runtime.block_on(async {
                let mut frames = Frames::open(Wire::connect(world.pair.outbound).await).await;
                let mut sent = Vec::new();
                for (stream, request) in (1..).step_by(2).zip(&requests) {
                    let Http2Request {
                        fields,
                        body,
                        trailers,
                    } = request;
                    sent.push(as_sent(request));
                    let ends = body.is_empty() && trailers.is_none();
                    let end = if ends { h2::END_STREAM } else { 0 };
                    frames
                        .send(h2::HEADERS, h2::END_HEADERS | end, stream, &block(fields))
                        .await;
                    for (index, data) in body.iter().enumerate() {
                        let ends = index + 1 == body.len() && trailers.is_none();
                        frames
                            .send(h2::DATA, if ends { h2::END_STREAM } else { 0 }, stream, data)
                            .await;
                    }
                    if let Some(trailers) = trailers {
                        frames
                            .send(
                                h2::HEADERS,
                                h2::END_HEADERS | h2::END_STREAM,
                                stream,
                                &block(trailers),
                            )
                            .await;
                    }
                    // One after the other, so that they arrive in this order.
                    frames.ending(stream).await;
                }
                drop(frames);
                let out = world.arrived().await?;
                judge_forwarded(&sent, &out)
            })
        },
    );
}
