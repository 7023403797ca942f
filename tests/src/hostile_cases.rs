//! Requests of HTTP/1 that two programs could read in two ways, and why each of them is refused.

use std::fmt::Write as _;

/// All of them.
pub fn all_cases() -> impl Iterator<Item = Case> {
    [framing(), hosts(), targets(), fields(), bodies()]
        .into_iter()
        .flatten()
}

/// A tunnel, which only the outbound port of a sidecar serves.
pub fn tunnel() -> Case {
    with_target("CONNECT", "CONNECT server:80", 400, "bad_method")
}

/// What is sent, the status of the answer and the reason in it.
pub struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub status: u16,
    pub detail: &'static str,
}

/// A request of which nothing at all may be forwarded.
fn head(name: &'static str, request: impl AsRef<[u8]>, status: u16, detail: &'static str) -> Case {
    Case {
        name,
        bytes: request.as_ref().to_vec(),
        status,
        detail,
    }
}

fn with_fields(name: &'static str, fields: &str, status: u16, detail: &'static str) -> Case {
    // What stands behind the head would be a second request for whoever reads the first one another way.
    let request = format!(
        "POST /refused HTTP/1.1\r\nHost: server\r\n{fields}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: server\r\n\r\n"
    );
    head(name, request, status, detail)
}

fn with_host(name: &'static str, fields: &str) -> Case {
    head(
        name,
        format!("GET /refused HTTP/1.1\r\n{fields}\r\n"),
        400,
        "bad_host",
    )
}

fn with_target(name: &'static str, line: &str, status: u16, detail: &'static str) -> Case {
    head(
        name,
        format!("{line} HTTP/1.1\r\nHost: server\r\n\r\n"),
        status,
        detail,
    )
}

fn framing() -> Vec<Case> {
    let length = |name, fields: &str| with_fields(name, fields, 400, "ambiguous_length");
    let coding = |name, fields: &str| with_fields(name, fields, 400, "bad_transfer_encoding");
    let unknown = |name, fields: &str| with_fields(name, fields, 501, "unknown_transfer_coding");
    vec![
        length(
            "length, then coding",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
        ),
        length(
            "coding, then length",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
        ),
        length(
            "length 0 and coding",
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
        ),
        length("signed length", "Content-Length: +5"),
        length("negative length", "Content-Length: -5"),
        length("hexadecimal length", "Content-Length: 0x5"),
        length("length with a space", "Content-Length: 5 5"),
        length("length with a point", "Content-Length: 5.0"),
        length("empty length", "Content-Length:"),
        length("a list of equal lengths", "Content-Length: 5, 5"),
        length("a list of lengths", "Content-Length: 5, 6"),
        length("equal lengths", "Content-Length: 5\r\nContent-Length: 5"),
        length("other lengths", "Content-Length: 5\r\ncontent-length: 6"),
        length("a length of 65 bits", "Content-Length: 18446744073709551616"),
        length(
            "a length of 40 digits",
            "Content-Length: 0000000000000000000018446744073709551617",
        ),
        coding("chunked twice", "Transfer-Encoding: chunked, chunked"),
        coding(
            "chunked in two fields",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        coding("no coding", "Transfer-Encoding:"),
        coding("a coding that is no token", "Transfer-Encoding: \"chunked\""),
        coding("chunked with a parameter", "Transfer-Encoding: chunked;q=1"),
        coding("chunked and an empty element", "Transfer-Encoding: chunked,"),
        unknown("stacked codings", "Transfer-Encoding: gzip, chunked"),
        unknown("chunked not last", "Transfer-Encoding: chunked, gzip"),
        unknown("identity", "Transfer-Encoding: identity"),
        unknown("a misspelt coding", "Transfer-Encoding: xchunked"),
        unknown(
            "an unknown coding in a second field",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
        ),
        with_fields(
            "Connection names Content-Length",
            "Connection: content-length\r\nContent-Length: 5",
            400,
            "malformed_request",
        ),
        with_fields(
            "Connection names Host",
            "Connection: close, Host",
            400,
            "malformed_request",
        ),
        head(
            "a coding in HTTP/1.0",
            "POST /refused HTTP/1.0\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "bad_transfer_encoding",
        ),
        with_fields("an unknown expectation", "Expect: 200-ok", 417, "bad_expectation"),
        with_fields(
            "an upgrade with a body",
            "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5",
            400,
            "bad_upgrade",
        ),
        with_fields(
            "a choice of upgrades",
            "Connection: upgrade\r\nUpgrade: websocket, h2c",
            400,
            "bad_upgrade",
        ),
    ]
}

fn hosts() -> Vec<Case> {
    vec![
        with_host("no Host", ""),
        with_host("an empty Host", "Host:\r\n"),
        with_host("two Hosts", "Host: server\r\nHost: other\r\n"),
        with_host("two equal Hosts", "Host: server\r\nhost: server\r\n"),
        with_host("Host with a user", "Host: user@server\r\n"),
        with_host("Host with a space", "Host: server other\r\n"),
        with_host("Host with a path", "Host: server/\r\n"),
        with_host("Host with a query", "Host: server?a\r\n"),
        with_host("Host with a fragment", "Host: server#a\r\n"),
        with_host("Host with a comma", "Host: server,other\r\n"),
        with_host("Host with a signed port", "Host: server:+80\r\n"),
        with_host("Host with a port that is no number", "Host: server:http\r\n"),
        with_host("Host with a large port", "Host: server:65616\r\n"),
        with_host("Host with two ports", "Host: server:80:80\r\n"),
        with_host("Host with escapes", "Host: serv%65r\r\n"),
        head(
            "a Host other than the target",
            "GET http://server/refused HTTP/1.1\r\nHost: other\r\n\r\n",
            400,
            "bad_host",
        ),
        head(
            "a user in the target",
            "GET http://other@server/refused HTTP/1.1\r\nHost: server\r\n\r\n",
            400,
            "bad_host",
        ),
        head(
            "no Host in HTTP/1.0",
            "GET /refused HTTP/1.0\r\n\r\n",
            400,
            "bad_host",
        ),
    ]
}

fn targets() -> Vec<Case> {
    let bad = |name, line: &str| with_target(name, line, 400, "bad_target");
    vec![
        bad("a fragment", "GET /refused#fragment"),
        bad("a target without slash", "GET refused"),
        bad("a query alone", "GET ?refused"),
        bad("GET *", "GET *"),
        bad("another scheme", "GET https://server/refused"),
        bad("a file", "GET file:///refused"),
        bad("no authority", "GET http:///refused"),
        bad("a backslash", "GET /refused\\..\\"),
        bad("an angle bracket", "GET /<refused>"),
        bad("bytes over 127", "GET /refus\u{e9}"),
        with_target("two spaces", "GET  /refused", 400, "malformed_request"),
        with_target(
            "a space in the target",
            "GET /refused x",
            400,
            "malformed_request",
        ),
        with_target("a tab in the target", "GET /refused\tx", 400, "malformed_request"),
        with_target(
            "a long target",
            &format!("GET /{}", "a".repeat(16 * 1024)),
            414,
            "target_too_long",
        ),
        head(
            "no version",
            "GET /refused\r\nHost: server\r\n\r\n",
            400,
            "malformed_request",
        ),
        head(
            "HTTP/1.2",
            "GET /refused HTTP/1.2\r\nHost: server\r\n\r\n",
            400,
            "malformed_request",
        ),
        head(
            "HTTP/2.0",
            "GET /refused HTTP/2.0\r\nHost: server\r\n\r\n",
            400,
            "malformed_request",
        ),
        head(
            "http/1.1",
            "GET /refused http/1.1\r\nHost: server\r\n\r\n",
            400,
            "malformed_request",
        ),
    ]
}

fn fields() -> Vec<Case> {
    let bad = |name, fields: &str| with_fields(name, fields, 400, "malformed_request");
    let many: String = (0..100).fold(String::new(), |mut all, number| {
        let _ = write!(all, "x-{number}: 1\r\n");
        all
    });
    vec![
        bad("a bare CR", "X: a\rb"),
        bad("a bare LF", "X: a\nY: b"),
        bad("NUL", "X: a\0b"),
        bad("a control byte", "X: a\u{1}b"),
        bad("DEL", "X: a\u{7f}b"),
        bad("a folded field", "X: a\r\n b"),
        bad("a folded first field", " X: a"),
        bad("a folded length", "X: a\r\n\tContent-Length: 5"),
        bad("a space in a name", "X Y: a"),
        bad("a space behind a name", "Transfer-Encoding : chunked"),
        bad("a tab behind a name", "Content-Length\t: 5"),
        bad("no name", ": a"),
        bad("no colon", "X"),
        bad("a name of bytes over 127", "\u{e9}: a"),
        bad("a name with a bracket", "X[: a"),
        bad("a control byte in a name", "X\u{b}: a"),
        bad("CR CR LF", "X: a\r"),
        head(
            "line feeds alone",
            "GET /refused HTTP/1.1\nHost: server\n\n",
            400,
            "malformed_request",
        ),
        head(
            "one line feed",
            "GET /refused HTTP/1.1\r\nHost: server\r\n\n",
            400,
            "malformed_request",
        ),
        with_fields(
            "70 KiB of fields",
            &format!("X: {}", "a".repeat(70 * 1024)),
            431,
            "head_too_large",
        ),
        with_fields(
            "70 fields of 1 KiB",
            format!("X: {}\r\n", "a".repeat(1024)).repeat(70).trim_end(),
            431,
            "head_too_large",
        ),
        with_fields("101 fields", many.trim_end(), 431, "too_many_fields"),
    ]
}

/// A head that is right, in front of a body that is not.
fn bodies() -> Vec<Case> {
    let chunk = |name, body: &str| {
        let head = "POST /broken HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n";
        let behind = "GET /smuggled HTTP/1.1\r\nHost: server\r\n\r\n";
        Case {
            name,
            bytes: format!("{head}{body}{behind}").into_bytes(),
            status: 400,
            detail: "bad_chunk",
        }
    };
    let trailer = |name, field: &str| Case {
        detail: "bad_trailer",
        ..chunk(name, &format!("0\r\n{field}\r\n\r\n"))
    };
    vec![
        chunk("a chunk with line feeds", "5\nhello\n0\n\n"),
        chunk("a chunk ended by LF", "5\r\nhello\n0\r\n\r\n"),
        chunk("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        chunk("a signed chunk", "+5\r\nhello\r\n0\r\n\r\n"),
        chunk("a negative chunk", "-5\r\nhello\r\n0\r\n\r\n"),
        chunk("a space behind the size", "5 \r\nhello\r\n0\r\n\r\n"),
        chunk("no size", "\r\nhello\r\n0\r\n\r\n"),
        chunk("a size of 68 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        chunk("a short chunk", "6\r\nhello\r\n0\r\n\r\n"),
        chunk("a long chunk", "4\r\nhello\r\n0\r\n\r\n"),
        chunk("a line feed in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        chunk(
            "a long extension",
            &format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(300)),
        ),
        chunk("a second chunk that is wrong", "5\r\nhello\r\nx\r\n0\r\n\r\n"),
        trailer("Content-Length in a trailer", "Content-Length: 5"),
        trailer("Transfer-Encoding in a trailer", "Transfer-Encoding: chunked"),
        trailer("Host in a trailer", "Host: other"),
        trailer("Authorization in a trailer", "Authorization: Basic eDp5"),
        trailer("a trailer that is no field", "no field"),
        trailer("a folded trailer", "X: a\r\n b"),
        trailer("a trailer with a bare LF", "X: a\nY: b"),
    ]
}
