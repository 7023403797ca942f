//! Certificates for the peers, of the shape that Weft's own have: P-256, a root, an intermediate, a leaf.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The name in the server's certificate.
pub(crate) const SERVER_NAME: &str = "app.bench";
const CLIENT_NAME: &str = "client.bench";

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificatesError {
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

/// Where the PEM files are.
#[derive(Debug)]
pub(crate) struct Certificates {
    pub(crate) root: PathBuf,
    pub(crate) server: KeyPath,
    pub(crate) client: KeyPath,
}

/// A leaf with its intermediate, and its key; and both in one file, as HAProxy reads them.
#[derive(Debug)]
pub(crate) struct KeyPath {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) both: PathBuf,
}

impl Certificates {
    /// Makes all of them anew.
    pub(crate) fn make(folder: &Path) -> Result<Self, CertificatesError> {
        let root = signer("bench root", 1, None)?;
        let intermediate = signer("bench intermediate", 0, Some(&root.issuer))?;
        Ok(Self {
            root: write(folder, "root.pem", &root.pem)?,
            server: leaf(
                folder,
                "server",
                SERVER_NAME,
                &intermediate,
                ExtendedKeyUsagePurpose::ServerAuth,
            )?,
            client: leaf(
                folder,
                "client",
                CLIENT_NAME,
                &intermediate,
                ExtendedKeyUsagePurpose::ClientAuth,
            )?,
        })
    }
}

struct Signer {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn signer(name: &str, below: u8, by: Option<&Issuer<'static, KeyPair>>) -> Result<Signer, CertificatesError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = by.is_some();
    let key = KeyPair::generate()?;
    let certificate = match by {
        Some(by) => params.signed_by(&key, by)?,
        None => params.self_signed(&key)?,
    };
    Ok(Signer {
        pem: certificate.pem(),
        issuer: Issuer::new(params, key),
    })
}

fn leaf(
    folder: &Path,
    file: &str,
    name: &str,
    by: &Signer,
    usage: ExtendedKeyUsagePurpose,
) -> Result<KeyPath, CertificatesError> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let chain = params.signed_by(&key, &by.issuer)?.pem() + &by.pem;
    let key = key.serialize_pem();
    Ok(KeyPath {
        chain: write(folder, &format!("{file}.pem"), &chain)?,
        key: write(folder, &format!("{file}.key"), &key)?,
        both: write(folder, &format!("{file}-both.pem"), &(chain + &key))?,
    })
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, CertificatesError> {
    let path = folder.join(name);
    match fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(source) => Err(CertificatesError::Write { path, source }),
    }
}
