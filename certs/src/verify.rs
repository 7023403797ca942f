//! The rustls verifiers of mesh connections. Both read the bundle at every handshake.

use std::time::SystemTime;

use model::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::chain::Usage;
use crate::{CertError, ClientAuth, IdentityCell, provider};

/// The client's verifier: the server must be exactly the expected one. Its host name says nothing.
#[derive(Debug)]
pub(crate) struct ExpectedServer {
    pub(crate) cell: IdentityCell,
    pub(crate) expected: SpiffeId,
}

impl ServerCertVerifier for ExpectedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let current = self.cell.require()?;
        let svid = current.verify(end_entity, intermediates, Usage::Server, system_time(now))?;
        expect(svid.id, &self.expected)?;
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

/// The server's verifier: any identity of the trust domain; what it may do is for policy to say.
#[derive(Debug)]
pub(crate) struct AnyClient {
    pub(crate) cell: IdentityCell,
    pub(crate) auth: ClientAuth,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        self.auth == ClientAuth::Required
    }

    /// No hints: a workload has one identity and presents it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let current = self.cell.require()?;
        current.verify(end_entity, intermediates, Usage::Client, system_time(now))?;
        Ok(ClientCertVerified::assertion())
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

pub(crate) fn expect(found: SpiffeId, expected: &SpiffeId) -> Result<(), CertError> {
    if found == *expected {
        return Ok(());
    }
    Err(CertError::WrongIdentity {
        found,
        expected: expected.clone(),
    })
}

pub(crate) fn system_time(now: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs())
}
