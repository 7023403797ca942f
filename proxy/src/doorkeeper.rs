//! Who may keep a connection open: so many in all, and so many from one source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use crate::stats::Registry;

/// Counts a listener's open connections, in all and by source address.
pub(crate) struct Doorkeeper {
    total: usize,
    per_source: usize,
    open: Mutex<OpenConnections>,
    registry: Arc<Registry>,
}

#[derive(Default)]
struct OpenConnections {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// The right to keep a connection open; given back when dropped.
pub(crate) struct Permit {
    doorkeeper: Arc<Doorkeeper>,
    source: IpAddr,
}

impl Doorkeeper {
    pub(crate) fn new(total: usize, per_source: usize, registry: Arc<Registry>) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_source,
            open: Mutex::default(),
            registry,
        })
    }

    /// `None` where there is no place left.
    pub(crate) fn admit(this: &Arc<Self>, source: IpAddr) -> Option<Permit> {
        let mut open = this.open.lock().unwrap_or_else(PoisonError::into_inner);
        let total = open.total;
        let from_source = open.by_source.entry(source).or_default();
        if total >= this.total || *from_source >= this.per_source {
            if *from_source == 0 {
                open.by_source.remove(&source);
            }
            this.registry.connections_refused.fetch_add(1, Relaxed);
            return None;
        }
        *from_source += 1;
        open.total += 1;
        this.registry.connections_open.fetch_add(1, Relaxed);
        Some(Permit {
            doorkeeper: this.clone(),
            source,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self
            .doorkeeper
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(count) = open.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&self.source);
            }
        }
        self.doorkeeper.registry.connections_open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_all_places() {
        let registry = Arc::new(Registry::default());
        let doorkeeper = Doorkeeper::new(3, 2, registry.clone());
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let first = Doorkeeper::admit(&doorkeeper, a);
        let second = Doorkeeper::admit(&doorkeeper, a);
        assert!(first.is_some() && second.is_some());
        assert!(Doorkeeper::admit(&doorkeeper, a).is_none());
        let third = Doorkeeper::admit(&doorkeeper, b);
        assert!(third.is_some());
        assert!(Doorkeeper::admit(&doorkeeper, b).is_none());
        drop(first);
        assert!(Doorkeeper::admit(&doorkeeper, b).is_some());
        assert_eq!(registry.connections_refused.load(Relaxed), 2);
    }
}
