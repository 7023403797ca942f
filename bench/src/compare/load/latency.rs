//! Latencies of many requests, in bounded memory.

use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

/// Longer ones count as this long.
const MAX: Duration = Duration::from_secs(60);
/// Significant digits that are kept.
const DIGITS: u8 = 3;

/// Latencies to the nanosecond, three digits of each.
#[derive(Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Result<Self, CreationError> {
        Histogram::new_with_max(nanos(MAX), DIGITS).map(Self)
    }

    pub(super) fn note(&mut self, latency: Duration) {
        self.0.saturating_record(nanos(latency));
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn percentile(&self, percent: f64) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.value_at_percentile(percent)))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
