//! What policies in shadow would do to the requests of a lane, and one request until it is known what became of it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use decision::Reason;
use decision::traffic::fault::{self, Injected};
use decision::traffic::route::RequestView;
use decision::traffic::shadow::policies::{Effect, Ended, WouldBe, held_against};
use decision::traffic::shadow::{Example, Governor};
use model::fault::Fault;
use model::resilience::Timeouts;
use model::route::Rule;
use model::shadow::{NamedPolicy, PolicyShadow};
use model::traffic_policy::CircuitBreaker;
use model::{EndpointSet, ServicePort, TrafficPolicy};

use super::{Ledger, Watch};
use crate::upstream::{Counted, Joint, Permit};
use crate::worker::Worker;

/// What would be done to the requests of one lane. It is there only where that is something else than what is done.
pub(crate) struct Trial {
    ledger: Arc<Ledger>,
    watch: Arc<Watch>,
    faults: Box<[Fault]>,
    breaker: Breaker,
    /// That is in force.
    timeout: Option<Duration>,
    would_be: Option<Duration>,
    /// The policy that says so.
    timeout_by: Arc<str>,
}

/// How many requests there might be at a time.
enum Breaker {
    /// As many as there may be.
    Same,
    Unlimited,
    Limited {
        most: u32,
        /// Counts them as they would be.
        joint: Arc<Joint>,
        by: Arc<str>,
    },
}

/// What is in force on a lane.
pub(crate) struct InForce<'l> {
    pub(crate) policy: Option<&'l TrafficPolicy>,
    pub(crate) faults: &'l [Fault],
    pub(crate) timeouts: &'l Timeouts,
}

/// One request, from its arrival on.
pub(crate) struct Tried {
    trial: Rc<Trial>,
    /// Of the request, where no policy has the last word.
    governor: Governor,
    example: Example,
    now: Done,
    then: Done,
    overflows: bool,
    /// As long as it would be one of those that are counted.
    _permit: Option<Permit>,
}

/// What is done to a request on purpose, and by whom.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) injected: Injected,
    policy: Arc<str>,
}

impl Done {
    /// By the first of these policies that fits; `dice` are as [`fault::thrown`] takes them.
    pub(crate) fn by(faults: &[Fault], request: &RequestView<'_>, dice: [f64; 2]) -> Self {
        let mut dice = dice.into_iter();
        let done = |fault: &Fault| Self {
            injected: fault::thrown(fault, || dice.next().unwrap_or_default()),
            policy: fault.policy.clone(),
        };
        fault::fitting(faults, request).map(done).unwrap_or_default()
    }
}

impl Trial {
    /// `None` where requests to `target`, of this rule, would fare as they do.
    pub(crate) fn of(
        worker: &Worker,
        watch: &Arc<Watch>,
        rule: Option<&Rule>,
        (target, set): (&ServicePort, Option<&EndpointSet>),
        in_force: &InForce<'_>,
    ) -> Option<Self> {
        let of_route = rule.and_then(|rule| rule.shadow.as_deref());
        let of_port = set.and_then(|set| set.shadow.get(&target.port));
        if of_route.is_none() && of_port.is_none() {
            return None;
        }
        let would_be = |shadow: Option<&PolicyShadow>, now: Option<&Arc<TrafficPolicy>>| match shadow {
            Some(shadow) => shadow.traffic.clone(),
            None => now.map(|policy| NamedPolicy {
                name: "".into(),
                policy: policy.clone(),
            }),
        };
        let policies = [
            would_be(of_route, rule.and_then(|rule| rule.policy.as_ref())),
            would_be(of_port, set.and_then(|set| set.policies.get(&target.port))),
        ];
        let policies = || policies.iter().flatten();
        let limited = policies().find_map(|named| Some((named.name.clone(), named.policy.breaker?)));
        let most = |breaker: CircuitBreaker| breaker.max_requests;
        let limited = limited.map(|(by, breaker)| (by, most(breaker)));
        let breaker = match limited {
            limited
                if limited.as_ref().map(|(_, most)| *most)
                    == in_force.policy.and_then(|policy| policy.breaker).map(most) =>
            {
                Breaker::Same
            }
            None => Breaker::Unlimited,
            Some((by, most)) => {
                let whose = of_route.and(rule).map_or("", |rule| &*rule.name);
                // Not a route's name: it is nobody's cluster.
                let key = (target.clone(), Some(format!("shadow {by} {whose}").into()));
                let joint = worker.shared.joints.of(&key);
                Breaker::Limited { most, joint, by }
            }
        };
        let timed = policies().find_map(|named| Some((named.name.clone(), named.policy.timeouts?)));
        let (timeout_by, timed) = timed.unwrap_or_default();
        let own = rule.map(|rule| rule.timeouts).unwrap_or_default();
        let faults = |now: &[Fault], shadow: Option<&PolicyShadow>| {
            shadow.map_or_else(|| now.to_vec(), |shadow| shadow.faults.clone())
        };
        let of_rule = faults(rule.map_or(&[], |rule| &rule.faults), of_route);
        let now = set.and_then(|set| set.faults.get(&target.port));
        let of_set = faults(now.map_or(&[], Vec::as_slice), of_port);
        let trial = Self {
            ledger: worker.shared.config.ledger().clone(),
            watch: watch.clone(),
            faults: of_rule.into_iter().chain(of_set).collect(),
            breaker,
            timeout: in_force.timeouts.request,
            would_be: own.or(timed).request,
            timeout_by,
        };
        let is_same = matches!(trial.breaker, Breaker::Same)
            && trial.timeout == trial.would_be
            && *trial.faults == *in_force.faults;
        (!is_same).then_some(trial)
    }

    /// Holds a request, to which policies in force do this, against what they would do.
    pub(crate) fn begin(
        self: &Rc<Self>,
        governor: Governor,
        example: Example,
        request: &RequestView<'_>,
        now: Done,
        dice: [f64; 2],
    ) -> Box<Tried> {
        self.ledger.count(&self.watch);
        let then = Done::by(&self.faults, request, dice);
        let permit = match &self.breaker {
            Breaker::Limited { most, joint, .. } if then.injected.abort.is_none() => {
                Some(joint.take(Counted::Requests, *most))
            }
            _ => None,
        };
        Box::new(Tried {
            trial: self.clone(),
            governor,
            example,
            now,
            then,
            overflows: matches!(permit, Some(None)),
            _permit: permit.flatten(),
        })
    }
}

impl Tried {
    /// The request has ended, after so long and so many attempts; `stopped` says why the proxy passed no answer on, or cut
    /// it off.
    pub(crate) fn ended(self, took: Duration, stopped: Option<Reason>, attempts: u8) {
        let trial = &self.trial;
        let ended = Ended {
            injected: self.now.injected,
            timeout: trial.timeout,
            took,
            stopped,
            attempts,
        };
        let overflowed = stopped == Some(Reason::Overflow) && attempts == 0;
        let would_be = WouldBe {
            injected: self.then.injected,
            overflows: match trial.breaker {
                Breaker::Same => overflowed,
                Breaker::Unlimited | Breaker::Limited { .. } => self.overflows,
            },
            timeout: trial.would_be,
        };
        let (now, then) = held_against(&ended, &would_be);
        if now == then {
            return;
        }
        let by = match &trial.breaker {
            Breaker::Limited { by, .. } => by.clone(),
            Breaker::Same | Breaker::Unlimited => "".into(),
        };
        let now = self.governor_of(now, &self.now, ["".into(), "".into()]);
        let then = self.governor_of(then, &self.then, [by, trial.timeout_by.clone()]);
        trial.ledger.differ(&trial.watch, now, then, || self.example);
    }

    fn governor_of(
        &self,
        effect: Option<Effect>,
        done: &Done,
        [breaker, timeout]: [Arc<str>; 2],
    ) -> Governor {
        let Some(effect) = effect else {
            return self.governor.clone();
        };
        let policy = match effect {
            Effect::Delayed(_) | Effect::Aborted(_) => done.policy.clone(),
            Effect::Overflow => breaker,
            Effect::TimedOut => timeout,
        };
        Governor::Policy { policy, effect }
    }
}
