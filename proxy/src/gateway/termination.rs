//! How TLS ends at a listener: certificates by SNI, and whose clients are let in.

use std::collections::HashSet;
use std::sync::Arc;

use model::FieldError;
use model::gateway::{Certificate, ClientValidation, Gateway, Serves, TlsTermination};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme};

/// Settings for the clients of a listener: TLS 1.2 and 1.3.
///
/// # Errors
/// Names the certificate, or the bundle of authorities, that cannot be used.
pub(crate) fn server_config(tls: &TlsTermination, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, FieldError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let resolver = Certificates::read(tls, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| FieldError::new(error.to_string()))?;
    let builder = match &tls.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(verifier(clients, &provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // The client keeps its own session, under a key that nobody else knows and that changes: nothing is kept here.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| FieldError::new(error.to_string()))?;
    Ok(Arc::new(config))
}

/// Whether the TLS of every listener can be used, and what is shown to backends: what a control plane should have seen
/// to.
///
/// # Errors
/// Names the listener, and in it the certificate or the bundle that cannot be used.
pub(crate) fn check(gateway: &Gateway) -> Result<(), FieldError> {
    if let Some(certificate) = &gateway.client_certificate {
        certified_key(certificate, &aws_lc_rs::default_provider())
            .map_err(|error| error.within("client_certificate"))?;
    }
    for (index, listener) in gateway.listeners.iter().enumerate() {
        let (kind, tls) = match &listener.serves {
            Serves::Https(tls, _) => ("https", tls),
            Serves::TlsTerminate(tls, _) => ("tls_terminate", tls),
            _ => continue,
        };
        server_config(tls, &[]).map_err(|error| {
            error
                .within("tls")
                .within(kind)
                .within_item(index)
                .within("listeners")
        })?;
    }
    Ok(())
}

/// The certificates of one listener.
#[derive(Debug)]
struct Certificates(Vec<Shown>);

/// One of them, with the names that it is for.
#[derive(Debug)]
struct Shown {
    /// Lower case; `*.` stands for one label.
    names: HashSet<Box<str>>,
    key: Arc<CertifiedKey>,
}

impl Certificates {
    fn read(tls: &TlsTermination, provider: &CryptoProvider) -> Result<Self, FieldError> {
        let read = |(index, certificate): (usize, &Arc<Certificate>)| {
            Shown::read(certificate, provider)
                .map_err(|error| error.within_item(index).within("certificates"))
        };
        tls.certificates
            .iter()
            .enumerate()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Shown {
    fn read(certificate: &Certificate, provider: &CryptoProvider) -> Result<Self, FieldError> {
        let key = certified_key(certificate, provider)?;
        let names = names(key.cert.first()).map_err(|why| FieldError::at("chain", why))?;
        Ok(Self {
            names,
            key: Arc::new(key),
        })
    }

    fn is_for(&self, sni: &str) -> bool {
        let parent = sni.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        self.names.contains(sni) || parent.is_some_and(|parent| self.names.contains(parent.as_str()))
    }
}

impl ResolvesServerCert for Certificates {
    /// Of those for this name the first whose kind of key the client takes (ECDSA or RSA); else the first of all that
    /// does, and at last the first.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Self(all) = self;
        let sni = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        let suits = |shown: &&Shown| shown.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = all.iter().filter(|shown| shown.is_for(&sni)).find(suits);
        let found = named.or_else(|| all.iter().find(suits)).or_else(|| all.first());
        found.map(|shown| shown.key.clone())
    }
}

/// A chain with its key, which must be the leaf's.
///
/// # Errors
/// Names which of the two cannot be used.
pub(crate) fn certified_key(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, FieldError> {
    let chain = certificates(&certificate.chain).map_err(|error| error.within("chain"))?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())
        .map_err(|error| FieldError::at("key", error.to_string()))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        let field = match error {
            Error::InvalidCertificate(_) => "chain",
            _ => "key",
        };
        FieldError::at(field, error.to_string())
    })
}

/// All certificates of a PEM text; there is one at least.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, FieldError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(read) if !read.is_empty() => Ok(read),
        Ok(_) => Err(FieldError::new("has no certificate")),
        Err(error) => Err(FieldError::new(error.to_string())),
    }
}

/// All certificates of a PEM text as authorities; one that cannot be read does not take the others along, as in the
/// bundles that systems come with.
pub(crate) fn authorities(pem: &str) -> Result<RootCertStore, FieldError> {
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(certificates(pem)?) {
        (0, _) => Err(FieldError::new("has no certificate that can be read")),
        (_, 0) => Ok(roots),
        (used, skipped) => {
            tracing::warn!(used, skipped, "some authorities of a bundle cannot be read");
            Ok(roots)
        }
    }
}

fn names(leaf: Option<&CertificateDer<'_>>) -> Result<HashSet<Box<str>>, String> {
    let leaf = leaf.ok_or("is empty")?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    Ok(leaf
        .valid_dns_names()
        .map(|name| name.to_ascii_lowercase().into())
        .collect())
}

fn verifier(
    clients: &ClientValidation,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, FieldError> {
    let within = |error: FieldError| error.within("authorities").within("clients");
    let roots = authorities(&clients.authorities).map_err(within)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| within(FieldError::new(error.to_string())))?;
    Ok(if clients.optional {
        Arc::new(Anybody(verifier))
    } else {
        verifier
    })
}

/// `AllowInsecureFallback`: a client is asked for a certificate and let in whatever it shows, as long as it holds the key.
#[derive(Debug)]
struct Anybody(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Err(error) = self.0.verify_client_cert(end_entity, intermediates, now) {
            tracing::debug!(%error, "a client's certificate is not valid, which is allowed here");
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
