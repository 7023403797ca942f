//! What the tree of a trace shows, and when a trace is whole.

use super::*;

fn span(id: &str, parent: &str, service: &str, start: u64) -> Span {
    Span {
        id: id.to_owned(),
        parent: parent.to_owned(),
        service: service.to_owned(),
        name: "POST /pay".to_owned(),
        start: start * 1_000_000,
        end: (start + 5) * 1_000_000,
        ..Default::default()
    }
}

fn attempt(id: &str, number: u8, start: u64) -> Span {
    let mut attributes: BTreeMap<String, String> = [
        ("weft.attempt", number.to_string()),
        ("weft.endpoint", "payments".to_owned()),
        ("network.peer.address", "127.0.0.1".to_owned()),
        ("network.peer.port", "4000".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let failed = number < 3;
    if failed {
        attributes.insert("weft.retry.reason".to_owned(), "UNAVAILABLE".to_owned());
    }
    Span {
        kind: Kind::Client,
        attributes,
        failed,
        ..span(id, "call", "checkout", start)
    }
}

#[test]
fn retries_read_from_top_to_bottom() {
    let spans = vec![
        attempt("c", 3, 9),
        attempt("a", 1, 1),
        span("root", "", "frontend", 0),
        span("inner", "c", "payments", 10),
        attempt("b", 2, 5),
        span("call", "root", "checkout", 1),
    ];
    let trace = Trace {
        id: "4bf9".to_owned(),
        spans,
        left_out: 0,
    };
    assert_eq!(
        trace.tree(),
        "trace 4bf9, 6 spans\n\
         frontend POST /pay 5.0 ms\n\
         └─ checkout POST /pay 5.0 ms\n\
         \u{20}  ├─ checkout attempt 1 client 5.0 ms endpoint=payments (127.0.0.1:4000) reason=UNAVAILABLE FAILED\n\
         \u{20}  ├─ checkout attempt 2 client 5.0 ms endpoint=payments (127.0.0.1:4000) reason=UNAVAILABLE FAILED\n\
         \u{20}  └─ checkout attempt 3 client 5.0 ms endpoint=payments (127.0.0.1:4000)\n\
         \u{20}     └─ payments POST /pay 5.0 ms\n"
    );
    let summary = trace.summary().expect("a root");
    assert_eq!(
        (summary.service.as_str(), summary.failed_spans, summary.failed),
        ("frontend", 2, false)
    );
    assert_eq!(summary.duration, Duration::from_millis(15));
}

#[test]
fn a_request_is_named_by_its_method_and_path() {
    let label = |name: &str, key: &str, value: &str| {
        let attributes = [(key.to_owned(), value.to_owned())].into();
        Span {
            name: name.to_owned(),
            attributes,
            ..Default::default()
        }
        .label()
    };
    assert_eq!(label("POST", "url.path", "/pay"), "POST /pay");
    assert_eq!(
        label("GET", "url.full", "http://cart/items?of=1"),
        "GET /items?of=1"
    );
    assert_eq!(
        label("shop.Payments/Charge", "url.path", "/shop.Payments/Charge"),
        "shop.Payments/Charge"
    );
    assert_eq!(label("attempt", "weft.attempt", "2"), "attempt 2");
}

#[test]
fn a_span_whose_parent_did_not_arrive_is_a_root_too() {
    let spans = vec![span("b", "lost", "cart", 2), span("a", "", "frontend", 1)];
    let trace = Trace {
        id: "1".to_owned(),
        spans,
        left_out: 3,
    };
    assert_eq!(
        trace.tree(),
        "trace 1, 2 spans\nfrontend POST /pay 5.0 ms\ncart POST /pay 5.0 ms\n(3 more spans are not shown)\n"
    );
}

#[test]
fn a_trace_is_whole_when_callers_and_those_who_answered_are_here() {
    let mut answered = attempt("b", 3, 1);
    answered
        .attributes
        .insert("http.response.status_code".to_owned(), "200".to_owned());
    let unanswered = attempt("c", 1, 0);
    let all = [
        span("call", "", "checkout", 0),
        unanswered,
        answered,
        span("d", "b", "payments", 2),
    ];
    let whole = |without: &str| {
        let spans = all.iter().filter(|span| span.id != without).cloned().collect();
        Trace {
            id: "1".to_owned(),
            spans,
            left_out: 0,
        }
        .is_whole()
    };
    assert!(whole(""));
    assert!(!whole("d"), "the answer to an attempt is missing");
    assert!(!whole("call"), "the caller is missing");
}

#[test]
fn spans_in_a_circle_or_twice_end_all_the_same() {
    let circle = vec![span("a", "b", "x", 1), span("b", "a", "y", 2)];
    let trace = Trace {
        id: "1".to_owned(),
        spans: circle,
        left_out: 0,
    };
    assert!(trace.summary().is_none());
    assert!(trace.tree().ends_with("(2 more spans are not shown)\n"));
    let twice = vec![
        span("a", "", "x", 1),
        span("a", "", "x", 1),
        span("b", "a", "y", 2),
    ];
    let trace = Trace {
        id: "1".to_owned(),
        spans: twice,
        left_out: 0,
    };
    assert_eq!(trace.tree().matches("y POST").count(), 1);
}
