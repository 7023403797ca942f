//! The connections that a worker serves: how long each was idle, and which are asked to end.
//!
//! One sweep over all of them stands for a timer in each: a request arms no timer for its connection's sake.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::downstream::{Downstream, Entry, Front};

/// All connections of one worker.
#[derive(Default)]
pub(crate) struct Connections {
    present: RefCell<Vec<Weak<Presence>>>,
    closing: Cell<bool>,
}

/// One connection, as long as it is served.
pub(crate) struct Presence {
    front: Front,
    entry: Option<Rc<Entry>>,
    last: Cell<Instant>,
    running: Cell<usize>,
    closing: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

/// Counts one request until it is dropped; its connection is not idle meanwhile.
pub(crate) struct Busy(Rc<Presence>);

impl Connections {
    /// Takes up a connection that begins, and how its client came to be here.
    pub(crate) fn enter(&self, downstream: &Downstream) -> Rc<Presence> {
        self.take_up(downstream.front, downstream.entry.clone())
    }

    fn take_up(&self, front: Front, entry: Option<Rc<Entry>>) -> Rc<Presence> {
        let presence = Rc::new(Presence {
            front,
            entry,
            last: Cell::new(Instant::now()),
            running: Cell::new(0),
            closing: Cell::new(self.closing.get()),
            waiting: RefCell::default(),
        });
        let mut present = self.present.borrow_mut();
        // The gone ones leave when the list would have to grow.
        if present.len() == present.capacity() {
            present.retain(|connection| connection.strong_count() > 0);
        }
        present.push(Rc::downgrade(&presence));
        presence
    }

    /// Asks those to end that were idle for `idle`.
    pub(crate) fn sweep(&self, now: Instant, idle: Duration) {
        self.present.borrow_mut().retain(|connection| {
            let Some(connection) = connection.upgrade() else {
                return false;
            };
            let is_idle = connection.idle_for(now).is_some_and(|quiet| quiet >= idle);
            if is_idle {
                connection.close();
            }
            !is_idle
        });
    }

    /// Asks those to end that came in where, or as, nobody is served any more.
    pub(crate) fn close_where(&self, is_closed: impl Fn(Front, Option<&Entry>) -> bool) {
        for connection in self.present.borrow().iter().filter_map(Weak::upgrade) {
            if is_closed(connection.front, connection.entry.as_deref()) {
                connection.close();
            }
        }
    }

    /// Asks all to end, those that come later too.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        for connection in self.present.borrow_mut().drain(..) {
            if let Some(connection) = connection.upgrade() {
                connection.close();
            }
        }
    }
}

impl Presence {
    /// A request begins.
    pub(crate) fn begin(self: &Rc<Self>) -> Busy {
        self.running.set(self.running.get() + 1);
        Busy(self.clone())
    }

    /// Whether the connection is to end as soon as nothing runs on it.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Ready when the connection is to end. Only the task that asked last is woken.
    pub(crate) fn poll_closing(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closing.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// How long nothing was asked for; `None` while something is.
    fn idle_for(&self, now: Instant) -> Option<Duration> {
        (self.running.get() == 0).then(|| now.saturating_duration_since(self.last.get()))
    }

    fn close(&self) {
        self.closing.set(true);
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.last.set(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_asked(presence: &Presence) -> bool {
        presence
            .poll_closing(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn only_those_end_that_were_idle_for_long() {
        let connections = Connections::default();
        let [idle, busy] = [
            connections.take_up(Front::default(), None),
            connections.take_up(Front::default(), None),
        ];
        let request = busy.begin();
        let limit = Duration::from_secs(60);
        connections.sweep(Instant::now() + limit / 2, limit);
        assert!(!is_asked(&idle) && !is_asked(&busy));
        connections.sweep(Instant::now() + limit * 2, limit);
        assert!(is_asked(&idle) && !is_asked(&busy));
        drop(request);
        connections.sweep(Instant::now() + limit * 2, limit);
        assert!(is_asked(&busy));
    }

    #[test]
    fn a_worker_that_stops_asks_all_and_who_comes_later() {
        let connections = Connections::default();
        let early = connections.take_up(Front::default(), None);
        connections.close();
        assert!(is_asked(&early) && is_asked(&connections.take_up(Front::default(), None)));
    }

    #[test]
    fn a_port_that_is_given_up_asks_its_connections_only() {
        let connections = Connections::default();
        let at = |port| Front {
            is_tls: false,
            port: Some(port),
        };
        let [gone, other] = [
            connections.take_up(at(80), None),
            connections.take_up(at(81), None),
        ];
        connections.close_where(|front, _| front.port == Some(80));
        assert!(is_asked(&gone) && !is_asked(&other));
    }

    #[test]
    fn the_list_does_not_grow_with_connections_that_are_gone() {
        let connections = Connections::default();
        for _ in 0..1000 {
            drop(connections.take_up(Front::default(), None));
        }
        assert!(connections.present.borrow().capacity() < 16);
    }
}
