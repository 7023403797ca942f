//! What a request costs: the difference of two runs of different lengths.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::callgrind::Profile;

/// Per request.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Cost {
    pub(super) instructions: f64,
    pub(super) allocations: f64,
}

/// A function's share per request.
#[derive(Debug, PartialEq)]
pub(super) struct Share {
    pub(super) function: String,
    pub(super) count: f64,
}

impl Cost {
    /// What the longer run did more than the shorter one, by the requests that it had more.
    pub(super) fn between(short: &Profile, long: &Profile, requests: u64) -> Self {
        let sum = |counts: &HashMap<String, u64>| counts.values().sum::<u64>();
        let per_request = |short, long| difference(sum(short), sum(long)) / requests as f64;
        Self {
            instructions: per_request(&short.instructions, &long.instructions),
            allocations: per_request(&short.allocations, &long.allocations),
        }
    }

    /// Without what the client and the application cost.
    pub(super) fn without(self, client_and_app: Self) -> Self {
        Self {
            instructions: self.instructions - client_and_app.instructions,
            allocations: self.allocations - client_and_app.allocations,
        }
    }
}

/// The functions that count most, at most so many.
pub(super) fn top(
    short: &HashMap<String, u64>,
    long: &HashMap<String, u64>,
    requests: u64,
    most: usize,
) -> Vec<Share> {
    let names: HashSet<&String> = short.keys().chain(long.keys()).collect();
    let of = |counts: &HashMap<String, u64>, name: &String| counts.get(name).copied().unwrap_or_default();
    let share = |function: &String| Share {
        count: difference(of(short, function), of(long, function)) / requests as f64,
        function: function.clone(),
    };
    let mut shares: Vec<_> = names.into_iter().map(share).collect();
    // Thousandths order as well as the figures themselves, and are whole.
    shares.sort_by_cached_key(|share| (Reverse((share.count * 1000.0) as i64), share.function.clone()));
    shares.truncate(most);
    shares
}

fn difference(short: u64, long: u64) -> f64 {
    long as f64 - short as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts<const N: usize>(counts: [(&str, u64); N]) -> HashMap<String, u64> {
        counts.map(|(name, count)| (name.to_owned(), count)).into()
    }

    #[test]
    fn what_does_not_grow_with_requests_costs_nothing() {
        let short = Profile {
            instructions: counts([("start", 1000), ("send", 50)]),
            allocations: counts([("start", 7), ("send", 10)]),
        };
        let long = Profile {
            instructions: counts([("start", 1000), ("send", 150), ("late", 20)]),
            allocations: counts([("start", 7), ("send", 30)]),
        };
        let cost = Cost::between(&short, &long, 10);
        assert_eq!((cost.instructions, cost.allocations), (12.0, 2.0));
        let top = top(&short.instructions, &long.instructions, 10, 2);
        let top: Vec<_> = top
            .iter()
            .map(|share| (share.function.as_str(), share.count))
            .collect();
        assert_eq!(top, [("send", 10.0), ("late", 2.0)]);
    }
}
