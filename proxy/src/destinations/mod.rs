//! What a worker has worked out about the services that are called: once per configuration, not per request.
//!
//! A destination is found by what callers write as authority, or by the local port that stands for it. However many
//! ways there are to write it, it is worked out once, for one snapshot; of the next one only what changed is anew.

mod known;
mod lane;
mod measured;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use decision::Reason;
use decision::message::host;
use http::uri::Authority;
use model::{ServicePort, Snapshot};

pub(crate) use self::known::Known;
pub(crate) use self::lane::{Affinity, Lane};
pub(crate) use self::measured::Measured;
use self::measured::Measurements;
use crate::config::Learned;
use crate::outside;
use crate::worker::Worker;

/// The port of a URL of the scheme `http` that names none.
const HTTP_PORT: u16 = 80;

/// The destinations that one worker's callers named.
#[derive(Default)]
pub(crate) struct Destinations {
    /// By authority.
    named: RefCell<HashMap<Box<str>, Found, foldhash::quality::RandomState>>,
    known: RefCell<HashMap<ServicePort, Rc<Known>>>,
    /// Single ones, by their addresses.
    endpoints: RefCell<HashMap<SocketAddr, Rc<Known>>>,
    /// Of a gateway, by their places.
    listeners: RefCell<Vec<Option<Rc<Known>>>>,
    measured: RefCell<HashMap<ServicePort, Rc<Measurements>>>,
}

/// What a request's destination is.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) known: Rc<Known>,
    /// What the caller wrote, as HTTP/2 carries it. `None` where a local port says whom a call is for.
    pub(crate) authority: Option<Authority>,
}

impl Destinations {
    /// Finds the service that `authority` names, or that the connection itself stands for; or the one endpoint whose
    /// address either is. Its first caller waits until
    /// the control plane has told about it.
    pub(crate) async fn find(
        &self,
        worker: &Worker,
        local: Option<&ServicePort>,
        endpoint: Option<SocketAddr>,
        authority: &str,
    ) -> Result<Found, Reason> {
        if let Some(address) = endpoint {
            return Ok(Found {
                known: Box::pin(self.endpoint(worker, address)).await?,
                authority: None,
            });
        }
        let snapshot = worker.snapshot();
        let at_hand = match local {
            Some(port) => self.known.borrow().get(port).map(|known| Found {
                known: known.clone(),
                authority: None,
            }),
            None => self.named.borrow().get(authority).cloned(),
        };
        if let Some(found) = at_hand
            && Arc::ptr_eq(&found.known.snapshot, &snapshot)
        {
            return Ok(found);
        }
        let known = self.look_up(worker, snapshot, local, authority).await?;
        if local.is_some() {
            return Ok(Found {
                known,
                authority: None,
            });
        }
        let found = Found {
            known,
            authority: Authority::try_from(authority).ok(),
        };
        let mut named = self.named.borrow_mut();
        // Callers choose what they write: a list that is full begins anew.
        if named.len() >= worker.limits.known_destinations {
            named.clear();
        }
        named.insert(authority.into(), found.clone());
        Ok(found)
    }

    /// Finds the listener of a gateway's port that a request for `authority` meets; `sni` is what its connection named,
    /// where there is TLS.
    pub(crate) fn at_gateway(
        &self,
        worker: &Worker,
        port: u16,
        sni: Option<&str>,
        authority: &str,
    ) -> Result<Found, Reason> {
        let plan = worker.plan();
        let place = plan.by_host(port, sni, &host::normal(authority))?;
        let mut listeners = self.listeners.borrow_mut();
        if let Some(Some(known)) = listeners.get(place)
            && Arc::ptr_eq(&known.snapshot, &plan.snapshot)
        {
            return Ok(Found {
                known: known.clone(),
                authority: None,
            });
        }
        let known = Rc::new(Known::listener(worker, plan, place).ok_or(Reason::NoListener)?);
        if listeners.len() <= place {
            listeners.resize(place + 1, None);
        }
        if let Some(slot) = listeners.get_mut(place) {
            *slot = Some(known.clone());
        }
        Ok(Found {
            known,
            authority: None,
        })
    }

    /// Forgets what an older snapshot said, so that it can go.
    pub(crate) fn sweep(&self, snapshot: &Arc<Snapshot>) {
        let is_current = |known: &Rc<Known>| Arc::ptr_eq(&known.snapshot, snapshot);
        self.named
            .borrow_mut()
            .retain(|_, found| is_current(&found.known));
        self.known.borrow_mut().retain(|_, known| is_current(known));
        self.endpoints.borrow_mut().retain(|_, known| is_current(known));
        let mut listeners = self.listeners.borrow_mut();
        for listener in &mut *listeners {
            _ = listener.take_if(|known| !is_current(known));
        }
        let is_listener = |target: &ServicePort| {
            let gateway = snapshot.gateway.as_ref();
            gateway.is_some_and(|gateway| gateway.name == target.service)
        };
        self.measured
            .borrow_mut()
            .retain(|target, _| snapshot.destinations.contains_key(&target.service) || is_listener(target));
    }

    fn measurements(&self, target: &ServicePort) -> Rc<Measurements> {
        let mut measured = self.measured.borrow_mut();
        measured.entry(target.clone()).or_default().clone()
    }

    /// Finds the endpoint that has an address: it alone is called, past the routes of its service.
    pub(crate) async fn endpoint(&self, worker: &Worker, address: SocketAddr) -> Result<Rc<Known>, Reason> {
        // Not even over mTLS does a proxy call itself by its own ports.
        if outside::leads_back(worker, address) {
            return Err(Reason::UnknownService);
        }
        let snapshot = match worker
            .shared
            .config
            .locate(address, worker.limits.discovery_timeout)
            .await
        {
            Learned::Exists(snapshot) => snapshot,
            Learned::DoesNotExist(_) => return Err(Reason::UnknownService),
            Learned::TimedOut => return Err(Reason::DiscoveryTimeout),
            Learned::TooMany { .. } => return Err(Reason::Overloaded),
        };
        if let Some(known) = self.endpoints.borrow().get(&address)
            && Arc::ptr_eq(&known.snapshot, &snapshot)
        {
            return Ok(known.clone());
        }
        let owner = snapshot.addresses.get(&address).and_then(Option::as_ref);
        let owner = owner.ok_or(Reason::UnknownService)?.clone();
        let known = Rc::new(Known::endpoint(worker, snapshot, &owner));
        let mut endpoints = self.endpoints.borrow_mut();
        if endpoints.len() >= worker.limits.known_destinations {
            endpoints.clear();
        }
        endpoints.insert(address, known.clone());
        Ok(known)
    }

    async fn look_up(
        &self,
        worker: &Worker,
        mut snapshot: Arc<Snapshot>,
        local: Option<&ServicePort>,
        authority: &str,
    ) -> Result<Rc<Known>, Reason> {
        let settings = &worker.shared.settings;
        let (service, explicit) = match local {
            Some(local) => (local.service.clone(), Some(local.port)),
            None => match host::resolve(authority, &settings.namespace, &worker.shared.domain)? {
                Some(named) => named,
                None => {
                    let address = host::address(authority, HTTP_PORT).ok_or(Reason::UnknownService)?;
                    return Box::pin(self.endpoint(worker, address)).await;
                }
            },
        };
        if !snapshot.destinations.contains_key(&service) {
            let patience = worker.limits.discovery_timeout;
            snapshot = match worker.shared.config.learn(&service, patience).await {
                Learned::Exists(snapshot) | Learned::DoesNotExist(snapshot) => snapshot,
                Learned::TimedOut => return Err(Reason::DiscoveryTimeout),
                Learned::TooMany { .. } => return Err(Reason::Overloaded),
            };
        }
        let found = snapshot.destinations.get(&service).and_then(Option::as_ref);
        let destination = found.ok_or(Reason::UnknownService)?.clone();
        let port = host::choose_port(&destination, explicit).ok_or(Reason::UnknownPort)?;
        let target = service.port(port);
        let before = self.known.borrow().get(&target).cloned();
        if let Some(before) = &before
            && Arc::ptr_eq(&before.snapshot, &snapshot)
        {
            return Ok(before.clone());
        }
        let tables = before.and_then(|before| before.tables_of(&destination));
        let known = Rc::new(Known::new(worker, snapshot, destination, target.clone(), tables));
        self.known.borrow_mut().insert(target, known.clone());
        Ok(known)
    }
}
