//! The one connection before a workload has a trust bundle: only the hash of a root is known, from the join
//! token.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::bundle::certificate_hash;
use crate::chain::{self, Usage};
use crate::svid::Svid;
use crate::verify::{expect, system_time};
use crate::{CertError, TrustBundle, provider, well_known};

/// Settings for the connection that exchanges a join token for a certificate; ALPN `h2`, no client
/// certificate.
///
/// The server must present the root whose DER has the SHA-256 `root_hash`, and under that root the control
/// plane's identity, of whatever trust domain: the workload learns its own from the answer. Check that
/// answer's bundle with [`TrustBundle::contains_root`].
pub fn first_contact_config(root_hash: [u8; 32]) -> Result<Arc<ClientConfig>, CertError> {
    let mut config = ClientConfig::builder_with_provider(provider::provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedRoot { root_hash }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct PinnedRoot {
    root_hash: [u8; 32],
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = intermediates
            .iter()
            .take(chain::MAX_INTERMEDIATES)
            .find(|certificate| certificate_hash(certificate) == self.root_hash)
            .ok_or(CertError::RootNotPresented)?;
        let trust_domain = Svid::read(end_entity)?.id.trust_domain;
        let expected = well_known::control_plane(&trust_domain);
        let bundle = TrustBundle::from_der(trust_domain, vec![root.clone().into_owned()])?;
        let svid = chain::verify(
            end_entity,
            intermediates,
            &bundle,
            Usage::Server,
            system_time(now),
        )?;
        expect(svid.id, &expected)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        provider::refuse_tls12_signature()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        provider::verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::signature_schemes()
    }
}
