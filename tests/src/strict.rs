//! A naive and strict reader of HTTP/1 messages: the oracle that judges what the proxy wrote.
//!
//! Written for the reader, not for speed, and from RFC 9112 alone: it shares no line with the proxy.

/// One message as it stands on the wire, its body without framing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub start: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
}

/// What a stream of bytes holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stream {
    pub whole: Vec<Message>,
    /// Behind the last whole message: nothing, the beginning of another, or what is none.
    pub rest: Rest,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub enum Rest {
    #[default]
    Nothing,
    /// As far as it goes, it is valid; so is its head, if that is whole.
    Unfinished {
        head: Option<Message>,
    },
    Fault(String),
}

/// The way to read the body of a message.
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

enum Stop {
    Unfinished,
    Fault(String),
}

type Parse<T> = Result<T, Stop>;

fn fault<T>(text: impl Into<String>) -> Parse<T> {
    Err(Stop::Fault(text.into()))
}

impl Message {
    /// The values of the fields of a name in lower case.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |field: &&(String, Vec<u8>)| field.0.eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .filter(named)
            .map(|(_, value)| value.as_slice())
    }

    /// The only value of a field, as text.
    pub fn value(&self, name: &str) -> Option<String> {
        let mut values = self.values(name);
        let first = values.next()?;
        values
            .next()
            .is_none()
            .then(|| String::from_utf8_lossy(first).into_owned())
    }

    /// Of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// Of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// Of a response.
    pub fn status(&self) -> u16 {
        self.start
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0)
    }
}

/// Reads what a client may have sent: requests, one behind the other.
pub fn requests(bytes: &[u8]) -> Stream {
    let mut stream = Stream::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        // One empty line may stand before a request (RFC 9112 section 2.2).
        let line = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        if line.is_empty() {
            break;
        }
        let mut head = None;
        match request(line, &mut head) {
            Ok((message, behind)) => {
                stream.whole.push(message);
                rest = behind;
            }
            Err(Stop::Unfinished) => {
                stream.rest = Rest::Unfinished { head };
                return stream;
            }
            Err(Stop::Fault(text)) => {
                stream.rest = Rest::Fault(text);
                return stream;
            }
        }
    }
    stream
}

/// Reads one response to a request of `method` and what stands behind it. Interim responses are skipped.
/// `closed`: nothing follows these bytes. `Ok(None)`: more must come.
pub fn response<'a>(
    bytes: &'a [u8],
    method: &str,
    closed: bool,
) -> Result<Option<(Message, &'a [u8])>, String> {
    let mut rest = bytes;
    loop {
        match response_with_interim(rest, method, closed) {
            Ok((message, behind)) if (100..200).contains(&message.status()) && message.status() != 101 => {
                rest = behind;
            }
            Ok(read) => return Ok(Some(read)),
            Err(Stop::Unfinished) => return Ok(None),
            Err(Stop::Fault(text)) => return Err(text),
        }
    }
}

/// What the proxy may write to an application: judges a request beyond its syntax.
pub fn judge_forwarded(message: &Message) -> Result<(), String> {
    let names = || message.fields.iter().map(|(name, _)| name.to_ascii_lowercase());
    let is_upgrade = message.value("upgrade").is_some_and(|value| value == "websocket");
    let is_te = message.value("te").is_some_and(|value| value == "trailers");
    let connection: &[&str] = match (is_upgrade, is_te) {
        (true, true) => &["te, upgrade"],
        (true, false) => &["upgrade"],
        (false, true) => &["te"],
        (false, false) => &[],
    };
    let found: Vec<_> = message
        .values("connection")
        .map(String::from_utf8_lossy)
        .collect();
    if found != connection {
        return Err(format!("Connection is {found:?} and should be {connection:?}"));
    }
    const HOP_BY_HOP: [&str; 7] = [
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "http2-settings",
        "upgrade",
        "te",
    ];
    let own = |name: &str| (name == "upgrade" && is_upgrade) || (name == "te" && is_te);
    if let Some(name) = names().find(|name| HOP_BY_HOP.contains(&name.as_str()) && !own(name)) {
        return Err(format!("hop-by-hop field {name}"));
    }
    if message.values("host").count() != 1 {
        return Err("not exactly one Host".into());
    }
    if !message.start.ends_with(" HTTP/1.1") {
        return Err("not HTTP/1.1".into());
    }
    let is_asterisk = message.target() == "*" && message.method() == "OPTIONS";
    if !message.target().starts_with('/') && !is_asterisk {
        return Err(format!("target {:?}", message.target()));
    }
    if message.target().contains('#') {
        return Err("a fragment in the target".into());
    }
    for (name, _) in &message.trailers {
        if forbidden_trailer(name) {
            return Err(format!("forbidden trailer {name}"));
        }
    }
    Ok(())
}

/// Fields that frame, route, authenticate or say how to read the content (RFC 9110 section 6.5.1).
pub fn forbidden_trailer(name: &str) -> bool {
    const FORBIDDEN: [&str; 17] = [
        "transfer-encoding",
        "content-length",
        "host",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "cache-control",
        "expect",
        "max-forwards",
        "authorization",
        "set-cookie",
        "cookie",
        "content-encoding",
        "content-type",
        "content-range",
    ];
    FORBIDDEN
        .iter()
        .any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

fn request<'a>(bytes: &'a [u8], whole_head: &mut Option<Message>) -> Parse<(Message, &'a [u8])> {
    let (start, rest) = line(bytes)?;
    let words: Vec<&[u8]> = start.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return fault("request line");
    };
    if !is_token(method) || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return fault("method or target");
    }
    if version != b"HTTP/1.1" && version != b"HTTP/1.0" {
        return fault("version");
    }
    let (fields, rest) = fields(rest)?;
    let mut message = Message {
        start: text(start),
        fields,
        ..Message::default()
    };
    *whole_head = Some(message.clone());
    if message.values("host").count() != 1 {
        return fault("not exactly one Host");
    }
    let framing = framing(&message)?.unwrap_or(Framing::Length(0));
    if version == b"HTTP/1.0" && matches!(framing, Framing::Chunked) {
        return fault("Transfer-Encoding in HTTP/1.0");
    }
    let rest = body(&mut message, framing, rest, false)?;
    Ok((message, rest))
}

fn response_with_interim<'a>(bytes: &'a [u8], method: &str, closed: bool) -> Parse<(Message, &'a [u8])> {
    let (start, rest) = line(bytes)?;
    let status = match start {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'0' | b'1',
            b' ',
            status @ ..,
        ] => status.get(..3),
        _ => return fault("status line"),
    };
    let Some([a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9']) = status else {
        return fault("status");
    };
    let status = [a, b, c]
        .iter()
        .fold(0, |number, digit| number * 10 + u16::from(**digit - b'0'));
    let (fields, rest) = fields(rest)?;
    let mut message = Message {
        start: text(start),
        fields,
        ..Message::default()
    };
    let framing = framing(&message)?;
    if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
        return Ok((message, rest));
    }
    let rest = body(&mut message, framing.unwrap_or(Framing::UntilClose), rest, closed)?;
    Ok((message, rest))
}

fn line(bytes: &[u8]) -> Parse<(&[u8], &[u8])> {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' => {
                return match bytes.get(at + 1) {
                    Some(b'\n') => Ok((&bytes[..at], &bytes[at + 2..])),
                    Some(_) => fault("bare CR"),
                    None => Err(Stop::Unfinished),
                };
            }
            b'\n' => return fault("bare LF"),
            0 => return fault("NUL"),
            _ => {}
        }
    }
    Err(Stop::Unfinished)
}

type Fields = Vec<(String, Vec<u8>)>;

fn fields(mut bytes: &[u8]) -> Parse<(Fields, &[u8])> {
    let mut fields = Vec::new();
    loop {
        let (line, rest) = line(bytes)?;
        bytes = rest;
        if line.is_empty() {
            return Ok((fields, rest));
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return fault("a field without colon");
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_token(name) {
            return fault(format!("field name {:?}", text(name)));
        }
        if value
            .iter()
            .any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f)
        {
            return fault("a control byte in a field");
        }
        fields.push((text(name), value.trim_ascii().to_vec()));
    }
}

fn framing(message: &Message) -> Parse<Option<Framing>> {
    let lengths: Vec<&[u8]> = message.values("content-length").collect();
    let codings: Vec<&[u8]> = message.values("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(None),
        ([length], []) => {
            let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            match text(length).parse::<u64>() {
                Ok(length) if digits => Ok(Some(Framing::Length(
                    usize::try_from(length).unwrap_or(usize::MAX),
                ))),
                _ => fault("Content-Length is no number"),
            }
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
        _ => fault("more than one of one Content-Length and one chunked"),
    }
}

fn body<'a>(message: &mut Message, framing: Framing, bytes: &'a [u8], closed: bool) -> Parse<&'a [u8]> {
    match framing {
        Framing::Length(length) => {
            let (body, rest) = bytes.split_at_checked(length).ok_or(Stop::Unfinished)?;
            message.body = body.to_vec();
            Ok(rest)
        }
        Framing::UntilClose if closed => {
            message.body = bytes.to_vec();
            Ok(&[])
        }
        Framing::UntilClose => Err(Stop::Unfinished),
        Framing::Chunked => {
            let mut rest = bytes;
            loop {
                let (size, behind) = line(rest)?;
                let digits = size.split(|byte| *byte == b';').next().unwrap_or_default();
                if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return fault("chunk size");
                }
                let size = u64::from_str_radix(&text(digits), 16).unwrap_or(u64::MAX);
                if size == 0 {
                    let (trailers, behind) = fields(behind)?;
                    message.trailers = trailers;
                    return Ok(behind);
                }
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let (data, behind) = behind.split_at_checked(size).ok_or(Stop::Unfinished)?;
                message.body.extend_from_slice(data);
                rest = match behind {
                    [b'\r', b'\n', rest @ ..] => rest,
                    [] | [b'\r'] => return Err(Stop::Unfinished),
                    _ => return fault("no CRLF behind a chunk"),
                };
            }
        }
    }
}

fn is_token(bytes: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(token)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(bytes: &str) -> Rest {
        requests(bytes.as_bytes()).rest
    }

    #[test]
    fn a_sequence_is_read() {
        let stream = requests(
            b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiPUT /b HTTP/1.1\r\nhost:x\r\n\
              transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: 1\r\n\r\nGET",
        );
        assert_eq!(stream.rest, Rest::Unfinished { head: None });
        let [first, second] = &stream.whole[..] else {
            panic!("{stream:?}")
        };
        assert_eq!(
            (first.method(), first.target(), &first.body[..]),
            ("POST", "/a", &b"hi"[..])
        );
        assert_eq!(
            (second.target(), &second.body[..], second.trailers.len()),
            ("/b", &b"abc"[..], 1)
        );
    }

    #[test]
    fn faults_are_seen() {
        for bad in [
            "GET / HTTP/1.1\nHost: x\n\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n a: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\na b: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\na: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
            "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        ] {
            assert!(matches!(rest(bad), Rest::Fault(_)), "{bad:?}");
        }
    }

    #[test]
    fn forwarding_is_judged() {
        let judge = |fields: &str| {
            let stream = requests(format!("GET / HTTP/1.1\r\nhost: x\r\n{fields}\r\n").as_bytes());
            judge_forwarded(stream.whole.first().expect("a request"))
        };
        assert_eq!(judge("a: b\r\n"), Ok(()));
        assert_eq!(judge("te: trailers\r\nconnection: te\r\n"), Ok(()));
        assert_eq!(judge("upgrade: websocket\r\nconnection: upgrade\r\n"), Ok(()));
        for bad in [
            "te: trailers\r\n",
            "keep-alive: 1\r\n",
            "connection: close\r\n",
            "upgrade: h2c\r\n",
        ] {
            assert!(judge(bad).is_err(), "{bad:?}");
        }
    }
}
