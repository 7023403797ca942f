//! TLS settings that resume sessions, and the judgement without which a resumed session must not be used.
//!
//! rustls asks the verifiers only in a full handshake. What it carries over into a resumed one is the chain that
//! the peer proved to own back then. Three things keep that as strong as a full handshake:
//!
//! - Sessions belong to one pair of identity and bundle. [`ServerTls::config`] and [`ClientTls::config`] hand out
//!   a configuration that is bound to what the cell holds, with sessions of its own; after [`IdentityCell::set`]
//!   they hand out another one, which has none. rustls itself refuses a session of other settings. So nobody
//!   meets an old certificate of ours, and no key outlives the identity that it was agreed under.
//! - Whoever is at the other end is judged at every connection, by [`ServerTls::verified_peer`] and
//!   [`ClientTls::verified_peer`], under the bundle and the time of now.
//! - A session is used once, and anew with a key exchange (`psk_dhe_ke`, RFC 8446 section 4.2.9), so that later
//!   traffic stays secret even if the session's key leaks. There is no early data.
//!
//! A ticket that is stolen on its way is worth nothing: it is a random number, and whoever presents it must prove
//! to know the session's secret (the binder, section 4.2.11.2). The server takes the client's chain from its own
//! store, so a ticket cannot be joined with another certificate.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use model::SpiffeId;
use rustls::client::Resumption;
use rustls::server::StoresServerSessions;
use rustls::{ClientConfig, CommonState, ServerConfig};

use crate::cell::Current;
use crate::chain::Usage;
use crate::peer::{VerifiedPeer, judged_peer};
use crate::recent::Recent;
use crate::tls::{client, server};
use crate::verify::expect;
use crate::{CertError, ClientAuth, IdentityCell};

/// Sessions that a [`ClientTls`] keeps: 8, what rustls keeps for one server. They are used newest first.
pub const CLIENT_SESSIONS: usize = 8;
/// Largest session that a server keeps, 8 KiB; nearly all of it is the client's chain. A client with a larger one
/// is served, but gets no ticket.
pub const MAX_SESSION_BYTES: usize = 8 * 1024;

/// One ticket for each connection: whoever connects again has used up one and gets one.
const TICKETS: usize = 1;

/// For accepting connections from any identity of the trust domain, with sessions that can be resumed.
#[derive(Debug)]
pub struct ServerTls {
    cell: IdentityCell,
    alpn: Vec<Vec<u8>>,
    sessions: usize,
    bound: Bound<ServerConfig>,
}

impl ServerTls {
    /// As [`crate::server_config`] with [`ClientAuth::Required`]: a client that has no name cannot be judged
    /// again. The latest `sessions` are kept, each of at most [`MAX_SESSION_BYTES`] and usually 1.5 KiB; with 0
    /// every handshake is full.
    pub fn new(cell: &IdentityCell, alpn: &[&[u8]], sessions: usize) -> Self {
        Self {
            cell: cell.clone(),
            alpn: owned(alpn),
            sessions,
            bound: Bound::default(),
        }
    }

    /// The settings for one connection that is about to be accepted.
    ///
    /// # Errors
    /// [`CertError::NoIdentity`] while the cell is empty.
    pub fn config(&self) -> Result<Arc<ServerConfig>, CertError> {
        self.bound.to(&self.cell, |cell| {
            let mut config = server(cell, self.alpn.clone(), ClientAuth::Required)?;
            config.session_storage = Arc::new(ServerSessions(Mutex::new(Recent::new(self.sessions))));
            config.send_tls13_tickets = if self.sessions == 0 { 0 } else { TICKETS };
            Ok(config)
        })
    }

    /// Who the client of a connection made with [`ServerTls::config`] is, judged at `now` whether it was resumed
    /// or not. A connection of other settings proves nothing and must not be passed.
    ///
    /// # Errors
    /// What the verifier would object to: the connection must be closed.
    pub fn verified_peer(
        &self,
        connection: &CommonState,
        now: SystemTime,
    ) -> Result<VerifiedPeer, CertError> {
        judged_peer(connection, &*self.cell.known()?, Usage::Client, now)
    }
}

/// For connecting to one identity, with sessions that can be resumed.
#[derive(Debug)]
pub struct ClientTls {
    cell: IdentityCell,
    alpn: Vec<Vec<u8>>,
    expected: SpiffeId,
    bound: Bound<ClientConfig>,
}

impl ClientTls {
    /// As [`crate::client_config`]. Meant for one address and one SNI: replicas of a service do not know each
    /// other's sessions.
    pub fn new(cell: &IdentityCell, alpn: &[&[u8]], expected: SpiffeId) -> Self {
        Self {
            cell: cell.clone(),
            alpn: owned(alpn),
            expected,
            bound: Bound::default(),
        }
    }

    /// The settings for one connection that is about to be made.
    ///
    /// # Errors
    /// [`CertError::NoIdentity`] while the cell is empty.
    pub fn config(&self) -> Result<Arc<ClientConfig>, CertError> {
        self.bound.to(&self.cell, |cell| {
            let mut config = client(cell, self.alpn.clone(), &self.expected)?;
            config.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS);
            Ok(config)
        })
    }

    /// Who the server of a connection made with [`ClientTls::config`] is, judged at `now` whether it was resumed
    /// or not: always the expected identity. A connection of other settings proves nothing and must not be passed.
    ///
    /// # Errors
    /// What the verifier would object to: the connection must be closed. All sessions are dropped, so that the
    /// next handshake is full.
    pub fn verified_peer(
        &self,
        connection: &CommonState,
        now: SystemTime,
    ) -> Result<VerifiedPeer, CertError> {
        let current = self.cell.known()?;
        judged_peer(connection, &current, Usage::Server, now)
            .and_then(|peer| expect(peer.id().clone(), &self.expected).map(|()| peer))
            .inspect_err(|_| self.bound.clear())
    }

    pub fn expected(&self) -> &SpiffeId {
        &self.expected
    }
}

/// The configuration that belongs to what the cell holds, made when it is first needed.
struct Bound<C>(Mutex<Option<(Arc<Current>, Arc<C>)>>);

impl<C> Bound<C> {
    fn to(
        &self,
        cell: &IdentityCell,
        make: impl FnOnce(&IdentityCell) -> Result<C, CertError>,
    ) -> Result<Arc<C>, CertError> {
        let current = cell.known()?;
        let mut bound = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((to, config)) = bound.as_ref()
            && Arc::ptr_eq(to, &current)
        {
            return Ok(config.clone());
        }
        let config = Arc::new(make(&IdentityCell::fixed(current.clone()))?);
        *bound = Some((current, config.clone()));
        Ok(config)
    }

    fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<C> Default for Bound<C> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<C> fmt::Debug for Bound<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bound")
    }
}

/// What a server remembers of its clients. Kept here instead of sealed into tickets: there is no key that opens
/// all of them, they end with the identity, and none is taken twice. rustls's own store searches all sessions
/// at each resumption and does not limit their size.
struct ServerSessions(Mutex<Recent<Vec<u8>, Vec<u8>>>);

impl StoresServerSessions for ServerSessions {
    fn put(&self, ticket: Vec<u8>, session: Vec<u8>) -> bool {
        if session.len() > MAX_SESSION_BYTES {
            return false;
        }
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.put(ticket, session);
        true
    }

    /// TLS 1.2 alone asks so.
    fn get(&self, _ticket: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.take(ticket)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for ServerSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSessions(not shown)")
    }
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}
