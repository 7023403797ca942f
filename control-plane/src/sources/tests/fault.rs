//! FaultInjectionPolicy: what is read, and what is refused where.

use std::time::Duration;

use http::StatusCode;
use model::fault::{AbortStatus, Share};

use super::{complaints, only};
use crate::sources::Object;

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: FaultInjectionPolicy\nmetadata: {{name: chaos, namespace: shop}}\n\
         spec: {{targetRefs: [{{kind: Service, name: pay}}], {spec}}}\n"
    )
}

#[test]
fn shares_times_and_statuses_are_read() {
    let read = only(&policy(
        "matches: [{path: {value: /charge}}], delay: {fixedDelay: 1s500ms, percentage: 12.5}, abort: {httpStatus: 503}",
    ));
    let Object::FaultPolicy(read) = read else {
        panic!("another kind");
    };
    let fault = &read.fault;
    assert_eq!(&*fault.policy, "FaultInjectionPolicy/shop/chaos");
    let delay = fault.delay.expect("a delay");
    assert_eq!(
        (delay.time, delay.share.as_millionths()),
        (Duration::from_millis(1500), 125_000)
    );
    let abort = fault.abort.expect("an abort");
    assert_eq!(abort.status, AbortStatus::Http(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(abort.share, Share::ALL);
}

#[test]
fn what_does_nothing_or_too_much_is_refused() {
    for (spec, expected) in [
        ("matches: []", "spec: neither delay nor abort is given"),
        ("delay: {percentage: 5}", "spec.delay: fixedDelay is missing"),
        ("delay: {fixedDelay: 2h}", "spec.delay: is over 1h"),
        (
            "delay: {fixedDelay: soon}",
            "spec.delay.fixedDelay: \"soon\" is not a duration",
        ),
        (
            "abort: {httpStatus: 503, percentage: 101}",
            "spec.abort.percentage: 101 is not a percentage of 0-100",
        ),
        (
            "abort: {percentage: 5}",
            "spec.abort: one of httpStatus and grpcStatus is given",
        ),
        (
            "abort: {httpStatus: 503, grpcStatus: 14}",
            "spec.abort: one of httpStatus and grpcStatus is given",
        ),
        (
            "abort: {httpStatus: 99}",
            "spec.abort.httpStatus: 99 is not a status of 200-599",
        ),
        (
            "abort: {grpcStatus: 17}",
            "spec.abort.grpcStatus: 17 is not a gRPC status of 0-16",
        ),
        ("abort: {httpStatus: 503, often: true}", "spec.abort.often: "),
    ] {
        let refused = complaints(&policy(spec));
        assert!(
            refused.iter().any(|line| line.contains(expected)),
            "{spec}: {refused:?}"
        );
    }
}
