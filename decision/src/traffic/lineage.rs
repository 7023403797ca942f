//! What a sidecar remembers of the requests that its application is answering, so that the calls made for them keep to
//! their time and do not multiply their retries.
//!
//! A call belongs to a request where both are of one trace (W3C Trace Context): applications pass `traceparent` on
//! already, and need nothing else for this. Where several requests of one trace are answered at a time, a call may be
//! for any of them, and is given the most that one of them allows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Milliseconds that the caller waits for an answer, as Envoy writes it on what it sends upstream. For gRPC that is
/// said by `grpc-timeout` alone.
pub static EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
/// Which attempt this is, counted over all hops, as Envoy writes it; absent for a first one.
pub static ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// `false` in a failed answer: it was already tried again further down, or may not be tried again.
pub static SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Names a trace: the trace id of `traceparent` as it is written. Only compared, and therefore not read as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// Of a request; `None` where it belongs to no trace.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(&TRACEPARENT)?.as_bytes();
        let id = text.get(3..35)?.try_into().ok()?;
        let is_framed = text.get(2) == Some(&b'-') && text.get(35) == Some(&b'-');
        (is_framed && id != [b'0'; 32]).then_some(Self(id))
    }
}

/// What a request hands down to the calls that are made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inherited {
    /// When nobody waits for it any more; `None` where that was not said.
    pub deadline: Option<Instant>,
    /// Which attempt it is, from 1.
    pub attempt: u8,
}

/// When the caller of a request that arrived at `now` waits no longer: by [`EXPECTED_TIMEOUT`], or by what it gives in
/// `grpc-timeout`. A number that cannot be read, or is beyond what the clock can count, is none.
pub fn deadline(headers: &HeaderMap, grpc_timeout: Option<Duration>, now: Instant) -> Option<Instant> {
    let expected = number(headers, &EXPECTED_TIMEOUT).map(Duration::from_millis);
    let given = [grpc_timeout, expected].into_iter().flatten().min()?;
    now.checked_add(given)
}

/// Which attempt a request says it is, from 1.
pub fn attempt(headers: &HeaderMap) -> u8 {
    number(headers, &ATTEMPT_COUNT).map_or(1, |count| u8::try_from(count).unwrap_or(u8::MAX).max(1))
}

/// Whether an answer says that it is final.
pub fn is_final(headers: &HeaderMap) -> bool {
    headers
        .get(&SHOULD_RETRY)
        .is_some_and(|value| value.as_bytes() == b"false")
}

/// Says in an answer that it is final.
pub fn mark_final(headers: &mut HeaderMap) {
    headers.insert(SHOULD_RETRY.clone(), HeaderValue::from_static("false"));
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let text = headers.get(name)?.to_str().ok()?;
    if text.bytes().all(|digit| digit.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

/// The requests that are being answered, by their traces. As large as there are requests on their way.
#[derive(Debug, Default)]
pub struct Lineages(HashMap<TraceId, Ancestor, foldhash::quality::RandomState>);

/// All requests of one trace that are being answered.
#[derive(Debug)]
struct Ancestor {
    requests: u32,
    inherited: Inherited,
    gave_up: bool,
}

impl Lineages {
    /// A request was given to the application. [`Lineages::leave`] must follow.
    pub fn enter(&mut self, trace: TraceId, inherited: Inherited) {
        let first = Ancestor {
            requests: 0,
            inherited,
            gave_up: false,
        };
        let ancestor = self.0.entry(trace).or_insert(first);
        ancestor.requests += 1;
        let most = &mut ancestor.inherited;
        most.deadline = most
            .deadline
            .zip(inherited.deadline)
            .map(|(one, other)| one.max(other));
        most.attempt = most.attempt.min(inherited.attempt);
    }

    /// What a call of this trace inherits; `None` where it is not made for any request known here.
    pub fn inherited(&self, trace: TraceId) -> Option<Inherited> {
        self.0.get(&trace).map(|ancestor| ancestor.inherited)
    }

    /// A call of this trace failed for good: what could be tried again was, or may not be.
    pub fn give_up(&mut self, trace: TraceId) {
        if let Some(ancestor) = self.0.get_mut(&trace) {
            ancestor.gave_up = true;
        }
    }

    /// Whether a call of this trace failed for good.
    pub fn gave_up(&self, trace: TraceId) -> bool {
        self.0.get(&trace).is_some_and(|ancestor| ancestor.gave_up)
    }

    /// A request was answered.
    pub fn leave(&mut self, trace: TraceId) {
        if let Entry::Occupied(mut ancestor) = self.0.entry(trace) {
            ancestor.get_mut().requests -= 1;
            if ancestor.get().requests == 0 {
                ancestor.remove();
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).expect("a value"),
        )])
    }

    fn trace(number: u128) -> TraceId {
        TraceId(
            format!("{number:032x}")
                .into_bytes()
                .try_into()
                .expect("32 digits"),
        )
    }

    #[derive(Debug, Clone)]
    enum Event {
        Enter(u128, Option<u64>, u8),
        /// The request at this place of those that are there.
        Leave(usize),
        GiveUp(u128),
    }

    fn an_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1u128..4, option::of(0u64..50), 1u8..5).prop_map(|(t, d, a)| Event::Enter(t, d, a)),
            (0usize..8).prop_map(Event::Leave),
            (1u128..4).prop_map(Event::GiveUp),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Against a list of requests. What was given up is forgotten with the last request of its trace, and of a
        /// request that has ended the time may still be granted until then, never less.
        #[test]
        fn a_call_is_given_the_most_that_a_request_of_its_trace_allows(events in vec(an_event(), 0..40)) {
            let start = Instant::now();
            let at = |ms| start + Duration::from_millis(ms);
            let mut lineages = Lineages::default();
            let mut list: Vec<(u128, Option<u64>, u8)> = Vec::new();
            let mut given_up: Vec<u128> = Vec::new();
            for event in events {
                match event {
                    Event::Enter(trace, deadline, attempt) => {
                        list.push((trace, deadline, attempt));
                        lineages.enter(self::trace(trace), Inherited { deadline: deadline.map(at), attempt });
                    }
                    Event::Leave(place) if place < list.len() => {
                        let (trace, ..) = list.remove(place);
                        lineages.leave(self::trace(trace));
                        if !list.iter().any(|(t, ..)| *t == trace) {
                            given_up.retain(|t| *t != trace);
                        }
                    }
                    Event::Leave(_) => {}
                    Event::GiveUp(trace) => {
                        lineages.give_up(self::trace(trace));
                        if list.iter().any(|(t, ..)| *t == trace) {
                            given_up.push(trace);
                        }
                    }
                }
                for trace in 1..4 {
                    let of: Vec<_> = list.iter().filter(|(t, ..)| *t == trace).collect();
                    let inherited = lineages.inherited(self::trace(trace));
                    prop_assert_eq!(inherited.is_some(), !of.is_empty());
                    prop_assert_eq!(lineages.gave_up(self::trace(trace)), given_up.contains(&trace));
                    if let Some(inherited) = inherited {
                        let unlimited = of.iter().any(|(_, deadline, _)| deadline.is_none());
                        let latest = of.iter().filter_map(|(_, deadline, _)| *deadline).max().map(at);
                        prop_assert!(!unlimited || inherited.deadline.is_none());
                        prop_assert!(inherited.deadline.is_none_or(|deadline| Some(deadline) >= latest));
                        prop_assert!(of.iter().all(|(_, _, attempt)| inherited.attempt <= *attempt));
                    }
                }
                prop_assert_eq!(lineages.is_empty(), list.is_empty());
            }
        }

        #[test]
        fn any_trace_parent_is_read_without_panic(text in "[ -~]{0,60}|00-[0-9a-f]{32}-[0-9a-f]{16}-01") {
            let id = TraceId::of(&headers("traceparent", &text));
            prop_assert!(id.is_none_or(|id| text.as_bytes().windows(32).any(|part| part == id.0)));
        }
    }

    #[test]
    fn a_trace_id_is_read_where_there_is_one() {
        let of = |text: &str| TraceId::of(&headers("traceparent", text));
        assert_eq!(
            of("00-0000000000000000000000000000000a-00000000000000b7-00"),
            Some(trace(10))
        );
        for text in [
            "00-00000000000000000000000000000000-00000000000000b7-00",
            "00-0000000000000000000000000000000a",
            "",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn the_shorter_of_two_times_counts_and_nonsense_does_not() {
        let now = Instant::now();
        let read = |text: &str, grpc| {
            deadline(&headers("x-envoy-expected-rq-timeout-ms", text), grpc, now).map(|at| at - now)
        };
        let ms = Duration::from_millis;
        assert_eq!(read("250", None), Some(ms(250)));
        assert_eq!(read("250", Some(ms(100))), Some(ms(100)));
        assert_eq!(read("50", Some(ms(100))), Some(ms(50)));
        for text in ["", "-1", "+5", "1.5", "99999999999999999999", "x"] {
            assert_eq!(read(text, None), None, "{text}");
        }
        for (text, expected) in [("3", 3), ("0", 1), ("300", u8::MAX), ("x", 1)] {
            assert_eq!(
                attempt(&headers("x-envoy-attempt-count", text)),
                expected,
                "{text}"
            );
        }
    }
}
