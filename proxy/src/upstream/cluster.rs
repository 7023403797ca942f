//! The endpoints of one service port as one worker sees them: who is there, how loaded, and the connections.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use certs::IdentityCell;
use decision::traffic::balance::{self, DEFAULT_DECAY, DEFAULT_RTT, PeakEwma};
use decision::traffic::hop::{HopLoad, HopVersion};
use decision::traffic::session::EndpointKey;
use model::endpoint::OutsidePort;
use model::gateway::BackendTls;
use model::{Endpoint, EndpointSet, Endpoints, MeshDomain, ServicePort};
use rustls::pki_types::ServerName;
use smallvec::SmallVec;

use super::dial::{MeshRoute, Route};
use super::outside::OutsideTls;
use super::pool::Upstream;
use crate::settings::Limits;

/// The endpoints of a service port with what this worker knows about each.
pub(crate) struct Cluster {
    target: ServicePort,
    sni: Option<ServerName<'static>>,
    state: RefCell<State>,
    /// Attempts without an answer.
    in_flight: Rc<Cell<usize>>,
    usual: Cell<HopLoad>,
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
    pub(crate) place: Place,
    /// As sessions name it.
    pub(crate) key: EndpointKey,
    pub(crate) upstream: Rc<Upstream>,
    load: RefCell<PeakEwma>,
}

/// Where an endpoint is, and whose. Only what configuration lists as outside the mesh is ever called without mTLS.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Workload(Arc<Endpoint>),
    Outside {
        address: SocketAddr,
        /// `None`: in plain.
        tls: Option<Arc<BackendTls>>,
    },
}

/// An endpoint chosen for one attempt; its load counts the attempt until it is answered or this is dropped.
pub(crate) struct Picked {
    pub(crate) member: Rc<Member>,
    started: Instant,
    in_flight: Rc<Cell<usize>>,
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
            target: target.clone(),
            sni,
            state: RefCell::default(),
            in_flight: Rc::default(),
            usual: Cell::default(),
            cell,
            limits,
        })
    }

    /// Chooses an endpoint of `set`, one not in `tried` where there is one. `None`: there is no endpoint.
    pub(crate) fn pick(
        &self,
        set: &Arc<EndpointSet>,
        tried: &[Place],
        dice: u64,
        now: Instant,
    ) -> Option<Picked> {
        self.follow(set);
        let state = self.state.borrow();
        let members = &state.members;
        let is_tried = |index: &usize| tried.iter().any(|place| members[*index].place.is(place));
        let tried: SmallVec<[usize; 4]> = if tried.is_empty() {
            SmallVec::new()
        } else {
            (0..members.len()).filter(is_tried).collect()
        };
        let load = |index: usize| members[index].load.borrow().load(now);
        let member = members
            .get(balance::pick(members.len(), &tried, load, dice)?)?
            .clone();
        Some(self.picked(member, now))
    }

    /// Chooses the endpoint of `set` that a session names, if it is there.
    pub(crate) fn pick_key(&self, set: &Arc<EndpointSet>, key: EndpointKey, now: Instant) -> Option<Picked> {
        self.follow(set);
        let state = self.state.borrow();
        let member = state.members.iter().find(|member| member.key == key)?.clone();
        Some(self.picked(member, now))
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

    /// Whether an endpoint of `set` is the one that a session names.
    pub(crate) fn has(&self, set: &Arc<EndpointSet>, key: EndpointKey) -> bool {
        self.follow(set);
        self.state.borrow().members.iter().any(|member| member.key == key)
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
        // All addresses of a port have the same.
        let mut tls = None;
        state.members = self
            .places(&set.endpoints)
            .into_iter()
            .filter_map(|place| self.member(place, &before, &mut tls))
            .collect();
        state.set = Some(set.clone());
    }

    fn places(&self, endpoints: &Endpoints) -> Vec<Place> {
        match endpoints {
            Endpoints::Mesh(workloads) => workloads.iter().cloned().map(Place::Workload).collect(),
            Endpoints::Outside(ports) => {
                let Some(OutsidePort { addresses, tls, .. }) = ports.get(&self.target.port) else {
                    return Vec::new();
                };
                let outside = |address: &SocketAddr| Place::Outside {
                    address: *address,
                    tls: tls.clone(),
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
                self.cell.clone(),
            )),
            Place::Outside { address, tls: None } => Route::Outside(*address, None),
            Place::Outside {
                address,
                tls: Some(tls),
            } => {
                let made = match made {
                    Some(made) => Ok(made.clone()),
                    None => OutsideTls::new(tls).inspect(|new| *made = Some(new.clone())),
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
            key: EndpointKey::new(&self.target, &place.to_string()),
            place,
            upstream: Upstream::new(route, self.limits.clone()),
            load: RefCell::new(PeakEwma::new(DEFAULT_RTT, DEFAULT_DECAY, Instant::now())),
        }))
    }
}

impl Place {
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Workload(endpoint) => endpoint.address,
            Self::Outside { address, .. } => *address,
        }
    }

    /// Whether both are one endpoint, to be reached in the same way; its labels may differ.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Workload(one), Self::Workload(other)) => {
                one.workload == other.workload
                    && one.address == other.address
                    && one.identity == other.identity
            }
            (
                Self::Outside { address, tls },
                Self::Outside {
                    address: other,
                    tls: others,
                },
            ) => address == other && tls == others,
            _ => false,
        }
    }
}

/// The workload's id; outside the mesh, where there is none, the address.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(endpoint) => endpoint.workload.fmt(f),
            Self::Outside { address, .. } => address.fmt(f),
        }
    }
}

impl Picked {
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

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
        self.in_flight.set(self.in_flight.get() - 1);
        if !self.answered.get() {
            self.member.load.borrow_mut().cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::AppProtocol;

    use super::*;

    fn cluster() -> Rc<Cluster> {
        let target: ServicePort = "shop/pay:80".parse().unwrap();
        let cell = IdentityCell::default();
        Cluster::new(&target, &MeshDomain::default(), cell, Arc::default())
    }

    fn set(endpoints: Endpoints) -> Arc<EndpointSet> {
        let service = "shop/pay".parse().unwrap();
        Arc::new(EndpointSet { service, endpoints })
    }

    fn workload(address: SocketAddr) -> Endpoints {
        Endpoints::Mesh(vec![Arc::new(Endpoint {
            workload: "pay-1".parse().unwrap(),
            address,
            identity: "spiffe://cluster.local/ns/shop/sa/pay".parse().unwrap(),
            labels: model::Labels::default(),
        })])
    }

    fn outside(ports: &[(u16, SocketAddr)]) -> Endpoints {
        let port = |(number, address): &(u16, SocketAddr)| {
            let addresses = [*address].into();
            let protocol = AppProtocol::Http;
            let tls = None;
            (
                *number,
                OutsidePort {
                    protocol,
                    addresses,
                    tls,
                },
            )
        };
        Endpoints::Outside(ports.iter().map(port).collect::<BTreeMap<_, _>>())
    }

    fn pick(cluster: &Cluster, set: &Arc<EndpointSet>) -> Option<Rc<Member>> {
        let picked = cluster.pick(set, &[], 0, Instant::now());
        picked.map(|picked| picked.member.clone())
    }

    #[test]
    fn a_workload_is_reached_by_mtls_even_where_a_plain_connection_to_its_address_is_known() {
        let (cluster, address) = (cluster(), SocketAddr::from(([10, 0, 0, 1], 15008)));
        let plain = pick(&cluster, &set(outside(&[(80, address)]))).unwrap();
        assert!(!plain.upstream.route.is_mtls());
        let mesh = pick(&cluster, &set(workload(address))).unwrap();
        assert!(mesh.upstream.route.is_mtls() && !Rc::ptr_eq(&plain.upstream, &mesh.upstream));
        let plain = pick(&cluster, &set(outside(&[(80, address)]))).unwrap();
        assert!(!plain.upstream.route.is_mtls());
    }

    #[test]
    fn an_address_serves_only_the_port_it_is_listed_for_and_stays_itself() {
        let (cluster, here) = (cluster(), SocketAddr::from(([10, 0, 0, 1], 8080)));
        let other = SocketAddr::from(([10, 0, 0, 1], 9090));
        let first = pick(&cluster, &set(outside(&[(80, here), (81, other)]))).unwrap();
        assert_eq!(first.place.address(), here);
        let again = pick(&cluster, &set(outside(&[(80, here)]))).unwrap();
        assert!(
            Rc::ptr_eq(&first, &again),
            "its load and its connections are kept"
        );
        assert!(pick(&cluster, &set(outside(&[(81, other)]))).is_none());
    }
}
