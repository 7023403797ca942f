//! One direction of one HTTP/1 connection, read before the codec sees it.
//!
//! Most HTTP/1 codecs are made to understand what they are sent, so they repair: they accept bare line feeds, drop
//! the `Content-Length` beside a `Transfer-Encoding`, join equal lengths. A proxy must not. [`Http1Reader`] cuts the
//! bytes of a connection into [`Unit`]s, gives a head out only when it is whole and accepted, follows the body to
//! know where the next head begins, and lets nothing pass that it refused.

mod chunked;
mod head;

use chunked::{Chunk, ChunkFault, Chunked, MAX_CHUNK_LINE_BYTES};
use head::{HeadFault, HeadScan, Scanned};

use super::request::{self, RequestHead};
pub use super::response::ResponseTo;
use super::response::{self, ResponseHead};
use super::{Body, MessageLimits, Upgrade};
use crate::Reason;

/// Reads the messages of one direction of one connection.
#[derive(Debug)]
pub struct Http1Reader {
    limits: MessageLimits,
    direction: Direction,
    state: State,
}

#[derive(Debug)]
enum Direction {
    Requests,
    Responses {
        /// The request that the next response answers.
        to: Option<ResponseTo>,
        /// Interim responses to it so far.
        interim: u32,
        reusable: bool,
    },
}

#[derive(Debug)]
enum State {
    Head(HeadScan),
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    /// A request asked for another protocol, and nobody has answered yet.
    Upgrading,
    /// The connection speaks another protocol.
    Upgraded,
    Refused {
        reason: Reason,
        in_head: bool,
    },
}

/// What to do with the bytes that [`Http1Reader::advance`] was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The first so many bytes, at least 1, may pass; they never reach into a second message. Call again with the
    /// rest, if there is any.
    Release(usize),
    /// Keep them all, and call again when there are more.
    Hold,
    /// None of them, and nothing after them, may ever pass. The same answer follows to every later call.
    Refuse(Reason),
}

/// The next piece of a message, at the front of the bytes that [`Http1Reader::next_unit`] was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// No whole one yet: keep the bytes, and call again when there are more.
    More,
    /// An accepted head, from the byte at `start` up to the one before `end`.
    Head { start: usize, end: usize, opens: Opens },
    /// So many bytes of content.
    Data(usize),
    /// So many bytes that only frame the content: a chunk's size, or the line end behind it.
    Framing(usize),
    /// The last so many bytes of a chunked message: its trailer section, mostly empty, with the final line end.
    Trailers(usize),
}

/// What an accepted head begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    Request {
        body: Body,
        /// Nothing behind this head is read until the upgrade is decided.
        upgrade: Option<Upgrade>,
    },
    /// A 1xx that is not the answer yet.
    Interim,
    /// A 101 that was asked for: what follows is another protocol.
    Switched,
    Response {
        body: Body,
    },
}

impl Unit {
    /// How many bytes it takes.
    fn bytes(self) -> usize {
        match self {
            Self::More => 0,
            Self::Head { end: bytes, .. }
            | Self::Data(bytes)
            | Self::Framing(bytes)
            | Self::Trailers(bytes) => bytes,
        }
    }
}

impl Http1Reader {
    /// Reads what a client sends.
    pub fn requests(limits: MessageLimits) -> Self {
        Self {
            limits,
            direction: Direction::Requests,
            state: State::Head(HeadScan::request()),
        }
    }

    /// Reads what an upstream sends. Every request must be announced with [`Http1Reader::expect_response`].
    pub fn responses(limits: MessageLimits) -> Self {
        let direction = Direction::Responses {
            to: None,
            interim: 0,
            reusable: true,
        };
        Self {
            limits,
            direction,
            state: State::Head(HeadScan::response()),
        }
    }

    /// Judges `bytes`: all that have arrived and were not released yet. A call may follow with the same bytes and
    /// more behind them, or without those that were released; bytes that were held may not change.
    ///
    /// How the bytes are cut does not change the verdict, nor what passes before it. Of a refused head nothing
    /// passes; of a message refused in its body, everything good before the fault.
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        let mut released = 0;
        loop {
            let rest = bytes.get(released..).unwrap_or_default();
            match self.next_unit(rest) {
                Ok(Unit::More) if released == 0 => return Progress::Hold,
                Ok(Unit::More) => return Progress::Release(released),
                Ok(unit) => {
                    released += unit.bytes();
                    if self.between_messages() {
                        return Progress::Release(released);
                    }
                }
                Err(reason) if released == 0 => return Progress::Refuse(reason),
                Err(_) => return Progress::Release(released),
            }
        }
    }

    /// Reads the next unit of `bytes`: all that have arrived and were not taken yet, as for [`Http1Reader::advance`].
    ///
    /// # Errors
    /// Why nothing more may ever pass. The same answer follows to every later call.
    pub fn next_unit(&mut self, bytes: &[u8]) -> Result<Unit, Reason> {
        let unit = self.step(bytes);
        if let Err(reason) = unit {
            let in_head = matches!(self.state, State::Head(_) | State::Refused { in_head: true, .. });
            self.state = State::Refused { reason, in_head };
        }
        unit
    }

    /// Whether the last message has ended, or left its connection to another protocol.
    pub fn between_messages(&self) -> bool {
        match &self.state {
            State::Head(scan) => !scan.begun(),
            State::Upgrading | State::Upgraded => true,
            State::Length(_) | State::Chunked(_) | State::UntilClose | State::Refused { .. } => false,
        }
    }

    /// Whether the body goes on until the connection closes.
    pub fn until_close(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// The most bytes for which [`Http1Reader::advance`] answers [`Progress::Hold`], while no upgrade is awaited.
    pub fn max_held(&self) -> usize {
        self.limits.head_bytes.saturating_add(2).max(MAX_CHUNK_LINE_BYTES)
    }

    /// Whether a message has begun and not ended, one that was refused included.
    pub fn mid_message(&self) -> bool {
        match &self.state {
            State::Head(scan) => scan.begun(),
            State::Length(_) | State::Chunked(_) | State::UntilClose | State::Refused { .. } => true,
            State::Upgrading | State::Upgraded => false,
        }
    }

    /// Whether a head has begun and is not accepted yet, or was refused: of this message, nothing has passed.
    pub fn mid_head(&self) -> bool {
        match &self.state {
            State::Head(scan) => scan.begun(),
            State::Refused { in_head, .. } => *in_head,
            _ => false,
        }
    }

    /// Responses: a request was sent. To be called before its response can arrive, and not before the response to
    /// the last one has ended: this side never pipelines, and a reader told otherwise refuses with
    /// [`Reason::Internal`].
    pub fn expect_response(&mut self, request: ResponseTo) {
        match (&mut self.direction, &self.state) {
            (_, State::Refused { .. }) => {}
            (
                Direction::Responses {
                    to: to @ None,
                    interim,
                    reusable: true,
                },
                State::Head(scan),
            ) if !scan.begun() => {
                *to = Some(request);
                *interim = 0;
            }
            _ => {
                self.state = State::Refused {
                    reason: Reason::Internal,
                    in_head: true,
                }
            }
        }
    }

    /// Responses: whether another request may be sent on this connection.
    pub fn reusable(&self) -> bool {
        match (&self.direction, &self.state) {
            (
                Direction::Responses {
                    to: None, reusable, ..
                },
                State::Head(scan),
            ) => *reusable && !scan.begun(),
            _ => false,
        }
    }

    /// Requests: whether the last request asked for another protocol, so that everything behind it is held until
    /// [`Http1Reader::upgraded`] or [`Http1Reader::not_upgraded`] is called. Hold back reading meanwhile.
    pub fn awaiting_upgrade(&self) -> bool {
        matches!(self.state, State::Upgrading)
    }

    /// Requests: the upgrade was answered with 101; from here on, everything passes.
    pub fn upgraded(&mut self) {
        if self.awaiting_upgrade() {
            self.state = State::Upgraded;
        }
    }

    /// Requests: the upgrade was answered with anything but 101; the next request may follow.
    pub fn not_upgraded(&mut self) {
        if self.awaiting_upgrade() {
            self.state = State::Head(HeadScan::request());
        }
    }

    /// The peer has closed its side. What is still held can never pass.
    ///
    /// # Errors
    /// [`Reason::RequestAborted`] inside a request; [`Reason::ConnectionReset`] before the end of the head of an
    /// expected response; [`Reason::ResponseIncomplete`] inside the body of one; the reason of a refusal before.
    pub fn end_of_input(&mut self) -> Result<(), Reason> {
        let reason = match (&self.direction, &self.state) {
            (_, State::Refused { reason, .. }) => return Err(*reason),
            (_, State::Upgrading | State::Upgraded | State::UntilClose) => return Ok(()),
            (Direction::Requests, State::Head(scan)) if !scan.begun() => return Ok(()),
            (Direction::Requests, _) => Reason::RequestAborted,
            (Direction::Responses { to: None, .. }, State::Head(scan)) if !scan.begun() => return Ok(()),
            (Direction::Responses { .. }, State::Head(_)) => Reason::ConnectionReset,
            (Direction::Responses { .. }, _) => Reason::ResponseIncomplete,
        };
        self.state = State::Refused {
            reason,
            in_head: self.mid_head(),
        };
        Err(reason)
    }

    fn step(&mut self, bytes: &[u8]) -> Result<Unit, Reason> {
        match &mut self.state {
            State::Refused { reason, .. } => Err(*reason),
            _ if bytes.is_empty() => Ok(Unit::More),
            State::Head(scan) => match &mut self.direction {
                Direction::Responses { to: None, .. } => Err(Reason::ExcessResponse),
                direction => match scan.scan(bytes, &self.limits) {
                    Scanned::More => Ok(Unit::More),
                    Scanned::Refused(fault) => Err(direction.head_fault(fault)),
                    Scanned::Whole { start, end } => {
                        let head = bytes.get(start..end).unwrap_or_default();
                        let (opens, next) = direction.judge(head, &self.limits)?;
                        self.state = next;
                        Ok(Unit::Head { start, end, opens })
                    }
                },
            },
            State::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::Head(self.direction.next_head());
                }
                Ok(Unit::Data(taken))
            }
            State::Chunked(chunked) => match chunked.advance(bytes, &self.limits) {
                Chunk::More => Ok(Unit::More),
                Chunk::Framing(taken) => Ok(Unit::Framing(taken)),
                Chunk::Data(taken) => Ok(Unit::Data(taken)),
                Chunk::Last(taken) => {
                    self.state = State::Head(self.direction.next_head());
                    Ok(Unit::Trailers(taken))
                }
                Chunk::Refused(fault) => Err(self.direction.chunk_fault(fault)),
            },
            State::UntilClose | State::Upgraded => Ok(Unit::Data(bytes.len())),
            State::Upgrading => Ok(Unit::More),
        }
    }
}

impl Direction {
    fn next_head(&self) -> HeadScan {
        match self {
            Self::Requests => HeadScan::request(),
            Self::Responses { .. } => HeadScan::response(),
        }
    }

    /// Judges a whole head. What it opens, and the state that it leads to.
    fn judge(&mut self, head: &[u8], limits: &MessageLimits) -> Result<(Opens, State), Reason> {
        let opens = match self {
            Self::Requests => {
                let accepted = request::validate(RequestHead::http1(head)?, limits)?;
                Opens::Request {
                    body: accepted.body,
                    upgrade: accepted.upgrade,
                }
            }
            Self::Responses {
                to,
                interim,
                reusable,
            } => {
                let expected = to.ok_or(Reason::ExcessResponse)?;
                match response::validate(ResponseHead::http1(head)?, &expected, limits)? {
                    response::Accepted::Interim => {
                        *interim += 1;
                        if *interim > limits.interim_responses {
                            return Err(Reason::TooManyInterim);
                        }
                        Opens::Interim
                    }
                    response::Accepted::Switched(_) => {
                        *to = None;
                        Opens::Switched
                    }
                    response::Accepted::Final {
                        body,
                        reusable: persistent,
                    } => {
                        *to = None;
                        *reusable = persistent;
                        Opens::Response { body }
                    }
                }
            }
        };
        let next = match opens {
            Opens::Request { upgrade: Some(_), .. } => State::Upgrading,
            Opens::Switched => State::Upgraded,
            Opens::Interim => State::Head(self.next_head()),
            Opens::Request { body, .. } | Opens::Response { body } => match body {
                Body::None => State::Head(self.next_head()),
                Body::Length(length) => State::Length(length),
                Body::Chunked => State::Chunked(Chunked::new()),
                Body::UntilClose => State::UntilClose,
                Body::Frames(_) => return Err(Reason::Internal),
            },
        };
        Ok((opens, next))
    }

    fn head_fault(&self, fault: HeadFault) -> Reason {
        match (self, fault) {
            (Self::Requests, HeadFault::Malformed) => Reason::MalformedRequest,
            (Self::Requests, HeadFault::TargetTooLong) => Reason::TargetTooLong,
            (Self::Requests, HeadFault::TooLarge) => Reason::HeadTooLarge,
            (Self::Requests, HeadFault::TooManyFields) => Reason::TooManyFields,
            (Self::Responses { .. }, HeadFault::Malformed | HeadFault::TargetTooLong) => {
                Reason::MalformedResponse
            }
            (Self::Responses { .. }, HeadFault::TooLarge | HeadFault::TooManyFields) => {
                Reason::ResponseHeadTooLarge
            }
        }
    }

    fn chunk_fault(&self, fault: ChunkFault) -> Reason {
        match (self, fault) {
            (Self::Requests, ChunkFault::Framing) => Reason::BadChunk,
            (Self::Requests, ChunkFault::Trailer) => Reason::BadTrailer,
            (Self::Responses { .. }, ChunkFault::Framing) => Reason::BadResponseChunk,
            (Self::Responses { .. }, ChunkFault::Trailer) => Reason::BadResponseTrailer,
        }
    }
}

#[cfg(test)]
mod tests;
