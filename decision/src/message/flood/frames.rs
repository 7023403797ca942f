//! HTTP/2 frame heads (RFC 9113 section 4.1) in a stream of bytes that is cut anywhere.

use crate::message::detect::HTTP2_PREFACE;

const HEAD_BYTES: usize = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    WindowUpdate,
    Continuation,
    /// GOAWAY, extensions and unknown frames.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) length: usize,
    pub(super) kind: Kind,
    flags: u8,
    pub(super) stream: u32,
}

impl FrameHead {
    fn read([a, b, c, kind, flags, stream @ ..]: [u8; HEAD_BYTES]) -> Self {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let kind = match kind {
            0x0 => Kind::Data,
            0x1 => Kind::Headers,
            0x2 => Kind::Priority,
            0x3 => Kind::Reset,
            0x4 => Kind::Settings,
            0x5 => Kind::PushPromise,
            0x6 => Kind::Ping,
            0x8 => Kind::WindowUpdate,
            0x9 => Kind::Continuation,
            _ => Kind::Other,
        };
        Self {
            length,
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & 0x1 != 0
    }

    pub(super) fn ends_headers(&self) -> bool {
        self.flags & 0x4 != 0
    }

    fn padded(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers | Kind::PushPromise) && self.flags & 0x8 != 0
    }

    /// The padding and the byte that counts it.
    pub(super) fn padding(&self, first: [u8; 4]) -> usize {
        usize::from(self.padded()) + self.trailing_padding(first)
    }

    pub(super) fn trailing_padding(&self, [length, ..]: [u8; 4]) -> usize {
        if self.padded() { usize::from(length) } else { 0 }
    }

    /// Where the header block's fragment begins in the payload.
    pub(super) fn fragment_offset(&self) -> usize {
        let priority = if self.kind == Kind::Headers && self.flags & 0x20 != 0 {
            5
        } else {
            0
        };
        usize::from(self.padded()) + priority
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    Head(FrameHead),
    /// Some of the last frame's payload, never empty.
    Payload(&'a [u8]),
}

/// Splits a stream of bytes into frames.
#[derive(Debug)]
pub(super) struct FrameWalk {
    preface_left: usize,
    head: [u8; HEAD_BYTES],
    head_read: usize,
    payload_left: usize,
}

impl FrameWalk {
    pub(super) fn of_client() -> Self {
        Self {
            preface_left: HTTP2_PREFACE.len(),
            ..Self::of_server()
        }
    }

    pub(super) fn of_server() -> Self {
        Self {
            preface_left: 0,
            head: [0; HEAD_BYTES],
            head_read: 0,
            payload_left: 0,
        }
    }

    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Event<'a>> {
        let preface = take(bytes, self.preface_left);
        self.preface_left -= preface.len();
        if self.payload_left > 0 {
            let payload = take(bytes, self.payload_left);
            self.payload_left -= payload.len();
            return (!payload.is_empty()).then_some(Event::Payload(payload));
        }
        let part = take(bytes, HEAD_BYTES - self.head_read);
        for (slot, byte) in self.head.iter_mut().skip(self.head_read).zip(part) {
            *slot = *byte;
        }
        self.head_read += part.len();
        if self.head_read < HEAD_BYTES {
            return None;
        }
        self.head_read = 0;
        let head = FrameHead::read(self.head);
        self.payload_left = head.length;
        Some(Event::Head(head))
    }

    fn between_frames(&self) -> bool {
        self.preface_left == 0 && self.head_read == 0 && self.payload_left == 0
    }
}

fn take<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(most.min(bytes.len()));
    *bytes = rest;
    taken
}

/// Follows the bytes that we write to an HTTP/2 peer, to know where a frame of our own may be put.
#[derive(Debug)]
pub struct FrameBoundary {
    walk: FrameWalk,
    head: Option<FrameHead>,
    reset_code: [u8; 4],
    payload_read: usize,
    in_header_block: bool,
    written: Written,
}

/// What was written since it was last asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Header blocks, and DATA with bytes in it.
    pub useful: u32,
    /// RST_STREAM for a violation of the protocol: PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED or
    /// FRAME_SIZE_ERROR.
    pub provoked_resets: u32,
}

impl FrameBoundary {
    /// Of a client, which writes the connection preface first.
    pub fn of_client() -> Self {
        Self::new(FrameWalk::of_client())
    }

    /// Of a server.
    pub fn of_server() -> Self {
        Self::new(FrameWalk::of_server())
    }

    fn new(walk: FrameWalk) -> Self {
        let written = Written::default();
        Self {
            walk,
            head: None,
            reset_code: [0; 4],
            payload_read: 0,
            in_header_block: false,
            written,
        }
    }

    /// Follows `bytes`, which were written behind those of the last call.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(event) = self.walk.next(&mut rest) {
            match event {
                Event::Head(head) => self.begin(head),
                Event::Payload(bytes) => self.payload(bytes),
            }
        }
    }

    /// Whether a frame may be put here: behind a whole frame, the first one included, and not inside a header block.
    pub fn at_boundary(&self) -> bool {
        self.walk.between_frames() && self.head.is_some() && !self.in_header_block
    }

    /// What was written since the last call, for [`super::FrameMeter::wrote`].
    pub fn take_written(&mut self) -> Written {
        std::mem::take(&mut self.written)
    }

    fn begin(&mut self, head: FrameHead) {
        self.head = Some(head);
        self.payload_read = 0;
        if matches!(head.kind, Kind::Headers | Kind::PushPromise | Kind::Continuation) {
            self.in_header_block = !head.ends_headers();
        }
        if head.kind == Kind::Headers || (head.kind == Kind::Data && head.length > 0) {
            self.written.useful = self.written.useful.saturating_add(1);
        }
    }

    fn payload(&mut self, bytes: &[u8]) {
        if self.head.is_none_or(|head| head.kind != Kind::Reset) {
            return;
        }
        for (slot, byte) in self.reset_code.iter_mut().skip(self.payload_read).zip(bytes) {
            *slot = *byte;
        }
        let before = self.payload_read;
        self.payload_read += bytes.len();
        if before < 4
            && self.payload_read >= 4
            && matches!(u32::from_be_bytes(self.reset_code), 0x1 | 0x3 | 0x5 | 0x6)
        {
            self.written.provoked_resets = self.written.provoked_resets.saturating_add(1);
        }
    }
}

/// A whole GOAWAY frame (RFC 9113 section 6.8). `last_stream`: the highest stream that may have been acted on.
pub fn goaway(last_stream: u32, code: u32) -> [u8; 17] {
    let mut frame = [0, 0, 8, 0x7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let numbers = (last_stream & 0x7fff_ffff)
        .to_be_bytes()
        .into_iter()
        .chain(code.to_be_bytes());
    for (slot, byte) in frame.iter_mut().skip(HEAD_BYTES).zip(numbers) {
        *slot = byte;
    }
    frame
}

/// A whole HEADERS frame that answers a stream with 400 and nothing else. It takes nothing from the HPACK state of
/// the connection and adds nothing to it.
pub(super) fn bad_request(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    // `:status: 400` is entry 12 of the static table; 0 begins a literal without indexing (RFC 7541 section 6.2.2).
    let mut block = vec![0x80 | 12];
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            string(&mut block, text.as_bytes());
        }
    }
    let length = u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = length.get(1..).unwrap_or_default().to_vec();
    frame.extend_from_slice(&[0x1, 0x5]); // HEADERS with END_STREAM and END_HEADERS
    frame.extend_from_slice(&(stream & 0x7fff_ffff).to_be_bytes());
    frame.extend_from_slice(&block);
    frame
}

/// RFC 7541 section 5.2, without Huffman coding.
fn string(block: &mut Vec<u8>, text: &[u8]) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 0x7f => block.push(length),
        _ => {
            block.push(0x7f);
            let mut left = text.len() - 0x7f;
            while left >= 0x80 {
                block.push(0x80 | (left & 0x7f) as u8);
                left >>= 7;
            }
            block.push(left as u8);
        }
    }
    block.extend_from_slice(text);
}
