//! One direction of one HTTP/1 connection, read before a codec sees it, or for one that builds on it.
//!
//! An HTTP/1 codec is made to understand what it is sent, so it repairs: it accepts bare line feeds, drops the
//! `Content-Length` beside a `Transfer-Encoding`, joins equal lengths. A proxy must not. [`Http1Reader`] stands
//! between the socket and the codec, holds a head back until it is whole and accepted, follows the body to know
//! where the next head begins, and lets nothing pass that it refused. [`Http1Reader::advance`] tells such a codec's
//! guard what may pass; [`Http1Reader::read`] tells a codec what there is, and where the parts of a head stand.

mod chunked;
mod head;
mod lines;
mod unit;

use std::ops::Range;

use chunked::{Chunk, ChunkFault, Chunked, MAX_CHUNK_LINE_BYTES};
use head::{HeadFault, HeadScan, Scanned};
pub use lines::FieldAt;
use lines::Lines;
pub use unit::{RequestAt, ResponseAt, Unit};

use super::request::{self, RequestHead};
pub use super::response::ResponseTo;
use super::response::{self, ResponseHead};
use super::{Body, MessageLimits};
use crate::Reason;

/// Reads the messages of one direction of one connection.
#[derive(Debug)]
pub struct Http1Reader {
    limits: MessageLimits,
    direction: Direction,
    state: State,
    /// Of the last head or trailer section.
    lines: Lines,
}

#[derive(Debug)]
enum Direction {
    Requests {
        /// CONNECT is accepted.
        tunnels: bool,
    },
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

impl Http1Reader {
    /// Reads what a client sends.
    pub fn requests(limits: MessageLimits) -> Self {
        Self {
            limits,
            direction: Direction::Requests { tunnels: false },
            state: State::Head(HeadScan::request()),
            lines: Lines::default(),
        }
    }

    /// Accepts CONNECT too. Everything behind its head is held: what it is, is for whoever serves the tunnel.
    #[must_use]
    pub fn with_tunnels(self) -> Self {
        Self {
            direction: Direction::Requests { tunnels: true },
            ..self
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
            lines: Lines::default(),
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
            match self.read(bytes.get(released..).unwrap_or_default()) {
                Unit::Incomplete if released == 0 => return Progress::Hold,
                Unit::Refused(reason) if released == 0 => return Progress::Refuse(reason),
                Unit::Incomplete | Unit::Refused(_) => return Progress::Release(released),
                Unit::Request(RequestAt { bytes, .. }) | Unit::Response(ResponseAt { bytes, .. }) => {
                    released += bytes;
                }
                Unit::Data(bytes) | Unit::Framing(bytes) | Unit::Trailers(bytes) | Unit::Switched(bytes) => {
                    released += bytes;
                }
            }
            if !self.mid_message() {
                return Progress::Release(released);
            }
        }
    }

    /// Reads what stands at the beginning of `bytes`, which are as for [`Http1Reader::advance`], where those of every
    /// unit but [`Unit::Incomplete`] are released. A message has ended when [`Http1Reader::mid_message`] is false.
    pub fn read(&mut self, bytes: &[u8]) -> Unit {
        self.unit(bytes).unwrap_or_else(|reason| {
            let in_head = matches!(self.state, State::Head(_) | State::Refused { in_head: true, .. });
            self.state = State::Refused { reason, in_head };
            Unit::Refused(reason)
        })
    }

    /// The fields of the head or trailer section that [`Http1Reader::read`] told of last, by where they stand in the
    /// bytes that it was given then.
    pub fn fields(&self) -> &[FieldAt] {
        self.lines.fields_at()
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
            (Direction::Requests { .. }, State::Head(scan)) if !scan.begun() => return Ok(()),
            (Direction::Requests { .. }, _) => Reason::RequestAborted,
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

    fn unit(&mut self, bytes: &[u8]) -> Result<Unit, Reason> {
        match &mut self.state {
            State::Refused { reason, .. } => Err(*reason),
            _ if bytes.is_empty() => Ok(Unit::Incomplete),
            State::Head(scan) => match &mut self.direction {
                Direction::Responses { to: None, .. } => Err(Reason::ExcessResponse),
                direction => match scan.scan(bytes, &mut self.lines, &self.limits) {
                    Scanned::More => Ok(Unit::Incomplete),
                    Scanned::Refused(fault) => Err(direction.head_fault(fault)),
                    Scanned::Whole(end) => {
                        let (unit, next) = direction.judge(bytes, &self.lines, end, &self.limits)?;
                        self.state = next;
                        Ok(unit)
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
            State::Chunked(chunked) => match chunked.advance(bytes, &mut self.lines, &self.limits) {
                Chunk::More => Ok(Unit::Incomplete),
                Chunk::Framing(taken) => Ok(Unit::Framing(taken)),
                Chunk::Data(taken) => Ok(Unit::Data(taken)),
                Chunk::Trailers(taken) => {
                    self.state = State::Head(self.direction.next_head());
                    Ok(Unit::Trailers(taken))
                }
                Chunk::Refused(fault) => Err(self.direction.chunk_fault(fault)),
            },
            State::UntilClose => Ok(Unit::Data(bytes.len())),
            State::Upgraded => Ok(Unit::Switched(bytes.len())),
            State::Upgrading => Ok(Unit::Incomplete),
        }
    }
}

/// Where a part of `bytes` stands in them.
fn position(part: &[u8], bytes: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(bytes.as_ptr().addr());
    start..start + part.len()
}

impl Direction {
    fn next_head(&self) -> HeadScan {
        match self {
            Self::Requests { .. } => HeadScan::request(),
            Self::Responses { .. } => HeadScan::response(),
        }
    }

    /// Judges a whole head, which ends at `end`. The state that it leads to.
    fn judge(
        &mut self,
        bytes: &[u8],
        lines: &Lines,
        end: usize,
        limits: &MessageLimits,
    ) -> Result<(Unit, State), Reason> {
        let line = lines.start_line(bytes);
        match self {
            Self::Requests { tunnels } => {
                let head = RequestHead::of_lines(line, lines.fields(bytes))?;
                let (version, method, target) = (head.version(), head.method(), head.target());
                if *tunnels && method == b"CONNECT" {
                    let authority = request::tunnel(head, limits)?;
                    let unit = Unit::Request(RequestAt {
                        bytes: end,
                        version,
                        method: position(method, bytes),
                        target: position(target, bytes),
                        authority: position(authority.as_bytes(), bytes),
                        body: Body::None,
                        upgrade: None,
                        head: false,
                        expects_continue: false,
                        persistent: false,
                        tunnel: true,
                    });
                    return Ok((unit, State::Upgrading));
                }
                let accepted = request::validate(head, limits)?;
                let next = match accepted.upgrade {
                    Some(_) => State::Upgrading,
                    None => self.body(accepted.body)?,
                };
                let unit = Unit::Request(RequestAt {
                    bytes: end,
                    version,
                    method: position(method, bytes),
                    target: position(target, bytes),
                    authority: position(accepted.authority.as_bytes(), bytes),
                    body: accepted.body,
                    upgrade: accepted.upgrade,
                    head: accepted.head,
                    expects_continue: accepted.expects_continue,
                    persistent: accepted.persistent,
                    tunnel: false,
                });
                Ok((unit, next))
            }
            Self::Responses {
                to,
                interim,
                reusable,
            } => {
                let expected = to.ok_or(Reason::ExcessResponse)?;
                let head = ResponseHead::of_lines(line, lines.fields(bytes))?;
                let (version, status) = (head.version(), head.status());
                let accepted = response::validate(head, &expected, limits)?;
                let next = match accepted {
                    response::Accepted::Interim => {
                        *interim += 1;
                        if *interim > limits.interim_responses {
                            return Err(Reason::TooManyInterim);
                        }
                        self.body(Body::None)?
                    }
                    response::Accepted::Switched(_) => {
                        *to = None;
                        State::Upgraded
                    }
                    response::Accepted::Final {
                        body,
                        reusable: persistent,
                    } => {
                        *to = None;
                        *reusable = persistent;
                        self.body(body)?
                    }
                };
                let unit = Unit::Response(ResponseAt {
                    bytes: end,
                    version,
                    status,
                    accepted,
                });
                Ok((unit, next))
            }
        }
    }

    /// How the body behind a head is read.
    fn body(&self, body: Body) -> Result<State, Reason> {
        Ok(match body {
            Body::None => State::Head(self.next_head()),
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Chunked(Chunked::new()),
            Body::UntilClose => State::UntilClose,
            Body::Frames(_) => return Err(Reason::Internal),
        })
    }

    fn head_fault(&self, fault: HeadFault) -> Reason {
        match (self, fault) {
            (Self::Requests { .. }, HeadFault::Malformed) => Reason::MalformedRequest,
            (Self::Requests { .. }, HeadFault::TargetTooLong) => Reason::TargetTooLong,
            (Self::Requests { .. }, HeadFault::TooLarge) => Reason::HeadTooLarge,
            (Self::Requests { .. }, HeadFault::TooManyFields) => Reason::TooManyFields,
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
            (Self::Requests { .. }, ChunkFault::Framing) => Reason::BadChunk,
            (Self::Requests { .. }, ChunkFault::Trailer) => Reason::BadTrailer,
            (Self::Responses { .. }, ChunkFault::Framing) => Reason::BadResponseChunk,
            (Self::Responses { .. }, ChunkFault::Trailer) => Reason::BadResponseTrailer,
        }
    }
}

#[cfg(test)]
mod tests;
