//! What policies in shadow would have done to a request, held against what became of it.
//!
//! A request is taken as it went: what it would have been like for others if it had been refused, or for the application, is not
//! guessed. So a delay that would be is added to the time that the request took, and nothing else follows from it.

use std::fmt;
use std::time::Duration;

use model::fault::AbortStatus;

use crate::Reason;
use crate::traffic::fault::Injected;

/// What policies do to a request, beside letting it go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It goes on after so long.
    Delayed(Duration),
    Aborted(AbortStatus),
    /// A circuit breaker has too many requests.
    Overflow,
    /// It takes too long.
    TimedOut,
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// What policies in force did to it on purpose.
    pub injected: Injected,
    /// The request timeout that it had; zero is none.
    pub timeout: Option<Duration>,
    /// Until the end of its answer, a delay included.
    pub took: Duration,
    /// Why the proxy did not pass an answer on, or cut it off.
    pub stopped: Option<Reason>,
    /// Attempts that were begun.
    pub attempts: u8,
}

/// What would have been, as far as it is known when the request arrives.
#[derive(Debug, Clone, Copy, Default)]
pub struct WouldBe {
    pub injected: Injected,
    /// Whether there would have been too many requests.
    pub overflows: bool,
    /// The request timeout that it would have had; zero is none.
    pub timeout: Option<Duration>,
}

/// What policies did to a request, and what they would have done.
pub fn held_against(ended: &Ended, would_be: &WouldBe) -> (Option<Effect>, Option<Effect>) {
    (now(ended), then(ended, would_be))
}

fn now(ended: &Ended) -> Option<Effect> {
    match (ended.stopped, ended.injected.abort) {
        (Some(Reason::FaultInjected), Some(status)) => Some(Effect::Aborted(status)),
        // After an attempt it is one of connections.
        (Some(Reason::Overflow), _) if ended.attempts == 0 => Some(Effect::Overflow),
        (Some(Reason::RequestTimeout), _) => Some(Effect::TimedOut),
        _ => ended.injected.delay.map(Effect::Delayed),
    }
}

fn then(ended: &Ended, would_be: &WouldBe) -> Option<Effect> {
    let delay = |injected: &Injected| injected.delay.unwrap_or_default();
    let limit = |timeout: Option<Duration>| timeout.filter(|timeout| !timeout.is_zero());
    if limit(would_be.timeout).is_some_and(|timeout| delay(&would_be.injected) >= timeout) {
        return Some(Effect::TimedOut);
    }
    if let Some(status) = would_be.injected.abort {
        return Some(Effect::Aborted(status));
    }
    if would_be.overflows {
        return Some(Effect::Overflow);
    }
    let delayed = would_be.injected.delay.map(Effect::Delayed);
    let now = now(ended);
    if matches!(now, Some(Effect::Aborted(_) | Effect::Overflow)) {
        // How long it would have taken is not known.
        return delayed;
    }
    let took = ended.took.saturating_sub(delay(&ended.injected)) + delay(&would_be.injected);
    if limit(would_be.timeout).is_some_and(|timeout| took > timeout) {
        return Some(Effect::TimedOut);
    }
    // Where its caller waited no longer, another timeout would not have helped.
    let by_caller = limit(ended.timeout).is_none_or(|timeout| ended.took < timeout);
    if now == Some(Effect::TimedOut) && by_caller {
        return now;
    }
    delayed
}

/// In the order of their severity, so that lists of them are.
impl Ord for Effect {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let place = |effect: &Self| match effect {
            Self::Delayed(time) => (0, time.as_nanos()),
            Self::Aborted(AbortStatus::Http(status)) => (1, u128::from(status.as_u16())),
            Self::Aborted(AbortStatus::Grpc(status)) => (2, u128::from(*status)),
            Self::Overflow => (3, 0),
            Self::TimedOut => (4, 0),
        };
        place(self).cmp(&place(other))
    }
}

impl PartialOrd for Effect {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// `delayed 200ms`, `418 fault_injected`, `503 overflow`, `504 request_timeout`: a status is followed by its reason.
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = |f: &mut fmt::Formatter<'_>, reason: Reason| {
            write!(f, "{} {}", reason.status().as_u16(), reason.detail())
        };
        match self {
            Self::Delayed(time) => write!(f, "delayed {time:?}"),
            Self::Aborted(AbortStatus::Http(status)) => {
                write!(f, "{} {}", status.as_u16(), Reason::FaultInjected.detail())
            }
            Self::Aborted(AbortStatus::Grpc(status)) => {
                write!(f, "grpc-status {status} {}", Reason::FaultInjected.detail())
            }
            Self::Overflow => refused(f, Reason::Overflow),
            Self::TimedOut => refused(f, Reason::RequestTimeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn status(which: bool) -> AbortStatus {
        match which {
            true => AbortStatus::Http(StatusCode::IM_A_TEAPOT),
            false => AbortStatus::Grpc(8),
        }
    }

    fn injected() -> impl Strategy<Value = Injected> {
        (option::of(1u64..50), option::weighted(0.3, any::<bool>())).prop_map(|(delay, abort)| Injected {
            delay: delay.map(Duration::from_millis),
            abort: abort.map(status),
        })
    }

    /// One proxy with these policies and no others, told as a story in milliseconds: what is done to a request that takes
    /// `work` by itself, and when it ends.
    fn lived(injected: &Injected, overflows: bool, timeout: u64, work: u64) -> (Option<Effect>, u64) {
        let delay = injected.delay.map_or(0, |delay| delay.as_millis() as u64);
        let timeout = if timeout == 0 { u64::MAX } else { timeout };
        let delayed = injected.delay.map(Effect::Delayed);
        if delay >= timeout {
            (Some(Effect::TimedOut), timeout)
        } else if let Some(status) = injected.abort {
            (Some(Effect::Aborted(status)), delay)
        } else if overflows {
            (Some(Effect::Overflow), delay)
        } else if delay + work > timeout {
            (Some(Effect::TimedOut), timeout)
        } else {
            (delayed, delay + work)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Whatever is in shadow: if it were in force, requests would fare as it was said that they would, as far as the time
        /// that they would have taken is known.
        #[test]
        fn what_would_be_is_what_comes_to_pass(
            (before, after) in (injected(), injected()),
            (full_before, full_after) in (any::<bool>(), any::<bool>()),
            (limit_before, limit_after) in (0u64..100, 0u64..100),
            work in 0u64..100,
        ) {
            let (fate, took) = lived(&before, full_before, limit_before, work);
            let ended = Ended {
                injected: before,
                timeout: Some(Duration::from_millis(limit_before)),
                took: Duration::from_millis(took),
                stopped: match fate {
                    Some(Effect::Aborted(_)) => Some(Reason::FaultInjected),
                    Some(Effect::Overflow) => Some(Reason::Overflow),
                    Some(Effect::TimedOut) => Some(Reason::RequestTimeout),
                    Some(Effect::Delayed(_)) | None => None,
                },
                attempts: u8::from(matches!(fate, Some(Effect::Delayed(_)) | None)),
            };
            let would_be = WouldBe {
                injected: after,
                overflows: full_after,
                timeout: Some(Duration::from_millis(limit_after)),
            };
            let (now, then) = held_against(&ended, &would_be);
            prop_assert_eq!(now, fate);
            let (expected, _) = lived(&after, full_after, limit_after, work);
            let is_known = ended.stopped.is_none() || after.abort.is_some() || full_after;
            if is_known {
                prop_assert_eq!(then, expected);
            }
        }

        /// What is in force already is no difference.
        #[test]
        fn the_same_again_is_no_difference(
            injected in injected(), full in any::<bool>(), limit in 0u64..100, work in 0u64..100,
        ) {
            let (fate, took) = lived(&injected, full, limit, work);
            let timeout = Some(Duration::from_millis(limit));
            let stopped = match fate {
                Some(Effect::Aborted(_)) => Some(Reason::FaultInjected),
                Some(Effect::Overflow) => Some(Reason::Overflow),
                Some(Effect::TimedOut) => Some(Reason::RequestTimeout),
                Some(Effect::Delayed(_)) | None => None,
            };
            // Clocks are read a little after what they say.
            let ended = Ended {
                injected, timeout, stopped,
                took: Duration::from_millis(took) + Duration::from_micros(10 * u64::from(stopped.is_some())),
                attempts: 0,
            };
            let would_be = WouldBe { injected, overflows: full, timeout };
            let (now, then) = held_against(&ended, &would_be);
            prop_assert_eq!(now, then);
        }
    }

    #[test]
    fn a_caller_that_waits_no_longer_gains_nothing_by_another_timeout() {
        let ended = Ended {
            injected: Injected::default(),
            timeout: Some(Duration::from_secs(9)),
            took: Duration::from_secs(1),
            stopped: Some(Reason::RequestTimeout),
            attempts: 1,
        };
        let longer = WouldBe {
            timeout: Some(Duration::from_secs(20)),
            ..WouldBe::default()
        };
        let timed_out = Some(Effect::TimedOut);
        assert_eq!(held_against(&ended, &longer), (timed_out, timed_out));
        let all_of_it = Ended {
            took: Duration::from_secs(9),
            ..ended
        };
        assert_eq!(held_against(&all_of_it, &longer), (timed_out, None));
    }

    #[test]
    fn effects_are_shown_as_answers_are() {
        let shown = [
            Effect::Delayed(Duration::from_millis(200)),
            Effect::Aborted(status(true)),
            Effect::Aborted(status(false)),
            Effect::Overflow,
            Effect::TimedOut,
        ]
        .map(|effect| effect.to_string());
        let expected = [
            "delayed 200ms",
            "418 fault_injected",
            "grpc-status 8 fault_injected",
            "503 overflow",
            "504 request_timeout",
        ];
        assert_eq!(shown, expected);
    }
}
