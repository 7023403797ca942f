//! Handshakes in memory, judged from outside: who gets in, who does not, and what the refused one is told.

mod first_contact;
mod handshake;
mod hostile;
mod issuing;
mod resumption;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::{SpiffeId, TrustDomain};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};

use crate::*;

const HOUR: Duration = Duration::from_secs(3600);
const H2: &[&[u8]] = &[b"h2"];

fn domain(text: &str) -> TrustDomain {
    text.parse().unwrap()
}

fn id(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
        .parse()
        .unwrap()
}

fn authority() -> Authority {
    Authority::generate(&domain("cluster.local"), SystemTime::now()).unwrap()
}

fn identity(authority: &Authority, id: &SpiffeId) -> Identity {
    identity_at(authority, id, SystemTime::now())
}

fn identity_at(authority: &Authority, id: &SpiffeId, now: SystemTime) -> Identity {
    let key = PrivateKey::generate().unwrap();
    let issued = authority.issue(&key.csr().unwrap(), id, HOUR, now).unwrap();
    Identity::new(key, issued.chain, &authority.bundle(), now).unwrap()
}

fn cell(authority: &Authority, account: &str) -> IdentityCell {
    IdentityCell::with(identity(authority, &id(account)), authority.bundle())
}

fn server(cell: &IdentityCell) -> Arc<ServerConfig> {
    server_config(cell, H2, ClientAuth::Required).unwrap()
}

fn client(cell: &IdentityCell, expected: &str) -> Arc<ClientConfig> {
    client_config(cell, H2, &id(expected)).unwrap()
}

/// The same client, but presenting this chain, with whatever key, unchecked.
fn presenting(
    config: &ClientConfig,
    key: &PrivateKey,
    chain: Vec<CertificateDer<'static>>,
) -> Arc<ClientConfig> {
    let signing_key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key.to_der()).unwrap();
    let mut config = config.clone();
    let certified = CertifiedKey::new(chain, signing_key);
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    Arc::new(config)
}

/// Both ends after a handshake, with the error that stopped each.
struct Handshake {
    client: ClientConnection,
    server: ServerConnection,
    client_error: Option<Error>,
    server_error: Option<Error>,
}

impl Handshake {
    fn run(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Self {
        let name = "8080.checkout.shop.svc.cluster.local".try_into().unwrap();
        let mut shake = Self {
            client: ClientConnection::new(client.clone(), name).unwrap(),
            server: ServerConnection::new(server.clone()).unwrap(),
            client_error: None,
            server_error: None,
        };
        while shake.client.wants_write() || shake.server.wants_write() {
            let mut to_server = Vec::new();
            while shake.client.wants_write() {
                shake.client.write_tls(&mut to_server).unwrap();
            }
            let mut rest = to_server.as_slice();
            while !rest.is_empty() && shake.server_error.is_none() {
                shake.server.read_tls(&mut rest).unwrap();
                shake.server_error = shake.server.process_new_packets().err();
            }
            let mut to_client = Vec::new();
            while shake.server.wants_write() {
                shake.server.write_tls(&mut to_client).unwrap();
            }
            let mut rest = to_client.as_slice();
            while !rest.is_empty() && shake.client_error.is_none() {
                shake.client.read_tls(&mut rest).unwrap();
                shake.client_error = shake.client.process_new_packets().err();
            }
        }
        shake
    }

    fn succeeded(self) -> Self {
        assert!(
            self.client_error.is_none() && self.server_error.is_none(),
            "{:?}",
            self.errors()
        );
        assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
        self
    }

    /// The server refused the client, with this alert.
    fn client_refused(&self, alert: AlertDescription) {
        assert_eq!(
            self.client_error,
            Some(Error::AlertReceived(alert)),
            "{:?}",
            self.errors()
        );
        assert!(self.server_error.is_some());
        assert_eq!(verified_peer(&self.server), None);
    }

    /// The client refused the server, with this alert.
    fn server_refused(&self, alert: AlertDescription) {
        assert_eq!(
            self.server_error,
            Some(Error::AlertReceived(alert)),
            "{:?}",
            self.errors()
        );
        assert!(self.client_error.is_some());
        assert_eq!(verified_peer(&self.client), None);
    }

    fn errors(&self) -> (Option<&Error>, Option<&Error>) {
        (self.client_error.as_ref(), self.server_error.as_ref())
    }

    fn peers(&self) -> (SpiffeId, SpiffeId) {
        let (client_sees, server_sees) = (
            verified_peer(&self.client).unwrap(),
            verified_peer(&self.server).unwrap(),
        );
        (client_sees.id().clone(), server_sees.id().clone())
    }
}
