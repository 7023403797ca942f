//! The endpoints of one service port as one worker sees them: who is there, how loaded, and the connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use certs::IdentityCell;
use decision::traffic::balance::{self, DEFAULT_DECAY, DEFAULT_RTT, PeakEwma};
use model::{Endpoint, EndpointSet, MeshDomain, ServicePort, WorkloadId};
use rustls::pki_types::ServerName;
use smallvec::SmallVec;

use super::dial::{MeshRoute, Route};
use super::pool::Upstream;
use crate::settings::Limits;

/// The endpoints of a service port with what this worker knows about each.
pub(crate) struct Cluster {
    sni: Option<ServerName<'static>>,
    state: RefCell<State>,
    cell: IdentityCell,
    limits: Arc<Limits>,
}

#[derive(Default)]
struct State {
    /// The set that `members` was made from; compared by pointer.
    set: Option<Arc<EndpointSet>>,
    members: Vec<Rc<Member>>,
}

/// One endpoint.
pub(crate) struct Member {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) upstream: Rc<Upstream>,
    load: RefCell<PeakEwma>,
}

/// An endpoint chosen for one attempt; its load counts the attempt until it is answered or this is dropped.
pub(crate) struct Picked {
    pub(crate) member: Rc<Member>,
    started: Instant,
    answered: Cell<bool>,
}

impl Cluster {
    pub(crate) fn new(
        target: &ServicePort,
        domain: &MeshDomain,
        cell: IdentityCell,
        limits: Arc<Limits>,
    ) -> Rc<Self> {
        let sni = ServerName::try_from(target.sni(domain)).ok();
        Rc::new(Self {
            sni,
            state: RefCell::default(),
            cell,
            limits,
        })
    }

    /// Chooses an endpoint of `set`, one not in `tried` where there is one. `None`: there is no endpoint.
    pub(crate) fn pick(
        &self,
        set: &Arc<EndpointSet>,
        tried: &[WorkloadId],
        dice: u64,
        now: Instant,
    ) -> Option<Picked> {
        self.follow(set);
        let state = self.state.borrow();
        let members = &state.members;
        let tried: SmallVec<[usize; 4]> = (0..members.len())
            .filter(|index| tried.contains(&members[*index].endpoint.workload))
            .collect();
        let load = |index: usize| members[index].load.borrow().load(now);
        let member = members
            .get(balance::pick(members.len(), &tried, load, dice)?)?
            .clone();
        member.load.borrow_mut().start();
        Some(Picked {
            member,
            started: now,
            answered: Cell::new(false),
        })
    }

    /// Closes connections that were not used for a while.
    pub(crate) fn close_idle(&self, now: Instant) {
        for member in &self.state.borrow().members {
            member.upstream.close_idle(now);
        }
    }

    /// Takes up a changed set; endpoints that stay keep their load and their connections.
    fn follow(&self, set: &Arc<EndpointSet>) {
        let mut state = self.state.borrow_mut();
        if state.set.as_ref().is_some_and(|known| Arc::ptr_eq(known, set)) {
            return;
        }
        let before = std::mem::take(&mut state.members);
        state.members = set
            .endpoints
            .iter()
            .filter_map(|endpoint| self.member(endpoint, &before))
            .collect();
        state.set = Some(set.clone());
    }

    fn member(&self, endpoint: &Arc<Endpoint>, before: &[Rc<Member>]) -> Option<Rc<Member>> {
        let same = |member: &&Rc<Member>| {
            member.endpoint.workload == endpoint.workload
                && member.endpoint.address == endpoint.address
                && member.endpoint.identity == endpoint.identity
        };
        if let Some(member) = before.iter().find(same) {
            return Some(member.clone());
        }
        let route = Route::Mesh(MeshRoute::new(
            endpoint.address,
            self.sni.clone()?,
            endpoint.identity.clone(),
            self.cell.clone(),
        ));
        Some(Rc::new(Member {
            endpoint: endpoint.clone(),
            upstream: Upstream::new(route, self.limits.clone()),
            load: RefCell::new(PeakEwma::new(DEFAULT_RTT, DEFAULT_DECAY, Instant::now())),
        }))
    }
}

impl Picked {
    /// The response's head has arrived.
    pub(crate) fn responded(&self, now: Instant) {
        self.answered.set(true);
        self.member
            .load
            .borrow_mut()
            .finish(now, now.saturating_duration_since(self.started));
    }

    /// There is no answer: no connection, a broken one, or no time left.
    pub(crate) fn failed(&self, now: Instant) {
        self.answered.set(true);
        self.member
            .load
            .borrow_mut()
            .fail(now, now.saturating_duration_since(self.started));
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        if !self.answered.get() {
            self.member.load.borrow_mut().cancel();
        }
    }
}
