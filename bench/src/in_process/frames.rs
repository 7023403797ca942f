//! HTTP/2 at its barest (RFC 9113): frames on a socket, and header blocks that were encoded before.
//!
//! What arrives is never decoded: a run needs to know only where a message ends, and that it begins with
//! `:status: 200`.

use std::ops::Range;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::RunError;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// Of SETTINGS and PING.
const ACK: u8 = 1;

const HEADER_BYTES: usize = 9;
/// More than the peer sends before it waits for an answer; a frame has at most 16 KiB, as SETTINGS does not raise it.
const BUFFER_BYTES: usize = 64 * 1024;
/// Raises the connection's window from 65,535 to its most: no run receives so much that it had to be raised again.
const WINDOW: u32 = 0x7fff_ffff - 65_535;

/// First index of HPACK's dynamic table (RFC 7541 section 2.3.3).
const DYNAMIC: u8 = 62;
const INDEXED: u8 = 0x80;
const LITERAL_INDEXED: u8 = 0x40;

/// A frame whose payload is in the buffer.
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    payload: Range<usize>,
}

impl Frame {
    /// Whether it is the last one of a message.
    pub(super) fn ends_message(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// One connection, with a buffer for each direction.
pub(super) struct Frames {
    stream: TcpStream,
    read: Vec<u8>,
    /// What was read and not looked at.
    unread: Range<usize>,
    /// Written before [`Frames::next`] waits.
    pub(super) out: Vec<u8>,
}

impl Frames {
    /// Takes up a connection; `out` begins with SETTINGS, which say nothing, and a large window.
    pub(super) fn new(stream: TcpStream, preface: &[u8]) -> Self {
        let mut out = Vec::with_capacity(BUFFER_BYTES);
        out.extend_from_slice(preface);
        put(&mut out, SETTINGS, 0, 0, &[]);
        put(&mut out, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        Self {
            stream,
            read: vec![0; BUFFER_BYTES],
            unread: 0..0,
            out,
        }
    }

    /// The next frame that has to do with a message. Others are answered where they want to be, in `out`.
    pub(super) async fn next(&mut self) -> Result<Frame, RunError> {
        loop {
            let frame = self.frame().await?;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => put(&mut self.out, SETTINGS, ACK, 0, &[]),
                PING if frame.flags & ACK == 0 => {
                    put(&mut self.out, PING, ACK, 0, &self.read[frame.payload]);
                }
                SETTINGS | PING | WINDOW_UPDATE => {}
                RST_STREAM | GOAWAY => return Err(RunError::Ended),
                _ => return Ok(frame),
            }
        }
    }

    pub(super) fn payload(&self, frame: &Frame) -> &[u8] {
        &self.read[frame.payload.clone()]
    }

    /// Reads so many bytes that are no frame: the client's preface.
    pub(super) async fn skip(&mut self, count: usize) -> Result<(), RunError> {
        while self.unread.len() < count {
            self.fill().await?;
        }
        self.unread.start += count;
        Ok(())
    }

    async fn frame(&mut self) -> Result<Frame, RunError> {
        loop {
            if let Some(frame) = self.whole_frame() {
                self.unread.start = frame.payload.end;
                return Ok(frame);
            }
            self.stream.write_all(&self.out).await?;
            self.out.clear();
            self.fill().await?;
        }
    }

    fn whole_frame(&self) -> Option<Frame> {
        let (header, rest) = self.read[self.unread.clone()].split_first_chunk::<HEADER_BYTES>()?;
        let [a, b, c, kind, flags, stream @ ..] = *header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let start = self.unread.start + HEADER_BYTES;
        (rest.len() >= length).then(|| Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            payload: start..start + length,
        })
    }

    async fn fill(&mut self) -> Result<(), RunError> {
        self.read.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        match self.stream.read(&mut self.read[self.unread.end..]).await? {
            0 => Err(RunError::Ended),
            count => {
                self.unread.end += count;
                Ok(())
            }
        }
    }
}

/// Appends one frame.
pub(super) fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// One message's fields as HPACK encodes them: in full the first time on a connection, then by reference.
pub(super) struct HeaderBlocks {
    first: Vec<u8>,
    again: Vec<u8>,
    is_first: bool,
}

impl HeaderBlocks {
    /// `fixed` are bytes that refer to the static table; the fields are added to the dynamic one.
    pub(super) fn new(fixed: &[u8], fields: &[(&str, &str)]) -> Self {
        let (mut first, mut again) = (fixed.to_vec(), fixed.to_vec());
        for (name, value) in fields {
            first.push(LITERAL_INDEXED);
            for text in [name, value] {
                // A length is one byte, as none here is over 126 (RFC 7541 section 5.1).
                first.extend(u8::try_from(text.len()));
                first.extend_from_slice(text.as_bytes());
            }
        }
        // The field that was added last has the lowest index.
        again.extend(
            (0..fields.len())
                .rev()
                .filter_map(|at| Some(INDEXED | (DYNAMIC + u8::try_from(at).ok()?))),
        );
        Self {
            first,
            again,
            is_first: true,
        }
    }

    pub(super) fn next(&mut self) -> &[u8] {
        if std::mem::take(&mut self.is_first) {
            &self.first
        } else {
            &self.again
        }
    }
}
