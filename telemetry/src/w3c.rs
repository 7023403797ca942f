//! W3C Trace Context over HTTP headers: who the caller's span is, and who ours is. `baggage` is never touched.

use std::io::Write as _;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};

/// Which trace a message belongs to (Trace Context section 3.2).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What each tracing system on the way wants to be told (Trace Context section 3.3).
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a `traceparent` of version 00: version, trace id, parent id, flags.
const TRACEPARENT_BYTES: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

/// The caller's span. `None` where there is none, or it is not as the specification wants it: a new trace then
/// starts. A bad `tracestate` alone is left out.
pub fn extract(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (trace_id, span_id, flags) = read_traceparent(value.to_str().ok()?.trim_matches([' ', '\t']))?;
    let context = SpanContext::new(trace_id, span_id, flags, true, read_tracestate(headers));
    context.is_valid().then_some(context)
}

/// [`extract`] as the parent to start a span under: an empty context where a new trace starts.
pub fn parent_context(headers: &HeaderMap) -> Context {
    match extract(headers) {
        Some(caller) => Context::new().with_remote_span_context(caller),
        None => Context::new(),
    }
}

/// Makes `span` the parent of whoever reads these headers, replacing what is there. An invalid span changes nothing.
pub fn inject(span: &SpanContext, headers: &mut HeaderMap) {
    if !span.is_valid() {
        return;
    }
    let sampled = u8::from(span.is_sampled());
    let mut text = [0; TRACEPARENT_BYTES];
    let written = write!(
        &mut text[..],
        "00-{}-{}-{sampled:02x}",
        span.trace_id(),
        span.span_id()
    );
    let (Ok(()), Ok(value)) = (written, HeaderValue::from_bytes(&text)) else {
        return;
    };
    headers.insert(TRACEPARENT, value);
    match HeaderValue::try_from(span.trace_state().header()) {
        Ok(state) if !state.is_empty() => drop(headers.insert(TRACESTATE, state)),
        _ => drop(headers.remove(TRACESTATE)),
    }
}

/// Version 00 is exactly its four fields; a later version may go on after another `-`; ff is forbidden.
fn read_traceparent(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let (head, more) = text.split_at_checked(TRACEPARENT_BYTES)?;
    let mut fields = head.split('-');
    let (version, trace_id) = (hex(fields.next()?, 2)?, hex(fields.next()?, 32)?);
    let (span_id, flags) = (hex(fields.next()?, 16)?, hex(fields.next()?, 2)?);
    let rest_fits = more.is_empty() || (version != "00" && more.starts_with('-'));
    if version == "ff" || !rest_fits {
        return None;
    }
    // Other flags than "sampled" are not ours to pass on.
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    Some((
        TraceId::from_hex(trace_id).ok()?,
        SpanId::from_hex(span_id).ok()?,
        flags,
    ))
}

/// `text`, if it is this many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<&str> {
    let fits = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    fits.then_some(text)
}

/// Several `tracestate` fields are one list.
fn read_tracestate(headers: &HeaderMap) -> TraceState {
    let fields: Result<Vec<_>, _> = headers
        .get_all(TRACESTATE)
        .iter()
        .map(HeaderValue::to_str)
        .collect();
    match fields.as_deref() {
        Ok([]) | Err(_) => TraceState::default(),
        Ok(fields) => TraceState::from_str(&fields.join(",")).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().expect("a value")))
            .collect()
    }

    #[test]
    fn what_is_injected_replaces_and_is_extracted() {
        let mut map = headers(&[(TRACEPARENT, GOOD), (TRACESTATE, "a=1"), (TRACESTATE, "b=2")]);
        map.insert("baggage", HeaderValue::from_static("user=42;secret, x=%20"));
        let caller = extract(&map).expect("valid");
        assert!(caller.is_sampled() && caller.is_remote());
        let ours = SpanContext::new(
            caller.trace_id(),
            SpanId::from(7),
            TraceFlags::default(),
            false,
            caller.trace_state().clone(),
        );
        inject(&ours, &mut map);
        assert_eq!(
            map[TRACEPARENT],
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-00"
        );
        assert_eq!(map.get_all(TRACESTATE).iter().collect::<Vec<_>>(), ["a=1,b=2"]);
        assert_eq!(map["baggage"], "user=42;secret, x=%20");
    }

    #[test]
    fn a_traceparent_that_is_not_one_starts_a_new_trace() {
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.extra",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-000f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(extract(&headers(&[(TRACEPARENT, bad)])), None, "{bad}");
        }
        assert_eq!(
            extract(&headers(&[(TRACEPARENT, GOOD), (TRACEPARENT, GOOD)])),
            None,
            "two of them"
        );
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for later in [
            &GOOD.replacen("00", "01", 1),
            &format!("{}-x", GOOD.replacen("00", "cc", 1)),
            &format!(" {GOOD}\t"),
        ] {
            assert!(extract(&headers(&[(TRACEPARENT, later)])).is_some(), "{later}");
        }
    }

    #[test]
    fn a_bad_tracestate_does_not_end_the_trace() {
        let context = extract(&headers(&[(TRACEPARENT, GOOD), (TRACESTATE, "no pair")])).expect("valid");
        assert_eq!(context.trace_state().header(), "");
        let mut map = headers(&[(TRACESTATE, "stale=1")]);
        inject(&context, &mut map);
        assert!(!map.contains_key(TRACESTATE));
    }

    proptest! {
        #[test]
        fn contexts_round_trip(trace in 1u128.., span in 1u64.., sampled: bool) {
            let flags = TraceFlags::default().with_sampled(sampled);
            let ours = SpanContext::new(trace.into(), span.into(), flags, true, TraceState::default());
            let mut map = HeaderMap::new();
            inject(&ours, &mut map);
            prop_assert_eq!(extract(&map), Some(ours));
        }

        #[test]
        fn any_bytes_are_read_without_panic(parent in proptest::collection::vec(32u8.., 0..80), state in "[ -~]{0,80}") {
            let mut map = headers(&[(TRACESTATE, &state)]);
            if let Ok(value) = HeaderValue::from_bytes(&parent) {
                map.insert(TRACEPARENT, value);
            }
            let _ = extract(&map);
        }
    }
}
