//! TLS to an address outside the mesh, as a BackendTLSPolicy says: whom to name, and whom to believe. A gateway says who
//! it is, where its Gateway has a certificate for that.

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};

use decision::Reason;
use model::gateway::{BackendTls, Certificate, SubjectAltName};
use model::{FieldError, Hostname};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::dial::{Spoken, handshake_reason};
use crate::gateway::termination::{authorities, certified_key};
use crate::leg::Leg;
use crate::socket::Socket;
use crate::tls::{ALPN_HTTP1, ALPN_HTTP2};

/// The authorities of this machine, read when the first policy trusts them.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "an authority of this machine cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (used, _) = roots.add_parsable_certificates(found.certs);
    tracing::info!(used, "the authorities of this machine are read");
    Arc::new(roots)
});

/// The settings of such connections, made once per policy and worker; their sessions are resumed.
#[derive(Clone)]
pub(crate) struct OutsideTls {
    sni: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl OutsideTls {
    /// `shown` is for a backend that asks who calls.
    ///
    /// # Errors
    /// Names the field that cannot be used.
    pub(crate) fn new(tls: &BackendTls, shown: Option<&Certificate>) -> Result<Self, FieldError> {
        let Hostname::Exact(hostname) = &tls.hostname else {
            return Err(FieldError::at("hostname", "is no name of one host"));
        };
        let sni = ServerName::try_from(hostname.to_string())
            .map_err(|error| FieldError::at("hostname", error.to_string()))?;
        let roots = match &tls.authorities {
            Some(pem) => Arc::new(authorities(pem).map_err(|error| error.within("authorities"))?),
            None => SYSTEM.clone(),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Backend {
            roots,
            names: tls.names.clone(),
            provider: provider.clone(),
        };
        let shown = shown.map(|shown| certified_key(shown, &provider)).transpose();
        let shown = shown.map_err(|error| error.within("client_certificate"))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| FieldError::new(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match shown {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
            None => builder.with_no_client_auth(),
        };
        Ok(Self {
            sni,
            config: Arc::new(config),
        })
    }

    /// The handshake, and what is agreed on in it.
    pub(super) async fn secure(&self, stream: TcpStream, spoken: Spoken) -> Result<Leg, Reason> {
        let alpn = match spoken {
            Spoken::Http1 => vec![ALPN_HTTP1.to_vec()],
            Spoken::Http2 => vec![ALPN_HTTP2.to_vec()],
            Spoken::Tcp | Spoken::Tls => Vec::new(),
        };
        let handshake = TlsConnector::from(self.config.clone())
            .with_alpn(alpn)
            .connect(self.sni.clone(), Socket::new(stream));
        let stream = handshake.await.map_err(|error: io::Error| {
            tracing::debug!(sni = ?self.sni, %error, "handshake with a backend failed");
            handshake_reason(&error)
        })?;
        Ok(Leg::Tls(Box::new(stream.into())))
    }
}

/// Believes a chain that ends at these authorities, for the name in SNI, or for one of `names` where there are some
/// (Gateway API `BackendTLSPolicyValidation`).
struct Backend {
    roots: Arc<RootCertStore>,
    names: Vec<SubjectAltName>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Backend {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        if self.names.is_empty() {
            verify_server_name(&certificate, server_name)?;
        } else if !self.names.iter().any(|name| has(end_entity, &certificate, name)) {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Whether a certificate has a name: a host's as a client compares it, where the certificate may have a wildcard; under a
/// wildcard any name that it means; a URI to the letter.
fn has(end_entity: &CertificateDer<'_>, certificate: &ParsedCertificate<'_>, name: &SubjectAltName) -> bool {
    let Ok(leaf) = webpki::EndEntityCert::try_from(end_entity) else {
        return false;
    };
    match name {
        SubjectAltName::Hostname(Hostname::Exact(host)) => {
            ServerName::try_from(&**host).is_ok_and(|host| verify_server_name(certificate, &host).is_ok())
        }
        SubjectAltName::Hostname(wildcard) => leaf.valid_dns_names().any(|found| {
            let found = found.to_ascii_lowercase();
            wildcard.to_string() == found || wildcard.fits(&found)
        }),
        SubjectAltName::Uri(uri) => leaf.valid_uri_names().any(|found| found == uri),
    }
}
