//! What the control plane must remember, in one embedded file. Every change is one transaction.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use proto::v1;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

/// `generation`, `trust_domain`, `authority`.
const META: TableDefinition<&str, &str> = TableDefinition::new("meta");
/// `Kind/namespace/name` to [`ObjectRecord`] as JSON.
const OBJECTS: TableDefinition<&str, &str> = TableDefinition::new("objects");
/// File name to the SHA-256 of what was last taken from it.
const FILES: TableDefinition<&str, &str> = TableDefinition::new("files");
/// SHA-256 of the secret to [`TokenRecord`] as JSON.
const TOKENS: TableDefinition<&str, &str> = TableDefinition::new("join_tokens");
/// Workload id to [`WorkloadRecord`] as JSON.
const WORKLOADS: TableDefinition<&str, &str> = TableDefinition::new("workloads");

/// The store's file. Clones share it; every method blocks on the disk.
#[derive(Clone)]
pub(crate) struct Store {
    database: Arc<Database>,
}

/// Why the store cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store: {0}")]
    Database(#[source] Box<redb::Error>),
    #[error("the store holds something unreadable at {key}: {why}")]
    Unreadable { key: String, why: String },
    #[error("a thread of the store ended")]
    Ended,
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// An object as it was written, with where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectRecord {
    /// YAML, one document.
    pub(crate) text: String,
    /// The file it came from; `None` from `weft apply`.
    pub(crate) file: Option<String>,
    /// The generation at which it was created.
    pub(crate) created: u64,
}

/// Whom a join token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    /// Unix seconds.
    pub(crate) expires_at: i64,
}

/// A workload as it introduced itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkloadRecord {
    pub(crate) identity: String,
    /// [`v1::Hello`], encoded.
    hello: Vec<u8>,
}

impl WorkloadRecord {
    /// Keeps what the workload is; what it had of the configuration it says anew when it comes back.
    pub(crate) fn new(identity: String, hello: &v1::Hello) -> Self {
        let hello = v1::Hello {
            subscriptions: Vec::new(),
            versions: BTreeMap::new(),
            ..hello.clone()
        };
        Self {
            identity,
            hello: hello.encode_to_vec(),
        }
    }

    /// The same workload with its application ready, or not.
    pub(crate) fn with_ready(&self, ready: bool) -> Result<Self, prost::DecodeError> {
        let hello = v1::Hello {
            ready,
            ..self.hello()?
        };
        Ok(Self::new(self.identity.clone(), &hello))
    }

    pub(crate) fn hello(&self) -> Result<v1::Hello, prost::DecodeError> {
        v1::Hello::decode(self.hello.as_slice())
    }
}

/// Everything that is read at the start.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) generation: u64,
    pub(crate) trust_domain: Option<String>,
    /// PEM.
    pub(crate) authority: Option<String>,
    pub(crate) objects: Vec<(String, ObjectRecord)>,
    pub(crate) files: Vec<(String, String)>,
    pub(crate) workloads: Vec<(String, WorkloadRecord)>,
}

/// Changes that are made together or not at all. `None` deletes.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) generation: Option<u64>,
    pub(crate) objects: Vec<(String, Option<ObjectRecord>)>,
    pub(crate) files: Vec<(String, Option<String>)>,
    pub(crate) workloads: Vec<(String, Option<WorkloadRecord>)>,
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::create(path)?;
        let transaction = database.begin_write()?;
        for table in [META, OBJECTS, FILES, TOKENS, WORKLOADS] {
            transaction.open_table(table)?;
        }
        transaction.commit()?;
        Ok(Self {
            database: Arc::new(database),
        })
    }

    pub(crate) fn read(&self) -> Result<Remembered, StoreError> {
        let transaction = self.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let text = |key: &str| -> Result<Option<String>, StoreError> {
            Ok(meta.get(key)?.map(|value| value.value().to_owned()))
        };
        let generation = match text("generation")? {
            None => 0,
            Some(number) => number.parse().map_err(|error| unreadable("generation", &error))?,
        };
        Ok(Remembered {
            generation,
            trust_domain: text("trust_domain")?,
            authority: text("authority")?,
            objects: all(&transaction.open_table(OBJECTS)?)?,
            files: pairs(&transaction.open_table(FILES)?)?,
            workloads: all(&transaction.open_table(WORKLOADS)?)?,
        })
    }

    pub(crate) fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        if let Some(generation) = batch.generation {
            transaction
                .open_table(META)?
                .insert("generation", generation.to_string().as_str())?;
        }
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for (key, record) in batch.objects {
                put(&mut objects, &key, record.as_ref().map(json).transpose()?)?;
            }
            let mut files = transaction.open_table(FILES)?;
            for (key, hash) in batch.files {
                put(&mut files, &key, hash)?;
            }
            let mut workloads = transaction.open_table(WORKLOADS)?;
            for (key, record) in batch.workloads {
                put(&mut workloads, &key, record.as_ref().map(json).transpose()?)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    pub(crate) fn set_authority(&self, trust_domain: &str, pem: &str) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert("trust_domain", trust_domain)?;
            meta.insert("authority", pem)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Remembers a token by its hash, forgetting those that have expired. False where there are `most` already.
    pub(crate) fn add_token(
        &self,
        hash: &str,
        token: &TokenRecord,
        now: i64,
        most: usize,
    ) -> Result<bool, StoreError> {
        let transaction = self.database.begin_write()?;
        let added = {
            let mut tokens = transaction.open_table(TOKENS)?;
            let known: Vec<(String, TokenRecord)> = all(&tokens)?;
            let expired = known.iter().filter(|(_, token)| token.expires_at <= now);
            let mut left = known.len();
            for (hash, _) in expired {
                tokens.remove(hash.as_str())?;
                left -= 1;
            }
            if left < most {
                tokens.insert(hash, json(token)?.as_str())?;
            }
            left < most
        };
        transaction.commit()?;
        Ok(added)
    }

    /// Takes a token out: nobody can take it twice.
    pub(crate) fn take_token(&self, hash: &str) -> Result<Option<TokenRecord>, StoreError> {
        let transaction = self.database.begin_write()?;
        let token = {
            let mut tokens = transaction.open_table(TOKENS)?;
            let removed = tokens.remove(hash)?.map(|value| value.value().to_owned());
            removed.map(|text| from_json(hash, &text)).transpose()?
        };
        transaction.commit()?;
        Ok(token)
    }
}

type Table<'t> = redb::Table<'t, &'static str, &'static str>;

fn put(table: &mut Table<'_>, key: &str, value: Option<String>) -> Result<(), StoreError> {
    match value {
        Some(value) => table.insert(key, value.as_str())?,
        None => table.remove(key)?,
    };
    Ok(())
}

fn pairs(
    table: &impl ReadableTable<&'static str, &'static str>,
) -> Result<Vec<(String, String)>, StoreError> {
    let mut pairs = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        pairs.push((key.value().to_owned(), value.value().to_owned()));
    }
    Ok(pairs)
}

fn all<T: for<'de> Deserialize<'de>>(
    table: &impl ReadableTable<&'static str, &'static str>,
) -> Result<Vec<(String, T)>, StoreError> {
    let read = |(key, text): (String, String)| from_json(&key, &text).map(|record| (key, record));
    pairs(table)?.into_iter().map(read).collect()
}

fn json<T: Serialize>(record: &T) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| unreadable("a new record", &error))
}

fn from_json<T: for<'de> Deserialize<'de>>(key: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| unreadable(key, &error))
}

fn unreadable(key: &str, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unreadable {
        key: key.to_owned(),
        why: why.to_string(),
    }
}
