//! TLS of the load generators and of the direct connection that opaque TCP is held against.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::certificates::Certificates;

/// Divides the two halves of the file in which a sidecar keeps its identity.
const SIDECAR_IDENTITY: &str = "# private key and certificate chain";

/// Why there are no TLS settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} holds no identity")]
    NoIdentity { path: PathBuf },
    #[error("PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("TLS: {0}")]
    Tls(#[from] Error),
    #[error("TLS: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// Whether a client takes up sessions that it had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sessions {
    Full,
    Resumed,
}

/// Who the client is, and whom it trusts, as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    roots: String,
    chain: String,
    key: String,
}

impl Credential {
    pub(crate) fn client(certificates: &Certificates) -> Result<Self, TlsError> {
        Ok(Self {
            roots: read(&certificates.root)?,
            chain: read(&certificates.client.chain)?,
            key: read(&certificates.client.key)?,
        })
    }

    fn server(certificates: &Certificates) -> Result<Self, TlsError> {
        Ok(Self {
            chain: read(&certificates.server.chain)?,
            key: read(&certificates.server.key)?,
            ..Self::client(certificates)?
        })
    }

    /// The identity that a sidecar keeps in its data folder.
    pub(crate) fn of_sidecar(data: &Path) -> Result<Self, TlsError> {
        let path = data.join("identity.pem");
        let text = read(&path)?;
        let (roots, identity) = text
            .split_once(SIDECAR_IDENTITY)
            .ok_or(TlsError::NoIdentity { path })?;
        Ok(Self {
            roots: roots.to_owned(),
            chain: identity.to_owned(),
            key: identity.to_owned(),
        })
    }

    /// A client that asks for X25519 alone, so that every server does the same work. It checks the server's chain
    /// against the roots, but not its name: a mesh identity has none that a DNS client would look for.
    pub(crate) fn client_config(&self, sessions: Sessions) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = provider();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()?), provider.clone()).build()?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ChainOnly(verifier)))
            .with_client_auth_cert(self.chain()?, PrivateKeyDer::from_pem_slice(self.key.as_bytes())?)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = match sessions {
            Sessions::Full => Resumption::disabled(),
            Sessions::Resumed => Resumption::in_memory_sessions(1),
        };
        Ok(Arc::new(config))
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        Ok(CertificateDer::pem_slice_iter(self.chain.as_bytes()).collect::<Result<_, _>>()?)
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.roots.as_bytes()) {
            roots.add(root?)?;
        }
        Ok(roots)
    }
}

/// A server that asks for a client certificate.
pub(crate) fn server_config(certificates: &Certificates) -> Result<Arc<ServerConfig>, TlsError> {
    let credential = Credential::server(certificates)?;
    let provider = provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(credential.roots()?), provider.clone())
            .build()?;
    let key = PrivateKeyDer::from_pem_slice(credential.key.as_bytes())?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credential.chain()?, key)?;
    Ok(Arc::new(config))
}

/// AES-128-GCM, as the peers choose with AES instructions, and X25519.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}

/// The usual verifier, for which the server's name does not matter.
#[derive(Debug)]
struct ChainOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is looked at last, when everything else is right.
        match self.0.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}
