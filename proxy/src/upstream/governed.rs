//! What a policy adds to a cluster: which of its endpoints can be used now, and how one of them is chosen.
//!
//! It is one worker's view. Several workers each see their share of the answers and come to their own conclusions about
//! outliers; what active checks find, and what a circuit breaker counts, they have in common.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use decision::Reason;
use decision::traffic::balance::{self, Ask, Balancer, Standing, slow_start};
use decision::traffic::concurrency::Limiter;
use decision::traffic::grpc;
use decision::traffic::outlier::{Outliers, Seen};
use decision::traffic::retry::Outcome;
use model::traffic_policy::{Algorithm, HealthCheck, LoadBalancer};
use model::{Labels, TrafficPolicy};

use super::checks::{Checking, Subject};
use super::joint::{Joint, JointEndpoint};
use super::member::{Member, Place};
use crate::settings::Limits;

/// How long an endpoint that could not be connected to is left alone: the first time, and at most. It doubles each time.
const DOWN_TIME: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How often a worker asks whether another one has given up checking an endpoint.
const CLAIM_AGAIN: Duration = Duration::from_secs(5);
/// Standings are looked at again after this long in any case.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// The live state of a policy, for the members of a cluster by their places.
pub(crate) struct Governed {
    policy: Arc<TrafficPolicy>,
    balance: LoadBalancer,
    balancer: Balancer,
    outliers: Option<Outliers>,
    limiter: Option<Limiter>,
    hosts: Vec<Host>,
    /// Where a policy checks: what all workers know of each member's health.
    checked: Option<Checked>,
    /// When somebody's standing may be another by the mere passing of time.
    look_at: Instant,
    /// Until when somebody has less than its full weight.
    slow_until: Option<Instant>,
    /// Whether there was a list before: whoever is in the first one has no slow start.
    seeded: bool,
}

/// Health checks as this worker sees them.
struct Checked {
    endpoints: Vec<Arc<JointEndpoint>>,
    /// Those that this worker makes, by member.
    own: Vec<Option<Checking>>,
    joint: Option<Arc<Joint>>,
    /// How many findings were taken into account.
    seen: u64,
    /// When to look whether another worker has given a member up.
    claim_at: Instant,
}

/// One member.
#[derive(Clone)]
struct Host {
    distance: u8,
    /// Since when it is used.
    since: Option<Instant>,
    /// Until when it is left alone, because it could not be connected to.
    down_until: Option<Instant>,
    /// How often in a row that was so.
    down_times: u32,
    unhealthy: bool,
}

impl Governed {
    /// For members that are listed by [`follow`](Self::follow) next. What an older policy found out about them stays
    /// true.
    pub(crate) fn new(policy: &Arc<TrafficPolicy>, older: Option<Self>, now: Instant) -> Self {
        let balance = policy.balance.clone().unwrap_or_default();
        let new = |outlier| Outliers::new(outlier, 0, now);
        let mut governed = Self {
            balancer: Balancer::new(&balance, &[], 0),
            outliers: policy.outlier.clone().map(new),
            limiter: policy.concurrency.map(|adaptive| Limiter::new(adaptive, now)),
            balance,
            policy: policy.clone(),
            hosts: Vec::new(),
            checked: None,
            look_at: now,
            slow_until: None,
            seeded: false,
        };
        if let Some(older) = older {
            (governed.hosts, governed.seeded) = (older.hosts, older.seeded);
            if older.policy.outlier == policy.outlier {
                governed.outliers = older.outliers;
            }
            if older.policy.concurrency == policy.concurrency {
                governed.limiter = older.limiter;
            }
            if older.policy.health_check == policy.health_check {
                governed.checked = older.checked;
            }
        }
        governed
    }

    /// Whether it is this policy's; a policy that says the same again is the same.
    pub(crate) fn is_of(&mut self, policy: &Arc<TrafficPolicy>) -> bool {
        if Arc::ptr_eq(&self.policy, policy) {
            return true;
        }
        let is_same = self.policy == *policy;
        if is_same {
            self.policy = policy.clone();
        }
        is_same
    }

    /// Takes up a changed list, with the place that each of its members had before.
    pub(crate) fn follow(
        &mut self,
        members: &[Rc<Member>],
        before: &[Option<usize>],
        endpoints: Option<Vec<Arc<JointEndpoint>>>,
        own: &Labels,
        dice: u64,
        now: Instant,
    ) {
        let prefers = (self.balance.prefer_local)
            .filter(|prefer| members.len() >= usize::try_from(prefer.min_endpoints).unwrap_or(usize::MAX));
        let distance = |member: &Member| match (&prefers, &member.place) {
            (None, _) => 0,
            (Some(_), Place::Workload(endpoint)) => balance::distance(own, &endpoint.labels),
            (Some(_), Place::Outside { .. }) => balance::distance(own, &Labels::default()),
        };
        let since = self.seeded.then_some(now);
        let known = |place: &Option<usize>| place.and_then(|at| self.hosts.get(at)).cloned();
        let hosts = members.iter().zip(before).map(|(member, place)| {
            let new = || Host {
                distance: 0,
                since,
                down_until: None,
                down_times: 0,
                unhealthy: false,
            };
            Host {
                distance: distance(member),
                ..known(place).unwrap_or_else(new)
            }
        });
        self.hosts = hosts.collect();
        self.seeded = true;
        if let Some(outliers) = &mut self.outliers {
            outliers.follow(before);
        }
        let mut older = self.checked.take();
        self.checked = endpoints.map(|endpoints| {
            let mut kept = |place: &Option<usize>| older.as_mut()?.own.get_mut((*place)?)?.take();
            Checked {
                endpoints,
                own: before.iter().map(&mut kept).collect(),
                joint: None,
                seen: 0,
                claim_at: now,
            }
        });
        if self.checked.is_none() {
            self.hosts.iter_mut().for_each(|host| host.unhealthy = false);
        }
        let names: Vec<String> = members.iter().map(|member| member.place.to_string()).collect();
        self.balancer = Balancer::new(&self.balance, &names, dice);
        self.arrange(now);
    }

    /// Takes up what is known of the members, if it may be another than before.
    pub(crate) fn look_if_due(&mut self, now: Instant) {
        let is_news = |checked: &Checked| {
            checked
                .joint
                .as_ref()
                .is_some_and(|joint| joint.findings() != checked.seen)
        };
        if now >= self.look_at || self.checked.as_ref().is_some_and(is_news) {
            self.look(now);
        }
    }

    /// Chooses a member, by its place.
    pub(crate) fn pick(&mut self, members: &[Rc<Member>], ask: &Ask<'_>, now: Instant) -> Option<usize> {
        let by_requests = matches!(self.balancer.algorithm(), Algorithm::LeastRequest);
        let cost = |at: usize| {
            members.get(at).map_or(f64::MAX, |member| {
                let load = member.load.borrow();
                match by_requests {
                    true => f64::from(load.pending()),
                    false => load.load(now),
                }
            })
        };
        let (hosts, window) = (&self.hosts, self.balance.slow_start.unwrap_or_default());
        let weight = |at: usize| {
            let since = hosts.get(at).and_then(|host| host.since);
            since.map_or(1.0, |since| {
                slow_start(now.saturating_duration_since(since), window)
            })
        };
        let is_slow = self.slow_until.is_some_and(|until| now < until);
        let weight: Option<&dyn Fn(usize) -> f64> = if is_slow { Some(&weight) } else { None };
        self.balancer.pick(ask, cost, weight)
    }

    /// Whether one more request may join `in_flight` others, as far as they are answered in time.
    pub(crate) fn admits(&mut self, in_flight: u32, now: Instant) -> bool {
        let limiter = self.limiter.as_mut();
        limiter.is_none_or(|limiter| limiter.admits(in_flight, now))
    }

    /// Whether it is time to ask whether somebody is checked by nobody.
    pub(crate) fn is_to_claim(&self, now: Instant) -> bool {
        self.checked
            .as_ref()
            .is_some_and(|checked| now >= checked.claim_at)
    }

    /// Begins to check the members whom no other worker does.
    pub(super) fn check(
        &mut self,
        members: &[Rc<Member>],
        policy: &HealthCheck,
        joint: &Arc<Joint>,
        subject: impl Fn(&Member) -> Subject,
        limits: &Arc<Limits>,
    ) {
        let Some(checked) = &mut self.checked else { return };
        checked.joint = Some(joint.clone());
        checked.claim_at = Instant::now() + CLAIM_AGAIN;
        let each = checked.endpoints.iter().zip(&mut checked.own).zip(members);
        for ((endpoint, own), member) in each.filter(|((_, own), _)| own.is_none()) {
            *own = Checking::begin(joint, endpoint, policy, subject(member), limits.clone());
        }
    }

    pub(crate) fn end_checks(&mut self) {
        self.checked = None;
    }

    /// Whether a member can be reached, as far as is known, and its answers are good.
    pub(crate) fn is_well(&self, at: usize, now: Instant) -> bool {
        let is_up = |host: &Host| !host.unhealthy && host.down_until.is_none_or(|until| until <= now);
        let is_out = self.outliers.as_ref().is_some_and(|outliers| outliers.is_out(at));
        !is_out && self.hosts.get(at).is_some_and(is_up)
    }

    /// An attempt at a member has ended.
    pub(crate) fn judged(&mut self, at: usize, outcome: &Outcome, took: Duration, now: Instant) {
        if let Some(limiter) = &mut self.limiter {
            limiter.ended(took, is_overload(outcome), now);
        }
        let Some(host) = self.hosts.get_mut(at) else {
            return;
        };
        let is_down = matches!(outcome, Outcome::NotSent(reason) if is_no_connection(*reason));
        let was_down = host.down_times > 0;
        if is_down {
            let [first, most] = DOWN_TIME;
            let time = first.saturating_mul(1 << host.down_times.min(5)).min(most);
            host.down_times = host.down_times.saturating_add(1);
            host.down_until = Some(now + time);
        } else {
            (host.down_times, host.down_until) = (0, None);
        }
        let seen = match outcome {
            Outcome::Status(status) => Some(Seen::Status(*status)),
            Outcome::Grpc(status) => Some(Seen::Status(grpc::http_status(*status))),
            // Nothing that the endpoint did.
            Outcome::NotSent(reason) if !is_no_connection(*reason) => None,
            Outcome::NotSent(_) | Outcome::Broken(_) | Outcome::TimedOut => Some(Seen::Local),
        };
        let is_out = match (&mut self.outliers, seen) {
            (Some(outliers), Some(seen)) => outliers.see(at, seen, now),
            _ => false,
        };
        if is_down || was_down || is_out {
            self.arrange(now);
        }
    }

    /// Lets back whose time is over.
    fn look(&mut self, now: Instant) {
        let back = self.outliers.as_mut().and_then(|outliers| outliers.look(now));
        for at in back.into_iter().flatten() {
            if let Some(host) = self.hosts.get_mut(at) {
                host.since = Some(now);
            }
        }
        if let Some(checked) = &mut self.checked {
            // Taken first: what is found meanwhile is looked at again.
            checked.seen = checked.joint.as_ref().map_or(0, |joint| joint.findings());
            for (host, endpoint) in self.hosts.iter_mut().zip(&checked.endpoints) {
                let unhealthy = !endpoint.is_healthy();
                if host.unhealthy && !unhealthy {
                    host.since = Some(now);
                }
                host.unhealthy = unhealthy;
            }
        }
        self.arrange(now);
    }

    fn arrange(&mut self, now: Instant) {
        let is_out = |at| self.outliers.as_ref().is_some_and(|outliers| outliers.is_out(at));
        let standing = |(at, host): (usize, &Host)| Standing {
            distance: host.distance,
            usable: !host.unhealthy && host.down_until.is_none_or(|until| until <= now) && !is_out(at),
        };
        let standings: Vec<Standing> = self.hosts.iter().enumerate().map(standing).collect();
        let threshold = self
            .policy
            .panic_threshold
            .unwrap_or(TrafficPolicy::DEFAULT_PANIC_THRESHOLD);
        self.balancer.arrange(&standings, threshold);
        let returns = self.hosts.iter().filter_map(|host| host.down_until);
        let look_at = returns
            .filter(|until| *until > now)
            .chain(self.outliers.as_ref().map(Outliers::next))
            .min();
        self.look_at = look_at.unwrap_or(now + LOOK_AGAIN);
        self.slow_until = self.balance.slow_start.and_then(|window| {
            let youngest = self.hosts.iter().filter_map(|host| host.since).max();
            youngest.map(|since| since + window)
        });
    }
}

/// Whether an endpoint had more to do than it could.
fn is_overload(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Status(status) => *status == 503,
        // RESOURCE_EXHAUSTED, UNAVAILABLE.
        Outcome::Grpc(status) => matches!(*status, 8 | 14),
        Outcome::TimedOut => true,
        Outcome::NotSent(_) | Outcome::Broken(_) => false,
    }
}

/// Whether an endpoint could not be reached at all, or is not the one it should be.
fn is_no_connection(reason: Reason) -> bool {
    use Reason::{ConnectFailed, ConnectTimeout, PeerRefused, TlsFailed};
    matches!(reason, ConnectFailed | ConnectTimeout | TlsFailed | PeerRefused)
}
