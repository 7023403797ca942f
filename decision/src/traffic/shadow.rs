//! What would become of a request if the routes and policies in shadow were in force, and what of that is different.
//!
//! [`policies`] holds a request against policies. Of routes, what counts is the effect: the shares of the backends, filters, timeouts, retries and policies, or that no route is found. Equal
//! content under the name of another route is no difference, nor are weights in the same proportion.

pub mod policies;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::ServicePort;
use model::route::{Backend, Rule};

use self::policies::Effect;

/// Differences that are counted at once, over all places; requests with others are only counted together.
pub const MAX_DIFFERENCES: usize = 512;
/// Longest authority and longest path of an example, in bytes; the rest is cut off.
pub const MAX_EXAMPLE_BYTES: usize = 256;

/// What governs a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Governed<'r> {
    Rule(&'r Rule),
    /// No route is attached: it goes to the service that was called.
    Service,
    /// Routes are attached, and none fits: 404.
    NoRoute,
}

/// As [`Governed`], by name; or a policy, where it has the last word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Governor {
    Rule(Arc<str>),
    Service,
    NoRoute,
    /// `policy` is `Kind/<namespace>/<name>`; empty where it is not known which of those in force it is.
    Policy {
        policy: Arc<str>,
        effect: Effect,
    },
}

impl Governed<'_> {
    pub fn name(&self) -> Governor {
        match self {
            Self::Rule(rule) => Governor::Rule(rule.name.clone()),
            Self::Service => Governor::Service,
            Self::NoRoute => Governor::NoRoute,
        }
    }
}

/// Whether a request for `called` that `now` governs would fare differently under `then`.
pub fn is_different(called: &ServicePort, now: &Governed<'_>, then: &Governed<'_>) -> bool {
    match (now, then) {
        (Governed::Rule(now), Governed::Rule(then)) => !has_same_effect(now, then),
        (Governed::Rule(rule), Governed::Service) | (Governed::Service, Governed::Rule(rule)) => {
            !has_same_effect(rule, &plain(called))
        }
        (Governed::Service, Governed::Service) | (Governed::NoRoute, Governed::NoRoute) => false,
        (Governed::NoRoute, _) | (_, Governed::NoRoute) => true,
    }
}

/// The rule that says what holds without one.
fn plain(called: &ServicePort) -> Rule {
    let to_itself = Backend {
        target: Some(called.clone()),
        reference: "".into(),
        weight: 1,
        filters: Vec::new(),
    };
    Rule {
        backends: vec![to_itself],
        ..Rule::default()
    }
}

fn has_same_effect(one: &Rule, other: &Rule) -> bool {
    // By name, so that whoever adds a field must say whether it counts.
    let Rule {
        name: _,
        matches: _,
        filters,
        backends,
        timeouts,
        retry,
        policy,
        faults,
        session,
        // Policies are held against requests by themselves.
        shadow: _,
    } = one;
    *filters == other.filters
        && *timeouts == other.timeouts
        && *retry == other.retry
        && *policy == other.policy
        && *faults == other.faults
        && *session == other.session
        && has_same_shares(backends, &other.backends)
}

fn has_same_shares(one: &[Backend], other: &[Backend]) -> bool {
    let total =
        |backends: &[Backend]| -> u64 { backends.iter().map(|backend| u64::from(backend.weight)).sum() };
    let (of_one, of_other) = (total(one), total(other));
    let mut some = one.iter().filter(|backend| backend.weight > 0);
    let mut others = other.iter().filter(|backend| backend.weight > 0);
    loop {
        match (some.next(), others.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) => {
                let is_same = one.target == other.target
                    && one.filters == other.filters
                    && u128::from(one.weight) * u128::from(of_other)
                        == u128::from(other.weight) * u128::from(of_one);
                if !is_same {
                    return false;
                }
            }
            (Some(_), None) | (None, Some(_)) => return false,
        }
    }
}

/// Where requests are compared: a service that is called, or one listener of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// At a gateway, the Gateway at the listener's port.
    pub called: ServicePort,
    /// By its name; `None` for a service.
    pub listener: Option<Arc<str>>,
}

/// One request of many that differ in the same way. It has no query and no fields, which may be secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub method: Box<str>,
    /// Whom it was for, as the caller wrote it.
    pub authority: Box<str>,
    pub path: Box<str>,
}

impl Example {
    /// Takes over as much as an example may have.
    pub fn new(method: &str, authority: &str, path: &str) -> Self {
        let cut = |text: &str| {
            text.get(..text.floor_char_boundary(MAX_EXAMPLE_BYTES))
                .unwrap_or(text)
                .into()
        };
        Self {
            method: cut(method),
            authority: cut(authority),
            path: cut(path),
        }
    }
}

/// Requests that would all move from one governor to the same other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub requests: u64,
    /// The first of them.
    pub example: Example,
}

/// What is different at one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// By what governs the requests now, and what would.
    pub moved: BTreeMap<(Governor, Governor), Difference>,
    /// Requests with further differences, for which there was no room.
    pub others: u64,
}

/// Counts differences, at most [`MAX_DIFFERENCES`] of them.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    places: BTreeMap<Place, Differences>,
    kept: usize,
}

impl Tally {
    /// Counts a request that would move. `example` is asked for only where it is the first of its kind.
    pub fn note(&mut self, place: &Place, from: Governor, to: Governor, example: impl FnOnce() -> Example) {
        if !self.places.contains_key(place) {
            self.places.insert(place.clone(), Differences::default());
        }
        let Some(differences) = self.places.get_mut(place) else {
            return;
        };
        let key = (from, to);
        if let Some(known) = differences.moved.get_mut(&key) {
            known.requests += 1;
        } else if self.kept < MAX_DIFFERENCES {
            self.kept += 1;
            let first = Difference {
                requests: 1,
                example: example(),
            };
            differences.moved.insert(key, first);
        } else {
            differences.others += 1;
        }
    }

    /// What was different at a place; `None` where nothing was.
    pub fn at(&self, place: &Place) -> Option<&Differences> {
        self.places.get(place)
    }

    /// Begins anew at a place.
    pub fn forget(&mut self, place: &Place) {
        if let Some(gone) = self.places.remove(place) {
            self.kept -= gone.moved.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use model::filter::{Filter, HeaderModifier};
    use model::resilience::{RetryPolicy, Timeouts};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn called() -> ServicePort {
        "shop/a:80".parse().expect("a service")
    }

    fn a_filter() -> impl Strategy<Value = Vec<Filter>> {
        let removes = |name: &'static str| {
            let remove = vec![http::HeaderName::from_static(name)];
            Filter::RequestHeaders(HeaderModifier::new(remove, Vec::new(), Vec::new()).expect("allowed"))
        };
        vec(select(vec!["x-a", "x-b"]).prop_map(removes), 0..2)
    }

    fn a_backend() -> impl Strategy<Value = Backend> {
        let target = select(vec![Some("shop/a:80"), Some("shop/b:80"), None]);
        (target, 0u32..4, a_filter()).prop_map(|(target, weight, filters)| Backend {
            target: target.map(|target| target.parse().expect("a service")),
            reference: target.unwrap_or("gone").into(),
            weight,
            filters,
        })
    }

    fn a_rule() -> impl Strategy<Value = Rule> {
        let times = select(vec![None, Some(Duration::from_secs(1))]);
        let retry = select(vec![None, Some(1u8), Some(2)]);
        let name = select(vec!["one", "two"]);
        (name, a_filter(), vec(a_backend(), 0..3), times, retry).prop_map(
            |(name, filters, backends, request, retry)| Rule {
                name: name.into(),
                filters,
                backends,
                timeouts: Timeouts {
                    request,
                    backend_request: None,
                },
                retry: retry.map(|attempts| {
                    RetryPolicy::new(BTreeSet::from([503]), attempts, Duration::ZERO).expect("valid")
                }),
                ..Rule::default()
            },
        )
    }

    /// `None`: no route fits. `Some(None)`: there is none.
    fn governed(rule: Option<&Option<Rule>>) -> Governed<'_> {
        match rule {
            None => Governed::NoRoute,
            Some(None) => Governed::Service,
            Some(Some(rule)) => Governed::Rule(rule),
        }
    }

    /// All that a client, or a backend, could notice of one request in words: each backend with its share in 1/60.
    fn noticed(governed: &Governed<'_>) -> String {
        match governed {
            Governed::NoRoute => "404".to_owned(),
            Governed::Service => format!(
                "{:?}",
                (
                    vec![(Some(called()), 60, String::new())],
                    "[]",
                    None::<u8>,
                    None::<u8>
                )
            ),
            Governed::Rule(rule) => {
                let total: u32 = rule.backends.iter().map(|backend| backend.weight).sum();
                let shares: Vec<_> = rule
                    .backends
                    .iter()
                    .filter(|backend| backend.weight > 0)
                    .map(|backend| {
                        let filters = match backend.filters.as_slice() {
                            [] => String::new(),
                            some => format!("{some:?}"),
                        };
                        (backend.target.clone(), 60 * backend.weight / total, filters)
                    })
                    .collect();
                let request = rule.timeouts.request.map(|_| 1u8);
                let retry = rule.retry.as_ref().map(|retry| retry.attempts);
                let filters = format!("{:?}", rule.filters);
                format!("{:?}", (shares, &*filters, request, retry)).replace("\\\"", "\"")
            }
        }
    }

    fn some_governor() -> impl Strategy<Value = Governor> {
        select(vec![
            Governor::Service,
            Governor::NoRoute,
            Governor::Rule("one".into()),
            Governor::Rule("two".into()),
        ])
    }

    fn some_place() -> impl Strategy<Value = Place> {
        let listener = select(vec![None, Some("http")]);
        (select(vec!["shop/a:80", "shop/b:80"]), listener).prop_map(|(called, listener)| Place {
            called: called.parse().expect("a service"),
            listener: listener.map(Into::into),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn what_nobody_would_notice_is_no_difference(
            now in proptest::option::of(proptest::option::of(a_rule())),
            then in proptest::option::of(proptest::option::of(a_rule())),
        ) {
            let (now, then) = (governed(now.as_ref()), governed(then.as_ref()));
            prop_assert_eq!(is_different(&called(), &now, &then), noticed(&now) != noticed(&then));
            prop_assert!(!is_different(&called(), &now, &now));
        }

        #[test]
        fn the_tally_is_the_number_of_requests_since_the_place_was_forgotten(
            noted in vec((some_place(), some_governor(), some_governor(), proptest::bool::weighted(0.05)), 0..200),
        ) {
            let mut tally = Tally::default();
            let mut naive: Vec<(Place, Governor, Governor)> = Vec::new();
            for (place, from, to, forgets) in noted {
                if forgets {
                    tally.forget(&place);
                    naive.retain(|(at, ..)| *at != place);
                    continue;
                }
                let path = format!("/{}", naive.len());
                tally.note(&place, from.clone(), to.clone(), || Example::new("GET", "a", &path));
                naive.push((place, from, to));
            }
            let mut kept = 0;
            for (place, from, to) in &naive {
                let same = naive.iter().filter(|other| (&other.0, &other.1, &other.2) == (place, from, to));
                let counted = &tally.at(place).expect("noted").moved[&(from.clone(), to.clone())];
                prop_assert_eq!(counted.requests, same.count() as u64);
                kept = naive.iter().map(|other| (&other.0, &other.1, &other.2)).collect::<BTreeSet<_>>().len();
            }
            prop_assert_eq!(tally.kept, kept);
        }
    }

    #[test]
    fn a_full_tally_counts_the_rest_together_until_something_is_forgotten() {
        let place = |name: &str| Place {
            called: format!("shop/{name}:80").parse().expect("a service"),
            listener: None,
        };
        let mut tally = Tally::default();
        let example = || Example::new("GET", "a", "/");
        for number in 0..MAX_DIFFERENCES + 3 {
            let rule = Governor::Rule(number.to_string().into());
            tally.note(&place("a"), Governor::NoRoute, rule, example);
        }
        tally.note(
            &place("a"),
            Governor::NoRoute,
            Governor::Rule("0".into()),
            example,
        );
        tally.note(&place("b"), Governor::NoRoute, Governor::Service, example);
        let a = tally.at(&place("a")).expect("noted");
        assert_eq!((a.moved.len(), a.others), (MAX_DIFFERENCES, 3));
        let first = &a.moved[&(Governor::NoRoute, Governor::Rule("0".into()))];
        assert_eq!(first.requests, 2);
        assert_eq!(tally.at(&place("b")).expect("noted").others, 1);
        tally.forget(&place("a"));
        tally.note(&place("b"), Governor::NoRoute, Governor::Service, example);
        assert_eq!(tally.at(&place("b")).expect("noted").moved.len(), 1);
    }

    #[test]
    fn an_example_is_cut_where_a_letter_ends() {
        let path = format!("/{}", "ä".repeat(MAX_EXAMPLE_BYTES));
        let example = Example::new("GET", "a", &path);
        assert_eq!(example.path.len(), MAX_EXAMPLE_BYTES - 1);
    }
}
