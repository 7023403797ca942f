//! How many frames of each kind a peer may send, and what to say when it sends more.

use std::time::Duration;

use crate::Reason;

/// Allowances of one HTTP/2 connection. Those per window are raised by 1 for every useful frame in it, unless they
/// say otherwise: a header block, or DATA with bytes in it, in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// The window that frames are counted in. Default 10 s.
    pub window: Duration,
    /// SETTINGS, acknowledgements included, per window. Default 100.
    pub settings: u32,
    /// PING, acknowledgements included, per window. Default 200.
    pub pings: u32,
    /// PRIORITY per window. Default 1,000.
    pub priorities: u32,
    /// RST_STREAM per window, raised by 1 for every second stream opened. Default 500.
    pub resets: u32,
    /// RST_STREAM that we had to send for a violation of the protocol, per window, raised as `resets`. Default 200.
    pub provoked_resets: u32,
    /// WINDOW_UPDATE below `small_window_update`, per window. Default 2,000.
    pub window_updates: u32,
    /// An increment below this many bytes opens nothing. Default 256.
    pub small_window_update: u32,
    /// DATA and fragments of header blocks without a byte in them, padding aside, per window; DATA that ends its
    /// stream is not counted. Default 100.
    pub empty: u32,
    /// GOAWAY and frames of unknown kinds per window. Default 200.
    pub others: u32,
    /// Header blocks of a server that do not end their stream, per window, raised by 8 for every useful frame that
    /// we wrote: one begins each answer, and the others are interim answers. Default 1,000.
    pub interim: u32,
    /// CONTINUATION frames of one header block. Default 16.
    pub continuations: u32,
    /// Bytes of one header block as it is sent, compressed. Default 64 KiB.
    pub header_block_bytes: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            settings: 100,
            pings: 200,
            priorities: 1_000,
            resets: 500,
            provoked_resets: 200,
            window_updates: 2_000,
            small_window_update: 256,
            empty: 100,
            others: 200,
            interim: 1_000,
            continuations: 16,
            header_block_bytes: 64 * 1024,
        }
    }
}

/// Why an HTTP/2 connection must end: the limit that was exceeded, or a frame that may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    #[error("too many SETTINGS frames")]
    Settings,
    #[error("too many PING frames")]
    Pings,
    #[error("too many PRIORITY frames")]
    Priorities,
    #[error("too many streams reset")]
    Resets,
    #[error("too many resets provoked")]
    ProvokedResets,
    #[error("too many small window updates")]
    WindowUpdates,
    #[error("too many empty frames")]
    EmptyFrames,
    #[error("too many frames of unknown kinds")]
    Others,
    #[error("too many interim answers")]
    Interim,
    #[error("too many CONTINUATION frames")]
    Continuations,
    #[error("the header block is too large")]
    HeaderBlock,
    #[error("the header block did not end in time")]
    SlowHeaderBlock,
    #[error("a push that nobody enabled")]
    Push,
    #[error("a '#' in :path")]
    PathFragment,
    #[error("the header block is no HPACK")]
    Compression,
}

impl Excess {
    /// The reason to give in an answer, where the excess is one request that can be answered.
    pub fn reason(self) -> Option<Reason> {
        (self == Self::PathFragment).then_some(Reason::BadTarget)
    }

    /// The error code for GOAWAY (RFC 9113 section 7).
    pub fn code(self) -> u32 {
        match self {
            Self::Push | Self::PathFragment => 0x1, // PROTOCOL_ERROR
            Self::Compression => 0x9,               // COMPRESSION_ERROR
            _ => 0xb,                               // ENHANCE_YOUR_CALM
        }
    }
}
