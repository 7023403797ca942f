//! What a policy adds to a cluster: which of its endpoints can be used now, and how one of them is chosen.
//!
//! It is one worker's view. Several workers each see their share of the answers and come to their own conclusions about
//! outliers; what active checks find, and what a circuit breaker counts, they have in common.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use decision::Reason;
use decision::traffic::balance::{self, Ask, Balancer, Standing, slow_start};
use decision::traffic::grpc;
use decision::traffic::outlier::{Outliers, Seen};
use decision::traffic::retry::Outcome;
use model::traffic_policy::{Algorithm, LoadBalancer};
use model::{Labels, TrafficPolicy};

use super::cluster::{Member, Place};

/// How long an endpoint that could not be connected to is left alone: the first time, and at most. It doubles each time.
const DOWN_TIME: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// Standings are looked at again after this long in any case.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// The live state of a policy, for the members of a cluster by their places.
pub(crate) struct Governed {
    policy: Arc<TrafficPolicy>,
    balance: LoadBalancer,
    balancer: Balancer,
    outliers: Option<Outliers>,
    hosts: Vec<Host>,
    /// When somebody's standing may be another by the mere passing of time.
    look_at: Instant,
    /// Until when somebody has less than its full weight.
    slow_until: Option<Instant>,
    /// Whether there was a list before: whoever is in the first one has no slow start.
    seeded: bool,
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
            balance,
            policy: policy.clone(),
            hosts: Vec::new(),
            look_at: now,
            slow_until: None,
            seeded: false,
        };
        if let Some(older) = older {
            (governed.hosts, governed.seeded) = (older.hosts, older.seeded);
            if older.policy.outlier == policy.outlier {
                governed.outliers = older.outliers;
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
        let names: Vec<String> = members.iter().map(|member| member.place.to_string()).collect();
        self.balancer = Balancer::new(&self.balance, &names, dice);
        self.arrange(now);
    }

    /// Chooses a member, by its place.
    pub(crate) fn pick(&mut self, members: &[Rc<Member>], ask: &Ask<'_>, now: Instant) -> Option<usize> {
        if now >= self.look_at {
            self.look(now);
        }
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

    /// Whether a member can be reached, as far as is known, and its answers are good.
    pub(crate) fn is_well(&self, at: usize, now: Instant) -> bool {
        let is_up = |host: &Host| host.down_until.is_none_or(|until| until <= now);
        let is_out = self.outliers.as_ref().is_some_and(|outliers| outliers.is_out(at));
        !is_out && self.hosts.get(at).is_some_and(is_up)
    }

    /// An attempt at a member has ended.
    pub(crate) fn judged(&mut self, at: usize, outcome: &Outcome, now: Instant) {
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
        self.arrange(now);
    }

    fn arrange(&mut self, now: Instant) {
        let is_out = |at| self.outliers.as_ref().is_some_and(|outliers| outliers.is_out(at));
        let standing = |(at, host): (usize, &Host)| Standing {
            distance: host.distance,
            usable: host.down_until.is_none_or(|until| until <= now) && !is_out(at),
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

/// Whether an endpoint could not be reached at all, or is not the one it should be.
fn is_no_connection(reason: Reason) -> bool {
    use Reason::{ConnectFailed, ConnectTimeout, PeerRefused, TlsFailed};
    matches!(reason, ConnectFailed | ConnectTimeout | TlsFailed | PeerRefused)
}
