//! Core v1 `Secret`, `ConfigMap` and `Namespace`, as far as Gateway API refers to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as k8s;
use model::gateway::{Certificate, ClientValidation};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use serde_json::Value;

use super::check::{At, key};
use super::kind::{Kind, ObjectKey};
use super::tree::{Content, Node};

/// The type of a Secret with a certificate.
const TLS_TYPE: &str = "kubernetes.io/tls";
const CERTIFICATE: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
/// The key of a ConfigMap, or of a Secret, with authorities.
const AUTHORITIES: &str = "ca.crt";

/// A Secret. Of what it holds only a certificate and authorities are of use.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub key: ObjectKey,
    /// `type`.
    pub kind: String,
    /// Present exactly in a Secret of type `kubernetes.io/tls`: with the key that is the certificate's, or why it is no use.
    /// As in Kubernetes, both values must be there, and whoever refers to them is told what they are.
    pub certificate: Option<Result<Arc<Certificate>, String>>,
}

/// What it holds is not printed.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("key", &self.key)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A ConfigMap. Of what it holds only authorities are of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMap {
    pub key: ObjectKey,
    /// `ca.crt`: at least one certificate, PEM; or why there are none.
    pub authorities: Result<String, String>,
}

/// A Namespace, whose labels selectors look at. A namespace exists without being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub key: ObjectKey,
    pub labels: BTreeMap<String, String>,
}

/// A Secret whose base64 has no line breaks, which Kubernetes lets stand in it.
pub(super) fn unwrapped(root: &Node) -> Node {
    let mut root = root.clone();
    let Content::Map(fields) = &mut root.content else {
        return root;
    };
    let data = fields.iter_mut().filter(|field| field.key == "data");
    for field in data {
        let Content::Map(values) = &mut field.value.content else {
            continue;
        };
        for value in values {
            if let Content::Scalar(Value::String(text)) = &mut value.value.content {
                text.retain(|letter| !matches!(letter, '\r' | '\n'));
            }
        }
    }
    root
}

pub(super) fn secret(at: &At<'_>, secret: k8s::Secret) -> Option<Secret> {
    let key = key(at, Kind::Secret, &secret.metadata)?;
    let kind = secret.type_.unwrap_or_else(|| "Opaque".to_owned());
    // Kubernetes: what is written as text takes the place of what is written as base64.
    let data = secret.data.unwrap_or_default();
    let data = data.into_iter().map(|(name, bytes)| (name, bytes.0));
    let text = secret.string_data.unwrap_or_default().into_iter();
    let text = text.map(|(name, text)| (name, text.into_bytes()));
    let mut data: BTreeMap<String, Vec<u8>> = data.chain(text).collect();
    let certificate = match kind == TLS_TYPE {
        true => {
            let (chain, private) = (data.remove(CERTIFICATE), data.remove(PRIVATE_KEY));
            for (name, value) in [(CERTIFICATE, &chain), (PRIVATE_KEY, &private)] {
                if value.is_none() {
                    at.field("data")
                        .refuse(format!("{name} is missing, which type {TLS_TYPE} needs"));
                }
            }
            Some(certificate(chain?, private?).map(Arc::new))
        }
        false => None,
    };
    Some(Secret {
        key,
        kind,
        certificate,
    })
}

fn certificate(chain: Vec<u8>, private: Vec<u8>) -> Result<Certificate, String> {
    let certificates = certificates(&chain).map_err(|why| format!("{CERTIFICATE} {why}"))?;
    let of_key = |why: &str| format!("{PRIVATE_KEY} {why}");
    let signing =
        PrivateKeyDer::from_pem_slice(&private).map_err(|_| of_key("holds no private key as PEM"))?;
    let signing = any_supported_type(&signing).map_err(|_| of_key("is not a key that TLS can sign with"))?;
    // Unknown is for keys that do not tell their public half.
    let pair = CertifiedKey::new(certificates, signing);
    if let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) = pair.keys_match() {
        return Err(of_key(&format!(
            "is not the key of the certificate in {CERTIFICATE}"
        )));
    }
    // Both were read as PEM, which is ASCII where it counts.
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Certificate::new(text(chain), text(private)).map_err(|error| error.to_string())
}

/// All certificates of a PEM text; never none.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err("holds no certificate as PEM"),
    }
}

pub(super) fn config_map(at: &At<'_>, map: k8s::ConfigMap) -> Option<ConfigMap> {
    let key = key(at, Kind::ConfigMap, &map.metadata)?;
    let most = ClientValidation::MAX_PEM_BYTES;
    let authorities = match map.data.and_then(|mut data| data.remove(AUTHORITIES)) {
        None => Err(format!("has no key {AUTHORITIES}")),
        Some(pem) if pem.len() > most => Err(format!("{AUTHORITIES} is over {most} bytes")),
        Some(pem) => match certificates(pem.as_bytes()) {
            Ok(_) => Ok(pem),
            Err(why) => Err(format!("{AUTHORITIES} {why}")),
        },
    };
    Some(ConfigMap { key, authorities })
}

pub(super) fn namespace(at: &At<'_>, namespace: k8s::Namespace) -> Option<Namespace> {
    let key = key(at, Kind::Namespace, &namespace.metadata)?;
    at.field("metadata")
        .field("name")
        .keep(key.name.as_str().parse::<model::Label>());
    Some(Namespace {
        key,
        labels: namespace.metadata.labels.unwrap_or_default(),
    })
}
