//! `weft diff --live`: which requests of the mesh that runs would move or be refused if what is in shadow were in force, by caller.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;

use proto::v1::governor::{Governor as Wire, PolicyEffect, Unrouted};
use proto::v1::{Governor, ShadowDifference, ShadowRequest, ShadowResponse};
use serde::Serialize;

use crate::connection::{ConnectionArgs, refused};
use crate::table::{table, text};

/// What routes and policies in shadow would have done with live requests.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Live {
    /// Routes in shadow: `Kind/namespace/name`.
    routes: Vec<String>,
    /// Policies in shadow, alike.
    policies: Vec<String>,
    callers: Vec<Caller>,
}

/// All proxies of one identity.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Caller {
    /// SPIFFE id; of a gateway, its own.
    caller: String,
    is_gateway: bool,
    workloads: Vec<String>,
    destinations: Vec<Destination>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Destination {
    /// `namespace/name:port` of a service, or of a Gateway.
    destination: String,
    /// Of the Gateway.
    #[serde(skip_serializing_if = "String::is_empty")]
    listener: String,
    /// Requests that were compared.
    requests: u64,
    differences: Vec<Difference>,
    /// Requests with further differences, which were too many to be kept apart.
    others: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Difference {
    /// A rule, `service` where no route is attached, `404 no_route`, or what a policy does: `503 overflow (<policy>)`.
    from: String,
    to: String,
    requests: u64,
    example: Example,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Example {
    method: String,
    authority: String,
    /// Without its query.
    path: String,
}

/// Asks the control plane.
pub(crate) async fn ask(connection: &ConnectionArgs) -> Result<Live, Box<dyn Error + Send + Sync>> {
    let mut operator = connection.connect().await?;
    let answer = operator.shadow(ShadowRequest {}).await.map_err(refused)?;
    Ok(Live::read(answer.into_inner()))
}

impl Live {
    fn read(answer: ShadowResponse) -> Self {
        let mut gathered: BTreeMap<(String, bool), Gathered> = BTreeMap::new();
        for caller in answer.callers {
            let of_caller = gathered.entry((caller.spiffe_id, caller.is_gateway)).or_default();
            of_caller.workloads.push(caller.workload_id);
            for place in caller.report.unwrap_or_default().destinations {
                let counted = of_caller
                    .places
                    .entry((place.destination, place.listener))
                    .or_default();
                counted.requests = counted.requests.saturating_add(place.requests);
                counted.others = counted.others.saturating_add(place.others);
                for difference in place.differences {
                    counted.add(difference);
                }
            }
        }
        let callers = gathered
            .into_iter()
            .map(|((caller, is_gateway), gathered)| Caller {
                caller,
                is_gateway,
                workloads: gathered.workloads,
                destinations: gathered.places.into_iter().map(Counted::shown).collect(),
            });
        Self {
            routes: answer.routes,
            policies: answer.policies,
            callers: callers.collect(),
        }
    }

    /// Requests that would move, and all that were compared.
    fn totals(&self) -> (u64, u64) {
        let places = self.callers.iter().flat_map(|caller| &caller.destinations);
        places.fold((0, 0), |(moved, all), place| {
            let of_place = place.differences.iter().map(|difference| difference.requests);
            (moved + of_place.sum::<u64>() + place.others, all + place.requests)
        })
    }

    /// 0 where no request would move, else 1.
    pub(crate) fn outcome(&self, exit_zero: bool) -> ExitCode {
        match self.totals().0 {
            0 => ExitCode::SUCCESS,
            _ if exit_zero => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    pub(crate) fn page(&self) -> String {
        if self.routes.is_empty() && self.policies.is_empty() {
            return "nothing is in shadow\n".to_owned();
        }
        let mut table = table(&["CALLER", "DESTINATION", "NOW", "IN SHADOW", "REQUESTS", "EXAMPLE"]);
        for caller in &self.callers {
            for place in &caller.destinations {
                let destination = match place.listener.as_str() {
                    "" => place.destination.clone(),
                    listener => format!("{} {listener}", place.destination),
                };
                let row = |from: &str, to: &str, requests: u64, example: String| {
                    let of = format!("{requests} of {}", place.requests);
                    [&caller.caller, &destination, from, to, &of, &example].map(str::to_owned)
                };
                for difference in &place.differences {
                    let Difference {
                        from,
                        to,
                        requests,
                        example,
                    } = difference;
                    let example = format!("{} {}{}", example.method, example.authority, example.path);
                    table.add_row(row(from, to, *requests, example));
                }
                if place.others > 0 {
                    table.add_row(row("others", "", place.others, String::new()));
                }
            }
        }
        let (moved, all) = self.totals();
        if all == 0 {
            return "no request was compared yet\n".to_owned();
        }
        let rows = match moved {
            0 => String::new(),
            _ => format!("{}\n\n", text(table)),
        };
        format!("{rows}{moved} of {all} requests would go elsewhere, be delayed or be refused\n")
    }
}

#[derive(Default)]
struct Gathered {
    workloads: Vec<String>,
    places: BTreeMap<(String, String), Counted>,
}

#[derive(Default)]
struct Counted {
    requests: u64,
    others: u64,
    moved: BTreeMap<(String, String), (u64, Option<Example>)>,
}

impl Counted {
    fn add(&mut self, difference: ShadowDifference) {
        let ends = (name(difference.now), name(difference.then));
        let (requests, example) = self.moved.entry(ends).or_default();
        *requests = requests.saturating_add(difference.requests);
        example.get_or_insert(Example {
            method: difference.method,
            authority: difference.authority,
            path: difference.path,
        });
    }

    fn shown(((destination, listener), counted): ((String, String), Self)) -> Destination {
        let moved = counted.moved.into_iter();
        let moved = moved.filter_map(|((from, to), (requests, example))| {
            Some(Difference {
                from,
                to,
                requests,
                example: example?,
            })
        });
        Destination {
            destination,
            listener,
            requests: counted.requests,
            differences: moved.collect(),
            others: counted.others,
        }
    }
}

fn name(governor: Option<Governor>) -> String {
    let unknown = "unknown".to_owned();
    match governor.and_then(|governor| governor.governor) {
        Some(Wire::Rule(name)) => name,
        Some(Wire::Unrouted(how)) => match Unrouted::try_from(how) {
            Ok(Unrouted::Service) => "service".to_owned(),
            Ok(Unrouted::NoRoute) => "404 no_route".to_owned(),
            Ok(Unrouted::Unspecified) | Err(_) => unknown,
        },
        Some(Wire::Policy(PolicyEffect { policy, effect })) => match policy.as_str() {
            "" => effect,
            policy => format!("{effect} ({policy})"),
        },
        None => unknown,
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::{ShadowCaller, ShadowReport, ShadowedDestination};

    use super::*;

    fn caller(workload: &str, destinations: Vec<ShadowedDestination>) -> ShadowCaller {
        ShadowCaller {
            workload_id: workload.to_owned(),
            spiffe_id: "spiffe://m/ns/n/sa/web".to_owned(),
            is_gateway: false,
            report: Some(ShadowReport { destinations }),
        }
    }

    fn counted(requests: u64, others: u64, moved: &[(&str, u64)]) -> ShadowedDestination {
        let rule = |name: &str| {
            Some(Governor {
                governor: Some(Wire::Rule(name.to_owned())),
            })
        };
        let difference = |(to, requests): &(&str, u64)| ShadowDifference {
            now: rule("old"),
            then: rule(to),
            requests: *requests,
            method: "GET".to_owned(),
            authority: "a".to_owned(),
            path: format!("/{requests}"),
        };
        ShadowedDestination {
            destination: "n/a:80".to_owned(),
            listener: String::new(),
            requests,
            differences: moved.iter().map(difference).collect(),
            others,
        }
    }

    #[test]
    fn replicas_are_one_caller() {
        let live = Live::read(ShadowResponse {
            callers: vec![
                caller("web-1", vec![counted(10, 0, &[("x", 2), ("y", 1)])]),
                caller("web-2", vec![counted(20, 4, &[("x", 5)])]),
            ],
            routes: vec!["HTTPRoute/n/next".to_owned()],
            policies: Vec::new(),
        });
        let page = "\
CALLER                  DESTINATION  NOW     IN SHADOW  REQUESTS  EXAMPLE
spiffe://m/ns/n/sa/web  n/a:80       old     x          7 of 30   GET a/2
spiffe://m/ns/n/sa/web  n/a:80       old     y          1 of 30   GET a/1
spiffe://m/ns/n/sa/web  n/a:80       others             4 of 30

12 of 30 requests would go elsewhere, be delayed or be refused
";
        assert_eq!(live.page(), page);
        assert_eq!(live.callers[0].workloads, ["web-1", "web-2"]);
    }

    #[test]
    fn nothing_in_shadow_and_nothing_compared_are_told_apart() {
        let mut answer = ShadowResponse::default();
        assert_eq!(Live::read(answer.clone()).page(), "nothing is in shadow\n");
        answer.routes.push("HTTPRoute/n/next".to_owned());
        assert_eq!(Live::read(answer.clone()).page(), "no request was compared yet\n");
        answer.callers.push(caller("web-1", vec![counted(3, 0, &[])]));
        let page = Live::read(answer).page();
        assert_eq!(
            page,
            "0 of 3 requests would go elsewhere, be delayed or be refused\n"
        );
    }
}
