//! The ledger: how long counts last, and who is told of them.

use std::collections::BTreeMap;

use decision::traffic::shadow::Governor;
use futures_util::FutureExt;
use model::route::Rule;
use model::service::DestinationPort;
use model::{Generation, Hostname, Resource};

use super::*;

fn rules(names: &[&str]) -> Vec<Rule> {
    let rule = |name: &&str| Rule {
        name: (*name).into(),
        ..Rule::default()
    };
    names.iter().map(rule).collect()
}

/// `shop/<name>` with these rules in force and in shadow.
fn destination(name: &str, in_force: &[&str], shadow: Option<&[&str]>) -> Resource {
    let port = DestinationPort {
        rules: rules(in_force),
        shadow: shadow.map(rules),
        ..DestinationPort::default()
    };
    Resource::Destination(Destination {
        service: format!("shop/{name}").parse().expect("a name"),
        ports: BTreeMap::from([(80, port)]),
    })
}

fn place(name: &str) -> Place {
    service(&format!("shop/{name}:80").parse().expect("a service"))
}

fn then(before: &Snapshot, changed: Vec<Resource>) -> Snapshot {
    before.with(Generation(before.generation.0 + 1), changed, &[])
}

/// Counts a request that would be refused.
fn refuse(ledger: &Ledger, watch: &Arc<Watch>) {
    let example = || Example::new("GET", "cart", "/");
    ledger.compare(watch, &Governed::Service, &Governed::NoRoute, example);
}

/// Where how many requests were compared, and how many of them would move.
fn counts(ledger: &Ledger) -> Vec<(String, u64, u64)> {
    let count = |compared: Compared| {
        let moved = compared.differences.moved.values();
        let moved = moved.map(|difference| difference.requests).sum();
        (compared.place.called.to_string(), compared.requests, moved)
    };
    ledger.report().into_iter().map(count).collect()
}

#[test]
fn counts_last_as_long_as_the_rules_do() {
    let ledger = Ledger::default();
    let first = Snapshot::default().with(
        Generation(1),
        vec![
            destination("cart", &["a"], Some(&["b"])),
            destination("pay", &[], Some(&["c"])),
            destination("plain", &["d"], None),
        ],
        &[],
    );
    assert!(ledger.follow(&first));
    assert!(ledger.watch(&place("plain"), &first).is_none());
    let [cart, pay] = ["cart", "pay"].map(|name| ledger.watch(&place(name), &first).expect("in shadow"));
    for watch in [&cart, &cart, &pay] {
        refuse(&ledger, watch);
    }
    ledger.compare(&pay, &Governed::NoRoute, &Governed::NoRoute, || {
        unreachable!("nothing is different")
    });
    let counted = |name: &str, requests, moved| (format!("shop/{name}:80"), requests, moved);
    assert_eq!(counts(&ledger), [counted("cart", 2, 2), counted("pay", 2, 1)]);

    // The same content anew is no change, and something else is none for others.
    let second = then(
        &first,
        vec![
            destination("cart", &["a"], Some(&["b"])),
            destination("plain", &[], None),
        ],
    );
    assert!(!ledger.follow(&second));
    assert!(
        ledger.watch(&place("cart"), &first).is_none(),
        "who is late does not count"
    );
    assert!(Arc::ptr_eq(
        &ledger.watch(&place("cart"), &second).expect("in shadow"),
        &cart
    ));
    assert_eq!(counts(&ledger), [counted("cart", 2, 2), counted("pay", 2, 1)]);

    for changed in [(&["a"], Some(&["e"][..])), (&["f"], Some(&["e"][..]))] {
        let third = then(&second, vec![destination("cart", changed.0, changed.1)]);
        assert!(ledger.follow(&third));
        refuse(&ledger, &cart);
        assert_eq!(
            counts(&ledger),
            [counted("cart", 0, 0), counted("pay", 2, 1)],
            "of the rules before"
        );
        let cart = ledger.watch(&place("cart"), &third).expect("in shadow");
        refuse(&ledger, &cart);
        assert_eq!(counts(&ledger), [counted("cart", 1, 1), counted("pay", 2, 1)]);
    }
    assert!(ledger.follow(&then(&second, vec![destination("cart", &["a"], None)])));
    assert_eq!(counts(&ledger), [counted("pay", 2, 1)]);
    assert!(ledger.follow(&Snapshot::default()));
    assert_eq!(counts(&ledger), []);
    assert!(!ledger.follow(&Snapshot::default()));
}

#[test]
fn listeners_of_one_port_are_counted_each_for_itself() {
    let of = |name: &str, shadow: Option<&str>| Listener {
        name: name.into(),
        port: 80,
        hostname: Hostname::Any,
        serves: Serves::Http(HttpRoutes::default()),
        shadow: shadow.map(|name| HttpRoutes {
            rules: rules(&[name]),
            ..HttpRoutes::default()
        }),
    };
    let gateway = |listeners: Vec<Listener>| {
        Resource::Gateway(Gateway {
            name: "shop/edge".parse().expect("a name"),
            addresses: Vec::new(),
            client_certificate: None,
            listeners,
        })
    };
    let ledger = Ledger::default();
    let first = then(
        &Snapshot::default(),
        vec![gateway(vec![
            of("a", None),
            of("b", Some("one")),
            of("c", Some("one")),
        ])],
    );
    ledger.follow(&first);
    let at = |snapshot: &Snapshot, name: &str| {
        let gateway = snapshot.gateway.as_ref().expect("a Gateway");
        let found = gateway.listeners.iter().find(|listener| &*listener.name == name);
        ledger.watch(&listener(gateway, found.expect("a listener")), snapshot)
    };
    assert!(at(&first, "a").is_none());
    for name in ["b", "c"] {
        refuse(&ledger, &at(&first, name).expect("in shadow"));
    }
    let edge = |requests| ("shop/edge:80".to_owned(), requests, requests);
    assert_eq!(counts(&ledger), [edge(1), edge(1)]);
    // It moved, and the other one changed.
    let second = then(
        &first,
        vec![gateway(vec![of("c", Some("two")), of("b", Some("one"))])],
    );
    ledger.follow(&second);
    assert_eq!(counts(&ledger), [edge(1), edge(0)]);
    refuse(&ledger, &at(&second, "b").expect("in shadow"));
    assert_eq!(counts(&ledger), [edge(2), edge(0)]);
}

#[test]
fn whoever_reports_is_woken_once_per_report() {
    let ledger = Ledger::default();
    assert!(ledger.changed().now_or_never().is_none());
    ledger.repeat();
    assert!(
        ledger.changed().now_or_never().is_none(),
        "there is nothing to say"
    );
    let snapshot = then(&Snapshot::default(), vec![destination("cart", &[], Some(&["a"]))]);
    ledger.follow(&snapshot);
    assert!(ledger.changed().now_or_never().is_some());
    assert_eq!(ledger.report().len(), 1);
    assert!(ledger.changed().now_or_never().is_none());
    let watch = ledger.watch(&place("cart"), &snapshot).expect("in shadow");
    for _ in 0..2 {
        refuse(&ledger, &watch);
        assert!(ledger.changed().now_or_never().is_some());
    }
    let report = ledger.report();
    let known = &report[0].differences.moved[&(Governor::Service, Governor::NoRoute)];
    assert_eq!((report[0].requests, known.requests), (2, 2));
    assert!(ledger.changed().now_or_never().is_none());
    ledger.repeat();
    assert!(ledger.changed().now_or_never().is_some());
}
