//! HTTP/1.1 at a fixed rate, without coordinated omission: every request has a time at which it is due, and its latency
//! counts from then, however long it had to wait for a connection.
//!
//! One thread sleeps in `epoll` until an answer comes or a `timerfd` says that a request is due: precise, and it leaves
//! the CPU to those that are measured.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::latency::Latencies;
use super::{Load, LoadError};
use crate::compare::peers::Door;

/// Fields of an answer's head.
const MAX_FIELDS: usize = 64;
/// How long answers are waited for after the last request.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// The timer's mark among the events; connections have their number.
const TIMER: u64 = u64::MAX;

/// How often, how long and over how many connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenLoop<'a> {
    pub(crate) path: &'a str,
    /// Requests per second.
    pub(crate) rate: u32,
    pub(crate) connections: usize,
    pub(crate) time: Duration,
}

impl OpenLoop<'_> {
    pub(crate) fn run(&self, door: &Door) -> Result<Load, LoadError> {
        let mut run = Run::prepare(self, door).map_err(LoadError::io("the open loop"))?;
        run.all(self).map_err(LoadError::io("the open loop"))?;
        Ok(Load {
            answers: run.latencies.count(),
            failures: run.failures + u64::try_from(run.waiting.len() + run.out).unwrap_or(u64::MAX),
            time: run.began.elapsed(),
            p50: run.latencies.percentile(50.0),
            p99: run.latencies.percentile(99.0),
            p999: run.latencies.percentile(99.9),
            ..Load::default()
        })
    }
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// When the request that is out was due.
    due: Option<Instant>,
}

struct Run {
    epoll: rustix::fd::OwnedFd,
    timer: rustix::fd::OwnedFd,
    request: Vec<u8>,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    /// Due times of requests that no connection was free for.
    waiting: VecDeque<Instant>,
    /// Requests without an answer yet.
    out: usize,
    latencies: Latencies,
    failures: u64,
    began: Instant,
}

impl Run {
    fn prepare(plan: &OpenLoop<'_>, door: &Door) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        epoll::add(
            &epoll,
            &timer,
            epoll::EventData::new_u64(TIMER),
            epoll::EventFlags::IN,
        )?;
        let mut connections = Vec::new();
        for number in 0..plan.connections {
            let stream = TcpStream::connect(door.address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mark = epoll::EventData::new_u64(u64::try_from(number).unwrap_or(TIMER));
            epoll::add(&epoll, &stream, mark, epoll::EventFlags::IN)?;
            connections.push(Connection {
                stream,
                received: Vec::with_capacity(16 * 1024),
                due: None,
            });
        }
        let host = &door.host;
        Ok(Self {
            epoll,
            timer,
            request: format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", plan.path).into_bytes(),
            idle: (0..connections.len()).collect(),
            connections,
            waiting: VecDeque::new(),
            out: 0,
            latencies: Latencies::new().map_err(io::Error::other)?,
            failures: 0,
            began: Instant::now(),
        })
    }

    fn all(&mut self, plan: &OpenLoop<'_>) -> io::Result<()> {
        let gap = Duration::from_secs(1) / plan.rate.max(1);
        self.began = Instant::now();
        let (mut due, end) = (self.began + gap, self.began + plan.time);
        let mut events = Vec::with_capacity(plan.connections + 1);
        self.wake_at(due)?;
        loop {
            epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
            for event in events.drain(..) {
                match event.data.u64() {
                    TIMER => self.read_timer(),
                    number => self.receive(usize::try_from(number).unwrap_or(usize::MAX)),
                }
            }
            let now = Instant::now();
            let rest = self.out + self.waiting.len();
            if due > end && (rest == 0 || now > end + LAST_ANSWERS) {
                return Ok(());
            }
            if due > now {
                continue;
            }
            while due <= now && due <= end {
                self.waiting.push_back(due);
                due += gap;
            }
            self.send_waiting();
            self.wake_at(if due <= end { due } else { end + LAST_ANSWERS })?;
            if due > end {
                // The timer now stands for the end.
                due = end + LAST_ANSWERS;
            }
        }
    }

    fn send_waiting(&mut self) {
        while let (Some(&due), Some(&number)) = (self.waiting.front(), self.idle.front()) {
            self.waiting.pop_front();
            self.idle.pop_front();
            let Some(connection) = self.connections.get_mut(number) else {
                continue;
            };
            match connection.stream.write(&self.request) {
                Ok(written) if written == self.request.len() => {
                    connection.due = Some(due);
                    self.out += 1;
                }
                // A request is smaller than any socket's buffer: the connection is broken.
                _ => self.failures += 1,
            }
        }
    }

    fn receive(&mut self, number: usize) {
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        let mut chunk = [0; 16 * 1024];
        let state = match connection.stream.read(&mut chunk) {
            Ok(0) => Answer::Broken,
            Ok(count) => {
                connection.received.extend(chunk.iter().take(count));
                answer(&connection.received)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => Answer::Broken,
        };
        let good = match state {
            Answer::Part => return,
            Answer::Whole { good } => good,
            Answer::Broken => {
                let _ = epoll::delete(&self.epoll, &connection.stream);
                if connection.due.take().is_some() {
                    self.out -= 1;
                }
                self.idle.retain(|idle| *idle != number);
                self.failures += 1;
                return;
            }
        };
        connection.received.clear();
        if let Some(due) = connection.due.take() {
            self.out -= 1;
            match good {
                true => self.latencies.note(due.elapsed()),
                false => self.failures += 1,
            }
        }
        self.idle.push_back(number);
        self.send_waiting();
    }

    fn read_timer(&self) {
        let mut count = [0; 8];
        // Nothing to read where it was set anew in between.
        let _ = rustix::io::read(&self.timer, &mut count);
    }

    fn wake_at(&self, time: Instant) -> io::Result<()> {
        // Zero would turn the timer off.
        let wait = time
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let spec = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Part,
    Whole { good: bool },
    Broken,
}

/// What the bytes so far are: an answer with `content-length`, as every proxy here passes them on.
fn answer(received: &[u8]) -> Answer {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let body_at = match head.parse(received) {
        Ok(httparse::Status::Complete(at)) => at,
        Ok(httparse::Status::Partial) => return Answer::Part,
        Err(_) => return Answer::Broken,
    };
    let length = head
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"))
        .and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok());
    match length {
        None => Answer::Broken,
        Some(length) if received.len() < body_at + length => Answer::Part,
        Some(_) => Answer::Whole {
            good: head.code == Some(200),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(answer(whole), Answer::Whole { good: true });
        assert_eq!(answer(&whole[..whole.len() - 1]), Answer::Part);
        assert_eq!(answer(&whole[..20]), Answer::Part);
        assert_eq!(
            answer(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"),
            Answer::Whole { good: false }
        );
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\n\r\n"), Answer::Broken);
        assert_eq!(answer(b"nonsense\r\n\r\n"), Answer::Broken);
    }

    /// A server that stands still once: a closed loop would count one slow request, this one counts all that were
    /// due meanwhile.
    #[test]
    fn a_pause_counts_for_every_request_that_was_due() {
        const PAUSE: Duration = Duration::from_millis(200);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let door = Door::any(listener.local_addr().expect("an address"));
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let (mut chunk, mut count) = ([0; 4096], 0);
            while let Ok(1..) = stream.read(&mut chunk) {
                count += 1;
                if count == 50 {
                    thread::sleep(PAUSE);
                }
                let answered = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                answered.expect("an open connection");
            }
        });
        let plan = OpenLoop {
            path: "/",
            rate: 500,
            connections: 1,
            time: Duration::from_secs(1),
        };
        let load = plan.run(&door).expect("a run");
        assert_eq!((load.answers, load.failures), (500, 0));
        // About 100 of 500 requests were due while it stood still.
        assert!(load.p99.expect("a p99") > PAUSE / 2, "{load:?}");
        assert!(load.p50.expect("a p50") < PAUSE / 2, "{load:?}");
    }
}
