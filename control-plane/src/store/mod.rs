//! Everything the control plane must remember, in one embedded redb file of mode 0600. Calls block on the disk.

mod record;
mod token;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use record::{ObjectRecord, WorkloadRecord};
pub(crate) use token::{Redemption, TokenRecord};

/// Numbers and texts of which there is one.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// `Kind/namespace/name` to [`ObjectRecord`].
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// File name to the SHA-256 of what was last taken from it, hex.
const FILES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("files");
/// Workload id to [`WorkloadRecord`].
const WORKLOADS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("workloads");

const GENERATION: &str = "generation";
const TRUST_DOMAIN: &str = "trust_domain";
const AUTHORITY: &str = "authority";

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store {} cannot be opened", path.display())]
    Open {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the store failed")]
    Failed(#[source] Box<redb::Error>),
    #[error("the store's record {name:?} is not readable")]
    Record { name: String, source: serde_json::Error },
    #[error("the store's record {0:?} is not readable")]
    BadMeta(&'static str),
    #[error("there are already {limit} join tokens that have not ended")]
    TooManyTokens { limit: usize },
    #[error("the store's thread ended")]
    Ended,
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error.into()))
    }
}

/// The open store; the only one of its file.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
}

/// What was remembered, as text: the reader judges it anew.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) generation: u64,
    pub(crate) objects: Vec<(String, ObjectRecord)>,
    pub(crate) files: Vec<(String, String)>,
    pub(crate) workloads: Vec<(String, WorkloadRecord)>,
}

/// Changes that become visible together; `None` takes a record away.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    pub(crate) generation: u64,
    pub(crate) objects: Vec<(String, Option<ObjectRecord>)>,
    pub(crate) files: Vec<(String, Option<String>)>,
    pub(crate) workloads: Vec<(String, Option<WorkloadRecord>)>,
}

impl Store {
    /// Opens the store, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        // It holds the authority's keys.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(error.into()))?;
        let database = Builder::new()
            .create_with_backend(FileBackend::new(file).map_err(|error| failed(error.into()))?)
            .map_err(|error| failed(error.into()))?;
        let store = Self { database };
        // Tables exist from the first write on; reading wants them there.
        let write = store.database.begin_write()?;
        for table in [META, OBJECTS, FILES, WORKLOADS] {
            write.open_table(table)?;
        }
        token::create_table(&write)?;
        write.commit()?;
        Ok(store)
    }

    pub(crate) fn remembered(&self) -> Result<Remembered, StoreError> {
        let generation = match self.meta(GENERATION)? {
            Some(bytes) => {
                let bytes = bytes.try_into().map_err(|_| StoreError::BadMeta(GENERATION))?;
                u64::from_le_bytes(bytes)
            }
            None => 0,
        };
        Ok(Remembered {
            generation,
            objects: self.all(OBJECTS)?,
            files: self.all(FILES)?,
            workloads: self.all(WORKLOADS)?,
        })
    }

    pub(crate) fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        write
            .open_table(META)?
            .insert(GENERATION, commit.generation.to_le_bytes().as_slice())?;
        put_all(&write, OBJECTS, &commit.objects)?;
        put_all(&write, FILES, &commit.files)?;
        put_all(&write, WORKLOADS, &commit.workloads)?;
        write.commit()?;
        Ok(())
    }

    /// The trust domain of the first start, and the authority's certificates and keys as PEM.
    pub(crate) fn authority(&self) -> Result<Option<(String, String)>, StoreError> {
        let text = |name: &'static str| -> Result<Option<String>, StoreError> {
            self.meta(name)?
                .map(|bytes| String::from_utf8(bytes).map_err(|_| StoreError::BadMeta(name)))
                .transpose()
        };
        Ok(text(TRUST_DOMAIN)?.zip(text(AUTHORITY)?))
    }

    pub(crate) fn set_authority(&self, trust_domain: &str, pem: &str) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut meta = write.open_table(META)?;
            meta.insert(TRUST_DOMAIN, trust_domain.as_bytes())?;
            meta.insert(AUTHORITY, pem.as_bytes())?;
        }
        write.commit()?;
        Ok(())
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.database.begin_read()?.open_table(META)?;
        Ok(table.get(name)?.map(|value| value.value().to_vec()))
    }

    fn all<T: DeserializeOwned>(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let table = self.database.begin_read()?.open_table(table)?;
        let mut all = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            all.push((key.value().to_owned(), read(key.value(), value.value())?));
        }
        Ok(all)
    }
}

fn put_all<T: Serialize>(
    write: &WriteTransaction,
    table: TableDefinition<'_, &str, &[u8]>,
    records: &[(String, Option<T>)],
) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let mut table = write.open_table(table)?;
    for (key, record) in records {
        match record {
            Some(record) => table.insert(key.as_str(), written(key, record)?.as_slice())?,
            None => table.remove(key.as_str())?,
        };
    }
    Ok(())
}

fn read<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|source| StoreError::Record {
        name: name.to_owned(),
        source,
    })
}

fn written<T: Serialize>(name: &str, record: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|source| StoreError::Record {
        name: name.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_committed_is_there_after_a_restart_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weft.redb");
        let object = ObjectRecord {
            text: "kind: Service".to_owned(),
            file: Some("shop.yaml".to_owned()),
            created: 7,
            generation: 2,
            created_at: 1_700_000_000,
            changed_at: 1_700_000_001,
        };
        let store = Store::open(&path).unwrap();
        assert_eq!(store.remembered().unwrap().generation, 0);
        let commit = Commit {
            generation: 7,
            objects: vec![("Service/a/b".to_owned(), Some(object.clone()))],
            ..Commit::default()
        };
        store.commit(&commit).unwrap();
        store.set_authority("cluster.local", "pem").unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Open { .. })));
        drop(store);

        let store = Store::open(&path).unwrap();
        let remembered = store.remembered().unwrap();
        assert_eq!(remembered.generation, 7);
        assert_eq!(remembered.objects, [("Service/a/b".to_owned(), object)]);
        let authority = ("cluster.local".to_owned(), "pem".to_owned());
        assert_eq!(store.authority().unwrap(), Some(authority));
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
