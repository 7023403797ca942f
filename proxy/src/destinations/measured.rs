//! What was measured of answers, by rule and backend. It outlives configurations, which may change often.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use decision::traffic::hedge::Latencies;
use decision::traffic::quickest::Quickest;
use model::ServicePort;

/// So many of one destination are remembered; with more, all are measured anew.
const MAX_MEASURED: usize = 1024;

/// Of one destination, or of a gateway's listeners on one port.
#[derive(Default)]
pub(super) struct Measurements(RefCell<HashMap<Key, Rc<Measured>>>);

/// The name of the rule, where there is one, and the backend.
type Key = (Option<Arc<str>>, ServicePort);

/// Of one rule's answers from one backend.
pub(crate) struct Measured {
    pub(crate) quickest: RefCell<Quickest>,
    pub(crate) latencies: RefCell<Latencies>,
}

impl Measurements {
    pub(super) fn of(&self, rule: Option<&Arc<str>>, backend: &ServicePort) -> Rc<Measured> {
        let key = (rule.cloned(), backend.clone());
        let mut known = self.0.borrow_mut();
        if let Some(measured) = known.get(&key) {
            return measured.clone();
        }
        if known.len() >= MAX_MEASURED {
            known.clear();
        }
        let measured = Rc::new(Measured {
            quickest: RefCell::new(Quickest::new(Instant::now())),
            latencies: RefCell::default(),
        });
        known.insert(key, measured.clone());
        measured
    }
}
