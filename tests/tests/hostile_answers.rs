//! Answers that two programs could read in two ways are never passed on, and never reach the next caller.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use tests::hostile::{self, Act, Scripted, Wire};
use tests::hostile_pair::Pair;
use tests::yaml;
use tokio::sync::Notify;

/// What a caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gets {
    /// The proxy's own answer, with its reason.
    Refusal(u16, &'static str),
    /// The answer's head, and then a body that breaks off.
    BrokenBody,
    /// A whole answer of this status with this body: what came behind it is gone.
    Clean(u16, &'static str),
}

struct Case {
    name: &'static str,
    method: &'static str,
    acts: Vec<Act>,
    gets: Gets,
}

fn case(name: &'static str, answer: impl AsRef<[u8]>, gets: Gets) -> Case {
    Case {
        name,
        method: "GET",
        acts: vec![Act::Write(answer.as_ref().to_vec())],
        gets,
    }
}

/// The application also closes the connection.
fn closed(name: &'static str, answer: impl AsRef<[u8]>, gets: Gets) -> Case {
    let mut case = case(name, answer, gets);
    case.acts.push(Act::Close);
    case
}

fn flood(name: &'static str, start: &str, again: &str, gets: Gets) -> Case {
    let acts = vec![Act::Write(start.into()), Act::Flood(again.repeat(50).into())];
    Case {
        name,
        method: "GET",
        acts,
        gets,
    }
}

const INJECTED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected";

fn heads() -> Vec<Case> {
    let fields = |name, fields: &str, detail| {
        case(
            name,
            format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nhello{INJECTED}"),
            Gets::Refusal(502, detail),
        )
    };
    let length = |name, lines: &str| fields(name, lines, "ambiguous_response_length");
    let coding = |name, lines: &str| fields(name, lines, "bad_response_coding");
    let malformed = |name, lines: &str| fields(name, lines, "malformed_response");
    let garbage = |name, bytes: &[u8]| case(name, bytes, Gets::Refusal(502, "malformed_response"));
    let many = (0..101)
        .map(|number| format!("x-{number}: 1\r\n"))
        .collect::<String>();
    vec![
        length("two lengths", "Content-Length: 5\r\nContent-Length: 6"),
        length("equal lengths", "Content-Length: 5\r\nContent-Length: 5"),
        length("a list of lengths", "Content-Length: 5, 5"),
        length(
            "a length and a coding",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
        ),
        length(
            "a coding and a length",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
        ),
        length("a signed length", "Content-Length: +5"),
        length("a hexadecimal length", "Content-Length: 0x5"),
        length("a length of 65 bits", "Content-Length: 18446744073709551621"),
        length("an empty length", "Content-Length:"),
        coding("chunked twice", "Transfer-Encoding: chunked, chunked"),
        coding(
            "chunked in two fields",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        coding("stacked codings", "Transfer-Encoding: gzip, chunked"),
        coding("another coding", "Transfer-Encoding: gzip"),
        coding("identity", "Transfer-Encoding: identity"),
        malformed("a bare LF", "X: a\nContent-Length: 5"),
        malformed("a bare CR", "X: a\rb\r\nContent-Length: 5"),
        malformed("NUL", "X: a\0b\r\nContent-Length: 5"),
        malformed("a folded field", "X: a\r\n b\r\nContent-Length: 5"),
        malformed("a space behind a name", "Content-Length : 5"),
        malformed("no name", ": a\r\nContent-Length: 5"),
        malformed("no colon", "X\r\nContent-Length: 5"),
        fields(
            "101 fields",
            &format!("{many}Content-Length: 5"),
            "response_head_too_large",
        ),
        fields(
            "70 KiB",
            &format!("X: {}\r\nContent-Length: 5", "a".repeat(70 * 1024)),
            "response_head_too_large",
        ),
        garbage("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        garbage("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n"),
        garbage("NULs", &[0; 4096]),
        garbage("ICY", b"ICY 200 OK\r\n\r\n"),
        garbage("HTTP/2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        garbage(
            "a status of two digits",
            b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        garbage(
            "a status of four digits",
            b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        garbage(
            "a status that is no number",
            b"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        garbage("status 099", b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
        garbage("status 999", b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n"),
        garbage(
            "a control byte in the reason",
            b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n",
        ),
        garbage(
            "an empty line first",
            b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        garbage("a body alone", b"<html></html>\r\n\r\n"),
        closed("nothing", "", Gets::Refusal(502, "connection_reset")),
        closed(
            "half a status line",
            "HTTP/1.1 20",
            Gets::Refusal(502, "connection_reset"),
        ),
        closed(
            "half a head",
            "HTTP/1.1 200 OK\r\nContent-Le",
            Gets::Refusal(502, "connection_reset"),
        ),
        flood(
            "a head that never ends",
            "HTTP/1.1 200 OK\r\n",
            "X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
            Gets::Refusal(502, "response_head_too_large"),
        ),
        flood(
            "a field that never ends",
            "HTTP/1.1 200 OK\r\nX: ",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            Gets::Refusal(502, "response_head_too_large"),
        ),
        flood(
            "a reason that never ends",
            "HTTP/1.1 200 ",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            Gets::Refusal(502, "response_head_too_large"),
        ),
        flood(
            "100 for ever",
            "",
            "HTTP/1.1 100 Continue\r\n\r\n",
            Gets::Refusal(502, "too_many_interim"),
        ),
        flood(
            "103 for ever",
            "",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
            Gets::Refusal(502, "too_many_interim"),
        ),
    ]
}

fn bodies() -> Vec<Case> {
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunked = |body: &str| format!("{ok}Transfer-Encoding: chunked\r\n\r\n{body}");
    let behind = |name, answer: &str, gets| case(name, format!("{answer}{INJECTED}"), gets);
    vec![
        case(
            "a 101 nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
            Gets::Refusal(502, "unasked_upgrade"),
        ),
        case(
            "a bare 101",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            Gets::Refusal(502, "unasked_upgrade"),
        ),
        case(
            "204 with a length",
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
            Gets::Refusal(502, "excess_response"),
        ),
        case(
            "204 with chunks",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            Gets::Refusal(502, "excess_response"),
        ),
        case(
            "100 with a length",
            "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello",
            Gets::Refusal(502, "excess_response"),
        ),
        behind(
            "204 and more",
            "HTTP/1.1 204 No Content\r\n\r\n",
            Gets::Clean(204, ""),
        ),
        behind(
            "304 and more",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            Gets::Clean(304, ""),
        ),
        Case {
            method: "HEAD",
            ..behind(
                "HEAD and more",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                Gets::Clean(200, ""),
            )
        },
        behind(
            "bytes behind a length",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            Gets::Clean(200, "hello"),
        ),
        behind(
            "bytes behind a length of 0",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Gets::Clean(200, ""),
        ),
        behind(
            "bytes behind chunks",
            &chunked("5\r\nhello\r\n0\r\n\r\n"),
            Gets::Clean(200, "hello"),
        ),
        behind(
            "bytes behind Connection: close",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            Gets::Clean(200, "hello"),
        ),
        closed(
            "a body until the end",
            "HTTP/1.1 200 OK\r\n\r\nhello",
            Gets::Clean(200, "hello"),
        ),
        closed(
            "HTTP/1.0",
            "HTTP/1.0 200 OK\r\n\r\nhello",
            Gets::Clean(200, "hello"),
        ),
        closed(
            "a short body",
            "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
            Gets::BrokenBody,
        ),
        closed(
            "chunks without an end",
            chunked("5\r\nhello\r\n"),
            Gets::BrokenBody,
        ),
        closed("half a chunk", chunked("50\r\nhello"), Gets::BrokenBody),
        closed(
            "half a trailer",
            chunked("5\r\nhello\r\n0\r\nX: "),
            Gets::BrokenBody,
        ),
        case(
            "a chunk that is too long",
            chunked("5\r\nhello!\r\n0\r\n\r\n"),
            Gets::BrokenBody,
        ),
        case(
            "a chunk that is no number",
            chunked("5\r\nhello\r\nx\r\n0\r\n\r\n"),
            Gets::BrokenBody,
        ),
        case(
            "a chunk with line feeds",
            chunked("5\r\nhello\r\n5\nhello\n0\n\n"),
            Gets::BrokenBody,
        ),
        case(
            "a chunk of 68 bits",
            chunked("5\r\nhello\r\n10000000000000005\r\nhello\r\n0\r\n\r\n"),
            Gets::BrokenBody,
        ),
        case(
            "a length in a trailer",
            chunked("5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"),
            Gets::BrokenBody,
        ),
        case(
            "a cookie in a trailer",
            chunked("5\r\nhello\r\n0\r\nSet-Cookie: a=b\r\n\r\n"),
            Gets::BrokenBody,
        ),
        case(
            "a trailer that is no field",
            chunked("5\r\nhello\r\n0\r\nno field\r\n\r\n"),
            Gets::BrokenBody,
        ),
        case(
            "8 interim answers",
            format!(
                "{}{}",
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(8),
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
            ),
            Gets::Clean(200, "hello"),
        ),
        case(
            "9 interim answers",
            format!(
                "{}{}",
                "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(9),
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
            ),
            Gets::Refusal(502, "too_many_interim"),
        ),
    ]
}

/// Sends one request on a connection of its own, as `path`.
async fn gets(pair: &Pair, method: &str, path: &str) -> Result<(u16, String, String), String> {
    let mut wire = Wire::connect(pair.outbound).await;
    wire.send(format!("{method} {path} HTTP/1.1\r\nHost: server\r\n\r\n").as_bytes())
        .await;
    match wire.answer(method).await {
        Some(answer) => {
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            Ok((answer.status(), hostile::detail(&answer), body))
        }
        None => Err(String::from_utf8_lossy(&wire.rest().await).into_owned()),
    }
}

async fn judge(pair: &Pair, method: &str, path: &str, expected: Gets) -> Result<(), String> {
    let got = gets(pair, method, path).await;
    let right = match (&got, expected) {
        (Ok((status, detail, _)), Gets::Refusal(code, reason)) => *status == code && detail == reason,
        (Ok((status, detail, body)), Gets::Clean(code, text)) => {
            *status == code && detail.is_empty() && body == text
        }
        (Err(part), Gets::BrokenBody) => part.is_empty() || part.starts_with("HTTP/1.1 200"),
        _ => false,
    };
    if right && !format!("{got:?}").contains("injected") {
        Ok(())
    } else {
        Err(format!("{got:?}"))
    }
}

/// The next caller has an answer of its own, on another connection than `used`.
async fn judge_next(pair: &Pair, app: &Scripted, number: usize, used: &[usize]) -> Result<(), String> {
    let path = format!("/next/{number}");
    judge_clean(&gets(pair, "GET", &path).await, &path)?;
    let connections = app.connections(&path);
    if connections.len() != 1 || used.contains(&connections[0]) {
        return Err(format!(
            "the next request was on connection {connections:?}, the last one on {used:?}"
        ));
    }
    Ok(())
}

fn judge_clean(got: &Result<(u16, String, String), String>, path: &str) -> Result<(), String> {
    match got {
        Ok((200, _, body)) if body == path => Ok(()),
        other => Err(format!("the next caller got {other:?}")),
    }
}

#[tokio::test]
async fn ambiguous_answers_stay_here() {
    let cases: Arc<Vec<Case>> = Arc::new([heads(), bodies()].into_iter().flatten().collect());
    let script = cases.clone();
    let app = Scripted::start(move |path| {
        let number: usize = path.strip_prefix("/case/")?.parse().ok()?;
        Some(script.get(number)?.acts.clone())
    })
    .await;
    let pair = Pair::start(app.address, &[]).await;
    let mut failures = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let path = format!("/case/{number}");
        if let Err(failure) = judge(&pair, case.method, &path, case.gets).await {
            failures.push(format!("{}: {failure} instead of {:?}", case.name, case.gets));
        }
        let used = app.connections(&path);
        if used.len() != 1 {
            failures.push(format!("{}: sent {} times", case.name, used.len()));
        }
        // These two are whole and leave nothing behind.
        let may_reuse = case.name == "8 interim answers";
        let used = if may_reuse { vec![] } else { used };
        if let Err(failure) = judge_next(&pair, &app, number, &used).await {
            failures.push(format!("{}: {failure}", case.name));
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    pair.assert_unharmed();
}

#[tokio::test]
async fn bytes_that_come_later_are_nobodys_answer() {
    let go = Arc::new(Notify::new());
    let script = go.clone();
    let app = Scripted::start(move |path| {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec();
        let acts = vec![
            Act::Write(whole),
            Act::Wait(script.clone()),
            Act::Write(INJECTED.into()),
        ];
        path.starts_with("/late/").then_some(acts)
    })
    .await;
    let pair = Pair::start(app.address, &[]).await;
    for number in 0..20 {
        let path = format!("/late/{number}");
        judge(&pair, "GET", &path, Gets::Clean(200, "hello"))
            .await
            .expect("a clean answer");
        let used = app.connections(&path);
        go.notify_one();
        if number % 2 == 0 {
            // The proxy closes the connection by itself, before anybody asks for anything.
            app.ended(used[0]).await;
        }
        // Else the race between the bytes and the next request is on; either may win, and nobody may be fooled.
        let next = format!("/next/{number}");
        let got = gets(&pair, "GET", &next).await;
        let clean = judge_clean(&got, &next).is_ok();
        let refused = matches!(&got, Ok((502, _, _)));
        assert!(clean || (number % 2 == 1 && refused), "{number}: {got:?}");
    }
    pair.assert_unharmed();
}

#[tokio::test]
async fn an_application_that_never_ends_its_head_is_given_up() {
    let forever = Arc::new(Notify::new());
    let app = Scripted::start(move |path| {
        let start = if path == "/s/silent" {
            &b""[..]
        } else {
            b"HTTP/1.1 200 OK\r\nX: "
        };
        path.starts_with("/s")
            .then(|| vec![Act::Write(start.to_vec()), Act::Wait(forever.clone())])
    })
    .await;
    let pair = Pair::start(app.address, &[]).await;
    let rules = "- matches: [{path: {type: PathPrefix, value: /s}}]\n  timeouts: {request: 300ms}\n\
                 \x20 backendRefs: [{name: server, port: 80}]\n\
                 - backendRefs: [{name: server, port: 80}]\n";
    pair.mesh.apply(&yaml::http_route("server", rules)).await;
    for (number, path) in ["/s/silent", "/s/stuck"].into_iter().enumerate() {
        judge(&pair, "GET", path, Gets::Refusal(504, "request_timeout"))
            .await
            .expect("given up");
        let used = app.connections(path);
        assert_eq!(used.len(), 1);
        judge_next(&pair, &app, number, &used)
            .await
            .expect("a clean answer");
    }
    pair.assert_unharmed();
}

#[tokio::test]
async fn an_upgrade_to_something_else_is_refused() {
    let app = Scripted::start(|path| {
        let protocol = path.strip_prefix("/to/")?;
        let head = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n{protocol}\r\n");
        Some(vec![Act::Write(
            head.replace("%20", " ").replace("|", "\r\n").into_bytes(),
        )])
    })
    .await;
    let pair = Pair::start(app.address, &[]).await;
    let ask = "Host: server\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
               Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    for (to, status) in [
        ("Upgrade:h2c|", 502),
        ("", 502),
        ("Upgrade:websocket|Upgrade:h2c|", 502),
        ("Upgrade:websocket|", 101),
    ] {
        let answer = hostile::ask(pair.outbound, &format!("GET /to/{to} HTTP/1.1\r\n{ask}")).await;
        assert_eq!(answer.status(), status, "{to:?}: {}", hostile::detail(&answer));
    }
    pair.assert_unharmed();
}
