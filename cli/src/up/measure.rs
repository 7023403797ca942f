//! What the visitors of a mesh see: how many requests, how many well answered, how fast; ever, and lately.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// How far back "lately" goes, in slices of a second.
const LATELY_SLICES: usize = 10;
const SLICE: Duration = Duration::from_secs(1);
/// Latencies above it are counted as it.
const HIGHEST: Duration = Duration::from_secs(60);

/// Takes every outcome; bounded, however many there are.
#[derive(Debug)]
pub(crate) struct Recorder {
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    ever: Slice,
    lately: VecDeque<Slice>,
    last_failure: Option<String>,
}

#[derive(Debug)]
struct Slice {
    began: Instant,
    successes: u64,
    latencies: Latencies,
}

/// What is known at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    pub requests: u64,
    pub successes: u64,
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    pub last_failure: Option<String>,
}

/// Latencies in bounded memory, to one per cent.
#[derive(Debug, Clone)]
struct Latencies(Option<Histogram<u64>>);

impl Default for Recorder {
    fn default() -> Self {
        let ever = Slice::begin(Instant::now());
        Self {
            inside: Mutex::new(Inside {
                ever,
                lately: VecDeque::new(),
                last_failure: None,
            }),
        }
    }
}

impl Recorder {
    pub(crate) fn succeeded(&self, took: Duration) {
        self.record(took, true, None, Instant::now());
    }

    pub(crate) fn failed(&self, took: Duration, why: String) {
        self.record(took, false, Some(why), Instant::now());
    }

    /// Since the start.
    pub(crate) fn totals(&self) -> Seen {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = inside
            .ever
            .latencies
            .seen(inside.ever.successes, inside.ever.began.elapsed());
        Seen {
            last_failure: inside.last_failure.clone(),
            ..seen
        }
    }

    /// Over about the last ten seconds.
    pub(crate) fn lately(&self) -> Seen {
        self.lately_at(Instant::now())
    }

    fn lately_at(&self, now: Instant) -> Seen {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.turn(now);
        let mut latencies = Latencies::new();
        for slice in &inside.lately {
            latencies.add(&slice.latencies);
        }
        let successes = inside.lately.iter().map(|slice| slice.successes).sum();
        let since = inside.lately.front().map_or(now, |slice| slice.began);
        latencies.seen(successes, now.saturating_duration_since(since))
    }

    fn record(&self, took: Duration, success: bool, why: Option<String>, now: Instant) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.turn(now);
        if why.is_some() {
            inside.last_failure = why;
        }
        let Inside { ever, lately, .. } = &mut *inside;
        for slice in [Some(ever), lately.back_mut()].into_iter().flatten() {
            slice.successes += u64::from(success);
            slice.latencies.record(took);
        }
    }
}

impl Inside {
    /// Opens a new slice when the last one is over, and forgets those that are too old.
    fn turn(&mut self, now: Instant) {
        let age = |slice: &Slice| now.saturating_duration_since(slice.began);
        if self.lately.back().is_none_or(|slice| age(slice) >= SLICE) {
            self.lately.push_back(Slice::begin(now));
        }
        while self.lately.len() > LATELY_SLICES
            || self
                .lately
                .front()
                .is_some_and(|slice| age(slice) > SLICE * LATELY_SLICES as u32)
        {
            self.lately.pop_front();
        }
    }
}

impl Slice {
    fn begin(now: Instant) -> Self {
        Self {
            began: now,
            successes: 0,
            latencies: Latencies::new(),
        }
    }
}

impl Latencies {
    fn new() -> Self {
        // These bounds are valid ones, so there always is a histogram.
        Self(Histogram::new_with_bounds(1, micros(HIGHEST), 2).ok())
    }

    fn record(&mut self, took: Duration) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(micros(took).max(1));
        }
    }

    fn add(&mut self, other: &Self) {
        if let (Some(histogram), Some(other)) = (&mut self.0, &other.0) {
            // Both have the same bounds, so nothing is left out.
            let _ = histogram.add(other);
        }
    }

    fn seen(&self, successes: u64, span: Duration) -> Seen {
        let quantile = |q| {
            self.0
                .as_ref()
                .map(|all| Duration::from_micros(all.value_at_quantile(q)))
                .unwrap_or_default()
        };
        let requests = self.0.as_ref().map(Histogram::len).unwrap_or_default();
        let seconds = span.as_secs_f64();
        let per_second = if seconds > 0.0 {
            requests as f64 / seconds
        } else {
            0.0
        };
        Seen {
            requests,
            successes,
            per_second,
            p50: quantile(0.5),
            p99: quantile(0.99),
            last_failure: None,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(duration: Duration, millis: f64) -> bool {
        (duration.as_secs_f64() * 1000.0 - millis).abs() < millis * 0.02
    }

    #[test]
    fn percentiles_are_right_to_one_per_cent() {
        let recorder = Recorder::default();
        for millis in 1..=1000 {
            recorder.succeeded(Duration::from_millis(millis));
        }
        recorder.failed(Duration::from_secs(3600), "late".to_owned());
        let seen = recorder.totals();
        assert!(close(seen.p50, 500.0), "{seen:?}");
        assert!(close(seen.p99, 990.0), "{seen:?}");
        assert_eq!((seen.requests, seen.successes), (1001, 1000));
        assert_eq!(seen.last_failure.as_deref(), Some("late"));
    }

    #[test]
    fn what_is_long_ago_is_forgotten_lately_but_not_ever() {
        let recorder = Recorder::default();
        let start = Instant::now();
        for second in 0..30 {
            recorder.record(
                Duration::from_millis(1),
                second >= 15,
                None,
                start + Duration::from_secs(second),
            );
        }
        let lately = recorder.lately_at(start + Duration::from_secs(30));
        assert!((9..=10).contains(&lately.requests), "{lately:?}");
        assert_eq!(lately.requests, lately.successes);
        assert_eq!(recorder.totals().requests, 30);
    }

    #[test]
    fn nothing_yet_is_no_error() {
        let seen = Recorder::default().lately();
        assert_eq!((seen.requests, seen.p99), (0, Duration::ZERO));
    }
}
