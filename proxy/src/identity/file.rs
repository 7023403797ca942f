//! The identity on disk: one file that only its owner can read, replaced as a whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use certs::{CertError, Identity, TrustBundle};
use model::{FieldError, MeshDomain};

use super::exchange::Grant;

const FILE_NAME: &str = "identity.pem";
const NEW_FILE_NAME: &str = "identity.pem.new";
/// The largest file that is read, in bytes: a key, a chain and 16 roots take a tenth of it.
const MAX_FILE_BYTES: u64 = 256 * 1024;

const MESH_DOMAIN: &str = "# mesh domain: ";
const BUNDLE: &str = "# trust bundle";
const IDENTITY: &str = "# private key and certificate chain";

/// What is wrong with the identity on disk.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {part} is missing")]
    Missing { path: PathBuf, part: &'static str },
    #[error("{path}: the mesh domain: {source}")]
    MeshDomain { path: PathBuf, source: FieldError },
    #[error("{path}: {source}")]
    Certificate { path: PathBuf, source: Box<CertError> },
}

/// `identity.pem` in the data folder.
#[derive(Debug, Clone)]
pub(super) struct IdentityFile {
    folder: PathBuf,
    path: PathBuf,
}

impl IdentityFile {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            path: folder.join(FILE_NAME),
        }
    }

    /// What the folder keeps, where it keeps anything; it must still be valid at `now`.
    pub(super) fn load(&self, now: SystemTime) -> Result<Option<Grant>, FileError> {
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        if metadata.len() > MAX_FILE_BYTES {
            return Err(self.io(io::ErrorKind::FileTooLarge.into()));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            tracing::warn!(path = %self.path.display(), "others on this machine can read the private key");
        }
        let text = fs::read_to_string(&self.path).map_err(|error| self.io(error))?;
        self.read(&text, now).map(Some)
    }

    /// Finds out, before a token is used up, whether the identity can be kept.
    pub(super) fn prepare(&self) -> Result<(), FileError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|error| self.io(error))?;
        let new = self.folder.join(NEW_FILE_NAME);
        self.create(&new)?;
        fs::remove_file(&new).map_err(|error| self.io(error))
    }

    pub(super) fn save(&self, text: &str) -> Result<(), FileError> {
        let new = self.folder.join(NEW_FILE_NAME);
        let mut file = self.create(&new)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written
            .and_then(|()| fs::rename(&new, &self.path))
            .map_err(|error| self.io(error))?;
        // The rename itself is durable once the folder is.
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| self.io(error))
    }

    fn create(&self, new: &Path) -> Result<File, FileError> {
        // A leftover of an interrupted write may have other permissions.
        match fs::remove_file(new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.io(error)),
            _ => {}
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(new)
            .map_err(|error| self.io(error))
    }

    fn read(&self, text: &str, now: SystemTime) -> Result<Grant, FileError> {
        let missing = |part| FileError::Missing {
            path: self.path.clone(),
            part,
        };
        let certificate = |source| FileError::Certificate {
            path: self.path.clone(),
            source: Box::new(source),
        };
        let (head, identity) = text
            .split_once(IDENTITY)
            .ok_or_else(|| missing("the private key"))?;
        let (head, bundle) = head
            .split_once(BUNDLE)
            .ok_or_else(|| missing("the trust bundle"))?;
        let domain = head.lines().find_map(|line| line.strip_prefix(MESH_DOMAIN));
        let mesh_domain = domain
            .ok_or_else(|| missing("the mesh domain"))?
            .parse::<MeshDomain>()
            .map_err(|source| FileError::MeshDomain {
                path: self.path.clone(),
                source,
            })?;
        let bundle = TrustBundle::from_pem(bundle).map_err(certificate)?;
        let identity = Identity::from_pem(identity, &bundle, now).map_err(certificate)?;
        Ok(Grant {
            identity,
            bundle,
            mesh_domain,
        })
    }

    fn io(&self, source: io::Error) -> FileError {
        FileError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// The text of the file: the private key is in it.
pub(super) fn to_text(grant: &Grant) -> String {
    let Grant {
        identity,
        bundle,
        mesh_domain,
    } = grant;
    let (bundle, identity) = (bundle.to_pem(), identity.to_pem());
    format!("{MESH_DOMAIN}{mesh_domain}\n{BUNDLE}\n{bundle}{IDENTITY}\n{identity}")
}
