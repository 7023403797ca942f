use super::*;

fn http2_response(status: u16, fields: &[(&'static str, &'static str)]) -> Result<Accepted, Reason> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, http::HeaderValue::from_static(value));
    }
    let status = StatusCode::from_u16(status).expect("a status");
    validate(
        http2(status, &headers),
        &ResponseTo::default(),
        &MessageLimits::default(),
    )
}

#[test]
fn http2_responses() {
    let frames = |length| {
        Ok(Accepted::Final {
            body: Body::Frames(length),
            reusable: true,
        })
    };
    assert_eq!(http2_response(200, &[]), frames(None));
    assert_eq!(http2_response(200, &[("content-length", "5")]), frames(Some(5)));
    assert_eq!(
        http2_response(304, &[("content-length", "5")]),
        Ok(Accepted::Final {
            body: Body::None,
            reusable: true
        })
    );
    assert_eq!(http2_response(103, &[]), Ok(Accepted::Interim));
    for (status, name, value, reason) in [
        (200, "connection", "close", Reason::MalformedResponse),
        (200, "transfer-encoding", "chunked", Reason::MalformedResponse),
        (200, "content-length", "x", Reason::AmbiguousResponseLength),
        (204, "content-length", "5", Reason::ExcessResponse),
        (101, "server", "x", Reason::UnaskedUpgrade),
    ] {
        assert_eq!(
            http2_response(status, &[(name, value)]),
            Err(reason),
            "{status} {name}: {value}"
        );
    }
    assert_eq!(
        http2_response(200, &[("x", "1"); 101]),
        Err(Reason::ResponseHeadTooLarge)
    );
    assert_eq!(
        http2_response(200, &[("content-length", "5"); 2]),
        Err(Reason::AmbiguousResponseLength)
    );
}

#[test]
fn status_lines() {
    let read = |line: &str| ResponseHead::http1(format!("{line}\r\n\r\n").as_bytes()).map(|head| head.status);
    for (line, status) in [
        ("HTTP/1.1 200 OK", 200),
        ("HTTP/1.1 200 ", 200),
        ("HTTP/1.0 599", 599),
        ("HTTP/1.1 404 \u{e9} b", 404),
    ] {
        assert_eq!(read(line), Ok(status), "{line}");
    }
    for line in [
        "",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 20",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 600 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200 a\0",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1x200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 2x0 OK",
        "ICY 200 OK",
        "200 OK",
    ] {
        assert_eq!(read(line), Err(Reason::MalformedResponse), "{line:?}");
    }
}
