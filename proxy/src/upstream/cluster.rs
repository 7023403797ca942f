//! The endpoints of one service port as one worker sees them: who is there, how loaded, and the connections.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use certs::IdentityCell;
use decision::Reason;
use decision::traffic::balance::{self, Ask, DEFAULT_DECAY, DEFAULT_RTT, PeakEwma};
use decision::traffic::hop::{HopLoad, HopVersion};
use decision::traffic::retry::Outcome;
use decision::traffic::session::EndpointKey;
use http::uri::Authority;
use model::endpoint::OutsidePort;
use model::gateway::Certificate;
use model::{EndpointSet, Endpoints, Labels, MeshDomain, ServicePort, TrafficPolicy};
use rustls::pki_types::ServerName;
use smallvec::SmallVec;

use super::checks::Subject;
use super::dial::{MeshRoute, Route};
use super::governed::Governed;
use super::joint::{Counted, Joint, Joints, Permit};
use super::member::{Member, Picked, Place};
use super::outside::OutsideTls;
use super::pool::Upstream;
use super::terms::Terms;
use crate::settings::Limits;
use crate::worker::ClusterKey;

/// The endpoints of a service port with what this worker knows about each.
pub(crate) struct Cluster {
    key: ClusterKey,
    sni: Option<ServerName<'static>>,
    state: RefCell<State>,
    /// Attempts without an answer.
    in_flight: Rc<Cell<usize>>,
    usual: Cell<HopLoad>,
    around: Rc<Surroundings>,
    /// With the other workers, once a policy counts.
    joint: OnceCell<Arc<Joint>>,
}

/// What all clusters of a worker have around them.
pub(crate) struct Surroundings {
    pub(crate) domain: MeshDomain,
    pub(crate) identity: IdentityCell,
    pub(crate) limits: Arc<Limits>,
    /// Of this workload: they say where it runs.
    pub(crate) labels: Labels,
    pub(crate) joints: Arc<Joints>,
    pub(crate) shown: Shown,
}

/// The certificate that a gateway shows to backends outside the mesh; never one in a sidecar.
pub(crate) type Shown = Arc<ArcSwapOption<Certificate>>;

#[derive(Default)]
struct State {
    /// The set that `members` was made from; compared by pointer.
    set: Option<Arc<EndpointSet>>,
    members: Vec<Rc<Member>>,
    /// `None` where no policy governs the members.
    governed: Option<Box<Governed>>,
}

/// What is asked for one attempt.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) set: &'a Arc<EndpointSet>,
    pub(crate) policy: Option<&'a Arc<TrafficPolicy>>,
    /// Where the request was already.
    pub(crate) tried: &'a [Place],
    /// Where the request's session is, which comes before any choice as long as the endpoint is well.
    pub(crate) session: Option<EndpointKey>,
    /// Where the policy keeps equal keys together.
    pub(crate) key: Option<u64>,
    pub(crate) dice: u64,
    pub(crate) now: Instant,
}

impl<'a> Wanted<'a> {
    /// Any endpoint of these, for a first attempt.
    pub(crate) fn any(
        set: &'a Arc<EndpointSet>,
        policy: Option<&'a Arc<TrafficPolicy>>,
        dice: u64,
        now: Instant,
    ) -> Self {
        Self {
            set,
            policy,
            tried: &[],
            session: None,
            key: None,
            dice,
            now,
        }
    }
}

impl Cluster {
    pub(crate) fn new(key: &ClusterKey, around: Rc<Surroundings>) -> Rc<Self> {
        let sni = ServerName::try_from(key.0.sni(&around.domain)).ok();
        Rc::new(Self {
            key: key.clone(),
            sni,
            state: RefCell::default(),
            in_flight: Rc::default(),
            usual: Cell::default(),
            around,
            joint: OnceCell::new(),
        })
    }

    /// Chooses an endpoint, one that was not tried where there is one. `None`: there is no endpoint.
    pub(crate) fn pick(&self, wanted: &Wanted<'_>) -> Option<Picked> {
        self.follow(wanted);
        let mut state = self.state.borrow_mut();
        let State {
            members, governed, ..
        } = &mut *state;
        if let Some(governed) = governed {
            governed.look_if_due(wanted.now);
        }
        let is_tried = |index: &usize| wanted.tried.iter().any(|place| members[*index].place.is(place));
        let tried: SmallVec<[usize; 4]> = if wanted.tried.is_empty() {
            SmallVec::new()
        } else {
            (0..members.len()).filter(is_tried).collect()
        };
        let is_well = |at: &usize| {
            let mut governed = governed.iter();
            governed.all(|governed| governed.is_well(*at, wanted.now))
        };
        let of_session = wanted
            .session
            .filter(|_| wanted.tried.is_empty())
            .and_then(|key| members.iter().position(|member| member.key == key))
            .filter(is_well);
        let at = match (of_session, governed) {
            (Some(at), None) => at,
            (Some(at), Some(_)) => {
                self.make_room(members, at, wanted.policy);
                at
            }
            (None, None) => {
                let load = |index: usize| members[index].load.borrow().load(wanted.now);
                balance::pick(members.len(), &tried, load, wanted.dice)?
            }
            (None, Some(governed)) => {
                let ask = Ask {
                    tried: &tried,
                    key: wanted.key,
                    dice: wanted.dice,
                };
                let at = governed.pick(members, &ask, wanted.now)?;
                self.make_room(members, at, wanted.policy);
                at
            }
        };
        let member = members.get(at)?.clone();
        Some(self.picked(member, wanted.now))
    }

    fn picked(&self, member: Rc<Member>, now: Instant) -> Picked {
        member.load.borrow_mut().start();
        self.in_flight.set(self.in_flight.get() + 1);
        Picked {
            member,
            started: now,
            in_flight: self.in_flight.clone(),
            answered: Cell::new(false),
        }
    }

    /// How many endpoints there are.
    pub(crate) fn len(&self) -> usize {
        self.state.borrow().members.len()
    }

    /// Whether the endpoint that a session names is among those that are asked for.
    pub(crate) fn has(&self, wanted: &Wanted<'_>, key: EndpointKey) -> bool {
        self.follow(wanted);
        self.state.borrow().members.iter().any(|member| member.key == key)
    }

    /// Lets a request in, until the permit is dropped. `None` where no policy counts.
    ///
    /// # Errors
    /// [`Reason::Overflow`] where there are as many as there may be, [`Reason::ConcurrencyLimit`] where there are as many
    /// as are answered in time.
    pub(crate) fn admit(&self, policy: &TrafficPolicy) -> Result<Option<Permit>, Reason> {
        if policy.concurrency.is_some()
            && let Some(governed) = &mut self.state.borrow_mut().governed
            && !governed.admits(
                u32::try_from(self.in_flight.get()).unwrap_or(u32::MAX),
                Instant::now(),
            )
        {
            return Err(Reason::ConcurrencyLimit);
        }
        let Some(breaker) = &policy.breaker else {
            return Ok(None);
        };
        let permit = self.joint().take(Counted::Requests, breaker.max_requests);
        permit.map(Some).ok_or(Reason::Overflow)
    }

    /// As [`admit`](Self::admit), for a retry of one that was let in.
    pub(crate) fn admit_retry(&self, policy: &TrafficPolicy) -> Result<Option<Permit>, Reason> {
        let Some(breaker) = &policy.breaker else {
            return Ok(None);
        };
        let permit = self.joint().take(Counted::Retries, breaker.max_retries);
        permit.map(Some).ok_or(Reason::Overflow)
    }

    fn joint(&self) -> &Arc<Joint> {
        self.joint.get_or_init(|| self.around.joints.of(&self.key))
    }

    /// How an attempt ended, where a policy wants to know.
    pub(crate) fn judged(&self, picked: &Picked, outcome: &Outcome, now: Instant) {
        if let Some(governed) = &mut self.state.borrow_mut().governed {
            governed.judged(picked.member.at.get(), outcome, picked.took(now), now);
        }
    }

    /// The version of HTTP for one more request to a workload.
    pub(crate) fn hop_version(&self, came_as_http2: bool) -> HopVersion {
        let members = self.state.borrow().members.len().max(1);
        let load = HopLoad {
            in_flight: self.in_flight.get() / members,
            ..self.usual.get()
        };
        load.version(came_as_http2)
    }

    /// An answer said that it has so many bytes.
    pub(crate) fn answered(&self, bytes: u64) {
        let mut usual = self.usual.get();
        usual.answered(bytes);
        self.usual.set(usual);
    }

    /// Takes up what a policy says now, as the next request would: checks go on without requests, and must end without
    /// them. Nothing is done for endpoints that none governs.
    pub(crate) fn refresh(&self, wanted: &Wanted<'_>) {
        if wanted.policy.is_some() || self.state.borrow().governed.is_some() {
            self.follow(wanted);
        }
    }

    /// Nobody asks how its endpoints are any more, however long requests still use it.
    pub(crate) fn end_checks(&self) {
        if let Some(governed) = &mut self.state.borrow_mut().governed {
            governed.end_checks();
        }
    }

    /// Closes connections that were not used for a while.
    pub(crate) fn close_idle(&self, now: Instant) {
        for member in &self.state.borrow().members {
            member.upstream.close_idle(now);
        }
    }

    /// Begins to check, as the policy says, whom no other worker does.
    fn check(&self, state: &mut State, wanted: &Wanted<'_>) {
        let policy = wanted.policy.and_then(|policy| policy.health_check.as_ref());
        let (Some(policy), Some(governed)) = (policy, &mut state.governed) else {
            return;
        };
        let ServicePort { service, port } = &self.key.0;
        let name = format!(
            "{}.{}.svc.{}",
            service.name, service.namespace, self.around.domain
        );
        let authority = match port {
            80 => name,
            port => format!("{name}:{port}"),
        };
        let Ok(authority) = authority.parse::<Authority>() else {
            return;
        };
        let outside = wanted.set.endpoints.outside(*port);
        let subject = |member: &Member| Subject {
            route: member.upstream.route.clone(),
            authority: authority.clone(),
            protocol: outside.map(|outside| outside.protocol).unwrap_or_default(),
        };
        governed.check(&state.members, policy, self.joint(), subject, &self.around.limits);
    }

    /// Where no more connections may be opened and the chosen endpoint has none to spare, closes one of another's.
    fn make_room(&self, members: &[Rc<Member>], chosen: usize, policy: Option<&Arc<TrafficPolicy>>) {
        let Some(breaker) = policy.and_then(|policy| policy.breaker) else {
            return;
        };
        let is_full = self.joint().now(Counted::Connections) >= breaker.max_connections;
        if is_full
            && members
                .get(chosen)
                .is_some_and(|member| !member.upstream.has_idle())
        {
            let others = members.iter().enumerate().filter(|(at, _)| *at != chosen);
            let closed = { others }.any(|(_, member)| member.upstream.close_one());
            tracing::trace!(closed, "at the limit of connections");
        }
    }

    /// Takes up a changed set or policy; endpoints that stay keep their load and their connections.
    fn follow(&self, wanted: &Wanted<'_>) {
        let mut state = self.state.borrow_mut();
        let same_set = state
            .set
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, wanted.set));
        let same_policy = match (&mut state.governed, wanted.policy) {
            (None, None) => true,
            (Some(governed), Some(policy)) => governed.is_of(policy),
            _ => false,
        };
        if !(same_set && same_policy) {
            self.take_up(&mut state, wanted, same_policy);
        } else if state
            .governed
            .as_ref()
            .is_some_and(|governed| governed.is_to_claim(wanted.now))
        {
            self.check(&mut state, wanted);
        }
    }

    fn take_up(&self, state: &mut State, wanted: &Wanted<'_>, same_policy: bool) {
        let before = std::mem::take(&mut state.members);
        // All addresses of a port have the same.
        let mut tls = None;
        state.members = self
            .places(&wanted.set.endpoints)
            .into_iter()
            .filter_map(|place| self.member(place, &before, &mut tls))
            .collect();
        state.set = Some(wanted.set.clone());
        if !same_policy {
            let older = state.governed.take().map(|governed| *governed);
            state.governed = wanted
                .policy
                .map(|policy| Box::new(Governed::new(policy, older, wanted.now)));
        }
        if let Some(governed) = &mut state.governed {
            let place_before = |member: &Rc<Member>| {
                let at = member.at.get();
                (at != usize::MAX).then_some(at)
            };
            let before: Vec<_> = state.members.iter().map(place_before).collect();
            let endpoints = wanted
                .policy
                .filter(|policy| policy.health_check.is_some())
                .map(|_| {
                    let endpoint = |member: &Rc<Member>| self.joint().endpoint(&member.place.to_string());
                    state.members.iter().map(endpoint).collect()
                });
            governed.follow(
                &state.members,
                &before,
                endpoints,
                &self.around.labels,
                wanted.dice,
                wanted.now,
            );
        }
        self.check(state, wanted);
        for member in &before {
            member.at.set(usize::MAX);
        }
        for member in &state.members {
            member
                .upstream
                .set_terms(self.terms(wanted.policy, &member.place));
        }
        for (at, member) in state.members.iter().enumerate() {
            member.at.set(at);
        }
    }

    /// `None` where no policy says anything about connections.
    fn terms(&self, policy: Option<&Arc<TrafficPolicy>>, place: &Place) -> Option<Rc<Terms>> {
        let policy = policy.filter(|policy| policy.breaker.is_some() || policy.connection.is_some())?;
        let joint = self.joint().clone();
        let endpoint = joint.endpoint(&place.to_string());
        let limits = self.around.limits.clone();
        Some(Rc::new(Terms::new(policy, joint, endpoint, limits)))
    }

    fn places(&self, endpoints: &Endpoints) -> Vec<Place> {
        match endpoints {
            Endpoints::Mesh(workloads) => workloads.iter().cloned().map(Place::Workload).collect(),
            Endpoints::Outside(ports) => {
                let Some(OutsidePort { addresses, tls, .. }) = ports.get(&self.key.0.port) else {
                    return Vec::new();
                };
                let shown = tls.as_ref().and_then(|_| self.around.shown.load_full());
                let outside = |address: &SocketAddr| Place::Outside {
                    address: *address,
                    tls: tls.clone(),
                    shown: shown.clone(),
                };
                addresses.iter().map(outside).collect()
            }
        }
    }

    fn member(
        &self,
        place: Place,
        before: &[Rc<Member>],
        made: &mut Option<OutsideTls>,
    ) -> Option<Rc<Member>> {
        if let Some(member) = before.iter().find(|member| member.place.is(&place)) {
            return Some(member.clone());
        }
        let route = match &place {
            Place::Workload(endpoint) => Route::Mesh(MeshRoute::new(
                endpoint.address,
                self.sni.clone()?,
                endpoint.identity.clone(),
                self.around.identity.clone(),
            )),
            Place::Outside {
                address, tls: None, ..
            } => Route::Outside(*address, None),
            Place::Outside {
                address,
                tls: Some(tls),
                shown,
            } => {
                let made = match made {
                    Some(made) => Ok(made.clone()),
                    None => OutsideTls::new(tls, shown.as_deref()).inspect(|new| *made = Some(new.clone())),
                };
                match made {
                    Ok(made) => Route::Outside(*address, Some(made)),
                    Err(error) => {
                        tracing::error!(%address, %error, "no TLS settings for a backend");
                        Route::Nowhere(*address)
                    }
                }
            }
        };
        Some(Rc::new(Member {
            key: EndpointKey::new(&self.key.0, &place.to_string()),
            place,
            upstream: Upstream::new(Rc::new(route), self.around.limits.clone()),
            load: RefCell::new(PeakEwma::new(DEFAULT_RTT, DEFAULT_DECAY, Instant::now())),
            at: Cell::new(usize::MAX),
        }))
    }
}

#[cfg(test)]
mod tests;
