//! Whether the outcome of an attempt is delivered or another attempt is made.

use std::time::Duration;

use http::StatusCode;
use model::resilience::RetryPolicy;

use super::{backoff, grpc};
use crate::Reason;

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The head of a response, with this HTTP status. For gRPC, one whose head carries no `grpc-status`.
    Status(u16),
    /// A gRPC answer without a message, with this `grpc-status`: trailers-only, or trailers right behind its head.
    Grpc(u8),
    /// Nothing of the request was processed: no connection, or the stream was refused before anything
    /// happened.
    NotSent(Reason),
    /// The request was sent, in part at least, and no response head that may be passed on came back.
    Broken(Reason),
    /// The attempt's own time was used up.
    TimedOut,
}

/// What is known of a request when an attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// Attempts made until now, the one that is judged included, and those that hops above have made of this request
    /// ([`super::lineage`]).
    pub made: u8,
    /// The request can be sent again from its first byte: its whole body is kept, or it has none.
    pub replayable: bool,
    /// Nothing was read from the caller's body yet, so that a request which was not sent can still be sent,
    /// however large it is.
    pub untouched: bool,
    /// What is left of the request's time; `None` where it has no limit.
    pub remaining: Option<Duration>,
    /// Whoever answered says that this is final ([`super::lineage::is_final`]).
    pub is_final: bool,
}

/// What becomes of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The caller gets it, as an answer or as an error.
    Deliver,
    /// As [`Verdict::Deliver`]; and no hop above should try again what was tried here as often as it may be.
    GiveUp,
    /// Another attempt, no sooner than this; still to be granted by [`super::budget`].
    Retry { after: Duration },
}

/// Judges one attempt.
///
/// A request that was not processed is tried again whether or not its route says so,
/// [`RetryPolicy::DEFAULT_ATTEMPTS`] times: nothing can happen twice. With a policy, which may also forbid
/// this by 0 attempts, connections that broke and attempts that ran out of time are tried again too, and so
/// are the policy's codes. A gRPC status counts also as the code that means the same ([`grpc::http_status`]), an
/// answer that may not be passed on as the 502 it would become. A retry whose backoff would use up the
/// remaining time is not made; a hop above may have more of it, so that this is no [`Verdict::GiveUp`].
///
/// `dice` is uniform in 0.0–1.0 and spreads the wait, see [`backoff::wait`].
pub fn judge(policy: Option<&RetryPolicy>, outcome: &Outcome, attempts: &Attempts, dice: f64) -> Verdict {
    let (limit, base) = policy.map_or(
        (RetryPolicy::DEFAULT_ATTEMPTS, RetryPolicy::DEFAULT_BACKOFF),
        |policy| (policy.attempts, policy.backoff),
    );
    let retries_made = attempts.made.saturating_sub(1);
    if attempts.is_final && !matches!(outcome, Outcome::NotSent(_)) {
        return Verdict::GiveUp;
    }
    if !can_be_sent_again(outcome, attempts) || !is_worth_another(policy, outcome) {
        return Verdict::Deliver;
    }
    if retries_made >= limit {
        return if limit == 0 {
            Verdict::Deliver
        } else {
            Verdict::GiveUp
        };
    }
    let after = backoff::wait(base, retries_made, dice);
    if attempts.remaining.is_some_and(|remaining| remaining <= after) {
        return Verdict::Deliver;
    }
    Verdict::Retry { after }
}

fn can_be_sent_again(outcome: &Outcome, attempts: &Attempts) -> bool {
    attempts.replayable || (attempts.untouched && matches!(outcome, Outcome::NotSent(_)))
}

fn is_worth_another(policy: Option<&RetryPolicy>, outcome: &Outcome) -> bool {
    if let Outcome::NotSent(reason) = outcome {
        return is_of_one_connection(*reason);
    }
    let Some(policy) = policy else { return false };
    match *outcome {
        Outcome::Status(code) => policy.codes.contains(&code),
        Outcome::Grpc(status) => {
            policy.grpc_codes.contains(&status) || policy.codes.contains(&grpc::http_status(status))
        }
        Outcome::Broken(reason) if is_of_one_connection(reason) => true,
        // 502 among the proxy's own reasons is an answer that may not be passed on; the others are not the
        // endpoint's.
        Outcome::Broken(reason) => reason.status() == StatusCode::BAD_GATEWAY && policy.codes.contains(&502),
        Outcome::NotSent(_) | Outcome::TimedOut => true,
    }
}

/// Whether the reason lies with one connection or endpoint, so that another may do better; not with the
/// request, with the whole service, or with this proxy.
fn is_of_one_connection(reason: Reason) -> bool {
    use Reason::{ConnectFailed, ConnectTimeout, ConnectionReset, PeerRefused, StreamRefused, TlsFailed};
    matches!(
        reason,
        ConnectFailed | ConnectTimeout | TlsFailed | PeerRefused | StreamRefused | ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_set;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn an_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            (200u16..600).prop_map(Outcome::Status),
            select(vec![200u16, 500, 502, 503]).prop_map(Outcome::Status),
            (0u8..18).prop_map(Outcome::Grpc),
            select(Reason::ALL).prop_map(Outcome::NotSent),
            select(Reason::ALL).prop_map(Outcome::Broken),
            Just(Outcome::TimedOut),
        ]
    }

    fn a_policy() -> impl Strategy<Value = RetryPolicy> {
        (
            btree_set(select(vec![400u16, 404, 429, 500, 502, 503, 504]), 0..4),
            0u8..5,
            0u64..300,
            btree_set(1u8..17, 0..3),
        )
            .prop_map(|(codes, attempts, ms, grpc)| {
                let policy = RetryPolicy::new(codes, attempts, Duration::from_millis(ms));
                policy
                    .and_then(|policy| policy.with_grpc_codes(grpc))
                    .expect("valid")
            })
    }

    fn some_attempts() -> impl Strategy<Value = Attempts> {
        let remaining = option::of((0u64..1_000).prop_map(Duration::from_millis));
        (1u8..6, any::<bool>(), any::<bool>(), remaining, any::<bool>()).prop_map(
            |(made, replayable, untouched, remaining, is_final)| Attempts {
                made,
                replayable,
                untouched,
                remaining,
                is_final,
            },
        )
    }

    /// The rules as a list of refusals, on the words of [`Reason`] rather than on its variants.
    fn may_retry(policy: Option<&RetryPolicy>, outcome: &Outcome, attempts: &Attempts) -> bool {
        let connection = |reason: &Reason| {
            [
                "connect_failed",
                "connect_timeout",
                "tls_failed",
                "peer_refused",
                "stream_refused",
                "connection_reset",
            ]
            .contains(&reason.detail())
        };
        let configured = |code: u16| policy.is_some_and(|policy| policy.codes.contains(&code));
        if attempts.made > policy.map_or(2, |policy| policy.attempts) {
            return false;
        }
        let was_sent = !matches!(outcome, Outcome::NotSent(_));
        if was_sent && attempts.is_final {
            return false;
        }
        if !attempts.replayable && (was_sent || !attempts.untouched) {
            return false;
        }
        match outcome {
            Outcome::NotSent(reason) => connection(reason),
            Outcome::Broken(reason) if connection(reason) => policy.is_some(),
            Outcome::Broken(reason) => reason.status() == 502 && configured(502),
            Outcome::TimedOut => policy.is_some(),
            Outcome::Status(code) => configured(*code),
            Outcome::Grpc(status) => {
                let codes = [
                    200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
                ];
                let named = policy.is_some_and(|policy| policy.grpc_codes.iter().any(|code| code == status));
                named || configured(codes.get(usize::from(*status)).copied().unwrap_or(500))
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn the_verdict_is_the_rules(
            policy in option::of(a_policy()),
            outcome in an_outcome(),
            attempts in some_attempts(),
            dice in 0.0f64..1.0,
        ) {
            let base = policy.as_ref().map_or(Duration::from_millis(25), |policy| policy.backoff);
            match judge(policy.as_ref(), &outcome, &attempts, dice) {
                Verdict::Retry { after } => {
                    prop_assert!(may_retry(policy.as_ref(), &outcome, &attempts));
                    prop_assert!(base <= after && after <= backoff::longest(base, attempts.made - 1));
                    prop_assert!(attempts.remaining.is_none_or(|remaining| after < remaining));
                }
                Verdict::GiveUp => {
                    let endless = Attempts { made: 1, is_final: false, ..attempts };
                    prop_assert!(!may_retry(policy.as_ref(), &outcome, &attempts));
                    prop_assert!(attempts.is_final || may_retry(policy.as_ref(), &outcome, &endless));
                }
                Verdict::Deliver => {
                    let longest = backoff::longest(base, attempts.made - 1);
                    let short = attempts.remaining.is_some_and(|left| left <= longest);
                    prop_assert!(short || !may_retry(policy.as_ref(), &outcome, &attempts));
                }
            }
        }
    }

    const FIRST: Attempts = Attempts {
        made: 1,
        replayable: true,
        untouched: false,
        remaining: None,
        is_final: false,
    };

    fn retries(policy: Option<&RetryPolicy>, outcome: Outcome, attempts: Attempts) -> bool {
        matches!(judge(policy, &outcome, &attempts, 0.5), Verdict::Retry { .. })
    }

    #[test]
    fn without_a_policy_only_what_was_not_sent_is_tried_again_twice() {
        let refused = Outcome::NotSent(Reason::ConnectFailed);
        for (made, expected) in [(1, true), (2, true), (3, false)] {
            assert_eq!(
                retries(None, refused, Attempts { made, ..FIRST }),
                expected,
                "after {made}"
            );
        }
        for outcome in [
            Outcome::Status(503),
            Outcome::Grpc(14),
            Outcome::TimedOut,
            Outcome::Broken(Reason::ConnectionReset),
        ] {
            assert!(!retries(None, outcome, FIRST), "{outcome:?}");
        }
        assert!(!retries(None, Outcome::NotSent(Reason::NoEndpoint), FIRST));
    }

    #[test]
    fn a_large_body_is_tried_again_only_while_untouched() {
        let policy = RetryPolicy::new([503].into(), 2, Duration::ZERO).expect("valid");
        let large = Attempts {
            replayable: false,
            untouched: true,
            ..FIRST
        };
        assert!(retries(
            Some(&policy),
            Outcome::NotSent(Reason::StreamRefused),
            large
        ));
        assert!(!retries(
            Some(&policy),
            Outcome::NotSent(Reason::StreamRefused),
            Attempts {
                untouched: false,
                ..large
            }
        ));
        assert!(!retries(Some(&policy), Outcome::Status(503), large));
    }

    #[test]
    fn unavailable_is_503_and_late_retries_are_not_made() {
        let policy = RetryPolicy::new([503].into(), 2, Duration::from_millis(100)).expect("valid");
        assert!(retries(Some(&policy), Outcome::Grpc(14), FIRST));
        let late = Attempts {
            remaining: Some(Duration::from_millis(99)),
            ..FIRST
        };
        assert!(!retries(Some(&policy), Outcome::Grpc(14), late));
    }
}
