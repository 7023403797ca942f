//! HTTP/2 frames, counted before the codec sees them: is this peer working, or keeping us busy?
//!
//! Every kind of frame that costs the receiver more than the sender has an allowance in a window of time, which
//! useful work on the same connection raises: PING and SETTINGS floods (CVE-2019-9512, -9515), empty frames
//! (-9518), reset floods (CVE-2023-44487), resets that we are made to send (CVE-2025-8671), CONTINUATION floods
//! (CVE-2024-27316) and window updates that open nothing.

mod frames;
mod limits;

use std::time::Instant;

pub use frames::{FrameBoundary, Written, goaway};
pub use limits::{Excess, FrameLimits};

use super::hpack::{BlockFault, DEFAULT_TABLE_BYTES, PathWatch};
use frames::{Event, FrameHead, FrameWalk, Kind};

/// Counts the frames that one HTTP/2 peer sends.
#[derive(Debug)]
pub struct FrameMeter {
    limits: FrameLimits,
    walk: FrameWalk,
    frame: Option<Frame>,
    block: Option<Block>,
    /// Follows the header blocks of requests.
    paths: Option<PathWatch>,
    last_stream: u32,
    window: Option<Instant>,
    counts: Counts,
    excess: Option<Excess>,
    /// The stream whose request was the excess.
    refused_stream: Option<u32>,
}

/// Frames within the current window.
#[derive(Debug, Default)]
struct Counts {
    /// Streams opened by a client, or header blocks of a server.
    opened: u32,
    /// Those, and DATA with bytes in it, in both directions.
    useful: u32,
    settings: u32,
    pings: u32,
    priorities: u32,
    resets: u32,
    provoked_resets: u32,
    window_updates: u32,
    empty: u32,
    others: u32,
    interim: u32,
    /// The useful frames that we wrote.
    written: u32,
}

/// The frame that is being read.
#[derive(Debug)]
struct Frame {
    head: FrameHead,
    /// Its first payload bytes, as many as its kind is judged by.
    first: [u8; 4],
    /// How many payload bytes have been read.
    read: usize,
}

/// The header block that is being read: HEADERS or PUSH_PROMISE, and CONTINUATION until END_HEADERS.
#[derive(Debug, Default)]
struct Block {
    /// The stream that it opens.
    opens: Option<u32>,
    fragments: Vec<u8>,
    bytes: usize,
    continuations: u32,
}

impl FrameMeter {
    /// For a server, which reads what a client sends, its connection preface first. Such a meter also refuses a
    /// `:path` with a `#` in it, which codecs drop without a word.
    pub fn of_client(limits: FrameLimits) -> Self {
        Self::new(
            limits,
            FrameWalk::of_client(),
            Some(PathWatch::new(DEFAULT_TABLE_BYTES)),
        )
    }

    /// For a client, which reads what a server sends.
    pub fn of_server(limits: FrameLimits) -> Self {
        Self::new(limits, FrameWalk::of_server(), None)
    }

    fn new(limits: FrameLimits, walk: FrameWalk, paths: Option<PathWatch>) -> Self {
        Self {
            limits,
            walk,
            frame: None,
            block: None,
            paths,
            last_stream: 0,
            window: None,
            counts: Counts::default(),
            excess: None,
            refused_stream: None,
        }
    }

    /// Reads on. `bytes` follow those of the last call, cut anywhere.
    ///
    /// # Errors
    /// The first [`Excess`], then and at every later call. Nothing of `bytes` should reach the codec, and the
    /// connection should end with [`FrameMeter::farewell`].
    pub fn feed(&mut self, bytes: &[u8], now: Instant) -> Result<(), Excess> {
        self.turn_window(now);
        let mut rest = bytes;
        while self.excess.is_none()
            && let Some(event) = self.walk.next(&mut rest)
        {
            if let Err(excess) = self.event(event) {
                self.excess = Some(excess);
            }
        }
        self.excess.map_or(Ok(()), Err)
    }

    /// Counts what was written to this peer: an answer is useful work, and a reset that it provoked is not.
    ///
    /// # Errors
    /// As [`FrameMeter::feed`].
    pub fn wrote(&mut self, written: Written, now: Instant) -> Result<(), Excess> {
        self.turn_window(now);
        self.counts.useful = self.counts.useful.saturating_add(written.useful);
        self.counts.written = self.counts.written.saturating_add(written.useful);
        self.counts.provoked_resets = self
            .counts
            .provoked_resets
            .saturating_add(written.provoked_resets);
        if self.counts.provoked_resets > self.limits.provoked_resets.saturating_add(self.counts.opened / 2) {
            self.excess = self.excess.or(Some(Excess::ProvokedResets));
        }
        self.excess.map_or(Ok(()), Err)
    }

    /// Whether a header block has begun and not ended.
    pub fn mid_header_block(&self) -> bool {
        self.block.is_some()
    }

    /// The header block that has begun was waited for long enough: from here on the connection is over.
    pub fn header_block_is_late(&mut self) -> Excess {
        *self.excess.get_or_insert(Excess::SlowHeaderBlock)
    }

    /// The highest stream on which this peer has sent a header block; 0 before the first.
    pub fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// What to write at the next [`FrameBoundary::at_boundary`] before the connection closes: GOAWAY with the code of
    /// the excess, and before it, where the excess is one request that can be answered, a 400 with `fields`, whose
    /// names are lower-case. Empty without an excess.
    pub fn farewell(&self, fields: &[(&str, &str)]) -> Vec<u8> {
        let Some(excess) = self.excess else {
            return Vec::new();
        };
        let mut bytes = self
            .refused_stream
            .map_or_else(Vec::new, |stream| frames::bad_request(stream, fields));
        bytes.extend_from_slice(&goaway(self.last_stream, excess.code()));
        bytes
    }

    fn turn_window(&mut self, now: Instant) {
        let began = *self.window.get_or_insert(now);
        if now.saturating_duration_since(began) >= self.limits.window {
            self.window = Some(now);
            self.counts = Counts::default();
        }
    }

    fn event(&mut self, event: Event<'_>) -> Result<(), Excess> {
        match event {
            Event::Head(head) => {
                self.frame = Some(Frame {
                    head,
                    first: [0; 4],
                    read: 0,
                });
                self.begin(head)?;
                self.payload(&[])
            }
            Event::Payload(bytes) => self.payload(bytes),
        }
    }

    /// What a frame's head alone says.
    fn begin(&mut self, head: FrameHead) -> Result<(), Excess> {
        match head.kind {
            Kind::Headers => {
                // A client's trailers open nothing, so that they do not pay for a reset.
                let opens = (head.stream > self.last_stream).then_some(head.stream);
                self.block = Some(Block {
                    opens,
                    ..Block::default()
                });
                if opens.is_some() || self.paths.is_none() {
                    self.counts.opened = self.counts.opened.saturating_add(1);
                }
                self.last_stream = self.last_stream.max(head.stream);
                if self.paths.is_none() && !head.ends_stream() {
                    self.counts.interim = self.counts.interim.saturating_add(1);
                    let paid = self.counts.written.saturating_mul(8);
                    if self.counts.interim > self.limits.interim.saturating_add(paid) {
                        return Err(Excess::Interim);
                    }
                }
                Ok(())
            }
            Kind::PushPromise => Err(Excess::Push),
            Kind::Continuation => {
                // Without a block before it the codec ends the connection.
                let block = self.block.get_or_insert_default();
                block.continuations += 1;
                if block.continuations > self.limits.continuations {
                    Err(Excess::Continuations)
                } else {
                    Ok(())
                }
            }
            Kind::Settings => self.count(
                |counts| &mut counts.settings,
                self.limits.settings,
                Excess::Settings,
            ),
            Kind::Ping => self.count(|counts| &mut counts.pings, self.limits.pings, Excess::Pings),
            Kind::Priority => self.count(
                |counts| &mut counts.priorities,
                self.limits.priorities,
                Excess::Priorities,
            ),
            Kind::Reset => {
                self.counts.resets += 1;
                // Opening a stream does not pay for resetting it.
                let allowed = self.limits.resets.saturating_add(self.counts.opened / 2);
                if self.counts.resets > allowed {
                    Err(Excess::Resets)
                } else {
                    Ok(())
                }
            }
            Kind::Other => self.count(|counts| &mut counts.others, self.limits.others, Excess::Others),
            Kind::Data | Kind::WindowUpdate => Ok(()),
        }
    }

    /// More of the current frame's payload, or none of it if it is empty.
    fn payload(&mut self, bytes: &[u8]) -> Result<(), Excess> {
        let Some(frame) = &mut self.frame else {
            return Ok(());
        };
        let before = frame.read;
        for (slot, byte) in frame.first.iter_mut().skip(before).zip(bytes) {
            *slot = *byte;
        }
        frame.read += bytes.len();
        let (head, read, first) = (frame.head, frame.read, frame.first);
        if matches!(head.kind, Kind::Headers | Kind::Continuation) {
            self.fragment(head, first, before, bytes)?;
        }
        let whole = read >= head.length;
        if whole {
            self.frame = None;
        }
        match head.kind {
            Kind::Data if whole => self.data(head, head.length.saturating_sub(head.padding(first))),
            Kind::WindowUpdate if whole => {
                if u32::from_be_bytes(first) & 0x7fff_ffff >= self.limits.small_window_update {
                    return Ok(());
                }
                self.count(
                    |counts| &mut counts.window_updates,
                    self.limits.window_updates,
                    Excess::WindowUpdates,
                )
            }
            Kind::Headers | Kind::Continuation if whole => self.end_of_fragment(head, first),
            _ => Ok(()),
        }
    }

    fn data(&mut self, head: FrameHead, bytes: usize) -> Result<(), Excess> {
        if bytes > 0 {
            self.counts.useful = self.counts.useful.saturating_add(1);
            Ok(())
        } else if head.ends_stream() {
            Ok(())
        } else {
            self.count(|counts| &mut counts.empty, self.limits.empty, Excess::EmptyFrames)
        }
    }

    /// Takes the part of the payload that belongs to the header block: not the padding, nor the priority.
    fn fragment(&mut self, head: FrameHead, first: [u8; 4], from: usize, bytes: &[u8]) -> Result<(), Excess> {
        let Some(block) = &mut self.block else {
            return Ok(());
        };
        let end = head
            .length
            .saturating_sub(head.trailing_padding(first))
            .saturating_sub(from)
            .min(bytes.len());
        let start = head.fragment_offset().saturating_sub(from).min(end);
        let fragment = bytes.get(start..end).unwrap_or_default();
        block.bytes += fragment.len();
        if block.bytes > self.limits.header_block_bytes {
            return Err(Excess::HeaderBlock);
        }
        if self.paths.is_some() {
            block.fragments.extend_from_slice(fragment);
        }
        Ok(())
    }

    fn end_of_fragment(&mut self, head: FrameHead, first: [u8; 4]) -> Result<(), Excess> {
        let overhead = head.fragment_offset() + head.trailing_padding(first);
        if head.length <= overhead {
            self.count(|counts| &mut counts.empty, self.limits.empty, Excess::EmptyFrames)?;
        }
        if !head.ends_headers() {
            return Ok(());
        }
        let block = self.block.take().unwrap_or_default();
        self.counts.useful = self.counts.useful.saturating_add(1);
        match self.paths.as_mut().map(|paths| paths.block(&block.fragments)) {
            Some(Err(BlockFault::Fragment)) => {
                self.refused_stream = block.opens;
                Err(Excess::PathFragment)
            }
            Some(Err(BlockFault::Compression)) => Err(Excess::Compression),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// One more of a kind that useful work pays for.
    fn count(&mut self, kind: fn(&mut Counts) -> &mut u32, limit: u32, excess: Excess) -> Result<(), Excess> {
        let allowed = limit.saturating_add(self.counts.useful);
        let count = kind(&mut self.counts);
        *count = count.saturating_add(1);
        if *count > allowed { Err(excess) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
