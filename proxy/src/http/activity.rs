//! How long a connection has been idle.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// When a connection last had a request.
pub(crate) struct Activity {
    last: Cell<Instant>,
    running: Cell<usize>,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            last: Cell::new(Instant::now()),
            running: Cell::new(0),
        }
    }
}

impl Activity {
    pub(crate) fn begin(self: &Rc<Self>) -> Busy {
        self.running.set(self.running.get() + 1);
        Busy(self.clone())
    }

    /// How long nothing was asked for; `None` while something is.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
        (self.running.get() == 0).then(|| self.last.get().elapsed())
    }
}

/// Counts one request until it is dropped.
pub(crate) struct Busy(Rc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.last.set(Instant::now());
    }
}
