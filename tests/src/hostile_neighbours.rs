//! Requests of HTTP/1 that look like those that are refused, and are right.

/// The neighbours of all these, which are right.
pub fn accepted() -> Vec<(&'static str, String)> {
    let post =
        |fields: &str, body: &str| format!("POST /right HTTP/1.1\r\nHost: server\r\n{fields}\r\n\r\n{body}");
    let get = |line: &str, fields: &str| format!("{line}\r\n{fields}\r\n");
    let many = "x: 1\r\n".repeat(99);
    vec![
        ("a length", post("Content-Length: 5", "hello")),
        ("a length with zeros", post("Content-Length: 0005", "hello")),
        ("a length of 0", post("content-length:0", "")),
        (
            "chunks",
            post("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "chunks, in another case",
            post("transfer-encoding:\tCHUNKED ", "5\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "chunk extensions",
            post("Transfer-Encoding: chunked", "5;a=\"b;c\"\r\nhello\r\n00\r\n\r\n"),
        ),
        (
            "trailers",
            post(
                "Transfer-Encoding: chunked",
                "5\r\nhello\r\n0\r\nX-Checksum: 1\r\n\r\n",
            ),
        ),
        (
            "GET with chunks",
            "GET /chunks HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
        ),
        (
            "GET with a length",
            "GET /length HTTP/1.1\r\nHost: server\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        ),
        (
            "an expectation",
            post("Expect: 100-continue\r\nContent-Length: 5", "hello"),
        ),
        ("no body", post("X: 1", "")),
        (
            "Host with a port",
            get("GET /right HTTP/1.1", "Host: server:80\r\n"),
        ),
        (
            "a long Host",
            get(
                "GET /right HTTP/1.1",
                "Host: SERVER.default.svc.cluster.local\r\n",
            ),
        ),
        (
            "an absolute target",
            get("GET http://server/right HTTP/1.1", "Host: server\r\n"),
        ),
        (
            "an absolute target without path",
            get("GET http://server HTTP/1.1", "Host: server\r\n"),
        ),
        (
            "a query",
            get("GET /right?a=b%20c&d HTTP/1.1", "Host: server\r\n"),
        ),
        (
            "what browsers send raw",
            get("GET /right/|^[]{}\" HTTP/1.1", "Host: server\r\n"),
        ),
        ("OPTIONS *", get("OPTIONS * HTTP/1.1", "Host: server\r\n")),
        ("HEAD", get("HEAD /right HTTP/1.1", "Host: server\r\n")),
        ("HTTP/1.0", get("GET /right HTTP/1.0", "Host: server\r\n")),
        (
            "a method nobody knows",
            get("BREW /right HTTP/1.1", "Host: server\r\n"),
        ),
        (
            "bytes over 127",
            get("GET /right HTTP/1.1", "Host: server\r\nX: \u{e9}\r\n"),
        ),
        (
            "an empty value",
            get("GET /right HTTP/1.1", "Host: server\r\nX:\r\n"),
        ),
        (
            "hop-by-hop fields",
            get(
                "GET /right HTTP/1.1",
                "Host: server\r\nConnection: keep-alive, x-secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers, gzip\r\nProxy-Authorization: x\r\n",
            ),
        ),
        (
            "an upgrade nobody knows",
            get(
                "GET /right HTTP/1.1",
                "Host: server\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
            ),
        ),
        (
            "100 fields",
            get("GET /right HTTP/1.1", &format!("Host: server\r\n{many}")),
        ),
        (
            "60 KiB of fields",
            get(
                "GET /right HTTP/1.1",
                &format!("Host: server\r\nX: {}\r\n", "a".repeat(60 * 1024)),
            ),
        ),
        (
            "a target of 16,000 bytes",
            get(
                &format!("GET /{} HTTP/1.1", "a".repeat(15_999)),
                "Host: server\r\n",
            ),
        ),
    ]
}
