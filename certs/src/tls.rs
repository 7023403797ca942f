//! The TLS settings of every mesh connection: TLS 1.3 only, identities from an [`IdentityCell`].

use std::sync::Arc;

use model::SpiffeId;
use rustls::client::Resumption;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::provider::provider;
use crate::verify::{AnyClient, ExpectedServer};
use crate::{CertError, IdentityCell};

/// Whether a client may stay anonymous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Every client presents a valid SVID, or the handshake fails.
    Required,
    /// A client may present none, as one that joins does; one that is presented must be valid.
    Optional,
}

/// Settings for accepting connections as whoever `cell` says at that moment, from any identity of its trust
/// domain.
///
/// `alpn` is in order of preference. A client that offers only other protocols is refused with
/// `no_application_protocol`; one that offers nothing gets no protocol. No session is resumed: for that there is
/// [`crate::ServerTls`].
pub fn server_config(
    cell: &IdentityCell,
    alpn: &[&[u8]],
    auth: ClientAuth,
) -> Result<Arc<ServerConfig>, CertError> {
    let alpn = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    server(cell, alpn, auth).map(Arc::new)
}

/// Settings for connecting as whoever `cell` says at that moment, to `expected` and nobody else.
///
/// The server name that is passed to rustls becomes the SNI and proves nothing. No session is resumed: for that
/// there is [`crate::ClientTls`].
pub fn client_config(
    cell: &IdentityCell,
    alpn: &[&[u8]],
    expected: &SpiffeId,
) -> Result<Arc<ClientConfig>, CertError> {
    let alpn = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    client(cell, alpn, expected).map(Arc::new)
}

pub(crate) fn server(
    cell: &IdentityCell,
    alpn: Vec<Vec<u8>>,
    auth: ClientAuth,
) -> Result<ServerConfig, CertError> {
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyClient {
            cell: cell.clone(),
            auth,
        }))
        .with_cert_resolver(Arc::new(cell.clone()));
    config.alpn_protocols = alpn;
    // A resumed session skips the verifiers: an expired certificate or a withdrawn root would stay believed.
    config.send_tls13_tickets = 0;
    Ok(config)
}

pub(crate) fn client(
    cell: &IdentityCell,
    alpn: Vec<Vec<u8>>,
    expected: &SpiffeId,
) -> Result<ClientConfig, CertError> {
    let verifier = ExpectedServer {
        cell: cell.clone(),
        expected: expected.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(cell.clone()));
    config.alpn_protocols = alpn;
    // As for the server: each connection verifies anew.
    config.resumption = Resumption::disabled();
    Ok(config)
}
