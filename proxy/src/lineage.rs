//! The requests that the application answers, as one worker sees them: what the calls made for them inherit.
//!
//! A call finds its request where both are served by the same worker, which is all there is in a sidecar unless it is told
//! to have more.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use decision::traffic::grpc;
use decision::traffic::lineage::{self, Inherited, Lineages, TraceId};
use http::HeaderMap;

use crate::telemetry::Record;
use crate::worker::Worker;

/// A request that is being answered, until this is dropped.
pub(crate) struct Answering {
    lineages: Rc<RefCell<Lineages>>,
    trace: TraceId,
}

impl Worker {
    /// Remembers a request of this trace that is given to the application.
    pub(crate) fn answering(&self, trace: TraceId, headers: &HeaderMap, record: &Record) -> Answering {
        let inherited = Inherited {
            deadline: deadline(headers, record),
            attempt: lineage::attempt(headers),
        };
        self.lineages.borrow_mut().enter(trace, inherited);
        Answering {
            lineages: self.lineages.clone(),
            trace,
        }
    }

    /// What a call of the application inherits from the request that it is made for, with their trace; `None` where that
    /// is no request which is being answered.
    pub(crate) fn inherited(&self, headers: &HeaderMap) -> Option<(TraceId, Inherited)> {
        let lineages = self.lineages.borrow();
        if lineages.is_empty() {
            return None;
        }
        let trace = TraceId::of(headers)?;
        Some((trace, lineages.inherited(trace)?))
    }

    /// A call failed for good; nothing where its trace is that of no request.
    pub(crate) fn give_up(&self, trace: Option<TraceId>) {
        if let Some(trace) = trace {
            self.lineages.borrow_mut().give_up(trace);
        }
    }
}

/// When the caller of a request waits no longer, as it says itself.
pub(crate) fn deadline(headers: &HeaderMap, record: &Record) -> Option<Instant> {
    let grpc_timeout = record.is_grpc().then(|| grpc::timeout(headers)).flatten();
    lineage::deadline(headers, grpc_timeout, record.started())
}

impl Answering {
    /// Whether a call that was made for it failed for good.
    pub(crate) fn gave_up(&self) -> bool {
        self.lineages.borrow().gave_up(self.trace)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.lineages.borrow_mut().leave(self.trace);
    }
}
