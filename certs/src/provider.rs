//! The one choice of cryptography, named explicitly so that nothing depends on a process-wide default.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::CertificateDer;
use rustls::{DigitallySignedStruct, Error, SignatureScheme, SupportedCipherSuite};

/// AES-128-GCM is the cheapest on every machine with AES instructions; ChaCha20 is for those without.
const CIPHER_SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// Post-quantum first; the plain ones are for peers that are not ours, such as openssl in an operator's
/// hands.
const KEY_EXCHANGES: [&dyn SupportedKxGroup; 3] =
    [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1];

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: CIPHER_SUITES.to_vec(),
        kx_groups: KEY_EXCHANGES.to_vec(),
        ..aws_lc_rs::default_provider()
    })
});

pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// Whether the peer holds the private key of `certificate` (RFC 8446 section 4.4.3).
pub(crate) fn verify_tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
}

/// What every verifier answers to TLS 1.2, which no configuration here offers.
pub(crate) fn refuse_tls12_signature() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken in the mesh".to_owned()))
}

pub(crate) fn signature_schemes() -> Vec<SignatureScheme> {
    provider().signature_verification_algorithms.supported_schemes()
}
