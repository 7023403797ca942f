//! One direction of one HTTP/1 connection, read before the codec sees it.
//!
//! An HTTP/1 codec is made to understand what it is sent, so it repairs: it accepts bare line feeds, drops the
//! `Content-Length` beside a `Transfer-Encoding`, joins equal lengths. A proxy must not. [`Http1Reader`] stands
//! between the socket and the codec, holds a head back until it is whole and accepted, follows the body to know
//! where the next head begins, and lets nothing pass that it refused.

mod chunked;
mod head;

use chunked::{Chunk, ChunkFault, Chunked, MAX_CHUNK_LINE_BYTES};
use head::{HeadFault, HeadScan, Scanned};

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
            match self.step(rest) {
                Ok(Step::Pass(taken)) => released += taken,
                Ok(Step::End(taken)) => return Progress::Release(released + taken),
                Ok(Step::More) if released == 0 => return Progress::Hold,
                Ok(Step::More) => return Progress::Release(released),
                Err(reason) => {
                    let in_head = matches!(self.state, State::Head(_) | State::Refused { in_head: true, .. });
                    self.state = State::Refused { reason, in_head };
                    return if released == 0 {
                        Progress::Refuse(reason)
                    } else {
                        Progress::Release(released)
                    };
                }
            }
        }
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

    fn step(&mut self, bytes: &[u8]) -> Result<Step, Reason> {
        match &mut self.state {
            State::Refused { reason, .. } => Err(*reason),
            _ if bytes.is_empty() => Ok(Step::More),
            State::Head(scan) => match &mut self.direction {
                Direction::Responses { to: None, .. } => Err(Reason::ExcessResponse),
                direction => match scan.scan(bytes, &self.limits) {
                    Scanned::More => Ok(Step::More),
                    Scanned::Refused(fault) => Err(direction.head_fault(fault)),
                    Scanned::Whole { start, end } => {
                        let head = bytes.get(start..end).unwrap_or_default();
                        let next = direction.judge(head, &self.limits)?;
                        let ends = matches!(next, State::Head(_) | State::Upgrading | State::Upgraded);
                        self.state = next;
                        Ok(if ends { Step::End(end) } else { Step::Pass(end) })
                    }
                },
            },
            State::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left > 0 {
                    return Ok(Step::Pass(taken));
                }
                self.state = State::Head(self.direction.next_head());
                Ok(Step::End(taken))
            }
            State::Chunked(chunked) => match chunked.advance(bytes, &self.limits) {
                Chunk::More => Ok(Step::More),
                Chunk::Good(taken) => Ok(Step::Pass(taken)),
                Chunk::Last(taken) => {
                    self.state = State::Head(self.direction.next_head());
                    Ok(Step::End(taken))
                }
                Chunk::Refused(fault) => Err(self.direction.chunk_fault(fault)),
            },
            State::UntilClose | State::Upgraded => Ok(Step::Pass(bytes.len())),
            State::Upgrading => Ok(Step::More),
        }
    }
}

/// What one unit of the input is.
enum Step {
    /// No whole unit yet.
    More,
    /// So many good bytes.
    Pass(usize),
    /// So many good bytes, and the message ends with them.
    End(usize),
}

impl Direction {
    fn next_head(&self) -> HeadScan {
        match self {
            Self::Requests => HeadScan::request(),
            Self::Responses { .. } => HeadScan::response(),
        }
    }

    /// Judges a whole head. The state that it leads to.
    fn judge(&mut self, head: &[u8], limits: &MessageLimits) -> Result<State, Reason> {
        let body = match self {
            Self::Requests => {
                let accepted = request::validate(RequestHead::http1(head)?, limits)?;
                if accepted.upgrade.is_some() {
                    return Ok(State::Upgrading);
                }
                accepted.body
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
                        Body::None
                    }
                    response::Accepted::Switched(_) => {
                        *to = None;
                        return Ok(State::Upgraded);
                    }
                    response::Accepted::Final {
                        body,
                        reusable: persistent,
                    } => {
                        *to = None;
                        *reusable = persistent;
                        body
                    }
                }
            }
        };
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
