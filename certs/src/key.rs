//! A private key, made in the process that uses it.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::CertError;

/// An ECDSA P-256 private key. It leaves the process only where [`crate::Identity::to_pem`] is called.
pub struct PrivateKey {
    pair: KeyPair,
}

impl PrivateKey {
    /// A new key from the system's random source.
    pub fn generate() -> Result<Self, CertError> {
        Ok(Self {
            pair: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        })
    }

    /// A PKCS#10 signing request for this key, DER (RFC 2986). It names nobody: the authority decides who
    /// this is.
    pub fn csr(&self) -> Result<Vec<u8>, CertError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.pair)?.der().to_vec())
    }

    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, CertError> {
        let der = PrivatePkcs8KeyDer::from(der);
        Ok(Self {
            pair: KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)?,
        })
    }

    pub(crate) fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pair.serialize_der()).into()
    }

    pub(crate) fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    pub(crate) fn into_pair(self) -> KeyPair {
        self.pair
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(not shown)")
    }
}
