//! What a proxy says of what is in shadow, within bounds.

use decision::traffic::shadow::MAX_DIFFERENCES;
use proto::v1;

use super::session::shortened;

/// Most destinations of one report that are kept.
const MAX_DESTINATIONS: usize = 4096;

/// As much of a report as is kept of one proxy, without letters that would disturb whoever reads it.
pub(super) fn kept(report: v1::ShadowReport) -> v1::ShadowReport {
    let mut room = MAX_DIFFERENCES;
    let kept = report
        .destinations
        .into_iter()
        .take(MAX_DESTINATIONS)
        .map(|place| {
            let differences: Vec<_> = place.differences.into_iter().take(room).map(difference).collect();
            room -= differences.len();
            v1::ShadowedDestination {
                destination: shortened(&place.destination),
                listener: shortened(&place.listener),
                differences,
                ..place
            }
        });
    v1::ShadowReport {
        destinations: kept.collect(),
    }
}

fn difference(given: v1::ShadowDifference) -> v1::ShadowDifference {
    v1::ShadowDifference {
        now: given.now.map(governor),
        then: given.then.map(governor),
        requests: given.requests,
        method: shortened(&given.method),
        authority: shortened(&given.authority),
        path: shortened(&given.path),
    }
}

fn governor(given: v1::Governor) -> v1::Governor {
    use v1::governor::Governor as Is;
    v1::Governor {
        governor: given.governor.map(|is| match is {
            Is::Rule(name) => Is::Rule(shortened(&name)),
            Is::Unrouted(how) => Is::Unrouted(how),
            Is::Policy(given) => Is::Policy(v1::governor::PolicyEffect {
                policy: shortened(&given.policy),
                effect: shortened(&given.effect),
            }),
        }),
    }
}
