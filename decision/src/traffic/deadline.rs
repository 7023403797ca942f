//! How long a request, and each of its attempts, may take.

use std::time::{Duration, Instant};

use model::resilience::Timeouts;

use super::grpc;
use super::retry::Outcome;
use crate::Reason;

/// Who gives an attempt less time than this is in a hurry.
pub const HURRY: Duration = Duration::from_secs(1);

/// The end of a request's time, and the time of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    whole: Option<Instant>,
    /// It is the caller who has less time than the route gives.
    is_callers: bool,
    attempt: Option<Duration>,
}

/// When to give an attempt up, and what to say then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptLimit {
    pub at: Instant,
    /// [`Reason::RequestTimeout`] where it is the whole request's time that ends, else
    /// [`Reason::AttemptTimeout`].
    pub reason: Reason,
    /// It is the caller who waits no longer.
    pub is_callers: bool,
    /// … and has given less than [`HURRY`]: an endpoint that is as well as any might not answer in time.
    is_hurry: bool,
}

impl Deadline {
    /// Of a request that arrived at `start`: the route's request timeout, or when its caller waits no longer
    /// ([`super::lineage`]), whichever is earlier. Zero, and a time beyond what the clock can count, is no limit.
    pub fn new(start: Instant, timeouts: &Timeouts, until: Option<Instant>) -> Self {
        let limit = |given: &Duration| !given.is_zero();
        let own = timeouts.request.filter(limit);
        let own = own.and_then(|given| start.checked_add(given));
        let is_callers = until.is_some_and(|until| own.is_none_or(|own| until < own));
        Self {
            whole: if is_callers { until } else { own },
            is_callers,
            attempt: timeouts.backend_request.filter(limit),
        }
    }

    /// When the request's time ends; `None` where it has no limit.
    pub fn at(&self) -> Option<Instant> {
        self.whole
    }

    /// What is left of the request's time, zero when it is over; `None` where it has no limit.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.whole.map(|end| end.saturating_duration_since(now))
    }

    /// Whether the request's time is over.
    pub fn is_over(&self, now: Instant) -> bool {
        self.whole.is_some_and(|end| end <= now)
    }

    /// Until when an attempt that starts `now` may take; `None` where nothing limits it. What is left then is
    /// also what the next hop is told.
    pub fn attempt(&self, now: Instant) -> Option<AttemptLimit> {
        let own = self.attempt.and_then(|time| now.checked_add(time));
        match (self.whole, own) {
            (Some(whole), Some(own)) if own < whole => Some(AttemptLimit {
                at: own,
                reason: Reason::AttemptTimeout,
                is_callers: false,
                is_hurry: false,
            }),
            (None, Some(own)) => Some(AttemptLimit {
                at: own,
                reason: Reason::AttemptTimeout,
                is_callers: false,
                is_hurry: false,
            }),
            (Some(whole), _) => Some(AttemptLimit {
                at: whole,
                reason: Reason::RequestTimeout,
                is_callers: self.is_callers,
                is_hurry: self.is_callers && whole.saturating_duration_since(now) < HURRY,
            }),
            (None, None) => None,
        }
    }
}

impl AttemptLimit {
    /// Whether an attempt came to this because its caller was in a hurry. That says nothing about the endpoint: else a
    /// client could have endpoints put out by giving them no time; but whoever gives time enough learns of one that hangs.
    /// A server of gRPC knows the time it has, and may say so a moment earlier (DEADLINE_EXCEEDED).
    pub fn excuses(&self, outcome: &Outcome) -> bool {
        self.is_hurry
            && matches!(
                outcome,
                Outcome::TimedOut | Outcome::Grpc(grpc::DEADLINE_EXCEEDED)
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_enough_is_no_hurry() {
        let start = Instant::now();
        for (given, excused) in [(999, true), (1_000, false), (60_000, false)] {
            let until = start + Duration::from_millis(given);
            let limit = Deadline::new(start, &Timeouts::default(), Some(until)).attempt(start);
            assert_eq!(
                limit.map(|limit| limit.excuses(&Outcome::TimedOut)),
                Some(excused),
                "{given}"
            );
        }
    }
    use proptest::option;
    use proptest::prelude::*;

    proptest! {
        /// Counted in milliseconds from the start, with a very late one standing for "no limit".
        #[test]
        fn the_earliest_limit_counts(
            request in option::of(0u64..100),
            attempt in option::of(0u64..100),
            until in option::of(0u64..100),
            now in 0u64..120,
        ) {
            const NEVER: u64 = 1_000_000;
            let ms = Duration::from_millis;
            let start = Instant::now();
            let timeouts = Timeouts { request: request.map(ms), backend_request: attempt.map(ms) };
            let deadline = Deadline::new(start, &timeouts, until.map(|until| start + ms(until)));

            let or_never = |given: Option<u64>| given.filter(|time| *time > 0).unwrap_or(NEVER);
            let whole = or_never(request).min(until.unwrap_or(NEVER));
            let own = now + or_never(attempt);
            prop_assert_eq!(deadline.is_over(start + ms(now)), whole <= now);
            prop_assert_eq!(
                deadline.remaining(start + ms(now)),
                (whole != NEVER).then(|| ms(whole.saturating_sub(now)))
            );
            let limit = deadline.attempt(start + ms(now));
            let end = whole.min(own);
            prop_assert_eq!(limit.map(|limit| limit.at), (end < NEVER).then(|| start + ms(end)));
            if let Some(limit) = limit {
                prop_assert_eq!(limit.reason == Reason::RequestTimeout, whole <= own);
                let callers = until.unwrap_or(NEVER);
                prop_assert_eq!(limit.is_callers, callers < or_never(request) && callers <= own);
                for (outcome, by_time) in [
                    (Outcome::TimedOut, true),
                    (Outcome::Grpc(4), true),
                    (Outcome::Grpc(14), false),
                    (Outcome::Status(504), false),
                    (Outcome::Broken(Reason::ConnectionReset), false),
                ] {
                    prop_assert_eq!(limit.excuses(&outcome), by_time && limit.is_callers);
                }
            }
        }
    }

    #[test]
    fn uncountable_times_are_no_limit() {
        let forever = Timeouts {
            request: Some(Duration::MAX),
            backend_request: Some(Duration::MAX),
        };
        let deadline = Deadline::new(Instant::now(), &forever, None);
        assert_eq!(deadline.at(), None);
        assert_eq!(deadline.attempt(Instant::now()), None);
    }
}
