//! An HTTP/2 client that writes frames by hand: whatever a codec would never send.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::hostile::Wire;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const PRIORITY: u8 = 0x2;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PING: u8 = 0x6;
pub const GOAWAY: u8 = 0x7;
pub const WINDOW_UPDATE: u8 = 0x8;
pub const CONTINUATION: u8 = 0x9;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

pub const NO_ERROR: u32 = 0x0;
pub const PROTOCOL_ERROR: u32 = 0x1;
pub const ENHANCE_YOUR_CALM: u32 = 0xb;

/// One frame as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Of RST_STREAM and GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let code = match self.kind {
            RST_STREAM => self.payload.get(..4)?,
            GOAWAY => self.payload.get(4..8)?,
            _ => return None,
        };
        Some(code.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }
}

/// One frame to be written.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a small payload")
        .to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header block of literals without Huffman coding or indexing (RFC 7541 section 6.2.2): any bytes can be in it.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name);
        string(&mut block, value);
    }
    block
}

fn string(block: &mut Vec<u8>, text: &[u8]) {
    integer(block, 0, 7, text.len());
    block.extend_from_slice(text);
}

/// RFC 7541 section 5.1.
pub fn integer(block: &mut Vec<u8>, first: u8, prefix: u32, number: usize) {
    let mask = (1_usize << prefix) - 1;
    let byte = |number: usize| u8::try_from(number & 0xff).expect("a byte");
    if number < mask {
        return block.push(first | byte(number));
    }
    block.push(first | byte(mask));
    let mut rest = number - mask;
    while rest >= 128 {
        block.push(byte(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    block.push(byte(rest));
}

/// The pseudo-fields of a good request, and more fields.
pub fn request(path: &str, more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut fields: Vec<(&[u8], &[u8])> = vec![
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"server"),
        (b":path", path.as_bytes()),
    ];
    fields.extend_from_slice(more);
    block(&fields)
}

/// How one stream, or its whole connection, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Answered { status: u16, body: String },
    Reset(u32),
    GoAway(u32),
    Closed,
}

/// An HTTP/2 connection.
pub struct Frames<S>(pub Wire<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Sends the preface and empty SETTINGS.
    pub async fn open(mut wire: Wire<S>) -> Self {
        wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        Self(wire)
    }

    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.0.send(&frame(kind, flags, stream, payload)).await
    }

    /// The next frame; SETTINGS are acknowledged. `None`: closed.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let buffer = &self.0.buffer;
            if let Some(&[a, b, c, kind, flags, s0, s1, s2, s3]) = buffer.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if let Some(payload) = buffer.get(9..9 + length) {
                    let stream = u32::from_be_bytes([s0, s1, s2, s3]);
                    let frame = Frame {
                        kind,
                        flags,
                        stream,
                        payload: payload.to_vec(),
                    };
                    self.0.buffer.drain(..9 + length);
                    if kind == SETTINGS && flags & ACK == 0 {
                        self.send(SETTINGS, ACK, 0, &[]).await;
                    }
                    return Some(frame);
                }
            }
            if !self.0.more().await {
                return None;
            }
        }
    }

    /// Waits until a stream has ended, or the connection has.
    pub async fn ending(&mut self, stream: u32) -> Ending {
        let mut status = 0;
        let mut body = Vec::new();
        while let Some(frame) = self.next().await {
            match frame.kind {
                GOAWAY if frame.code() != Some(NO_ERROR) => return Ending::GoAway(frame.code().unwrap_or(0)),
                RST_STREAM if frame.stream == stream => return Ending::Reset(frame.code().unwrap_or(0)),
                HEADERS if frame.stream == stream && status == 0 => {
                    // 0 where it stands in the dynamic table, as only later answers of a connection do.
                    status = status_of(&frame.payload).unwrap_or(0);
                }
                DATA if frame.stream == stream => body.extend_from_slice(&frame.payload),
                _ => {}
            }
            if frame.stream == stream && matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0
            {
                return Ending::Answered {
                    status,
                    body: String::from_utf8_lossy(&body).into_owned(),
                };
            }
        }
        Ending::Closed
    }

    /// Reads to the end of the connection: the code of the last GOAWAY.
    pub async fn farewell(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                code = frame.code();
            }
        }
        code
    }
}

/// The status that a connection's first response block begins with.
fn status_of(block: &[u8]) -> Option<u16> {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match *block {
        [first @ 0x88..=0x8e, ..] => STATIC.get(usize::from(first - 0x88)).copied(),
        // A literal whose name is `:status`, of three digits, Huffman-coded or not.
        [0x48 | 0x08 | 0x18, length, ref rest @ ..] => {
            let raw = rest.get(..usize::from(length & 0x7f))?;
            if length & 0x80 == 0 {
                std::str::from_utf8(raw).ok()?.parse().ok()
            } else {
                digits(raw)
            }
        }
        _ => None,
    }
}

/// RFC 7541 appendix B: `0` to `2` are 00000 to 00010, `3` to `9` are 011001 to 011111.
fn digits(raw: &[u8]) -> Option<u16> {
    let bits: String = raw.iter().map(|byte| format!("{byte:08b}")).collect();
    let mut rest = bits.as_str();
    let mut number = 0;
    for _ in 0..3 {
        let five = u16::from_str_radix(rest.get(..5)?, 2).ok()?;
        let (digit, length) = if five <= 2 {
            (five, 5)
        } else {
            (u16::from_str_radix(rest.get(..6)?, 2).ok()? - 22, 6)
        };
        number = number * 10 + digit;
        rest = rest.get(length..)?;
    }
    Some(number)
}

/// What an [`Http2App`] writes as its answer: frames on the stream that asks.
type Answer = Box<dyn FnMut(u32) -> Vec<u8> + Send>;

/// An application that speaks HTTP/2 by hand. A request is answered with 200 and `clean`, unless something else was
/// prepared.
#[derive(Clone)]
pub struct Http2App {
    pub address: SocketAddr,
    prepared: Arc<Mutex<Option<Prepared>>>,
    asked: Arc<AtomicUsize>,
}

struct Prepared {
    answer: Answer,
    /// Again and again, until the connection is closed.
    for_ever: bool,
}

impl Http2App {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let app = Self {
            address,
            prepared: Arc::default(),
            asked: Arc::default(),
        };
        let served = app.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move { served.serve(stream).await });
            }
        });
        app
    }

    /// The answer to the next request.
    pub fn prepare(&self, answer: impl FnMut(u32) -> Vec<u8> + Send + 'static) {
        self.set(Prepared {
            answer: Box::new(answer),
            for_ever: false,
        });
    }

    /// The answer to the next request never ends.
    pub fn prepare_for_ever(&self, answer: impl FnMut(u32) -> Vec<u8> + Send + 'static) {
        self.set(Prepared {
            answer: Box::new(answer),
            for_ever: true,
        });
    }

    /// How many requests have come.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn set(&self, prepared: Prepared) {
        *self.prepared.lock().expect("no test panics here") = Some(prepared);
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut preface = [0; PREFACE.len()];
        let start = frame(SETTINGS, 0, 0, &[]);
        if stream.read_exact(&mut preface).await.is_err() || stream.write_all(&start).await.is_err() {
            return;
        }
        let mut frames = Frames(Wire::new(stream));
        while let Some(request) = frames.next_patiently().await {
            if request.kind != HEADERS || request.stream == 0 {
                continue;
            }
            self.asked.fetch_add(1, Ordering::Relaxed);
            let prepared = self.prepared.lock().expect("no test panics here").take();
            let Some(mut prepared) = prepared else {
                let head = frame(
                    HEADERS,
                    END_HEADERS,
                    request.stream,
                    &block(&[(b":status", b"200")]),
                );
                let data = frame(DATA, END_STREAM, request.stream, b"clean");
                frames.0.send(&[head, data].concat()).await;
                continue;
            };
            while frames.0.send(&(prepared.answer)(request.stream)).await && prepared.for_ever {}
        }
    }
}

impl Frames<TcpStream> {
    /// As [`Frames::next`], however long it takes.
    async fn next_patiently(&mut self) -> Option<Frame> {
        while self.0.buffer.is_empty() {
            if !self.0.more_patiently().await {
                return None;
            }
        }
        self.next().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read() {
        assert_eq!(status_of(&[0x8c, 1]), Some(400));
        assert_eq!(status_of(&[0x48, 3, b'4', b'3', b'1']), Some(431));
        // RFC 7541 appendix C.6.1: 302.
        assert_eq!(status_of(&[0x48, 0x82, 0x64, 0x02]), Some(302));
    }
}
